// Command forebay-bench measures Forebay, other embedded stores and the disk
// under them on one machine, in one run. `forebay bench` builds and runs it.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"

	"github.com/spf13/cobra"

	"github.com/forebaydb/forebay/bench/disk"
	"github.com/forebaydb/forebay/bench/policy"
	"github.com/forebaydb/forebay/bench/report"
	"github.com/forebaydb/forebay/bench/walbench"
	"github.com/forebaydb/forebay/bench/workload"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	context.AfterFunc(ctx, stop) // a second interrupt ends the process at once
	if err := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr); err != nil {
		if ctx.Err() != nil && errors.Is(err, context.Canceled) {
			err = errors.New("interrupted")
		}
		fmt.Fprintln(os.Stderr, "forebay-bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, in io.Reader, out, errOut io.Writer) error {
	root := newRoot()
	root.SetArgs(args)
	root.SetIn(in)
	root.SetOut(out)
	root.SetErr(errOut)
	return root.ExecuteContext(ctx)
}

// newRoot is the one place where subcommands are added: a package of a
// benchmark exports Command.
func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:           "forebay-bench",
		Short:         "Measure Forebay, other embedded stores, and the disk",
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.AddCommand(workload.Commands()...)
	root.AddCommand(walbench.Command(), report.Command())
	root.AddCommand(disk.Command(), policy.Command())
	return root
}
