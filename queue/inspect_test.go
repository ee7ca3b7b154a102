package queue_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/queue"
	"github.com/forebaydb/forebay/vfs"
)

func inspect(t *testing.T, db *forebay.DB) *queue.Inspector {
	t.Helper()
	v, err := queue.Inspect(db, "q")
	require.NoError(t, err)
	return v
}

// peeked is what Peek shows, a line for each.
func peeked(t *testing.T, v *queue.Inspector, group string) (out []string) {
	t.Helper()
	for m, err := range v.Peek(ctx, group) {
		require.NoError(t, err)
		s := fmt.Sprintf("%v %s", m.ID, m.Payload)
		if m.Key != "" {
			s += " key " + m.Key
		}
		if m.InFlight {
			s += " in flight"
		}
		if m.Attempts > 0 {
			s += fmt.Sprintf(" attempts %d %q", m.Attempts, m.Reason)
		}
		if !m.Due.IsZero() {
			s += fmt.Sprintf(" due in %v", time.Until(m.Due))
		}
		out = append(out, s)
	}
	return out
}

func inspected(t *testing.T, v *queue.Inspector, group string) queue.Stats {
	t.Helper()
	s, err := v.Stats(ctx, group)
	require.NoError(t, err)
	require.Equal(t, s.Enqueued, s.Done+s.Dead+s.Pending)
	return s
}

// TestInspect looks at a queue with messages in all states, while it is open, closed and
// opened again: it shows what there is, and changes nothing.
func TestInspect(t *testing.T) {
	bubble(t, func(t *testing.T) {
		db := openDB(t, vfs.NewMem())
		names, err := queue.Names(db)
		require.NoError(t, err)
		require.Empty(t, names)
		_, err = queue.Inspect(db, "q")
		require.ErrorIs(t, err, forebay.ErrNotFound)
		q := openQueue(t, db, &queue.Options{Priorities: 3, MaxBytes: 1 << 40})
		enqueue(t, q, "plain", nil)
		enqueue(t, q, "keyed", &queue.Meta{Key: "k", DedupeID: "d", Headers: map[string]string{"h": "v"}})
		enqueue(t, q, "urgent", &queue.Meta{Priority: 2})
		enqueue(t, q, "later", &queue.Meta{Delay: time.Hour})
		enqueue(t, q, "soon", &queue.Meta{Delay: time.Minute, Priority: 1})
		require.NoError(t, db.Put([]byte("x"), nil))

		// Before there is a group.
		time.Sleep(time.Second)
		v := inspect(t, db)
		require.Empty(t, v.Groups())
		want := []string{"2-0 urgent", "0-0 plain", "0-1 keyed key k", "10-0 later due in 59m59s", "10-1 soon due in 59s"}
		require.Equal(t, want, peeked(t, v, ""))
		s := inspected(t, v, "")
		require.Positive(t, s.Bytes)
		s.Bytes = 0
		require.Equal(t, queue.Stats{Enqueued: 5, Pending: 5, Delayed: 2, OldestAge: time.Second, DrainETA: -1}, s)

		// One in flight, one to be tried again, one dead, and none done by the other group.
		g := group(t, q, "g", nil)
		group(t, q, "other", &queue.GroupOptions{Latest: true})
		ms, err := g.Receive(ctx, 3)
		require.NoError(t, err)
		require.Len(t, ms, 3)
		require.NoError(t, ms[0].Kill(ctx, errors.New("no such thing"))) // urgent
		require.NoError(t, ms[1].NackAfter(ctx, 30*time.Second, errors.New("it is down")))
		time.Sleep(time.Second)
		enqueue(t, q, "new", nil)
		want = []string{
			`0-1 keyed key k in flight attempts 1 ""`, "0-2 new",
			`0-0 plain attempts 1 "it is down" due in 29s`, "10-1 soon due in 58s", "10-0 later due in 59m58s",
		}
		look := func() {
			t.Helper()
			synctest.Wait() // what is behind the commits is done, too
			v := inspect(t, db)
			require.Equal(t, []string{"g", "other"}, v.Groups())
			require.Equal(t, want, peeked(t, v, "g"))
			require.Equal(t, []string{"0-2 new"}, peeked(t, v, "other"))
			s := inspected(t, v, "g")
			require.Positive(t, s.Bytes)
			s.Bytes = 0
			require.Equal(t, queue.Stats{Enqueued: 6, Dead: 1, Pending: 5, InFlight: 1, Delayed: 3, OldestAge: 2 * time.Second, DrainETA: -1}, s)
			require.Equal(t, int64(1), inspected(t, v, "other").Pending)
			var dead []queue.DeadLetter
			for d, err := range v.DeadLetters("g") {
				require.NoError(t, err)
				dead = append(dead, d)
			}
			require.Len(t, dead, 1)
			require.Equal(t, "no such thing", dead[0].Reason)
			require.Equal(t, "urgent", string(dead[0].Payload))
		}
		look()
		names, err = queue.Names(db)
		require.NoError(t, err)
		require.Equal(t, []string{"q"}, names)
		require.NoError(t, q.Close())
		before := db.LastLSN()
		look()
		require.Equal(t, before, db.LastLSN())
		v = inspect(t, db)
		for range v.Peek(ctx, "g") {
			break
		}
		for m, err := range v.Peek(ctx, "g") {
			require.NoError(t, err)
			require.Equal(t, map[string]string{"h": "v"}, m.Headers)
			require.Equal(t, "d", m.DedupeID)
			break
		}

		// What nobody has: groups, and time.
		_, err = v.Stats(ctx, "nobody")
		require.ErrorIs(t, err, forebay.ErrNotFound)
		for _, err := range v.Peek(ctx, "nobody") {
			require.ErrorIs(t, err, forebay.ErrNotFound)
		}
		for _, err := range v.DeadLetters("nobody") {
			require.ErrorIs(t, err, forebay.ErrNotFound)
		}
		gone, cancel := context.WithCancel(ctx)
		cancel()
		for _, err := range v.Peek(gone, "g") {
			require.ErrorIs(t, err, context.Canceled)
		}

		// Who opens it goes on where it was, and an old Inspector does not mind.
		q = openQueue(t, db, &queue.Options{Priorities: 3})
		g = group(t, q, "g", nil)
		m := one(t, g)
		require.Equal(t, "keyed", string(m.Value))
		require.NoError(t, m.Ack(ctx))
		require.NoError(t, one(t, g).Ack(ctx))
		require.NoError(t, q.DropGroup("other"))
		time.Sleep(5 * time.Second) // it is trimmed
		require.Equal(t, []string{want[2][:len(want[2])-3] + "24s", "10-1 soon due in 53s", "10-0 later due in 59m53s"}, peeked(t, v, "g"))
	})
}

// TestPeekBehind: what is settled after the Inspect is not shown, although its state is
// gone and the message still there for another group.
func TestPeekBehind(t *testing.T) {
	bubble(t, func(t *testing.T) {
		db := openDB(t, vfs.NewMem())
		q := openQueue(t, db, nil)
		g := group(t, q, "g", nil)
		group(t, q, "other", nil)
		for range 10 {
			enqueue(t, q, "m", nil)
		}
		v := inspect(t, db)
		require.Len(t, peeked(t, v, "g"), 10)
		ms, err := g.Receive(ctx, 7)
		require.NoError(t, err)
		require.NoError(t, g.Ack(ctx, ms...))
		time.Sleep(5 * time.Second)
		require.Len(t, peeked(t, v, "g"), 3)
		require.Len(t, peeked(t, v, "other"), 10)
	})
}

func TestParseID(t *testing.T) {
	for _, s := range []string{"0-0", "10-18446744073709551615", "3-17"} {
		id, err := queue.ParseID(s)
		require.NoError(t, err)
		require.Equal(t, s, id.String())
	}
	for _, s := range []string{"", "-", "0", "0-", "11-0", "256-0", "01-0", "0--1", "0-1-2", "0-18446744073709551616", "a-1", "+1-2"} {
		_, err := queue.ParseID(s)
		require.Error(t, err, s)
	}
}
