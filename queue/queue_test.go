package queue_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
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

func TestDeliverAndAcknowledge(t *testing.T) {
	bubble(t, func(t *testing.T) {
		fs := vfs.NewMem()
		db := openDB(t, fs)
		q := openQueue(t, db, nil)
		_, err := queue.Open(db, "q", queue.Bytes{}, nil)
		require.ErrorIs(t, err, queue.ErrOpen)
		require.Equal(t, "q", q.Name())
		id := enqueue(t, q, "before the group", &queue.Meta{Key: "k", Headers: map[string]string{"trace": "t", "a": ""}})
		g := group(t, q, "g", nil)
		require.Equal(t, "g", g.Name())
		enqueue(t, q, "second", nil)
		at := time.Now()
		time.Sleep(3 * time.Second)
		s := stats(t, g)
		require.Positive(t, s.Bytes)
		s.Bytes = 0
		require.Equal(t, queue.Stats{Enqueued: 2, Pending: 2, Loaded: 2, OldestAge: 3 * time.Second, DrainETA: -1}, s)
		m := one(t, g)
		require.Equal(t, id, m.ID)
		require.Equal(t, "0-0", m.ID.String())
		require.Equal(t, "before the group", string(m.Value))
		require.Equal(t, "k", m.Key)
		require.Equal(t, map[string]string{"trace": "t", "a": ""}, m.Headers)
		require.True(t, at.Equal(m.Time))
		require.Equal(t, 1, m.Attempt)
		require.Equal(t, uint64(1), m.Delivery)
		require.Zero(t, m.Priority)
		require.Equal(t, int64(1), stats(t, g).InFlight)
		require.NoError(t, m.Ack(ctx))
		require.ErrorIs(t, m.Ack(ctx), queue.ErrStaleLease)
		require.ErrorIs(t, m.Nack(ctx, nil), queue.ErrStaleLease)
		require.ErrorIs(t, m.Extend(time.Second), queue.ErrStaleLease)
		m = one(t, g)
		require.NoError(t, g.Ack(ctx, m))
		require.NoError(t, g.Ack(ctx))
		other := group(t, q, "other", nil)
		require.Error(t, other.Ack(ctx, m))
		none(t, g)
		s = stats(t, g)
		require.Equal(t, int64(2), s.Done)
		require.Zero(t, s.Pending+s.InFlight+s.Bytes)
		require.Zero(t, s.OldestAge)
		require.ElementsMatch(t, []string{"g", "other"}, q.Groups())
		require.NoError(t, q.Close())
		require.NoError(t, q.Close())
		_, err = q.Enqueue(ctx, nil, nil)
		require.ErrorIs(t, err, queue.ErrClosed)
		_, err = g.Receive(ctx, 1)
		require.ErrorIs(t, err, queue.ErrClosed)
		_, err = g.Stats(ctx)
		require.ErrorIs(t, err, queue.ErrClosed)
		q = openQueue(t, db, nil)
		g = group(t, q, "g", nil)
		require.Equal(t, int64(2), stats(t, g).Done)
		none(t, g)
	})
}

func TestBadArguments(t *testing.T) {
	db := openDB(t, vfs.NewMem())
	for _, name := range []string{"", "a/b", strings.Repeat("x", 101)} {
		_, err := queue.Open(db, name, queue.Bytes{}, nil)
		require.Error(t, err, name)
	}
	_, err := queue.Open(db, "q", queue.Bytes{}, &queue.Options{Priorities: 11})
	var limit *queue.LimitError
	require.ErrorAs(t, err, &limit)
	_, err = queue.Open(db, "q", queue.Bytes{}, &queue.Options{MaxBytes: -1})
	require.Error(t, err)
	q := openQueue(t, db, &queue.Options{Priorities: 3})
	for _, m := range []queue.Meta{
		{Key: strings.Repeat("k", queue.MaxKey+1)},
		{DedupeID: strings.Repeat("k", queue.MaxDedupeID+1)},
		{Headers: map[string]string{"h": strings.Repeat("v", queue.MaxHeaders)}},
		{Priority: 3}, {Priority: -1}, {Delay: -1}, {Delay: 1 << 62},
	} {
		_, err := q.Enqueue(ctx, nil, &m)
		require.ErrorAs(t, err, &limit)
		require.NotEmpty(t, limit.Error())
	}
	_, err = q.Enqueue(ctx, make([]byte, queue.MaxMessage), nil)
	require.ErrorAs(t, err, &limit)
	_, err = q.Group("", nil)
	require.Error(t, err)
	_, err = q.Group("g", &queue.GroupOptions{Lease: -1})
	require.Error(t, err)
	ids, err := q.EnqueueBatch(ctx, nil)
	require.NoError(t, err)
	require.Empty(t, ids)
	gone, cancel := context.WithCancel(ctx)
	cancel()
	_, err = q.Enqueue(gone, nil, nil)
	require.ErrorIs(t, err, context.Canceled)
	_, err = group(t, q, "g", nil).Receive(gone, 1)
	require.ErrorIs(t, err, context.Canceled)
	require.Zero(t, stats(t, group(t, q, "g", nil)).Enqueued)
}

type order struct{ N int }

func TestTyped(t *testing.T) {
	db := openDB(t, vfs.NewMem())
	q, err := queue.Open(db, "orders", queue.JSON[order]{}, nil)
	require.NoError(t, err)
	defer q.Close()
	g, err := q.Group("g", nil)
	require.NoError(t, err)
	ids, err := q.EnqueueBatch(ctx, []queue.Item[order]{{Value: order{1}}, {Value: order{2}, Meta: queue.Meta{DedupeID: "d"}}})
	require.NoError(t, err)
	require.Equal(t, []queue.ID{{Offset: 0}, {Offset: 1}}, ids)
	for m, err := range g.Messages(ctx) {
		require.NoError(t, err)
		require.NoError(t, m.Ack(ctx))
		if m.Value.N == 2 {
			break
		}
	}
	// What does not decode is a dead letter, and nobody sees it.
	require.NoError(t, q.Close())
	raw, err := queue.Open(db, "orders", queue.Bytes{}, nil)
	require.NoError(t, err)
	_, err = raw.Enqueue(ctx, []byte("no JSON"), nil)
	require.NoError(t, err)
	_, err = raw.Enqueue(ctx, []byte(`{"N":3}`), nil)
	require.NoError(t, err)
	require.NoError(t, raw.Close())
	q, err = queue.Open(db, "orders", queue.JSON[order]{}, nil)
	require.NoError(t, err)
	defer q.Close()
	g, err = q.Group("g", nil)
	require.NoError(t, err)
	ms, err := g.Receive(ctx, 10)
	require.NoError(t, err)
	require.Equal(t, 3, ms[len(ms)-1].Value.N)
	for d, err := range g.DeadLetters() {
		require.NoError(t, err)
		require.Equal(t, "no JSON", string(d.Payload))
		require.Contains(t, d.Reason, "does not decode")
	}
	bad, err := queue.Open(db, "bad", queue.JSON[chan int]{}, nil)
	require.NoError(t, err)
	defer bad.Close()
	_, err = bad.Enqueue(ctx, nil, nil)
	require.ErrorContains(t, err, "does not encode")
}

// TestLeases: who is late finds that somebody else has the message.
func TestLeases(t *testing.T) {
	bubble(t, func(t *testing.T) {
		db := openDB(t, vfs.NewMem())
		q := openQueue(t, db, nil)
		g := group(t, q, "g", &queue.GroupOptions{Lease: 10 * time.Second})
		enqueue(t, q, "m", nil)
		first := one(t, g)
		time.Sleep(9 * time.Second)
		require.NoError(t, first.Extend(10*time.Second))
		time.Sleep(9 * time.Second)
		none(t, g)
		time.Sleep(time.Second)
		second := one(t, g)
		require.Equal(t, 2, second.Attempt)
		require.ErrorIs(t, first.Ack(ctx), queue.ErrStaleLease)
		require.ErrorIs(t, first.Nack(ctx, nil), queue.ErrStaleLease)
		require.ErrorIs(t, first.Kill(ctx, nil), queue.ErrStaleLease)
		require.ErrorIs(t, db.Update(first.AckTx), queue.ErrStaleLease)
		require.NoError(t, g.Ack(ctx, second))
		require.ErrorIs(t, g.Ack(ctx, first, second), queue.ErrStaleLease)
		// A lease that has ended, of a message that nobody else has: its effect is the
		// only one.
		enqueue(t, q, "n", nil)
		late := one(t, g)
		time.Sleep(time.Minute)
		synctest.Wait()
		require.NoError(t, db.Update(func(tx *forebay.Tx) error {
			return errors.Join(late.AckTx(tx), tx.Put([]byte("n"), nil))
		}))
		none(t, g)
		require.Equal(t, int64(2), stats(t, g).Done)
	})
}

// TestAckTxAgainstRedelivery: an AckTx whose lease ends under way, and the redelivery: one
// of the two counts.
func TestAckTxAgainstRedelivery(t *testing.T) {
	bubble(t, func(t *testing.T) {
		db := openDB(t, vfs.NewMem())
		q := openQueue(t, db, nil)
		g := group(t, q, "g", &queue.GroupOptions{Lease: time.Second})
		enqueue(t, q, "m", nil)
		first := one(t, g)
		var second *queue.Message[[]byte]
		calls := 0
		err := db.Update(func(tx *forebay.Tx) error {
			calls++
			if err := first.AckTx(tx); err != nil {
				return err
			}
			if second == nil {
				time.Sleep(2 * time.Second)
				second = one(t, g)
			}
			return tx.Put([]byte("effect"), []byte("first"))
		})
		require.ErrorIs(t, err, queue.ErrStaleLease)
		require.Equal(t, 2, calls)
		require.NoError(t, db.Update(func(tx *forebay.Tx) error {
			return errors.Join(second.AckTx(tx), tx.Put([]byte("effect"), []byte("second")))
		}))
		v, err := db.Get([]byte("effect"))
		require.NoError(t, err)
		require.Equal(t, "second", string(v))
		require.ErrorIs(t, db.Update(second.AckTx), queue.ErrStaleLease)
		require.Equal(t, int64(1), stats(t, g).Done)
		// A failed transaction leaves the message with its receiver; a Nack behind an
		// AckTx changes nothing.
		enqueue(t, q, "n", nil)
		m := one(t, g)
		require.ErrorIs(t, db.Update(func(tx *forebay.Tx) error {
			return errors.Join(m.AckTx(tx), context.Canceled)
		}), context.Canceled)
		require.Equal(t, int64(1), stats(t, g).InFlight)
		require.NoError(t, db.Update(m.AckTx))
		require.ErrorIs(t, m.Nack(ctx, nil), queue.ErrStaleLease)
		none(t, g)
	})
}

// TestBackoff: exponential, with full jitter, on a clock of the test's, across a restart.
func TestBackoff(t *testing.T) {
	bubble(t, func(t *testing.T) {
		fs := vfs.NewMem()
		db := openDB(t, fs)
		q := openQueue(t, db, nil)
		var longest []time.Duration
		o := &queue.GroupOptions{Backoff: time.Second, MaxBackoff: 30 * time.Second, Jitter: func(d time.Duration) time.Duration {
			longest = append(longest, d)
			return d / 2
		}}
		g := group(t, q, "g", o)
		enqueue(t, q, "m", nil)
		enqueue(t, q, "keyed", &queue.Meta{Key: "k"})
		want := []time.Duration{1, 2, 4, 8, 16, 30, 30}
		for i, w := range want {
			w *= time.Second
			a, b := one(t, g), one(t, g)
			require.Equal(t, i+1, a.Attempt)
			require.Equal(t, i+1, b.Attempt)
			require.NoError(t, a.Nack(ctx, errors.New("no")))
			require.NoError(t, b.Nack(ctx, errors.New("no")))
			require.Equal(t, []time.Duration{w, w}, longest[2*i:])
			if i%3 == 1 {
				require.NoError(t, q.Close())
				require.NoError(t, db.Close())
				db = openDB(t, fs)
				q = openQueue(t, db, nil)
				g = group(t, q, "g", o)
			}
			time.Sleep(w/2 - time.Millisecond)
			none(t, g)
			require.Equal(t, int64(2), stats(t, g).Delayed)
			time.Sleep(time.Millisecond)
		}
		require.Equal(t, int64(2), stats(t, g).Pending)
		// The default jitter is within its bounds.
		q2, err := queue.Open(db, "q2", queue.Bytes{}, nil)
		require.NoError(t, err)
		defer q2.Close()
		g2 := group(t, q2, "g", &queue.GroupOptions{Backoff: time.Second, MaxDeliveries: -1})
		enqueue(t, q2, "m", nil)
		for range 20 {
			m := one(t, g2)
			require.NoError(t, m.NackAfter(ctx, 0, nil))
		}
		m := one(t, g2)
		require.NoError(t, m.Nack(ctx, nil))
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		require.Equal(t, 22, one(t, g2).Attempt)
	})
}

// TestPoison: a poison message is a dead letter after so many attempts, and its
// neighbours do not notice.
func TestPoison(t *testing.T) {
	bubble(t, func(t *testing.T) {
		fs := vfs.NewMem()
		db := openDB(t, fs)
		q := openQueue(t, db, nil)
		o := &queue.GroupOptions{MaxDeliveries: 3, Backoff: time.Millisecond, Lease: time.Second}
		g := group(t, q, "g", o)
		for i := range 20 {
			v := fmt.Sprint(i)
			if i == 7 {
				v = "poison"
			}
			enqueue(t, q, v, &queue.Meta{Key: "k", Headers: map[string]string{"h": v}})
		}
		c, cancel := context.WithCancel(ctx)
		var done []string
		require.ErrorIs(t, g.Run(c, 4, func(ctx context.Context, m *queue.Message[[]byte]) error {
			switch string(m.Value) {
			case "poison":
				return fmt.Errorf("attempt %d", m.Attempt)
			case "19":
				cancel()
			}
			done = append(done, string(m.Value))
			return nil
		}), context.Canceled)
		require.Len(t, done, 19)
		dead := letters(t, g)
		require.Len(t, dead, 1)
		d := dead[0]
		require.Equal(t, "attempt 3", d.Reason)
		require.Equal(t, 3, d.Attempts)
		require.Equal(t, "poison", string(d.Payload))
		require.Equal(t, "k", d.Key)
		require.Equal(t, "poison", d.Headers["h"])
		require.False(t, d.Died.Before(d.Time))
		require.Zero(t, d.Priority)
		require.Equal(t, uint64(7), d.ID.Offset)
		time.Sleep(5 * time.Second) // it is trimmed
		require.NoError(t, db.Checkpoint(ctx))

		require.ErrorIs(t, g.Redrive(ctx, d.ID, queue.ID{Offset: 8}), forebay.ErrNotFound)
		require.ErrorIs(t, g.Purge(ctx, queue.ID{Offset: 8}), forebay.ErrNotFound)
		require.NoError(t, g.Redrive(ctx))
		require.Equal(t, int64(1), stats(t, g).Dead)
		require.NoError(t, g.Redrive(ctx, d.ID))
		require.ErrorIs(t, g.Redrive(ctx, d.ID), forebay.ErrNotFound)
		require.Equal(t, int64(1), stats(t, g).Pending)
		m := one(t, g)
		require.Equal(t, "poison", string(m.Value))
		require.Equal(t, 1, m.Attempt)
		require.Equal(t, uint64(4), m.Delivery)
		require.NoError(t, m.Kill(ctx, queue.ErrPermanent))
		require.Equal(t, 1, letters(t, g)[0].Attempts)
		n, err := g.RedriveAll(ctx)
		require.NoError(t, err)
		require.Equal(t, 1, n)

		// Nobody says anything for it: the process dies of it, or it hangs.
		for i := range 3 {
			m := one(t, g)
			require.Equal(t, i+1, m.Attempt)
			if i == 0 {
				time.Sleep(time.Second)
				continue
			}
			fs = fs.Snapshot()
			require.NoError(t, q.Close())
			require.NoError(t, db.Close())
			db = openDB(t, fs)
			q = openQueue(t, db, nil)
			g = group(t, q, "g", o)
		}
		none(t, g)
		dead = letters(t, g)
		require.Len(t, dead, 1)
		require.Equal(t, 3, dead[0].Attempts)
		require.NotEmpty(t, dead[0].Reason)
		n, err = g.PurgeAll(ctx)
		require.NoError(t, err)
		require.Equal(t, 1, n)
		require.Equal(t, queue.Stats{Enqueued: 20, Done: 20}, func() queue.Stats { s := stats(t, g); s.DrainRate = 0; return s }())
	})
}

// TestDelayed: ten thousand of them take the memory of a window, whatever else there is.
func TestDelayed(t *testing.T) {
	bubble(t, func(t *testing.T) {
		fs := vfs.NewMem()
		db := openDB(t, fs)
		q := openQueue(t, db, nil)
		o := &queue.GroupOptions{Window: 16}
		g := group(t, q, "g", o)
		const n = 3000
		var items []queue.Item[[]byte]
		for i := range n {
			items = append(items, queue.Item[[]byte]{Value: fmt.Append(nil, i), Meta: queue.Meta{Delay: time.Hour + time.Duration(n-i)*time.Second}})
		}
		_, err := q.EnqueueBatch(ctx, items)
		require.NoError(t, err)
		enqueue(t, q, "now", nil)
		m := one(t, g)
		require.Equal(t, "now", string(m.Value))
		require.NoError(t, m.Ack(ctx))
		none(t, g)
		synctest.Wait()
		s := stats(t, g)
		require.Equal(t, int64(n), s.Pending)
		require.Equal(t, int64(n), s.Delayed)
		require.Zero(t, s.Loaded)
		time.Sleep(time.Hour)
		none(t, g)
		for i := range n {
			time.Sleep(time.Second)
			synctest.Wait()
			if i == n/2 {
				require.NoError(t, q.Close())
				q = openQueue(t, db, nil)
				g = group(t, q, "g", o)
				require.Equal(t, int64(n-i), stats(t, g).Pending)
			}
			if i < n/2 || i > n/2+100 { // a hundred come together
				m := one(t, g)
				if i < n/2 {
					require.Equal(t, fmt.Sprint(n-1-i), string(m.Value))
				}
				require.NoError(t, m.Ack(ctx))
			}
			require.LessOrEqual(t, stats(t, g).Loaded, 16)
		}
		require.Equal(t, int64(101), stats(t, g).Pending)
		require.Zero(t, stats(t, g).Delayed-int64(101-stats(t, g).Loaded))
		for range 101 {
			require.NoError(t, one(t, g).Ack(ctx))
		}
		require.Zero(t, stats(t, g).Pending)
	})
}

// TestParkedRetries: what is to be tried again much later neither holds up the low-water
// mark nor the lane.
func TestParkedRetries(t *testing.T) {
	bubble(t, func(t *testing.T) {
		db := openDB(t, vfs.NewMem())
		q := openQueue(t, db, nil)
		g := group(t, q, "g", &queue.GroupOptions{Window: 8})
		for i := range 100 {
			enqueue(t, q, fmt.Sprint(i), nil)
		}
		for i := range 100 {
			m := one(t, g)
			require.Equal(t, fmt.Sprint(i), string(m.Value))
			require.NoError(t, m.NackAfter(ctx, time.Hour, errors.New("later")))
		}
		time.Sleep(5 * time.Second)
		seq, err := db.Sequence("topic/queue/q")
		require.NoError(t, err)
		first, next, err := seq.Bounds()
		require.NoError(t, err)
		require.Equal(t, next, first)
		time.Sleep(time.Hour)
		seen := map[string]bool{}
		for range 100 {
			m := one(t, g)
			require.Equal(t, 2, m.Attempt)
			seen[string(m.Value)] = true
			require.NoError(t, m.NackAfter(ctx, time.Hour, errors.New("later"))) // of what is parked
		}
		require.Len(t, seen, 100)
		require.Equal(t, int64(100), stats(t, g).Delayed)
		require.Equal(t, time.Hour, stats(t, g).OldestAge.Truncate(time.Minute))
		time.Sleep(time.Hour)
		for range 100 {
			m := one(t, g)
			require.Equal(t, 3, m.Attempt)
			require.NoError(t, db.Update(m.AckTx))
		}
		none(t, g)
		require.Zero(t, stats(t, g).Pending)
	})
}

func TestPriorities(t *testing.T) {
	bubble(t, func(t *testing.T) {
		db := openDB(t, vfs.NewMem())
		q := openQueue(t, db, &queue.Options{Priorities: 3})
		g := group(t, q, "g", &queue.GroupOptions{Window: 4})
		for i := range 50 {
			enqueue(t, q, fmt.Sprint("low ", i), nil)
		}
		synctest.Wait() // they fill the window
		urgent := enqueue(t, q, "urgent", &queue.Meta{Priority: 2})
		enqueue(t, q, "middle", &queue.Meta{Priority: 1})
		enqueue(t, q, "urgent later", &queue.Meta{Priority: 2, Delay: time.Minute})
		synctest.Wait()
		require.Equal(t, "2-0", urgent.String())
		for _, want := range []string{"urgent", "middle", "low 0"} {
			m := one(t, g)
			require.Equal(t, want, string(m.Value))
			require.NoError(t, m.Ack(ctx))
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		m := one(t, g)
		require.Equal(t, "urgent later", string(m.Value))
		require.Equal(t, 2, m.Priority)
		require.Equal(t, uint8(queue.MaxPriorities), m.ID.Lane)
		require.NoError(t, m.Ack(ctx))
		enqueue(t, q, "left", &queue.Meta{Priority: 2})
		require.NoError(t, q.Close())
		q = openQueue(t, db, nil) // with fewer
		require.Equal(t, "left", string(one(t, group(t, q, "g", nil)).Value))
		_, err := q.Enqueue(ctx, nil, &queue.Meta{Priority: 1})
		require.Error(t, err)
	})
}

// TestKeyOrder: sixteen workers, failures and a restart: of each key in order, and one at
// a time.
func TestKeyOrder(t *testing.T) {
	fs := vfs.NewMem()
	db := openDB(t, fs)
	q := openQueue(t, db, nil)
	const keys, each = 20, 25
	for i := range each {
		var items []queue.Item[[]byte]
		for k := range keys {
			items = append(items, queue.Item[[]byte]{Value: fmt.Append(nil, i), Meta: queue.Meta{Key: fmt.Sprint(k)}})
		}
		_, err := q.EnqueueBatch(ctx, items)
		require.NoError(t, err)
	}
	var mu sync.Mutex
	next, busy := map[string]int{}, map[string]bool{}
	total := 0
	for round := range 2 {
		g := group(t, q, "g", &queue.GroupOptions{Window: 64, Backoff: time.Millisecond, MaxBackoff: time.Millisecond})
		c, cancel := context.WithCancel(ctx)
		err := g.Run(c, 16, func(_ context.Context, m *queue.Message[[]byte]) error {
			mu.Lock()
			if busy[m.Key] || string(m.Value) != fmt.Sprint(next[m.Key]) {
				t.Errorf("key %s: %s, want %d, busy %v", m.Key, m.Value, next[m.Key], busy[m.Key])
			}
			busy[m.Key] = true
			mu.Unlock()
			defer func() {
				mu.Lock()
				defer mu.Unlock()
				busy[m.Key] = false
			}()
			if m.Attempt == 1 && m.ID.Offset%7 == 0 {
				return errors.New("once more")
			}
			mu.Lock()
			defer mu.Unlock()
			next[m.Key]++
			if total++; total == keys*each || round == 0 && total == keys*each/2 {
				cancel()
			}
			return nil
		})
		require.ErrorIs(t, err, context.Canceled)
		require.NoError(t, q.Close())
		q = openQueue(t, db, nil)
	}
	require.Equal(t, keys*each, total)
	require.Zero(t, stats(t, group(t, q, "g", nil)).Pending)
}

func TestDedupe(t *testing.T) {
	bubble(t, func(t *testing.T) {
		fs := vfs.NewMem()
		db := openDB(t, fs)
		o := &queue.Options{DedupeFor: time.Minute, DedupeMax: 50}
		q := openQueue(t, db, o)
		g := group(t, q, "g", nil)
		enqueue(t, q, "other", nil)
		var won atomic.Int64
		var ids sync.Map
		var work sync.WaitGroup
		for range 50 {
			work.Go(func() {
				id, err := q.Enqueue(ctx, []byte("v"), &queue.Meta{DedupeID: "d"})
				var dup *queue.DuplicateError
				switch {
				case err == nil:
					won.Add(1)
				case errors.As(err, &dup) && errors.Is(err, queue.ErrDuplicate):
					if !dup.Known || dup.Error() == "" {
						t.Errorf("%v", dup)
					}
					id = dup.ID
				default:
					t.Error(err)
				}
				ids.Store(id, true)
			})
		}
		work.Wait()
		require.Equal(t, int64(1), won.Load())
		n := 0
		ids.Range(func(id, _ any) bool { n++; require.Equal(t, queue.ID{Offset: 1}, id); return true })
		require.Equal(t, 1, n)
		require.Equal(t, int64(2), stats(t, g).Pending)
		// It is remembered across a restart, also when the message is gone.
		require.NoError(t, one(t, g).Ack(ctx))
		require.NoError(t, one(t, g).Ack(ctx))
		time.Sleep(5 * time.Second)
		require.NoError(t, q.Close())
		q = openQueue(t, db, o)
		_, err := q.Enqueue(ctx, nil, &queue.Meta{DedupeID: "d"})
		var dup *queue.DuplicateError
		require.ErrorAs(t, err, &dup)
		require.False(t, dup.Known)
		require.NotEmpty(t, dup.Error())
		// In a batch one duplicate refuses all.
		_, err = q.EnqueueBatch(ctx, []queue.Item[[]byte]{{}, {Meta: queue.Meta{DedupeID: "e"}}, {Meta: queue.Meta{DedupeID: "e"}}})
		require.ErrorIs(t, err, queue.ErrDuplicate)
		require.NoError(t, db.Update(func(tx *forebay.Tx) error {
			require.ErrorIs(t, q.EnqueueTx(ctx, tx, nil, &queue.Meta{DedupeID: "d"}), queue.ErrDuplicate)
			require.NoError(t, q.EnqueueTx(ctx, tx, nil, &queue.Meta{DedupeID: "e"}))
			require.ErrorIs(t, q.EnqueueTx(ctx, tx, nil, &queue.Meta{DedupeID: "e"}), queue.ErrDuplicate)
			return nil
		}))
		time.Sleep(time.Minute)
		enqueue(t, q, "", &queue.Meta{DedupeID: "d"}) // forgotten; it may be remembered again
		_, err = q.Enqueue(ctx, nil, &queue.Meta{DedupeID: "d"})
		require.ErrorIs(t, err, queue.ErrDuplicate)
		for i := range 200 {
			enqueue(t, q, "", &queue.Meta{DedupeID: fmt.Sprint(i)})
		}
		time.Sleep(30 * time.Second)
		count := func() (n int) {
			ks, err := db.Keyspace("queue/q")
			require.NoError(t, err)
			for _, kind := range []string{"D", "E"} {
				for _, err := range ks.Prefix([]byte(kind)) {
					require.NoError(t, err)
					n++
				}
			}
			return n
		}
		time.Sleep(31 * time.Second)
		require.LessOrEqual(t, count(), 100)
		time.Sleep(5 * time.Minute)
		require.Zero(t, count())
	})
}

func TestFull(t *testing.T) {
	bubble(t, func(t *testing.T) {
		fs := vfs.NewMem()
		db := openDB(t, fs)
		o := &queue.Options{MaxMessages: 10}
		q := openQueue(t, db, o)
		fill := func() (took, refused int64) {
			var ok, full atomic.Int64
			var work sync.WaitGroup
			for range 30 {
				work.Go(func() {
					switch _, err := q.Enqueue(ctx, []byte("x"), nil); {
					case err == nil:
						ok.Add(1)
					case errors.Is(err, queue.ErrFull):
						full.Add(1)
					default:
						t.Error(err)
					}
				})
			}
			work.Wait()
			return ok.Load(), full.Load()
		}
		took, refused := fill() // no group yet
		require.Equal(t, [2]int64{10, 20}, [2]int64{took, refused})
		g := group(t, q, "g", &queue.GroupOptions{MaxDeliveries: 1})
		_, err := q.Enqueue(ctx, nil, nil)
		var full *queue.FullError
		require.ErrorAs(t, err, &full)
		require.Equal(t, time.Second, full.RetryAfter)
		require.NotEmpty(t, full.Error())
		for range 5 { // two a second
			require.NoError(t, one(t, g).Ack(ctx))
			require.NoError(t, one(t, g).Nack(ctx, errors.New("dead")))
			time.Sleep(time.Second)
		}
		s := stats(t, g)
		require.Equal(t, int64(5), s.Dead)
		require.InDelta(t, 2, s.DrainRate, 0.001)
		took, _ = fill() // only dead letters were left
		require.Equal(t, int64(10), took)
		_, err = q.EnqueueBatch(ctx, make([]queue.Item[[]byte], 4))
		require.ErrorAs(t, err, &full)
		require.Equal(t, 2*time.Second, full.RetryAfter)
		require.Equal(t, 5*time.Second, stats(t, g).DrainETA)
		require.ErrorIs(t, db.Update(func(tx *forebay.Tx) error { return q.EnqueueTx(ctx, tx, nil, nil) }), queue.ErrFull)
		_, err = q.EnqueueBatch(ctx, make([]queue.Item[[]byte], 11))
		require.NotErrorIs(t, err, queue.ErrFull) // it would never fit
		require.Error(t, err)
		require.NoError(t, one(t, g).Ack(ctx))
		// A transaction that fails, or meets a conflict, keeps no room.
		for range 3 {
			require.ErrorIs(t, db.Update(func(tx *forebay.Tx) error {
				require.NoError(t, q.EnqueueTx(ctx, tx, nil, nil))
				return context.Canceled
			}), context.Canceled)
		}
		calls := 0
		require.NoError(t, db.Update(func(tx *forebay.Tx) error {
			_, err := tx.Has([]byte("k"))
			require.NoError(t, err)
			if calls++; calls == 1 {
				require.NoError(t, db.Put([]byte("k"), nil))
			}
			return q.EnqueueTx(ctx, tx, nil, nil)
		}))
		require.Equal(t, 2, calls)
		require.Equal(t, int64(10), stats(t, g).Pending)
		slow := group(t, q, "slow", nil)
		for range 10 {
			require.NoError(t, one(t, g).Ack(ctx))
		}
		_, err = q.Enqueue(ctx, nil, nil)
		require.ErrorIs(t, err, queue.ErrFull) // the slowest counts
		require.NotZero(t, stats(t, slow).Pending)
		require.NoError(t, q.DropGroup("slow"))
		require.NoError(t, q.DropGroup("slow"))
		enqueue(t, q, "", nil)

		require.NoError(t, q.Close())
		q = openQueue(t, db, &queue.Options{MaxBytes: 1000})
		g = group(t, q, "g", nil)
		n := 0
		for {
			_, err := q.Enqueue(ctx, make([]byte, 80), nil)
			if errors.As(err, &full) {
				break
			}
			require.NoError(t, err)
			n++
		}
		require.Equal(t, 9, n)
		_, err = q.Enqueue(ctx, make([]byte, 1000), nil)
		require.NotErrorIs(t, err, queue.ErrFull)
		require.Error(t, err)
		was := stats(t, g).Bytes
		require.NoError(t, q.Close())
		q = openQueue(t, db, &queue.Options{MaxBytes: 1000})
		g = group(t, q, "g", nil)
		require.InDelta(t, was, stats(t, g).Bytes, 100)
		for range 10 {
			require.NoError(t, one(t, g).Ack(ctx))
		}
		require.Zero(t, stats(t, g).Bytes)
	})
}

// TestGroups: each has all messages, and none waits for another.
func TestGroups(t *testing.T) {
	db := openDB(t, vfs.NewMem())
	q := openQueue(t, db, nil)
	a, b := group(t, q, "a", nil), group(t, q, "b", nil)
	require.Equal(t, a, group(t, q, "a", &queue.GroupOptions{Lease: time.Second}))
	for i := range 50 {
		enqueue(t, q, fmt.Sprint(i), nil)
	}
	for i := range 50 {
		m := one(t, a)
		require.Equal(t, fmt.Sprint(i), string(m.Value))
		require.NoError(t, m.Ack(ctx))
	}
	require.Equal(t, int64(50), stats(t, b).Pending)
	for range 50 {
		require.NoError(t, one(t, b).Ack(ctx))
	}
}

// TestGroupAgainstTrim makes groups while the topic is being trimmed.
func TestGroupAgainstTrim(t *testing.T) {
	bubble(t, func(t *testing.T) {
		db := openDB(t, vfs.NewMem())
		q := openQueue(t, db, nil)
		g := group(t, q, "g", nil)
		c, cancel := context.WithCancel(ctx)
		var work sync.WaitGroup
		work.Go(func() {
			_ = g.Run(c, 4, func(context.Context, *queue.Message[[]byte]) error { return nil })
		})
		for i := range 20 {
			for range 20 {
				enqueue(t, q, "m", nil)
			}
			time.Sleep(time.Second - time.Duration(i)*time.Microsecond) // about when it is trimmed
			name := fmt.Sprint(i)
			h := group(t, q, name, &queue.GroupOptions{Latest: i%2 == 1})
			enqueue(t, q, "m", nil)
			s := stats(t, h)
			require.Positive(t, s.Pending)
			if i%2 == 1 {
				require.Equal(t, int64(1), s.Pending)
			}
			for range s.Pending {
				require.NoError(t, one(t, h).Ack(ctx))
			}
			require.Zero(t, stats(t, h).Pending)
			require.NoError(t, q.DropGroup(name))
			_, err := h.Receive(ctx, 1)
			require.ErrorIs(t, err, queue.ErrClosed)
		}
		cancel()
		work.Wait()
		time.Sleep(3 * time.Second)
		seq, err := db.Sequence("topic/queue/q")
		require.NoError(t, err)
		first, next, err := seq.Bounds()
		require.NoError(t, err)
		require.Equal(t, next, first)
		require.Zero(t, stats(t, g).Pending)
		// A group that was dropped and is made again has nothing of before.
		enqueue(t, q, "m", nil)
		h := group(t, q, "h", nil)
		m := one(t, h)
		require.NoError(t, q.DropGroup("h"))
		require.ErrorIs(t, m.Ack(ctx), queue.ErrStaleLease)
		require.ErrorIs(t, db.Update(m.AckTx), queue.ErrStaleLease)
		h = group(t, q, "h", nil)
		require.Equal(t, 1, one(t, h).Attempt)
	})
}

// TestCloseWhileHandlersRun: what they have done counts.
func TestCloseWhileHandlersRun(t *testing.T) {
	db := openDB(t, vfs.NewMem())
	q := openQueue(t, db, nil)
	g := group(t, q, "g", nil)
	for range 100 {
		enqueue(t, q, "m", nil)
	}
	started := make(chan struct{}, 100)
	var done atomic.Int64
	ended := make(chan error)
	go func() {
		ended <- g.Run(ctx, 8, func(ctx context.Context, m *queue.Message[[]byte]) error {
			started <- struct{}{}
			<-ctx.Done()
			done.Add(1)
			return nil
		})
	}()
	manual := one(t, g)
	for range 8 {
		<-started
	}
	require.NoError(t, q.Close())
	require.ErrorIs(t, <-ended, queue.ErrClosed)
	require.ErrorIs(t, manual.Ack(ctx), queue.ErrClosed)
	require.ErrorIs(t, db.Update(manual.AckTx), queue.ErrClosed)
	q = openQueue(t, db, nil)
	g = group(t, q, "g", nil)
	s := stats(t, g)
	require.Equal(t, done.Load(), s.Done)
	require.Equal(t, 100-done.Load(), s.Pending)
	require.Zero(t, s.InFlight)
	require.Equal(t, 2, one(t, g).Attempt)
}

// TestBelowDurable: what was enqueued at a lower level is delivered, too.
func TestBelowDurable(t *testing.T) {
	for _, l := range []forebay.Level{forebay.Written, forebay.Buffered} {
		db := openDB(t, vfs.NewMem())
		q, err := queue.Open(db, fmt.Sprint(l), queue.Bytes{}, &queue.Options{Level: l})
		require.NoError(t, err)
		g, err := q.Group("g", &queue.GroupOptions{Level: l})
		require.NoError(t, err)
		enqueue(t, q, "m", nil)
		require.NoError(t, one(t, g).Ack(ctx))
		require.NoError(t, q.Close())
		require.NoError(t, db.Close())
	}
}

func TestHooks(t *testing.T) {
	type traceKey struct{}
	var mu sync.Mutex
	var events []string
	o := &queue.Options{Hooks: queue.Hooks{
		Inject: func(ctx context.Context, set func(name, value string)) {
			if id, ok := ctx.Value(traceKey{}).(string); ok {
				set("trace", id)
			}
		},
		Extract: func(ctx context.Context, headers map[string]string) context.Context {
			return context.WithValue(ctx, traceKey{}, headers["trace"])
		},
		Event: func(e queue.Event) {
			mu.Lock()
			defer mu.Unlock()
			events = append(events, fmt.Sprintf("%v %v %d", e.Kind, e.ID, e.Attempt))
		},
	}}
	db := openDB(t, vfs.NewMem())
	q := openQueue(t, db, o)
	g := group(t, q, "g", &queue.GroupOptions{MaxDeliveries: 2, Backoff: 1})
	_, err := q.Enqueue(context.WithValue(ctx, traceKey{}, "T1"), []byte("a"), nil)
	require.NoError(t, err)
	c, cancel := context.WithCancel(ctx)
	var traces []any
	require.ErrorIs(t, g.Run(c, 1, func(ctx context.Context, m *queue.Message[[]byte]) error {
		traces = append(traces, ctx.Value(traceKey{}))
		if m.Attempt == 2 {
			cancel()
		}
		return errors.New("no")
	}), context.Canceled)
	require.Equal(t, []any{"T1", "T1"}, traces)
	require.NoError(t, q.Close())
	slices.Sort(events)
	require.Equal(t, []string{"dead 0-0 2", "delivered 0-0 1", "delivered 0-0 2", "enqueued 0-0 0", "nacked 0-0 1"}, events)
	require.Empty(t, queue.EventKind(99).String())
}

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
	require.Eventually(t, func() bool { return stats(t, g).Dead == 7 }, 10*time.Second, time.Millisecond)
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

// TestSpike is the arithmetic of a spike, at a hundredth of its size: 1,000 a second come
// for five minutes, 100 a second go.
func TestSpike(t *testing.T) {
	bubble(t, func(t *testing.T) {
		in, out := 1000, 100
		if testing.Short() {
			in, out = 100, 10
		}
		db := openDB(t, vfs.NewMem())
		q := openQueue(t, db, nil)
		g := group(t, q, "g", &queue.GroupOptions{Level: forebay.Written})
		seen := make([]bool, in*300)
		items := make([]queue.Item[[]byte], in)
		for s := 1; ; s++ {
			if s <= 300 {
				for i := range items {
					items[i].Value = fmt.Append(nil, (s-1)*in+i)
				}
				_, err := q.EnqueueBatch(ctx, items)
				require.NoError(t, err)
			}
			for left := out; left > 0; {
				ms, err := g.Receive(ctx, left)
				require.NoError(t, err)
				left -= len(ms)
				for _, m := range ms {
					n := 0
					_, err := fmt.Sscan(string(m.Value), &n)
					require.NoError(t, err)
					require.False(t, seen[n])
					seen[n] = true
				}
				require.NoError(t, g.Ack(ctx, ms...))
			}
			time.Sleep(time.Second)
			st := stats(t, g)
			require.LessOrEqual(t, st.Loaded, 1024)
			switch s {
			case 60:
				require.Equal(t, int64(60*(in-out)), st.Pending)
			case 300:
				require.Equal(t, int64(300*(in-out)), st.Pending)
				require.InDelta(t, 45*60, st.DrainETA.Seconds(), 60)
			}
			if st.Pending == 0 {
				require.Equal(t, 3000, s) // fifty minutes
				break
			}
		}
		require.NotContains(t, seen, false)
	})
}

// TestCancelledReceivers: what is handed out to who has given up counts as no attempt, and
// nothing of it is lost.
func TestCancelledReceivers(t *testing.T) {
	db := openDB(t, vfs.NewMem())
	q := openQueue(t, db, nil)
	g := group(t, q, "g", &queue.GroupOptions{MaxDeliveries: 1})
	const n = 50
	var work sync.WaitGroup
	for i := range 8 { // they give up at all moments
		work.Go(func() {
			for j := range 100 {
				c, cancel := context.WithTimeout(ctx, time.Duration(i*j)*time.Microsecond)
				ms, err := g.Receive(c, 3)
				cancel()
				if err == nil && g.Ack(ctx, ms...) != nil {
					t.Error("what was handed out is stale")
				}
			}
		})
	}
	for range n {
		enqueue(t, q, "m", nil)
	}
	work.Wait()
	for s := stats(t, g); s.Pending > 0; s = stats(t, g) {
		require.NoError(t, one(t, g).Ack(ctx)) // none is dead: nobody had them
	}
	require.Empty(t, letters(t, g))
}

// TestTransactionOutlivesHandle: what a handle that is closed by now still has under way is
// not committed behind the next one's beginning.
func TestTransactionOutlivesHandle(t *testing.T) {
	db := openDB(t, vfs.NewMem())
	q := openQueue(t, db, nil)
	g := group(t, q, "g", nil)
	enqueue(t, q, "first", nil)
	for _, do := range []func(*queue.Queue[[]byte], *forebay.Tx, *queue.Message[[]byte]) error{
		func(q *queue.Queue[[]byte], tx *forebay.Tx, _ *queue.Message[[]byte]) error {
			return q.EnqueueTx(ctx, tx, []byte("second"), nil)
		},
		func(_ *queue.Queue[[]byte], tx *forebay.Tx, m *queue.Message[[]byte]) error { return m.AckTx(tx) },
	} {
		m, old, calls := one(t, g), q, 0
		require.ErrorIs(t, db.Update(func(tx *forebay.Tx) error {
			if err := do(old, tx, m); err != nil {
				return err
			}
			if calls++; calls == 1 {
				require.NoError(t, q.Close())
				q = openQueue(t, db, nil)
				g = group(t, q, "g", nil)
			}
			return nil
		}), queue.ErrClosed)
		require.Equal(t, 1, calls)
		s := stats(t, g)
		require.Equal(t, int64(1), s.Pending)
		require.Equal(t, int64(1), s.Enqueued)
	}
	require.Equal(t, 3, one(t, g).Attempt)
}
