package crash

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/forebaydb/forebay/cmd/forebay/internal/cli"
	"github.com/forebaydb/forebay/fuzz"
)

func replayCommand() *cobra.Command {
	var states int64
	cmd := &cobra.Command{
		Use:   "replay ID",
		Short: "Make the state of a violation again, or all states of a workload",
		Long: `Make the crash state of a replay id again and judge it. An id is a workload, and
for each crash the I/O before it and the fates of what was not synced. Without a
crash all states of the workload are made. The text of a workload is explained at
fuzz.ParseWorkload. Exit code 1: something was violated.`,
		Example: `  forebay crash replay '40aaff22001da75e.0.0@293:!'
  forebay crash replay 'nothing-assumed align=4096 | d{k1=20} w{-k1} checkpoint reopen'`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			rep, err := fuzz.Replay(cmd.Context(), fuzz.Config{PerWorkload: states, MaxViolations: 10}, args[0])
			if err != nil {
				return cli.Usage(err)
			}
			for _, v := range rep.Violations {
				fmt.Fprintln(cmd.OutOrStdout(), v)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s states opened and judged, %d violations\n", cli.Count(rep.States), len(rep.Violations))
			if len(rep.Violations) > 0 {
				return fmt.Errorf("%d violations", len(rep.Violations))
			}
			return nil
		},
	}
	cmd.Flags().Int64Var(&states, "states", 0, "of a workload without a crash: at most so many states; 0: all")
	return cmd
}

func explainCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "explain ID",
		Short: "Tell how a crash state came about, and what the engine makes of it",
		Long: `Make the crash state of a replay id again and tell its story: each I/O before the
crash and the step that did it, what was not synced then and what became of it,
what is promised, and what an open shows.`,
		Example: `  forebay crash explain 'sector-atomic | d{k1=20} checkpoint@20:!'`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return cli.Usage(fuzz.Explain(cmd.Context(), fuzz.Config{}, args[0], cmd.OutOrStdout()))
		},
	}
}
