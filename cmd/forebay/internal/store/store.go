// Package store has the commands that read and write single keys, list keys and
// show figures: get, put, del, scan, stats.
package store

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/cmd/forebay/internal/cli"
)

// Commands returns the commands.
func Commands() []*cobra.Command {
	return []*cobra.Command{getCommand(), putCommand(), delCommand(), scanCommand(), statsCommand()}
}

func getCommand() *cobra.Command {
	var format cli.Format
	var keyspace string
	cmd := &cobra.Command{
		Use:   "get DIR KEY",
		Short: "Print the value of a key",
		Long: `Print the value of a key: its bytes as they are, so that it can go into a file.
Exit code 1 says that the key is not in the store.`,
		Example: `  forebay get /tmp/s greeting
  forebay get /tmp/s photo.jpg > photo.jpg
  forebay get /tmp/s ff00 --hex
  forebay get /tmp/s ann --keyspace users
  forebay get /tmp/s greeting --json`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			key, err := format.Arg("key", args[1])
			if err != nil {
				return err
			}
			return reading(args[0], keyspace, func(from cli.Reader) error {
				value, err := from.Get(key)
				if errors.Is(err, forebay.ErrNotFound) {
					return fmt.Errorf("no key %q in %s: %w", args[1], args[0], err)
				}
				if err != nil {
					return err
				}
				return printValue(cmd.OutOrStdout(), &format, key, value)
			})
		},
	}
	format.Flags(cmd.Flags())
	cli.KeyspaceFlag(cmd.Flags(), &keyspace)
	return cmd
}

func printValue(w io.Writer, format *cli.Format, key, value []byte) error {
	switch {
	case format.JSON:
		return format.WriteEntry(w, key, value)
	case format.Hex:
		value = append(hex.AppendEncode(nil, value), '\n')
	case cli.IsTerminal(w) && !bytes.HasSuffix(value, []byte("\n")):
		value = append(value, '\n')
	}
	_, err := w.Write(value)
	return err
}

func putCommand() *cobra.Command {
	var format cli.Format
	var level forebay.Level
	var file, keyspace string
	cmd := &cobra.Command{
		Use:   "put DIR KEY [VALUE]",
		Short: "Set a key to a value",
		Long: `Set a key to a value, durably unless --level says otherwise. The value is an
argument, a file (--file), or standard input where VALUE is missing or -. A store
that does not exist is made, and so is a keyspace.`,
		Example: `  forebay put /tmp/s greeting hello
  forebay put /tmp/s photo.jpg --file photo.jpg
  date | forebay put /tmp/s now
  forebay put /tmp/s ann 1 --keyspace users
  forebay put /tmp/s ff00 0102 --hex`,
		Args: cobra.RangeArgs(2, 3),
		RunE: func(cmd *cobra.Command, args []string) error {
			key, err := format.Arg("key", args[1])
			if err != nil {
				return err
			}
			if len(key) == 0 {
				return cli.Usagef("a key has at least one byte")
			}
			value, err := putValue(cmd, &format, args[2:], file)
			if err != nil {
				return err
			}
			return writing(args[0], func(db *forebay.DB) error {
				ks, err := cli.Space(db, keyspace)
				if err != nil {
					return err
				}
				b := db.NewBatch()
				if err := cli.In(b, ks).Put(key, value); err != nil {
					return err
				}
				return db.Apply(b, level)
			})
		},
	}
	cmd.Flags().BoolVar(&format.Hex, "hex", false, "KEY and VALUE are hexadecimal (a file and standard input are bytes)")
	cli.KeyspaceFlag(cmd.Flags(), &keyspace)
	cmd.Flags().StringVar(&file, "file", "", "take the value from this `file`")
	cli.LevelFlag(cmd.Flags(), &level)
	return cmd
}

func putValue(cmd *cobra.Command, format *cli.Format, args []string, file string) ([]byte, error) {
	switch {
	case file != "" && len(args) > 0:
		return nil, cli.Usagef("a value comes from the argument or from --file, not from both")
	case file != "":
		f, err := os.Open(file)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		return readValue(f)
	case len(args) == 0 || args[0] == "-":
		return readValue(cmd.InOrStdin())
	}
	return format.Arg("value", args[0])
}

// readValue reads all of r, and little more than a value may have; what is too
// long the engine refuses.
func readValue(r io.Reader) ([]byte, error) {
	return io.ReadAll(io.LimitReader(r, forebay.MaxValueSize+1))
}

// deleter is what del was told.
type deleter struct {
	format   cli.Format
	level    forebay.Level
	keyspace string
	between  bool
}

func delCommand() *cobra.Command {
	d := &deleter{}
	cmd := &cobra.Command{
		Use:   "del DIR KEY... | del DIR --range LO HI",
		Short: "Remove keys, or all keys of a range",
		Long: `Remove keys, all of them or none: they are one batch. A key that is not in the
store is no error. With --range, remove all keys from LO to before HI, in one
small commit however many there are; an empty LO or HI ("") is no bound.`,
		Example: `  forebay del /tmp/s greeting
  forebay del /tmp/s ff00 ff01 --hex
  forebay del /tmp/s --range user/ user0
  forebay del /tmp/s --range "" "" --keyspace sessions`,
		Args: cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error { return d.run(args[0], args[1:]) },
	}
	cmd.Flags().BoolVar(&d.between, "range", false, "remove the keys from LO to before HI")
	cmd.Flags().BoolVar(&d.format.Hex, "hex", false, "keys are hexadecimal")
	cli.KeyspaceFlag(cmd.Flags(), &d.keyspace)
	cli.LevelFlag(cmd.Flags(), &d.level)
	return cmd
}

func (d *deleter) run(dir string, args []string) error {
	if d.between && len(args) != 2 {
		return cli.Usagef(`--range takes two keys, LO and HI; it got %d ("" is no bound)`, len(args))
	}
	keys := make([][]byte, len(args))
	for i, arg := range args {
		var err error
		if keys[i], err = d.format.Arg("key", arg); err != nil {
			return err
		}
		if len(keys[i]) == 0 && !d.between {
			return cli.Usagef("a key has at least one byte")
		}
	}
	db, err := cli.OpenExisting(dir, nil)
	if err != nil {
		return err
	}
	return errors.Join(d.apply(db, args, keys), db.Close())
}

func (d *deleter) apply(db *forebay.DB, args []string, keys [][]byte) error {
	ks, err := cli.ExistingSpace(db, d.keyspace)
	if err != nil {
		return err
	}
	b := db.NewBatch()
	w := cli.In(b, ks)
	if d.between {
		hi := keys[1]
		if len(hi) == 0 {
			hi = nil
		}
		if err := w.DeleteRange(keys[0], hi); err != nil {
			return err
		}
		return db.Apply(b, d.level)
	}
	for i, key := range keys {
		if err := w.Delete(key); err != nil {
			return fmt.Errorf("key %q: %w", args[i], err)
		}
	}
	return db.Apply(b, d.level)
}

// reading runs fn on a keyspace of a store, both of which must exist.
func reading(dir, keyspace string, fn func(cli.Reader) error) error {
	db, err := cli.OpenReading(dir)
	if err != nil {
		return err
	}
	from, err := cli.ReadSpace(db, keyspace)
	if err == nil {
		err = fn(from)
	}
	return errors.Join(err, db.Close())
}

// writing runs fn on a store and makes it if there is none.
func writing(dir string, fn func(*forebay.DB) error) error {
	db, err := forebay.Open(dir, nil)
	if err != nil {
		return err
	}
	return errors.Join(fn(db), db.Close())
}

// buffered runs fn on a buffered w.
func buffered(w io.Writer, fn func(w io.Writer) error) error {
	buf := bufio.NewWriterSize(w, 64<<10)
	return errors.Join(fn(buf), buf.Flush())
}
