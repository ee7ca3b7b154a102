package upkeep

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/cmd/forebay/internal/cli"
)

func keyspacesCommand() *cobra.Command {
	var asJSON, namesOnly bool
	cmd := &cobra.Command{
		Use:   "keyspaces DIR",
		Short: "List the keyspaces of a store, with keys and bytes of each",
		Long: `List the keyspaces of a store, and how many keys and bytes each holds, which reads
all of them; --names does not. The default keyspace, which has no name, comes
first. A keyspace is made by the first put or import that names it.`,
		Example: `  forebay keyspaces /tmp/s
  forebay keyspaces /tmp/s --names
  forebay keyspaces drop /tmp/s sessions`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			db, err := cli.OpenReading(args[0])
			if err != nil {
				return err
			}
			return errors.Join(list(cmd, db, asJSON, namesOnly), db.Close())
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print a JSON object for each")
	cmd.Flags().BoolVar(&namesOnly, "names", false, "names alone, one a line")
	cmd.AddCommand(dropCommand())
	return cmd
}

func list(cmd *cobra.Command, db *forebay.DB, asJSON, namesOnly bool) error {
	w := cmd.OutOrStdout()
	if !namesOnly {
		progress := cli.StartProgress(cmd.ErrOrStderr(), asJSON, func() string { return "counting keys" })
		sizes, err := Measure(cmd.Context(), db)
		progress.Stop()
		if err != nil {
			return err
		}
		if !asJSON {
			return PrintSizes(w, sizes)
		}
		for _, s := range sizes {
			if err := cli.WriteJSON(w, s); err != nil {
				return err
			}
		}
		return nil
	}
	names, err := db.Keyspaces()
	for _, name := range names {
		if asJSON {
			err = cli.WriteJSON(w, map[string]string{"name": name})
		} else {
			_, err = fmt.Fprintln(w, cli.Escape([]byte(name)))
		}
		if err != nil {
			break
		}
	}
	return err
}

// Measure counts every keyspace of a store.
func Measure(ctx context.Context, db *forebay.DB) ([]*cli.SpaceSize, error) {
	names, err := db.Keyspaces()
	if err != nil {
		return nil, err
	}
	var out []*cli.SpaceSize
	for _, name := range append([]string{""}, names...) {
		from, err := cli.ReadSpace(db, name)
		if err != nil {
			return nil, err
		}
		size, err := cli.Measure(ctx, name, from)
		if err != nil {
			return nil, err
		}
		out = append(out, size)
	}
	return out, nil
}

// PrintSizes prints a table of keyspaces.
func PrintSizes(w io.Writer, sizes []*cli.SpaceSize) error {
	if _, err := fmt.Fprintf(w, "%13s %12s  name\n", "keys", "bytes"); err != nil {
		return err
	}
	for _, s := range sizes {
		name := cli.Escape([]byte(s.Name))
		if s.Name == "" {
			name = "(the default one)"
		}
		if _, err := fmt.Fprintf(w, "%13s %12s  %s\n", cli.Count(s.Keys), cli.Bytes(s.KeyBytes+s.ValueBytes), name); err != nil {
			return err
		}
	}
	return nil
}

func dropCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "drop DIR NAME",
		Short: "Remove a keyspace and all that is in it",
		Long: `Remove a keyspace and all that is in it, in one small commit, durably. There is no
way back. Compactions give the space back; ` + "`forebay compact`" + ` does it at once.`,
		Example: `  forebay keyspaces drop /tmp/s sessions`,
		Args:    cobra.ExactArgs(2),
		RunE: func(_ *cobra.Command, args []string) error {
			if args[1] == "" {
				return cli.Usagef("the default keyspace cannot be dropped; `forebay del DIR --range \"\" \"\"` empties it")
			}
			db, err := cli.OpenExisting(args[0], nil)
			if err != nil {
				return err
			}
			return errors.Join(db.DropKeyspace(args[1]), db.Close())
		},
	}
}
