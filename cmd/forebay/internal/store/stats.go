package store

import (
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"strings"
	"time"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/cmd/forebay/internal/cli"
	"github.com/forebaydb/forebay/wal"
)

func statsCommand() *cobra.Command {
	var asJSON bool
	var keyspace string
	cmd := &cobra.Command{
		Use:   "stats DIR",
		Short: "Show figures of a store, its levels, and what opening it found",
		Long: `Open a store for reading alone, and show its figures, its levels, and the report of
its recovery. With --keyspace, keys and values of that keyspace are counted too,
which reads all of it. --json prints one object; times are in milliseconds.

What counts since an open, such as syncs, is nothing here: this open writes
nothing. The shell shows it for what the shell did.`,
		Example: `  forebay stats /tmp/s
  forebay stats /tmp/s --keyspace users
  forebay stats /tmp/s --json | jq .recovery.verdict`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withStats(cmd, args[0], keyspace, func(r *report) error {
				if asJSON {
					return cli.WriteJSON(cmd.OutOrStdout(), r.json())
				}
				return buffered(cmd.OutOrStdout(), func(w io.Writer) error { r.print(w, false); return nil })
			})
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	cli.KeyspaceFlag(cmd.Flags(), &keyspace)
	return cmd
}

// report is what stats shows.
type report struct {
	stats    forebay.Stats
	recovery forebay.Recovery
	keyspace *cli.SpaceSize // nil: not asked for
	disk     *diskSize      // nil: not looked at
}

// diskSize is what the files of a directory take.
type diskSize struct {
	LogFiles            int
	LogBytes, DiskBytes int64
}

func withStats(cmd *cobra.Command, dir, keyspace string, fn func(*report) error) error {
	db, err := cli.OpenReading(dir)
	if err != nil {
		return err
	}
	r := &report{stats: db.Stats(), recovery: db.Recovery()}
	r.disk, err = measure(dir)
	if err == nil && cmd.Flags().Changed("keyspace") {
		var from cli.Reader
		if from, err = cli.ReadSpace(db, keyspace); err == nil {
			r.keyspace, err = cli.Measure(cmd.Context(), keyspace, from)
		}
	}
	if err == nil {
		err = fn(r)
	}
	return errors.Join(err, db.Close())
}

func measure(dir string) (*diskSize, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	d := &diskSize{}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || !info.Mode().IsRegular() {
			continue // it is gone, or no file
		}
		d.DiskBytes += info.Size()
		if _, ok := wal.ParseFileName(e.Name()); ok {
			d.LogFiles++
			d.LogBytes += info.Size()
		}
	}
	return d, nil
}

// PrintStats shows the figures of a store that is open for writing.
func PrintStats(w io.Writer, db *forebay.DB) {
	(&report{stats: db.Stats(), recovery: db.Recovery()}).print(w, true)
}

func (r *report) json() map[string]any {
	stats := object(fields(r.stats))
	stats["write_amplification"], stats["space_amplification"] = r.stats.WriteAmplification(), r.stats.SpaceAmplification()
	levels := []map[string]any{}
	for _, l := range r.stats.Levels {
		levels = append(levels, object(fields(l)))
	}
	stats["levels"] = levels
	out := map[string]any{"stats": stats, "recovery": object(fields(r.recovery))}
	if r.disk != nil {
		out["disk"] = object(fields(*r.disk))
	}
	if r.keyspace != nil {
		out["keyspace"] = r.keyspace
	}
	return out
}

// print shows all, and what is nothing only when wrote: where nothing is written,
// dozens of zeros say nothing.
func (r *report) print(w io.Writer, wrote bool) {
	printFields(w, "recovery", fields(r.recovery), true)
	printFields(w, "stats", fields(r.stats), wrote)
	if r.disk != nil {
		printFields(w, "disk", fields(*r.disk), true)
	}
	if len(r.stats.Levels) > 0 {
		fmt.Fprintf(w, "levels\n  %5s %9s %10s %13s %12s %13s\n", "level", "segments", "size", "versions", "tombstones", "range deletes")
		for i, l := range r.stats.Levels {
			if l.Segments == 0 {
				continue
			}
			fmt.Fprintf(w, "  %5d %9s %10s %13s %12s %13s\n", i, cli.Count(l.Segments), cli.Bytes(l.Bytes), cli.Count(l.Versions), cli.Count(l.Tombstones), cli.Count(l.RangeDeletes))
		}
		fmt.Fprintf(w, "  %-21s %.2f (bytes of all segments for each of the last level)\n", "space amplification", r.stats.SpaceAmplification())
	}
	if amp := r.stats.WriteAmplification(); amp > 0 {
		fmt.Fprintf(w, "  %-21s %.2f (bytes to the disk for each that was committed since the open)\n", "write amplification", amp)
	}
	if k := r.keyspace; k != nil {
		fmt.Fprintf(w, "keyspace %q\n  %-20s %s\n  %-20s %s\n  %-20s %s\n", k.Name, "keys", cli.Count(k.Keys), "key bytes", cli.Bytes(k.KeyBytes), "value bytes", cli.Bytes(k.ValueBytes))
	}
}

// field is one figure of a report.
type field struct {
	name  string
	value any
}

// fields lists the figures of a struct, so that one that the engine adds is
// shown as well. Embedded structs count as the struct itself; others give their
// name as a prefix. Slices of structs are left out.
func fields(v any) []field {
	var out []field
	rv := reflect.ValueOf(v)
	for i := range rv.NumField() {
		f, value := rv.Type().Field(i), rv.Field(i).Interface()
		if !f.IsExported() || f.Type.Kind() == reflect.Slice && f.Type.Elem().Kind() == reflect.Struct {
			continue
		}
		name := snake(f.Name)
		switch x := value.(type) {
		case time.Duration:
			out = append(out, field{name, x})
		case fmt.Stringer:
			out = append(out, field{name, x.String()})
		default:
			if rv.Field(i).Kind() != reflect.Struct {
				out = append(out, field{name, value})
				continue
			}
			for _, inner := range fields(value) {
				if !f.Anonymous {
					inner.name = name + "_" + inner.name
				}
				out = append(out, inner)
			}
		}
	}
	return out
}

// snake turns LastLSN into last_lsn.
func snake(name string) string {
	var b strings.Builder
	lower := false
	for _, r := range name {
		if unicode.IsUpper(r) && lower {
			b.WriteByte('_')
		}
		lower = !unicode.IsUpper(r)
		b.WriteRune(unicode.ToLower(r))
	}
	return b.String()
}

func object(fs []field) map[string]any {
	m := make(map[string]any, len(fs))
	for _, f := range fs {
		if d, ok := f.value.(time.Duration); ok {
			m[f.name+"_ms"] = float64(d.Microseconds()) / 1e3
			continue
		}
		m[f.name] = f.value
	}
	return m
}

// printFields shows figures, and those that are zero if zeros says so.
func printFields(w io.Writer, title string, fs []field, zeros bool) {
	fmt.Fprintln(w, title)
	for _, f := range fs {
		if !zeros && reflect.ValueOf(f.value).IsZero() {
			continue
		}
		var s string
		switch v := f.value.(type) {
		case time.Duration:
			s = cli.Duration(v)
		case []string:
			s = strings.Join(v, " ")
		default:
			s = fmt.Sprint(v)
			if n, ok := integer(v); ok {
				s = cli.Count(n)
				if strings.Contains(f.name, "bytes") && n >= 1000 {
					s += " (" + cli.Bytes(n) + ")"
				}
			}
		}
		if s == "" {
			s = "-"
		}
		fmt.Fprintf(w, "  %-20s %s\n", strings.ReplaceAll(f.name, "_", " "), s)
	}
}

func integer(v any) (int64, bool) {
	rv := reflect.ValueOf(v)
	switch {
	case rv.CanInt():
		return rv.Int(), true
	case rv.CanUint():
		return int64(rv.Uint()), true
	}
	return 0, false
}
