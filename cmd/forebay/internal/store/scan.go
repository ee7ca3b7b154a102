package store

import (
	"bytes"
	"io"
	"slices"

	"github.com/spf13/cobra"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/cmd/forebay/internal/cli"
)

// scanner is what scan was told.
type scanner struct {
	format           cli.Format
	prefix, from, to string
	reverse, keys    bool
	limit            int
}

func scanCommand() *cobra.Command {
	var s scanner
	cmd := &cobra.Command{
		Use:   "scan DIR",
		Short: "List keys and values in order",
		Long: `List keys and values in the order of the keys' bytes, one line each: key, tab,
value. What is not printable is escaped; --json and --hex are for programs.`,
		Example: `  forebay scan /tmp/s
  forebay scan /tmp/s --prefix user/ --keys-only
  forebay scan /tmp/s --from 2024-01 --to 2024-02 --json
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
			return reading(args[0], func(db *forebay.DB) error {
				return buffered(cmd.OutOrStdout(), func(w io.Writer) error { return s.run(cmd, db, lo, hi, w) })
			})
		},
	}
	s.format.Flags(cmd.Flags())
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
	if bytes.Compare(prefix, lo) > 0 {
		lo = prefix
	}
	if s.to != "" {
		if hi, err = s.format.Arg("--to", s.to); err != nil {
			return nil, nil, err
		}
	}
	if end := after(prefix); end != nil && (hi == nil || bytes.Compare(end, hi) < 0) {
		hi = end
	}
	if len(lo) == 0 {
		lo = nil
	}
	return lo, hi, nil
}

// after returns the first key behind all that begin with prefix, nil if none.
func after(prefix []byte) []byte {
	for i := len(prefix) - 1; i >= 0; i-- {
		if prefix[i] != 0xff {
			end := slices.Clone(prefix[:i+1])
			end[i]++
			return end
		}
	}
	return nil
}

func (s *scanner) run(cmd *cobra.Command, db *forebay.DB, lo, hi []byte, w io.Writer) error {
	if hi != nil && bytes.Compare(lo, hi) >= 0 {
		return nil
	}
	entries := db.Range(lo, hi)
	if s.reverse {
		entries = db.RangeReverse(lo, hi)
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
