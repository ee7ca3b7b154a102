package main

import (
	"fmt"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"

	"github.com/forebaydb/forebay/bench/disk"
	"github.com/forebaydb/forebay/cmd/forebay/inspect"
	"github.com/forebaydb/forebay/cmd/forebay/internal/bench"
	"github.com/forebaydb/forebay/cmd/forebay/internal/cli"
	"github.com/forebaydb/forebay/cmd/forebay/internal/crash"
	"github.com/forebaydb/forebay/cmd/forebay/internal/demo"
	"github.com/forebaydb/forebay/cmd/forebay/internal/events"
	"github.com/forebaydb/forebay/cmd/forebay/internal/pipeline"
	"github.com/forebaydb/forebay/cmd/forebay/internal/queues"
	"github.com/forebaydb/forebay/cmd/forebay/internal/shell"
	"github.com/forebaydb/forebay/cmd/forebay/internal/store"
	"github.com/forebaydb/forebay/cmd/forebay/internal/transfer"
	"github.com/forebaydb/forebay/cmd/forebay/internal/upkeep"
)

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "forebay",
		Short: "The tool of the Forebay storage engine",
		Long: `forebay reads, writes and examines stores of the Forebay storage engine.

A store is a directory, and the first argument of nearly every command. To see
what the engine does, begin with the demonstration:

  forebay demo

Exit codes: 0 fine; 1 not found, damaged or failed; 2 wrong usage.`,
		Example: `  forebay put /tmp/s greeting hello
  forebay get /tmp/s greeting
  forebay scan /tmp/s --prefix gr
  forebay import /tmp/s ~/src
  forebay stats /tmp/s
  forebay queue stats /tmp/s
  forebay events read /tmp/s
  forebay shell /tmp/s
  forebay check /tmp/s
  forebay crash run
  forebay disk --dir /var/lib`,
		Version:       version(),
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.SetVersionTemplate("forebay {{.Version}}\n")
	root.AddCommand(demo.Commands()...)
	root.AddCommand(pipeline.Commands()...)
	root.AddCommand(store.Commands()...)
	root.AddCommand(transfer.Commands()...)
	root.AddCommand(queues.Commands()...)
	root.AddCommand(events.Commands()...)
	root.AddCommand(shell.Commands()...)
	root.AddCommand(upkeep.Commands()...)
	root.AddCommand(inspect.Commands()...)
	root.AddCommand(crash.Commands()...)
	root.AddCommand(bench.Commands()...)
	root.AddCommand(disk.Command())
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return cli.Usage(err) })
	strict(root)
	return root
}

// strict makes every mistake on the command line an error of usage: wrong
// arguments, and a command that is missing or unknown.
func strict(cmd *cobra.Command) {
	if check := cmd.Args; check != nil {
		cmd.Args = func(cmd *cobra.Command, args []string) error { return cli.Usage(check(cmd, args)) }
	}
	if cmd.HasSubCommands() && !cmd.Runnable() {
		cmd.Args = cobra.ArbitraryArgs
		cmd.RunE = func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				cmd.SetOut(cmd.ErrOrStderr())
				if err := cmd.Help(); err != nil {
					return err
				}
				return cli.Usage(fmt.Errorf("%s needs a command", cmd.CommandPath()))
			}
			msg := fmt.Sprintf("unknown command %q", strings.TrimSpace(cmd.CommandPath()+" "+args[0]))
			if cmd.SuggestionsMinimumDistance <= 0 {
				cmd.SuggestionsMinimumDistance = 2
			}
			if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
				msg += "; did you mean " + strings.Join(near, " or ") + "?"
			}
			return cli.Usage(fmt.Errorf("%s", msg))
		}
	}
	for _, sub := range cmd.Commands() {
		strict(sub)
	}
}

// version is the module's version, as the build recorded it.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" {
		return "(devel)"
	}
	return info.Main.Version
}
