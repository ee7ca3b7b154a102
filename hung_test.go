package forebay

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/vfs"
)

// TestHungSyncOfAStore hangs the first sync of the log for an hour, by a clock of
// its own: nobody is told that a commit is durable, who submits without waiting is
// stopped before the memory is full, reads go on, the store tells that its disk is
// slow, and Shutdown returns at its deadline.
func TestHungSyncOfAStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := vfs.NewInjector(vfs.NewMem())
		var mu sync.Mutex
		var slow []Event
		db := open(t, &Options{FS: in, MarkDelay: -1, SlowSync: 3 * time.Second, OnEvent: func(e Event) {
			mu.Lock()
			defer mu.Unlock()
			if e.Kind == EventSlowSync {
				slow = append(slow, e)
			}
		}})
		told := func() []Event {
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			return slices.Clone(slow)
		}
		require.NoError(t, db.Put([]byte("before"), []byte("v")))
		durable := db.DurableLSN()
		gate := vfs.NewGate()
		in.Add(vfs.Rule{Call: vfs.CallSyncData, Name: "*.log", Gate: gate})

		var acked, taken atomic.Int64
		var writers sync.WaitGroup
		wrote := func(err error) {
			acked.Add(1)
			if err != nil && !errors.Is(err, ErrClosed) {
				t.Error(err)
			}
		}
		for w := range 8 {
			writers.Go(func() { wrote(db.Put(fmt.Appendf(nil, "writer %d", w), nil)) })
		}
		synctest.Wait() // before them there would be nothing to sync
		writers.Go(func() { wrote(db.Sync(context.Background())) })
		value := make([]byte, 1<<20)
		writers.Go(func() {
			for i := range 256 {
				b := db.NewBatch()
				require.NoError(t, b.Put(fmt.Appendf(nil, "submit %d", i), value))
				if _, err := db.Submit(b, Durable); err != nil {
					if !errors.Is(err, ErrClosed) {
						t.Error(err)
					}
					return
				}
				taken.Add(1)
			}
		})
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		err := db.UpdateLevel(ctx, Durable, func(tx *Tx) error { return tx.Put([]byte("tx"), nil) })
		require.ErrorIs(t, err, context.DeadlineExceeded)

		time.Sleep(time.Hour)
		require.Zero(t, acked.Load(), "an acknowledgement while the sync hangs")
		require.Equal(t, durable, db.DurableLSN())
		require.Less(t, taken.Load(), int64(64), "MiB in the queue")
		require.Equal(t, []Event{{Kind: EventSlowSync, Duration: 3 * time.Second}}, told(), "once")
		v, err := db.Get([]byte("before"))
		require.NoError(t, err)
		require.Equal(t, "v", string(v))
		_, err = db.Get([]byte("writer 0"))
		require.ErrorIs(t, err, ErrNotFound)

		start := time.Now()
		ctx, cancel = context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		require.ErrorIs(t, db.Shutdown(ctx), context.DeadlineExceeded)
		require.Equal(t, 5*time.Second, time.Since(start))
		require.ErrorIs(t, db.Close(), ErrClosed)

		gate.Release()
		writers.Wait()
		time.Sleep(time.Minute)
		require.Len(t, told(), 2)
		require.True(t, told()[1].Done)
		db = open(t, &Options{FS: in, MarkDelay: -1})
		require.GreaterOrEqual(t, len(contents(t, db)), 9)
		require.NoError(t, db.Close())
	})
}
