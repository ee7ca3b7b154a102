package postgres_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/buffer"
	"github.com/forebaydb/forebay/sink"
	"github.com/forebaydb/forebay/sink/postgres"
)

// BenchmarkModes writes batches of 1,000 rows of 100 bytes in each mode, and the same
// rows one INSERT and one commit each, as a program without a buffer does. One goroutine,
// a socket of this machine, fsync on. "x" is how many times the single INSERTs it is. Then
// single INSERTs by eight at once; and rows that are made durable in a buffer on the disk
// and go on, 10,000 at a time, until all are in the table, "added/s" being the rate at
// which they were acknowledged.
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
	insert := `INSERT INTO events ("offset", "time", "key", "value") VALUES ($1, $2, $3, $4)`
	b.Run("single", func(b *testing.B) {
		pool := c.Pool(b)
		exec(b, pool, events)
		i := 0
		for b.Loop() {
			exec(b, pool, insert, i, at, []byte("key"), value)
			i++
		}
		report(b, i)
	})
	b.Run("single-of-8", func(b *testing.B) {
		pool := c.Pool(b) // of eight connections
		exec(b, pool, events)
		b.ResetTimer()
		var work sync.WaitGroup
		for w := range 8 {
			work.Go(func() {
				for i := w; i < b.N; i += 8 {
					if _, err := pool.Exec(b.Context(), insert, i, at, []byte("key"), value); err != nil {
						b.Error(err)
					}
				}
			})
		}
		work.Wait()
		b.StopTimer()
		report(b, b.N)
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
	for _, lanes := range []int{1, 2} {
		b.Run(fmt.Sprintf("buffer-copy-of-10000-lanes-%d", lanes), func(b *testing.B) {
			benchmarkBuffer(b, c.Pool(b), lanes, value)
			report(b, b.N*n)
		})
	}
}

// benchmarkBuffer adds b.N × 1,000 rows durably to a buffer on the disk, by four at once,
// and ends when all are in the table, by COPY of 10,000 at a time.
func benchmarkBuffer(b *testing.B, pool *pgxpool.Pool, lanes int, value []byte) {
	exec(b, pool, events)
	db, err := forebay.Open(b.TempDir(), nil)
	require.NoError(b, err)
	defer db.Close()
	buf, err := buffer.Open(db, "events", open(b, pool, postgres.Options{}), &buffer.Options{Items: 10_000, Bytes: 16 << 20, Age: time.Second, Lanes: lanes})
	require.NoError(b, err)
	defer buf.Close()
	rows := make([]buffer.Row, 1000)
	for i := range rows {
		rows[i] = buffer.Row{Key: fmt.Append(nil, "key ", i), Value: value}
	}
	b.ResetTimer()
	var work sync.WaitGroup
	for w := range 4 {
		work.Go(func() {
			for i := w; i < b.N; i += 4 {
				if _, err := buf.AddBatch(rows); err != nil {
					b.Error(err)
				}
			}
		})
	}
	work.Wait()
	added := b.Elapsed()
	require.NoError(b, buf.Flush(b.Context()))
	b.StopTimer()
	b.ReportMetric(float64(b.N*len(rows))/added.Seconds(), "added/s")
	require.EqualValues(b, b.N*len(rows), buf.Stats().Done)
}
