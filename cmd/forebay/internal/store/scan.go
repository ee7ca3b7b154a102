package store

import (
	"bytes"
	"io"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/forebaydb/forebay/cmd/forebay/internal/cli"
)

// scanner is what scan was told.
type scanner struct {
	format           cli.Format
	prefix, from, to string
	keyspace         string
	reverse, keys    bool
	limit            int
}

func scanCommand() *cobra.Command {
	var s scanner
	cmd := &cobra.Command{
		Use:   "scan DIR",
		Short: "List keys and values in order",
		Long: `List keys and values in the order of the keys' bytes, one line each: key, tab,
value. What is not printable is escaped; --json and --hex are for programs.
--lo and --hi are other names of --from and --to.`,
		Example: `  forebay scan /tmp/s
  forebay scan /tmp/s --prefix user/ --keys-only
  forebay scan /tmp/s --from 2024-01 --to 2024-02 --json
  forebay scan /tmp/s --keyspace users --lo a --hi n
  forebay scan /tmp/s --reverse --limit 10`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			lo, hi, err := s.bounds()
			if err != nil {
				return err
			}
			if s.limit < 0 {
				return cli.Usagef("--limit %d is below 0", s.limit)
			}
			return reading(args[0], s.keyspace, func(from cli.Reader) error {
				return buffered(cmd.OutOrStdout(), func(w io.Writer) error { return s.run(cmd, from, lo, hi, w) })
			})
		},
	}
	s.format.Flags(cmd.Flags())
	cli.KeyspaceFlag(cmd.Flags(), &s.keyspace)
	cmd.Flags().SetNormalizeFunc(func(_ *pflag.FlagSet, name string) pflag.NormalizedName {
		switch name {
		case "lo":
			name = "from"
		case "hi":
			name = "to"
		}
		return pflag.NormalizedName(name)
	})
	cmd.Flags().StringVar(&s.prefix, "prefix", "", "only keys that begin with this")
	cmd.Flags().StringVar(&s.from, "from", "", "only keys from this one on")
	cmd.Flags().StringVar(&s.to, "to", "", "only keys before this one")
	cmd.Flags().BoolVar(&s.reverse, "reverse", false, "last key first")
	cmd.Flags().BoolVar(&s.keys, "keys-only", false, "no values")
	cmd.Flags().IntVar(&s.limit, "limit", 0, "at most so many keys; 0: all")
	return cmd
}

// bounds returns the range [lo, hi) that the flags ask for; nil is open.
func (s *scanner) bounds() (lo, hi []byte, err error) {
	if lo, err = s.format.Arg("--from", s.from); err != nil {
		return nil, nil, err
	}
	prefix, err := s.format.Arg("--prefix", s.prefix)
	if err != nil {
		return nil, nil, err
	}
	if s.to != "" {
		if hi, err = s.format.Arg("--to", s.to); err != nil {
			return nil, nil, err
		}
	}
	lo, hi = cli.Bounds(prefix, lo, hi)
	return lo, hi, nil
}

func (s *scanner) run(cmd *cobra.Command, from cli.Reader, lo, hi []byte, w io.Writer) error {
	if hi != nil && bytes.Compare(lo, hi) >= 0 {
		return nil
	}
	entries := from.Range(lo, hi)
	if s.reverse {
		entries = from.RangeReverse(lo, hi)
	}
	n := 0
	for e, err := range entries {
		if err != nil {
			return err
		}
		if err := cmd.Context().Err(); err != nil {
			return err
		}
		value := e.Value
		if s.keys {
			value = nil
		} else if value == nil {
			value = []byte{}
		}
		if err := s.format.WriteEntry(w, e.Key, value); err != nil {
			return err
		}
		if n++; n == s.limit {
			break
		}
	}
	return nil
}
