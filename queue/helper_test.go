package queue_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/queue"
	"github.com/forebaydb/forebay/vfs"
)

var ctx = context.Background()

// bubble runs a test at a time of its own: sleeping costs nothing.
func bubble(t *testing.T, fn func(t *testing.T)) { synctest.Test(t, fn) }

func openDB(t *testing.T, fs vfs.FS) *forebay.DB {
	t.Helper()
	db, err := forebay.Open("data", &forebay.Options{FS: fs, MemtableSize: 256 << 10, LogFileSize: 256 << 10, MarkDelay: -1})
	require.NoError(t, err)
	t.Cleanup(func() { db.Close() })
	return db
}

func openQueue(t *testing.T, db *forebay.DB, o *queue.Options) *queue.Queue[[]byte] {
	t.Helper()
	q, err := queue.Open(db, "q", queue.Bytes{}, o)
	require.NoError(t, err)
	t.Cleanup(func() { q.Close() })
	return q
}

func group(t *testing.T, q *queue.Queue[[]byte], name string, o *queue.GroupOptions) *queue.Group[[]byte] {
	t.Helper()
	g, err := q.Group(name, o)
	require.NoError(t, err)
	return g
}

func enqueue(t *testing.T, q *queue.Queue[[]byte], value string, m *queue.Meta) queue.ID {
	t.Helper()
	id, err := q.Enqueue(ctx, []byte(value), m)
	require.NoError(t, err)
	return id
}

func one(t *testing.T, g *queue.Group[[]byte]) *queue.Message[[]byte] {
	t.Helper()
	ms, err := g.Receive(ctx, 1)
	require.NoError(t, err)
	require.Len(t, ms, 1)
	return ms[0]
}

// none looks that nothing is ready, in a bubble.
func none(t *testing.T, g *queue.Group[[]byte]) {
	t.Helper()
	c, cancel := context.WithTimeout(ctx, time.Nanosecond)
	defer cancel()
	_, err := g.Receive(c, 1)
	require.ErrorIs(t, err, context.DeadlineExceeded)
}

func stats(t *testing.T, g *queue.Group[[]byte]) queue.Stats {
	t.Helper()
	s, err := g.Stats(ctx)
	require.NoError(t, err)
	require.Equal(t, s.Enqueued, s.Done+s.Dead+s.Pending)
	return s
}

func letters(t *testing.T, g *queue.Group[[]byte]) (out []queue.DeadLetter) {
	t.Helper()
	for d, err := range g.DeadLetters() {
		require.NoError(t, err)
		out = append(out, d)
	}
	return out
}
