package postgres_test

import (
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/sink"
	"github.com/forebaydb/forebay/sink/postgres"
)

// TestUpsert: the last row of a key has it, in a batch and over batches, or the one of
// the highest version.
func TestUpsert(t *testing.T) {
	c := cluster.Get(t)
	for _, mode := range modes {
		for _, version := range []bool{false, true} {
			pool := c.Pool(t)
			exec(t, pool, `CREATE TABLE t (k text, v text, n bigint, UNIQUE (k))`)
			o := postgres.Options{
				Table: pgx.Identifier{"t"}, Mode: mode, Columns: []string{"k", "v", "n"}, Conflict: postgres.ConflictUpdate, Key: []string{"k"},
				Map: func(r sink.Row, dst []any) error {
					if r.Key != nil {
						dst[0] = string(r.Key)
					}
					dst[1], dst[2] = string(r.Value), int64(r.Offset)
					return nil
				},
			}
			if version {
				o.Version = "n"
			}
			s := open(t, pool, o)
			write := func(id string, rows ...any) {
				b := sink.Batch{ID: id}
				for i := 0; i < len(rows); i += 3 {
					r := sink.Row{Value: []byte(rows[i+1].(string)), Offset: uint64(rows[i+2].(int))}
					if k := rows[i].(string); k != "" {
						r.Key = []byte(k)
					}
					b.Rows = append(b.Rows, r)
				}
				require.NoError(t, s.Write(t.Context(), b), mode)
			}
			write("1", "a", "first", 1, "b", "only", 2, "a", "second", 3, "", "null", 4, "", "null", 5)
			write("2", "b", "old", 1, "a", "new", 7, "c", "high", 9, "c", "low", 8)
			want := []string{"a=new", "b=old", "c=low", "null", "null"}
			if version {
				want = []string{"a=new", "b=only", "c=high", "null", "null"}
			}
			require.Equal(t, want, strs(t, pool, `SELECT CASE WHEN k IS NULL THEN v ELSE k || '=' || v END FROM t ORDER BY 1`), "%s, version %t", mode, version)
		}
	}
}

// TestIgnore: a row whose key is there stays away, and a table that is all key can be
// upserted.
func TestIgnore(t *testing.T) {
	c := cluster.Get(t)
	for _, mode := range modes {
		for _, o := range []postgres.Options{{Conflict: postgres.ConflictIgnore}, {Conflict: postgres.ConflictIgnore, Key: []string{"v"}}, {Conflict: postgres.ConflictUpdate, Key: []string{"v"}}} {
			pool := c.Pool(t)
			exec(t, pool, `CREATE TABLE t (v text UNIQUE)`)
			of := texts(mode)
			of.Conflict, of.Key = o.Conflict, o.Key
			s := open(t, pool, of)
			require.NoError(t, s.Write(t.Context(), batch("1", "a", "b", "a")))
			require.NoError(t, s.Write(t.Context(), batch("2", "b", "c")))
			require.Equal(t, []string{"a", "b", "c"}, strs(t, pool, `SELECT v FROM t ORDER BY v`))
		}
	}
}

// TestTypes writes columns of many types, and NULLs, in each mode.
func TestTypes(t *testing.T) {
	c := cluster.Get(t)
	columns := []string{`we"ird; DROP TABLE t`, "i2", "i4", "f8", "num", "txt", "vc", "bp", "bin", "day", "ts", "id", "js", "mood", "pos", "iv", "ok", "ip"}
	defs := []string{"text", "int2", "int4", "float8", "numeric(12,2)", "text", "varchar(9)", "char(3)", "bytea", "date", "timestamp", "uuid", "json", "mood", "positive", "interval", "bool", "inet"}
	values := []any{"w", int16(-3), 70000, 1.5, pgtype.Numeric{Int: big.NewInt(12345), Exp: -2, Valid: true}, "ü", "nine char", "ab", []byte{0, 255},
		time.Date(2026, 2, 3, 0, 0, 0, 0, time.UTC), time.Date(2026, 2, 3, 4, 5, 6, 0, time.UTC), "6ba7b810-9dad-11d1-80b4-00c04fd430c8", map[string]any{"a": 1}, "happy", 4, 90 * time.Minute, true, "10.0.0.1"}
	want := `{w,-3,70000,1.5,123.45,ü,"nine char",ab,"\\x00ff",2026-02-03,"2026-02-03 04:05:06",6ba7b810-9dad-11d1-80b4-00c04fd430c8,"{\"a\":1}",happy,4,01:30:00,true,10.0.0.1/32}`
	for _, mode := range modes {
		for _, conflict := range []postgres.Conflict{postgres.ConflictError, postgres.ConflictIgnore, postgres.ConflictUpdate} {
			pool := c.Pool(t)
			table := pgx.Identifier{`odd "name"`}
			var all []string
			for i, name := range columns {
				all = append(all, pgx.Identifier{name}.Sanitize()+" "+defs[i])
			}
			exec(t, pool, `CREATE TYPE mood AS ENUM ('sad', 'happy')`)
			exec(t, pool, `CREATE DOMAIN positive AS int CHECK (VALUE > 0)`)
			exec(t, pool, `CREATE TABLE `+table.Sanitize()+` (`+strings.Join(all, ", ")+`, UNIQUE (id))`)
			o := postgres.Options{
				Table: table, Mode: mode, Columns: columns, Conflict: conflict,
				Map: func(r sink.Row, dst []any) error {
					switch string(r.Value) {
					case "all":
						copy(dst, values)
					case "negative":
						dst[14] = -4
					}
					return nil
				},
			}
			if conflict == postgres.ConflictUpdate {
				o.Key = []string{"id"}
			}
			s := open(t, pool, o)
			require.NoError(t, s.Write(t.Context(), batch("a", "none", "all")), "%s %d", mode, conflict)
			rows := strs(t, pool, `SELECT array[`+quoted(columns)+`]::text FROM `+table.Sanitize())
			require.Equal(t, []string{"{" + strings.Repeat("NULL,", len(columns)-1) + "NULL}", want}, rows, "%s %d", mode, conflict)
			err := s.Write(t.Context(), batch("b", "none", "negative"))
			require.ErrorContains(t, err, "positive_check")
			require.ErrorAs(t, err, new(*sink.Rejected))
		}
	}
}

func quoted(names []string) string {
	var q []string
	for _, n := range names {
		q = append(q, pgx.Identifier{n}.Sanitize()+"::text")
	}
	return strings.Join(q, ", ")
}

// TestArrays: a column may be an array, but not for unnest.
func TestArrays(t *testing.T) {
	c := cluster.Get(t)
	for _, mode := range modes {
		pool := c.Pool(t)
		exec(t, pool, `CREATE TABLE t (v text[])`)
		s := open(t, pool, postgres.Options{
			Table: pgx.Identifier{"t"}, Mode: mode, Columns: []string{"v"},
			Map: func(r sink.Row, dst []any) error { dst[0] = []string{string(r.Value), "x"}; return nil },
		})
		err := s.Write(t.Context(), batch("a", "1", "2"))
		if mode == postgres.Unnest {
			transient(t, err)
			require.ErrorContains(t, err, "no arrays of text[]")
			continue
		}
		require.NoError(t, err)
		require.Equal(t, []string{"{1,x}", "{2,x}"}, strs(t, pool, `SELECT v::text FROM t`))
	}
}

// TestMigration: types are those of now, also for a session that has a stage for those
// of before.
func TestMigration(t *testing.T) {
	c := cluster.Get(t)
	for _, mode := range modes {
		for _, conflict := range []postgres.Conflict{postgres.ConflictError, postgres.ConflictIgnore} {
			pool := c.Pool(t)
			exec(t, pool, `CREATE TABLE t (v varchar(3), n int)`)
			s := open(t, pool, postgres.Options{
				Table: pgx.Identifier{"t"}, Mode: mode, Conflict: conflict, Columns: []string{"v", "n"},
				Map: func(r sink.Row, dst []any) error { dst[0], dst[1] = string(r.Value), len(r.Value); return nil },
			})
			require.NoError(t, s.Write(t.Context(), batch("a", "abc")))
			require.ErrorAs(t, s.Write(t.Context(), batch("b", "abcd")), new(*sink.Rejected))
			exec(t, pool, `ALTER TABLE t ALTER v TYPE varchar(4), ALTER n TYPE float8`)
			require.NoError(t, s.Write(t.Context(), batch("b", "abcd")))
			exec(t, pool, `ALTER TABLE t ALTER n TYPE bigint`)
			require.NoError(t, s.Write(t.Context(), batch("c", "ab")))
			require.Equal(t, []string{"abc3", "abcd4", "ab2"}, strs(t, pool, `SELECT v || n FROM t`), "%s %d", mode, conflict)
		}
	}
}

// TestLarge writes more than a statement takes.
func TestLarge(t *testing.T) {
	c := cluster.Get(t)
	for _, mode := range modes {
		pool := c.Pool(t)
		exec(t, pool, events)
		s := open(t, pool, postgres.Options{Mode: mode})
		b := sink.Batch{ID: "a"}
		value := []byte(strings.Repeat("x", 9<<20))
		for i := range 4 { // of 36 MiB
			b.Rows = append(b.Rows, sink.Row{Offset: uint64(i), Value: value})
		}
		for i := range 2500 {
			b.Rows = append(b.Rows, sink.Row{Offset: uint64(i), Value: fmt.Append(nil, i)})
		}
		require.NoError(t, s.Write(t.Context(), b))
		require.Equal(t, len(b.Rows), count(t, pool, "events"))
	}
}
