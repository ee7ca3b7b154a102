package walbench

import (
	"fmt"
	"os"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/forebaydb/forebay/bench/workload"
)

// Command is `forebay-bench wal`.
func Command() *cobra.Command {
	var (
		libs, dir, out           string
		quick, asJSON, benchstat bool
		repetitions              int
	)
	cmd := &cobra.Command{
		Use:   "wal",
		Short: "Compare libraries of logs: append, append durably, replay",
		Long: `Append records of 128 bytes without a sync, append them durably from 1, 8 and 64
goroutines, and open and read logs of records of 128 bytes and 64 KiB, with
Forebay's package wal, Pebble's log writer, etcd's log, tidwall/wal and raft-wal.
What was acknowledged is read back after each cell.`,
		Example: `  forebay bench wal --quick
  forebay bench wal --libraries forebay,pebble --repetitions 3 --out results.jsonl`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			names, err := find(libs)
			if err != nil {
				return err
			}
			s := fullScale
			if quick {
				s = quickScale
			}
			place, err := os.MkdirTemp(dir, "forebay-walbench-")
			if err != nil {
				return err
			}
			defer os.RemoveAll(place)
			m := workload.ThisMachine(workload.Scale{Quick: quick}, place, nil, os.Args[1:])
			for _, l := range libraries {
				m.Engines[l.name] = version(l.module)
			}
			m.Dir = ""
			sink, err := workload.NewSink(cmd.OutOrStdout(), out, m, asJSON, benchstat)
			if err != nil {
				return err
			}
			err = run(cmd.Context(), s, place, names, repetitions, func(r workload.Result) error {
				fmt.Fprintln(cmd.ErrOrStderr(), r.Cell, r.Engine, workload.Number(r.Value), r.Unit, r.Error)
				return sink.Add(r)
			})
			if closeErr := sink.Close(); err == nil {
				err = closeErr
			}
			return err
		},
	}
	f := cmd.Flags()
	f.StringVar(&libs, "libraries", "all", "libraries, by commas")
	f.StringVar(&dir, "dir", "", "where logs are made; default the system's directory for temporary files")
	f.BoolVar(&quick, "quick", false, "short, for development")
	f.IntVar(&repetitions, "repetitions", 1, "how often everything is run")
	f.BoolVar(&asJSON, "json", false, "print JSON lines")
	f.BoolVar(&benchstat, "benchstat", false, "print lines for benchstat")
	f.StringVar(&out, "out", "", "add JSON lines to this file as results come")
	return cmd
}

// version of a module, as this command was built with it.
func version(module string) string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range info.Deps {
			if m.Path == module {
				return m.Version
			}
		}
	}
	return ""
}
