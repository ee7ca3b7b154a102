package sinktest_test

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/sink"
	"github.com/forebaydb/forebay/sink/sinktest"
)

// TestMemory runs the suite on the sink in memory, in all its ways.
func TestMemory(t *testing.T) {
	for _, named := range []bool{false, true} {
		var stopped atomic.Bool
		var armed atomic.Int32
		h := sinktest.Harness{
			New: func(*testing.T) (sink.Sink, func(*testing.T) []sink.Row) {
				m := &sinktest.Memory{Name: named}
				m.Refuse(func(r sink.Row) error {
					if bytes.Equal(r.Value, []byte("bad")) {
						return errors.New("bad")
					}
					return nil
				})
				m.Fault(func(int, sink.Batch) (bool, error) {
					if stopped.Load() {
						return false, errors.New("it is not there")
					}
					if a := armed.Swap(0); a > 0 {
						return a == 2, errors.New("it broke")
					}
					return true, nil
				})
				return m, func(*testing.T) []sink.Row { return m.Rows() }
			},
			ExactlyOnce: true,
			Bad:         func() []byte { return []byte("bad") },
			Stop:        func(*testing.T) { stopped.Store(true) },
			Start:       func(*testing.T) { stopped.Store(false) },
			Faults: map[string]func(*testing.T){
				"before": func(*testing.T) { armed.Store(1) },
				"behind": func(*testing.T) { armed.Store(2) },
			},
		}
		t.Run(map[bool]string{false: "Unnamed", true: "Named"}[named], func(t *testing.T) { sinktest.Run(t, h) })
	}
}

// TestAtLeastOnce runs it on one that has every write, each time.
func TestAtLeastOnce(t *testing.T) {
	sinktest.Run(t, sinktest.Harness{
		Text:     true,
		MaxValue: 1000,
		Value:    func(b []byte) []byte { return append([]byte("v:"), b...) },
		New: func(*testing.T) (sink.Sink, func(*testing.T) []sink.Row) {
			var mu sync.Mutex
			var all []sink.Row
			write := func(ctx context.Context, b sink.Batch) error {
				mu.Lock()
				defer mu.Unlock()
				for _, r := range b.Rows {
					r.Key, r.Value = bytes.Clone(r.Key), bytes.Clone(r.Value)
					if bytes.IndexByte(append(r.Key, r.Value...), 0) >= 0 || !bytes.HasPrefix(r.Value, []byte("v:")) {
						return &sink.Rejected{Err: errors.New("not a text")}
					}
					all = append(all, r)
				}
				return ctx.Err()
			}
			return sink.Func(write), func(*testing.T) []sink.Row { return all }
		},
	})
}

// TestMemoryKnowsABatch looks that what is written under one ID cannot change.
func TestMemoryKnowsABatch(t *testing.T) {
	var m sinktest.Memory
	row := sink.Row{Offset: 1, Value: []byte("v")}
	require.NoError(t, m.Write(t.Context(), sink.Batch{ID: "a", Rows: []sink.Row{row}}))
	require.NoError(t, m.Write(t.Context(), sink.Batch{ID: "a", Rows: []sink.Row{row}}))
	require.ErrorContains(t, m.Write(t.Context(), sink.Batch{ID: "a"}), "had 1 rows")
	row.Value = []byte("w")
	require.ErrorContains(t, m.Write(t.Context(), sink.Batch{ID: "a", Rows: []sink.Row{row}}), "another one")
	require.ErrorContains(t, m.Write(t.Context(), sink.Batch{}), "an ID of 0 bytes")
	require.Len(t, m.Batches(), 1)
	require.Equal(t, 5, m.Writes())
}
