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

// TestMemoryBehindOneThatStays: what was settled behind a message that is not is not kept.
func TestMemoryBehindOneThatStays(t *testing.T) {
	bubble(t, func(t *testing.T) {
		db := openDB(t, vfs.NewMem())
		q := openQueue(t, db, nil)
		g := group(t, q, "g", &queue.GroupOptions{Window: 16, WindowBytes: 64 << 10})
		for _, size := range []int{1, 10_000} {
			stays := enqueue(t, q, "m", nil)
			items := make([]queue.Item[[]byte], 100)
			for i := range items {
				items[i].Value = make([]byte, size)
			}
			m := one(t, g)
			require.Equal(t, stays, m.ID)
			for range 5 {
				_, err := q.EnqueueBatch(ctx, items)
				require.NoError(t, err)
				for range items {
					require.NoError(t, one(t, g).Ack(ctx))
					n, bytes := queue.Kept(g, 0)
					require.LessOrEqual(t, n, 2*16+64+16)
					require.LessOrEqual(t, bytes, int64(3*64<<10))
				}
			}
			require.NoError(t, m.Ack(ctx))
		}
	})
}

// TestBytesOfEarlyReceivers: a message that is done before Enqueue has heard of its commit
// leaves no bytes behind it that would keep others out.
func TestBytesOfEarlyReceivers(t *testing.T) {
	for _, more := range []bool{false, true} { // there is always one under way
		bubble(t, func(t *testing.T) {
			db := openDB(t, vfs.NewMem())
			q := openQueue(t, db, &queue.Options{MaxBytes: 1000})
			g := group(t, q, "g", nil)
			heard, ended := make(chan struct{}), make(chan error)
			put := func(size int) {
				ended <- db.Update(func(tx *forebay.Tx) error {
					tx.OnDone(func(forebay.Outcome) { <-heard })
					return q.EnqueueTx(ctx, tx, make([]byte, size), nil)
				})
			}
			go put(600)
			synctest.Wait()
			require.NoError(t, one(t, g).Ack(ctx))
			heard <- struct{}{}
			if more {
				go put(10)
				synctest.Wait()
			}
			require.NoError(t, <-ended)
			require.Less(t, stats(t, g).Bytes, int64(60))
			enqueue(t, q, string(make([]byte, 600)), nil)
			close(heard)
			if more {
				require.NoError(t, <-ended)
			}
		})
	}
}
