package crash

import (
	"github.com/spf13/cobra"

	"github.com/forebaydb/forebay/cmd/forebay/internal/gorun"
)

func peersCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "peers [flags of forebay-peers crash]",
		Short: "Put other engines through the same damage, and compare",
		Long: `Build and run forebay-peers, which has Pebble, Badger, goleveldb, bbolt and SQLite
beside Forebay, and print one table of what each makes of damaged files. It needs
the go command; the first run compiles the engines, which takes a minute or two.
All flags go to forebay-peers crash: see forebay crash peers --help-peers.`,
		Example: `  forebay crash peers
  forebay crash peers --json
  forebay crash peers --engines forebay,pebble --quick`,
		DisableFlagParsing: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			for i, a := range args {
				switch a {
				case "-h", "--help":
					return cmd.Help()
				case "--help-peers":
					args[i] = "--help"
				}
			}
			return gorun.Run(cmd, "peers", "forebay-peers", append([]string{"crash"}, args...)...)
		},
	}
}
