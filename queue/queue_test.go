package queue_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/queue"
	"github.com/forebaydb/forebay/vfs"
)

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
		synctest.Wait() // g has had them all
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
