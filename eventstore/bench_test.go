package eventstore_test

import (
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/eventstore"
)

// onDiskStore is a store in a directory of the benchmark.
func onDiskStore(b *testing.B) *eventstore.Store {
	db, err := forebay.Open(b.TempDir(), nil)
	require.NoError(b, err)
	b.Cleanup(func() { require.NoError(b, db.Close()) })
	return open(b, db, nil)
}

// fill appends events to streams, in large commits.
func fill(b *testing.B, s *eventstore.Store, events, streams int) {
	payload := make([]byte, 200)
	for i := 0; i < events; i += 100 {
		list := make([]eventstore.New, 100)
		for k := range list {
			list[k] = eventstore.New{Type: "T", Payload: payload}
		}
		_, err := s.Append(ctx, fmt.Sprint("s", i/100%streams), eventstore.Any, list...)
		require.NoError(b, err)
	}
}

// BenchmarkAppend64 is one durable event in a commit, by 64 appenders to streams of
// their own.
func BenchmarkAppend64(b *testing.B) {
	s := onDiskStore(b)
	payload := make([]byte, 200)
	var who atomic.Int32
	b.SetParallelism(32) // of two cores
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		name := fmt.Sprint("s", who.Add(1))
		version := uint64(0)
		for ; pb.Next(); version++ {
			if _, err := s.Append(ctx, name, eventstore.Exactly(version), eventstore.New{Type: "T", Payload: payload}); err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
}

// BenchmarkRebuild is a generation of a projection with one row for each stream.
func BenchmarkRebuild(b *testing.B) {
	const events = 100_000
	s := onDiskStore(b)
	fill(b, s, events, 100)
	p := projection(b, s, eventstore.ProjectionOptions{Name: "count", Batch: 1024, Apply: func(rows forebay.Space, ev eventstore.Event) error {
		return rows.Put([]byte(ev.Stream), fmt.Append(nil, ev.Version))
	}})
	b.ReportAllocs()
	for b.Loop() {
		require.NoError(b, p.Rebuild(ctx))
	}
	b.ReportMetric(events*float64(b.N)/b.Elapsed().Seconds(), "events/s")
}

// BenchmarkStream reads streams of events that lie together, and of events each of which
// has a commit of its own among those of a hundred others.
func BenchmarkStream(b *testing.B) {
	const events = 10_000
	for name, single := range map[string]bool{"together": false, "among100": true} {
		b.Run(name, func(b *testing.B) {
			s := onDiskStore(b)
			if single {
				done := make(chan error, 100)
				for k := range 100 {
					go func() {
						var err error
						for i := 0; i < 1000 && err == nil; i++ {
							_, err = s.Append(ctx, fmt.Sprint("s", k), eventstore.Any, eventstore.New{Type: "T", Payload: make([]byte, 200)})
						}
						done <- err
					}()
				}
				for range 100 {
					require.NoError(b, <-done)
				}
			} else {
				fill(b, s, events, 1)
			}
			n := 0
			for b.Loop() {
				for _, err := range s.Stream(ctx, "s0", 1) {
					require.NoError(b, err)
					n++
				}
			}
			b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "events/s")
		})
	}
}
