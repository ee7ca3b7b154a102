package buffer_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"

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
