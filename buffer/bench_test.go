package buffer_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/buffer"
	"github.com/forebaydb/forebay/sink"
)

// discard is a sink that has all rows at once.
var discard = sink.Func(func(context.Context, sink.Batch) error { return nil })

// BenchmarkThrough is how many rows of 500 bytes go through a buffer on a real disk, from
// Add, durable, to a sink that costs nothing.
func BenchmarkThrough(b *testing.B) {
	for _, n := range []int{1, 100, 1000} {
		for _, lanes := range []int{1, 4} {
			b.Run(fmt.Sprintf("add=%d/lanes=%d", n, lanes), func(b *testing.B) {
				db, err := forebay.Open(b.TempDir(), nil)
				require.NoError(b, err)
				defer db.Close()
				buf, err := buffer.Open(db, "b", discard, &buffer.Options{Items: 10_000, Bytes: 16 << 20, Lanes: lanes})
				require.NoError(b, err)
				defer buf.Close()
				var key atomic.Uint64
				b.SetBytes(500)
				b.SetParallelism(64)
				b.ResetTimer()
				b.RunParallel(func(pb *testing.PB) {
					rows := make([]buffer.Row, 0, n)
					add := func() {
						if _, err := buf.AddBatch(rows); err != nil {
							b.Error(err)
						}
						rows = rows[:0]
					}
					value := make([]byte, 480)
					for pb.Next() {
						rows = append(rows, buffer.Row{Key: fmt.Appendf(nil, "key-%d", key.Add(1)%10_000), Value: value})
						if len(rows) == n {
							add()
						}
					}
					add()
				})
				require.NoError(b, buf.Flush(context.Background()))
				b.StopTimer()
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "rows/s")
				require.EqualValues(b, b.N, buf.Stats().Done)
			})
		}
	}
}

// BenchmarkAddAtRate has 64 who add 10,000 rows a second together, durably, and says how
// long each waits, counted from when it was due: with a sink that takes them, and with one
// that is away.
func BenchmarkAddAtRate(b *testing.B) {
	for name, to := range map[string]sink.Sink{
		"sink=running": discard,
		"sink=away":    sink.Func(func(context.Context, sink.Batch) error { return errors.New("away") }),
	} {
		b.Run(name, func(b *testing.B) {
			const who, every = 64, 64 * time.Second / 10_000
			db, err := forebay.Open(b.TempDir(), nil)
			require.NoError(b, err)
			defer db.Close()
			buf, err := buffer.Open(db, "b", to, nil)
			require.NoError(b, err)
			defer buf.Close()
			value := make([]byte, 480)
			took := make([][]time.Duration, who)
			b.ResetTimer()
			var work sync.WaitGroup
			start := time.Now()
			for w := range who {
				work.Go(func() {
					due := start.Add(time.Duration(w) * every / who)
					for i := w; i < b.N; i += who {
						time.Sleep(time.Until(due))
						if _, err := buf.Add(buffer.Row{Value: value}); err != nil {
							b.Error(err)
						}
						took[w] = append(took[w], time.Since(due))
						due = due.Add(every)
					}
				})
			}
			work.Wait()
			b.StopTimer()
			all := slices.Concat(took...)
			slices.Sort(all)
			for _, p := range []int{50, 99} {
				b.ReportMetric(float64(all[len(all)*p/100].Microseconds())/1000, fmt.Sprintf("p%d-ms", p))
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "rows/s")
		})
	}
}
