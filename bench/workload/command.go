// Package workload is the workload benchmark: what Forebay and other embedded
// stores do under the same loads, side by side.
package workload

import (
	"errors"

	"github.com/spf13/cobra"
)

// Command is `forebay-bench run`.
func Command() *cobra.Command {
	return &cobra.Command{
		Use:   "run",
		Short: "Run workloads on engines, interleaved, and compare",
		RunE: func(*cobra.Command, []string) error {
			return errors.New("not built yet")
		},
	}
}
