// Package crash has the commands that explore what crashes leave.
package crash

import (
	"github.com/spf13/cobra"
)

// Commands returns the command crash, with those below it.
func Commands() []*cobra.Command {
	cmd := &cobra.Command{
		Use:   "crash",
		Short: "Explore every crash: power cuts, kills and damaged files",
		Long: `Explore what a power cut, a killed process, a failing disk or a damaged file leave
of a store, and look that it is what was promised. docs/crash-testing.md explains
how, and how to put another engine under it.`,
		Example: `  forebay crash run
  forebay crash run --ops 3 --budget 0
  forebay crash explain 'sector-atomic | d{k=20} checkpoint@12:!'`,
	}
	cmd.AddCommand(runCommand(), replayCommand(), explainCommand(), peersCommand())
	cmd.AddCommand(realCommands()...)
	return []*cobra.Command{cmd}
}
