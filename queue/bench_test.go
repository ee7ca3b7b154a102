package queue_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/queue"
)

func benchQueue(b *testing.B) (*queue.Queue[[]byte], *queue.Group[[]byte]) {
	b.Helper()
	db, err := forebay.Open(b.TempDir(), nil)
	if err != nil {
		b.Fatal(err)
	}
	q, err := queue.Open(db, "q", queue.Bytes{}, nil)
	if err != nil {
		b.Fatal(err)
	}
	g, err := q.Group("g", nil)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := q.Close(); err != nil {
			b.Error(err)
		}
		if err := db.Close(); err != nil {
			b.Error(err)
		}
	})
	b.ReportAllocs()
	b.ResetTimer()
	return q, g
}

// share gives n calls to goroutines, and returns when they are done.
func share(b *testing.B, workers, n int, do func()) {
	var work sync.WaitGroup
	for w := range workers {
		work.Go(func() {
			for i := w; i < n; i += workers {
				do()
			}
		})
	}
	work.Wait()
	b.StopTimer()
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "msg/s")
}

// BenchmarkEnqueue enqueues messages of 500 bytes durably, one a commit.
func BenchmarkEnqueue(b *testing.B) {
	for _, producers := range []int{1, 64} {
		b.Run(fmt.Sprint(producers), func(b *testing.B) {
			q, _ := benchQueue(b)
			share(b, producers, b.N, func() {
				if _, err := q.Enqueue(context.Background(), make([]byte, 500), nil); err != nil {
					b.Error(err)
				}
			})
		})
	}
}

// BenchmarkEnqueueAtHalf has 64 producers at about half of the rate that they reach when
// each enqueues as fast as it can, and says how long a message takes until it is durable,
// counted from when it was due.
func BenchmarkEnqueueAtHalf(b *testing.B) {
	const producers = 64
	q, _ := benchQueue(b)
	value := make([]byte, 500)
	enqueue := func() {
		if _, err := q.Enqueue(context.Background(), value, nil); err != nil {
			b.Error(err)
		}
	}
	start := time.Now()
	share(b, producers, 50_000, enqueue)
	every := 2 * producers * time.Since(start) / 50_000 // of one producer
	took := make([][]time.Duration, producers)
	b.ResetTimer()
	b.StartTimer()
	var work sync.WaitGroup
	start = time.Now()
	for w := range producers {
		work.Go(func() {
			due := start.Add(time.Duration(w) * every / producers)
			for i := w; i < b.N; i += producers {
				time.Sleep(time.Until(due))
				enqueue()
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
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
}

// BenchmarkEnqueueBatch enqueues a thousand messages of 500 bytes in each commit.
func BenchmarkEnqueueBatch(b *testing.B) {
	q, _ := benchQueue(b)
	items := make([]queue.Item[[]byte], 1000)
	for i := range items {
		items[i].Value = make([]byte, 500)
	}
	for b.Loop() {
		if _, err := q.EnqueueBatch(context.Background(), items); err != nil {
			b.Fatal(err)
		}
	}
	b.StopTimer()
	b.ReportMetric(1000*float64(b.N)/b.Elapsed().Seconds(), "msg/s")
}

// BenchmarkEnqueueToAck has 64 producers and as many workers: each message is durable
// before it is delivered, and when it is done.
func BenchmarkEnqueueToAck(b *testing.B) {
	q, g := benchQueue(b)
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Add(b.N)
	ended := make(chan error, 1)
	go func() {
		ended <- g.Run(ctx, 64, func(ctx context.Context, m *queue.Message[[]byte]) error {
			defer done.Done()
			return m.Ack(ctx)
		})
	}()
	var work sync.WaitGroup
	for w := range 64 {
		work.Go(func() {
			for i := w; i < b.N; i += 64 {
				if _, err := q.Enqueue(ctx, make([]byte, 500), nil); err != nil {
					b.Error(err)
				}
			}
		})
	}
	work.Wait()
	done.Wait()
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
	cancel()
	<-ended
}

// BenchmarkDrain acknowledges a backlog in batches of a thousand.
func BenchmarkDrain(b *testing.B) {
	q, g := benchQueue(b)
	items := make([]queue.Item[[]byte], 1000)
	for i := range items {
		items[i].Value = make([]byte, 500)
	}
	for i := 0; i < b.N; i += len(items) {
		if _, err := q.EnqueueBatch(context.Background(), items[:min(len(items), b.N-i)]); err != nil {
			b.Fatal(err)
		}
	}
	b.ResetTimer()
	start := time.Now()
	for left := b.N; left > 0; {
		ms, err := g.Receive(context.Background(), 1000)
		if err != nil {
			b.Fatal(err)
		}
		if err := g.Ack(context.Background(), ms...); err != nil {
			b.Fatal(err)
		}
		left -= len(ms)
	}
	b.ReportMetric(float64(b.N)/time.Since(start).Seconds(), "msg/s")
}
