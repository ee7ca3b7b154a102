package store

import (
	"fmt"
	"io"
	"reflect"
	"strings"
	"time"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/cmd/forebay/internal/cli"
)

func statsCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "stats DIR",
		Short: "Show figures of a store, and what opening it found",
		Long: `Open a store, and show its figures and the report of its recovery. Counters count
since the open. --json prints one object; times are in milliseconds.`,
		Example: `  forebay stats /tmp/s
  forebay stats /tmp/s --json | jq .recovery.verdict`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return reading(args[0], func(db *forebay.DB) error {
				stats, recovery := fields(db.Stats()), fields(db.Recovery())
				if asJSON {
					return cli.WriteJSON(cmd.OutOrStdout(), map[string]any{"stats": object(stats), "recovery": object(recovery)})
				}
				return buffered(cmd.OutOrStdout(), func(w io.Writer) error {
					printFields(w, "recovery", recovery)
					printFields(w, "stats", stats)
					return nil
				})
			})
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	return cmd
}

// field is one figure of a report.
type field struct {
	name  string
	value any
}

// fields lists the figures of a struct, so that one that the engine adds is
// shown as well. Embedded structs count as the struct itself; others give their
// name as a prefix.
func fields(v any) []field {
	var out []field
	rv := reflect.ValueOf(v)
	for i := range rv.NumField() {
		f, value := rv.Type().Field(i), rv.Field(i).Interface()
		if !f.IsExported() {
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

func printFields(w io.Writer, title string, fs []field) {
	fmt.Fprintln(w, title)
	for _, f := range fs {
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
