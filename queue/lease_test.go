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

// A delivery that was noted, and handed to nobody before the queue was closed, was counted
// by the next one: with MaxDeliveries 1 the message was a dead letter that nobody ever had.
func TestNobodyHadIt(t *testing.T) {
	for _, closes := range []bool{true, false} { // or the receiver gives up
		for _, meta := range []*queue.Meta{nil, {Delay: time.Minute}} { // what was delayed is parked
			t.Run(fmt.Sprintf("%v %v", closes, meta != nil), func(t *testing.T) {
				bubble(t, func(t *testing.T) {
					in := vfs.NewInjector(vfs.NewMem())
					db := openDB(t, in)
					q := openQueue(t, db, nil)
					g := group(t, q, "g", &queue.GroupOptions{MaxDeliveries: 1})
					enqueue(t, q, "m", meta)
					time.Sleep(time.Hour)
					synctest.Wait()
					gate := vfs.NewGate()
					defer gate.Release()
					in.Add(vfs.Rule{Call: vfs.CallWrite, Gate: gate})
					c, cancel := context.WithCancel(ctx)
					defer cancel()
					got, closed := make(chan error, 1), make(chan error, 1)
					go func() { _, err := g.Receive(c, 1); got <- err }()
					<-gate.Arrived() // the delivery is being noted
					if closes {
						go func() { closed <- q.Close() }()
						require.ErrorIs(t, <-got, queue.ErrClosed)
					} else {
						cancel()
						require.ErrorIs(t, <-got, context.Canceled)
						gate.Release()
						synctest.Wait()
						closed <- q.Close()
					}
					gate.Release()
					require.NoError(t, <-closed)

					q = openQueue(t, db, nil)
					g = group(t, q, "g", &queue.GroupOptions{MaxDeliveries: 1})
					c, cancel = context.WithTimeout(ctx, time.Second)
					defer cancel()
					ms, err := g.Receive(c, 1)
					require.NoError(t, err)
					require.Equal(t, 1, ms[0].Attempt)
					require.NoError(t, q.Close()) // this one somebody had
					q = openQueue(t, db, nil)
					g = group(t, q, "g", &queue.GroupOptions{MaxDeliveries: 1})
					none(t, g)
					synctest.Wait()
					require.Len(t, letters(t, g), 1)
					require.Equal(t, 1, letters(t, g)[0].Attempts)
				})
			})
		}
	}
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

// TestAckTxOfWhatWasGivenBack: who has given a message back, or up, has nothing to
// acknowledge, also when it is in nobody's hands since.
func TestAckTxOfWhatWasGivenBack(t *testing.T) {
	for name, give := range map[string]func(g *queue.Group[[]byte], m *queue.Message[[]byte]) error{
		"soon": func(_ *queue.Group[[]byte], m *queue.Message[[]byte]) error {
			return m.NackAfter(ctx, time.Second, nil)
		},
		"at once": func(_ *queue.Group[[]byte], m *queue.Message[[]byte]) error { return m.NackAfter(ctx, 0, nil) },
		"parked":  func(_ *queue.Group[[]byte], m *queue.Message[[]byte]) error { return m.NackAfter(ctx, time.Hour, nil) },
		"dead":    func(_ *queue.Group[[]byte], m *queue.Message[[]byte]) error { return m.Kill(ctx, nil) },
		"redriven": func(g *queue.Group[[]byte], m *queue.Message[[]byte]) error {
			if err := m.Kill(ctx, nil); err != nil {
				return err
			}
			return g.Redrive(ctx, m.ID)
		},
	} {
		for _, delay := range []time.Duration{0, time.Minute} { // what was delayed is parked
			t.Run(name+" "+delay.String(), func(t *testing.T) {
				bubble(t, func(t *testing.T) {
					db := openDB(t, vfs.NewMem())
					q := openQueue(t, db, nil)
					g := group(t, q, "g", nil)
					enqueue(t, q, "m", &queue.Meta{Delay: delay})
					time.Sleep(delay)
					m := one(t, g)
					time.Sleep(time.Second) // its place among what is parked is another one then
					require.NoError(t, give(g, m))
					require.ErrorIs(t, db.Update(func(tx *forebay.Tx) error {
						if err := m.AckTx(tx); err != nil {
							return err
						}
						return tx.Put([]byte("effect"), nil)
					}), queue.ErrStaleLease)
					if name == "dead" {
						require.NoError(t, g.Redrive(ctx, m.ID))
					}
					require.Equal(t, int64(1), stats(t, g).Pending)
					time.Sleep(2 * time.Hour)
					require.NoError(t, db.Update(one(t, g).AckTx))
					require.Equal(t, int64(1), stats(t, g).Done)
					ks, err := db.Keyspace("queue/q")
					require.NoError(t, err)
					for _, kind := range []string{"p", "b", "w"} {
						for e := range ks.Prefix([]byte(kind)) {
							t.Errorf("%q is left", e.Key)
						}
					}
				})
			})
		}
	}
}

// TestCloseWaitsForCommits: also for those whose callers had no patience.
func TestCloseWaitsForCommits(t *testing.T) {
	for name, do := range map[string]func(ctx context.Context, q *queue.Queue[[]byte], m *queue.Message[[]byte]) error{
		"enqueue": func(ctx context.Context, q *queue.Queue[[]byte], _ *queue.Message[[]byte]) error {
			_, err := q.Enqueue(ctx, nil, nil)
			return err
		},
		"enqueue once": func(ctx context.Context, q *queue.Queue[[]byte], _ *queue.Message[[]byte]) error {
			_, err := q.Enqueue(ctx, nil, &queue.Meta{DedupeID: "d"})
			return err
		},
		"ack": func(ctx context.Context, _ *queue.Queue[[]byte], m *queue.Message[[]byte]) error { return m.Ack(ctx) },
		"kill": func(ctx context.Context, _ *queue.Queue[[]byte], m *queue.Message[[]byte]) error {
			return m.Kill(ctx, nil)
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				in := vfs.NewInjector(vfs.NewMem())
				db := openDB(t, in)
				q := openQueue(t, db, nil)
				g := group(t, q, "g", nil)
				enqueue(t, q, "m", nil)
				m := one(t, g)
				gate := vfs.NewGate()
				defer gate.Release()
				in.Add(vfs.Rule{Call: vfs.CallSyncData, Gate: gate, Forever: true})
				in.Add(vfs.Rule{Call: vfs.CallSync, Gate: gate, Forever: true})
				c, cancel := context.WithCancel(ctx)
				go func() { <-gate.Arrived(); cancel() }()
				require.ErrorIs(t, do(c, q, m), context.Canceled)
				closed := make(chan error, 1)
				go func() { closed <- q.Close() }()
				synctest.Wait()
				require.Empty(t, closed, "a commit is under way")
				gate.Release()
				require.NoError(t, <-closed)
			})
		})
	}
}

// TestSecondClose returns when the queue is closed, like the first.
func TestSecondClose(t *testing.T) {
	bubble(t, func(t *testing.T) {
		in := vfs.NewInjector(vfs.NewMem())
		db := openDB(t, in)
		q := openQueue(t, db, nil)
		g := group(t, q, "g", nil)
		enqueue(t, q, "m", nil)
		require.NoError(t, one(t, g).Ack(ctx)) // the mark is stored by Close
		gate := vfs.NewGate()
		defer gate.Release()
		in.Add(vfs.Rule{Call: vfs.CallWrite, Gate: gate, Forever: true})
		closed := make(chan error, 2)
		for range 2 {
			go func() { closed <- q.Close() }()
			synctest.Wait()
		}
		require.Empty(t, closed)
		gate.Release()
		require.NoError(t, <-closed)
		require.NoError(t, <-closed)
	})
}

// TestAckTxIsTold: the event of an AckTx comes also when the scheduler sees it first.
func TestAckTxIsTold(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var acked atomic.Int64
		db := openDB(t, vfs.NewMem())
		q := openQueue(t, db, &queue.Options{Hooks: queue.Hooks{Event: func(e queue.Event) {
			if e.Kind == queue.EventAcked {
				acked.Add(1)
			}
		}}})
		g := group(t, q, "g", &queue.GroupOptions{Lease: time.Second})
		enqueue(t, q, "m", nil)
		m := one(t, g)
		time.Sleep(time.Minute)
		seen := make(chan struct{})
		ended := make(chan error)
		go func() {
			ended <- db.Update(func(tx *forebay.Tx) error {
				tx.OnDone(func(forebay.Outcome) { <-seen })
				return m.AckTx(tx)
			})
		}()
		synctest.Wait()
		c, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		_, err := g.Receive(c, 1)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, int64(1), stats(t, g).Done)
		close(seen)
		require.NoError(t, <-ended)
		require.Equal(t, int64(1), acked.Load())
	})
}
