// Package bench has the command that runs the benchmarks.
package bench

import (
	"github.com/spf13/cobra"

	"github.com/forebaydb/forebay/cmd/forebay/internal/gorun"
)

// Commands returns the command bench.
func Commands() []*cobra.Command {
	return []*cobra.Command{{
		Use:   "bench [command and flags of forebay-bench]",
		Short: "Measure Forebay, other engines and the disk",
		Long: `Build and run forebay-bench, which measures Forebay beside Pebble, goleveldb, Badger,
bbolt and SQLite, and what syncs of the disk cost. It needs the go command; the
first run compiles the engines, which takes a minute or two. Everything behind
bench goes to forebay-bench: see forebay bench --help-bench.

LMDB and RocksDB take part when GOFLAGS=-tags=lmdb,rocksdb is set, and a C
compiler and librocksdb are there.`,
		Example: `  forebay bench run --quick --engines forebay,pebble --workloads 'durable-put-*'
  forebay bench run --list
  forebay bench fsync --quick
  forebay bench report --in results.jsonl`,
		DisableFlagParsing: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return cmd.Help()
			}
			switch args[0] {
			case "-h", "--help":
				return cmd.Help()
			case "--help-bench":
				args[0] = "--help"
			}
			return gorun.Run(cmd, "bench", "forebay-bench", args...)
		},
	}}
}
