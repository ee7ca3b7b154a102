package queue_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/queue"
	"github.com/forebaydb/forebay/vfs"
)

// TestDamage: what a queue has not written is a typed error, or a dead letter with all
// its bytes, and nothing is lost for it.
func TestDamage(t *testing.T) {
	db := openDB(t, vfs.NewMem())
	q := openQueue(t, db, nil)
	g := group(t, q, "g", nil)
	seq, err := db.Sequence("topic/queue/q")
	require.NoError(t, err)
	for _, body := range []string{"", "\x02\x00x", "\x01\x80", "\x01\x04\xff\xff\xff\xff\xff\xff\xff\xff\x7f", "\x01\x10\xff\xff\xff\xff\x0f", "\x01\x01\x63", "\x01\x02\xff\xff\xff\xff\xff\xff\xff\xff"} {
		b := db.NewBatch()
		require.NoError(t, b.Append(seq, append(make([]byte, 8), body...)))
		require.NoError(t, db.Apply(b, forebay.Durable))
	}
	enqueue(t, q, "fine", nil)
	m := one(t, g)
	require.Equal(t, "fine", string(m.Value))
	require.NoError(t, m.Ack(ctx))
	require.Eventually(t, func() bool { return stats(t, g).Dead == 7 }, time.Minute, time.Millisecond)
	dead := letters(t, g)
	require.Equal(t, "\x02\x00x", string(dead[1].Payload))
	require.Contains(t, dead[1].Reason, "not what a queue writes")
	require.NoError(t, q.Close())
	ks, err := db.Keyspace("queue/q")
	require.NoError(t, err)
	for _, key := range []string{"g", "gg", "s\x01g\x00\x00\x00\x00\x00\x00\x00\x00\x09", "p\x01g\x00\x00\x00\x00\x00\x00\x00\x00\x09", "p\x01g", "s\x01g\x63\x00\x00\x00\x00\x00\x00\x00\x09"} {
		old, gerr := ks.Get([]byte(key))
		require.NoError(t, ks.Put([]byte(key), []byte("what is this?")))
		_, err := queue.Open(db, "q", queue.Bytes{}, nil)
		require.ErrorIs(t, err, queue.ErrDamaged, key)
		if gerr == nil {
			require.NoError(t, ks.Put([]byte(key), old))
		} else {
			require.NoError(t, ks.Delete([]byte(key)))
		}
	}
	require.NoError(t, ks.Put([]byte("x\x01g\x00\x00\x00\x00\x00\x00\x00\x00\x00"), []byte("?")))
	q = openQueue(t, db, nil)
	g = group(t, q, "g", nil)
	for _, err := range g.DeadLetters() {
		require.ErrorIs(t, err, queue.ErrDamaged)
	}
	require.ErrorIs(t, g.Purge(ctx, queue.ID{}), queue.ErrDamaged)
	require.NoError(t, ks.Put([]byte("Dx"), []byte("?")))
	_, err = q.Enqueue(ctx, nil, &queue.Meta{DedupeID: "x"})
	require.ErrorIs(t, err, queue.ErrDamaged)
}

// TestStoreFails: a store that is poisoned or closed ends receivers with its error.
func TestStoreFails(t *testing.T) {
	db := openDB(t, vfs.NewMem())
	q := openQueue(t, db, nil)
	g := group(t, q, "g", nil)
	got := make(chan error)
	go func() {
		_, err := g.Receive(ctx, 1)
		got <- err
	}()
	require.NoError(t, db.Close())
	_, err := q.Enqueue(ctx, nil, nil)
	require.ErrorIs(t, err, forebay.ErrClosed)
	q.Close()
	require.Error(t, <-got)
}

// TestClockBeforeTheEpoch: what is delayed by a clock that shows nonsense is delivered once
// it shows better.
func TestClockBeforeTheEpoch(t *testing.T) {
	bubble(t, func(t *testing.T) {
		db := openDB(t, vfs.NewMem())
		for i, at := range []time.Time{time.Unix(0, 0), time.Unix(0, -int64(time.Hour)), time.Unix(-1<<32, 0), {}} {
			var clock atomic.Pointer[time.Time]
			clock.Store(&at)
			q, err := queue.Open(db, fmt.Sprint(i), queue.Bytes{}, &queue.Options{Now: func() time.Time { return *clock.Load() }})
			require.NoError(t, err)
			g := group(t, q, "g", nil)
			enqueue(t, q, "a", &queue.Meta{Delay: time.Minute, DedupeID: "d"})
			enqueue(t, q, "b", nil)
			m := one(t, g)
			require.Equal(t, "b", string(m.Value))
			require.NoError(t, m.NackAfter(ctx, time.Minute, nil))
			now := time.Now()
			clock.Store(&now)
			c, cancel := context.WithTimeout(ctx, time.Hour)
			for range 2 {
				ms, err := g.Receive(c, 1)
				require.NoError(t, err)
				require.NoError(t, ms[0].Ack(ctx))
			}
			cancel()
			require.Equal(t, int64(2), stats(t, g).Done)
			require.NoError(t, q.Close())
		}
	})
}
