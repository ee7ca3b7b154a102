package queue_test

import (
	"context"
	"errors"
	"fmt"
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

// TestRedriveAgainstPurge: many that redrive, purge and kill at once: each dead letter goes
// one way.
func TestRedriveAgainstPurge(t *testing.T) {
	db := openDB(t, vfs.NewMem())
	q := openQueue(t, db, nil)
	g := group(t, q, "g", nil)
	const n = 100
	for range n {
		enqueue(t, q, "m", nil)
	}
	for left := n; left > 0; {
		ms, err := g.Receive(ctx, left)
		require.NoError(t, err)
		for _, m := range ms {
			require.NoError(t, m.Kill(ctx, queue.ErrPermanent))
		}
		left -= len(ms)
	}
	var redriven, purged atomic.Int64
	var work sync.WaitGroup
	for i := range 6 {
		work.Go(func() {
			do, sum := g.RedriveAll, &redriven
			if i%2 == 0 {
				do, sum = g.PurgeAll, &purged
			}
			done, err := do(ctx)
			if err != nil {
				t.Error(err)
			}
			sum.Add(int64(done))
		})
	}
	work.Wait()
	require.Equal(t, int64(n), redriven.Load()+purged.Load())
	for range 2 {
		s := stats(t, g)
		require.Equal(t, redriven.Load(), s.Pending)
		require.Equal(t, purged.Load(), s.Done)
		require.NoError(t, q.Close())
		q = openQueue(t, db, nil)
		g = group(t, q, "g", nil)
	}
	for range redriven.Load() {
		require.NoError(t, one(t, g).Ack(ctx))
	}
	require.Zero(t, stats(t, g).Pending)
}

// TestRedriveByDroppedGroup: a handle of a group that was dropped has no part in the one
// that was made since with its name.
func TestRedriveByDroppedGroup(t *testing.T) {
	db := openDB(t, vfs.NewMem())
	q := openQueue(t, db, nil)
	enqueue(t, q, "m", nil)
	old := group(t, q, "g", nil)
	require.NoError(t, q.DropGroup("g"))
	g := group(t, q, "g", nil)
	m := one(t, g)
	require.NoError(t, m.Kill(ctx, nil))
	require.ErrorIs(t, old.Redrive(ctx, m.ID), queue.ErrClosed)
	require.ErrorIs(t, old.Purge(ctx, m.ID), queue.ErrClosed)
	for _, all := range []func(context.Context) (int, error){old.RedriveAll, old.PurgeAll} {
		_, err := all(ctx)
		require.ErrorIs(t, err, queue.ErrClosed)
	}
	require.Equal(t, int64(1), stats(t, g).Dead)
	require.NoError(t, g.Redrive(ctx, m.ID))
	require.NoError(t, one(t, g).Ack(ctx))
}

// TestRedriveAtOnce: a dead letter is redriven, and looked for by the scheduler, before who
// killed it has told memory that it is dead.
func TestRedriveAtOnce(t *testing.T) {
	for _, late := range []bool{false, true} {
		bubble(t, func(t *testing.T) {
			db := openDB(t, vfs.NewMem())
			ks, err := db.Keyspace("queue/q")
			require.NoError(t, err)
			var between atomic.Pointer[func()] // behind the commit of a dead letter
			q := openQueue(t, db, &queue.Options{Now: func() time.Time {
				if do := between.Load(); do != nil {
					for range ks.Prefix([]byte("x")) {
						if between.CompareAndSwap(do, nil) {
							(*do)()
						}
					}
				}
				return time.Now()
			}})
			g := group(t, q, "g", nil)
			enqueue(t, q, "m", nil)
			m := one(t, g)
			redrive := func() {
				if err := g.Redrive(ctx, m.ID); err != nil {
					t.Error(err)
				}
				if !late {
					synctest.Wait() // the scheduler has looked
				}
			}
			between.Store(&redrive)
			require.NoError(t, m.Kill(ctx, nil))
			c, cancel := context.WithTimeout(ctx, time.Hour)
			defer cancel()
			ms, err := g.Receive(c, 1)
			require.NoError(t, err)
			require.NoError(t, ms[0].Ack(ctx))
			require.Zero(t, stats(t, g).Pending)
		})
	}
}
