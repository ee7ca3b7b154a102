package postgres_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/sink"
	"github.com/forebaydb/forebay/sink/postgres"
)

// BenchmarkModes writes batches of 1,000 rows of 100 bytes in each mode, and the same
// rows one INSERT and one commit each, as a program without a buffer does. One goroutine,
// a socket of this machine, fsync on. "x" is how many times the single INSERTs it is.
func BenchmarkModes(b *testing.B) {
	c := durable.Get(b)
	const n = 1000
	value := []byte(random(100))
	at := time.Now()
	single := 0.0
	report := func(b *testing.B, rows int) {
		rate := float64(rows) / b.Elapsed().Seconds()
		if single == 0 {
			single = rate
		}
		b.ReportMetric(rate, "rows/s")
		b.ReportMetric(rate/single, "x")
		b.ReportMetric(0, "ns/op")
	}
	b.Run("single", func(b *testing.B) {
		pool := c.Pool(b)
		exec(b, pool, events)
		i := 0
		for b.Loop() {
			exec(b, pool, `INSERT INTO events ("offset", "time", "key", "value") VALUES ($1, $2, $3, $4)`, i, at, []byte("key"), value)
			i++
		}
		report(b, i)
	})
	for _, conflict := range []postgres.Conflict{postgres.ConflictError, postgres.ConflictUpdate} {
		for _, mode := range []postgres.Mode{postgres.Insert, postgres.Values, postgres.Unnest, postgres.Copy} {
			name, o := mode.String(), postgres.Options{Table: pgx.Identifier{"events"}, Mode: mode}
			if conflict == postgres.ConflictUpdate {
				name, o.Conflict, o.Key = name+"-update", conflict, []string{"offset"}
			}
			b.Run(name, func(b *testing.B) {
				pool := c.Pool(b)
				exec(b, pool, events)
				if o.Key != nil {
					exec(b, pool, `CREATE UNIQUE INDEX ON events ("offset")`)
				}
				s := open(b, pool, o)
				batch := sink.Batch{Rows: make([]sink.Row, n)}
				i := 0
				for b.Loop() {
					batch.ID = fmt.Sprint(i)
					for j := range batch.Rows {
						batch.Rows[j] = sink.Row{Offset: uint64(i*n + j), Time: at, Key: []byte("key"), Value: value}
					}
					require.NoError(b, s.Write(b.Context(), batch))
					i++
				}
				report(b, i*n)
			})
		}
	}
}
