package queue_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/queue"
	"github.com/forebaydb/forebay/vfs"
)

// calls counts what the disk was asked for.
func calls(in *vfs.Injector) (n int) {
	for _, c := range []vfs.Call{vfs.CallRead, vfs.CallWrite, vfs.CallSync, vfs.CallSyncData} {
		n += in.Count(c)
	}
	return n
}

// TestSlowGroupCostsOthersNothing: a group with thousands before it, which has taken some
// and hangs, is beside one that follows. That one needs no more calls of the disk, and no
// more time on the clock of a bubble, than without the other.
func TestSlowGroupCostsOthersNothing(t *testing.T) {
	cost := map[bool]int{}
	for _, beside := range []bool{false, true} {
		bubble(t, func(t *testing.T) {
			in := vfs.NewInjector(vfs.NewMem())
			db, err := forebay.Open("data", &forebay.Options{FS: in, MarkDelay: -1})
			require.NoError(t, err)
			defer db.Close()
			q := openQueue(t, db, nil)
			g := group(t, q, "follows", nil)
			if beside {
				slow := group(t, q, "slow", &queue.GroupOptions{Lease: time.Hour})
				_, err := q.EnqueueBatch(ctx, make([]queue.Item[[]byte], 5000))
				require.NoError(t, err)
				_, err = slow.Receive(ctx, 100)
				require.NoError(t, err)
				for left := 5000; left > 0; {
					ms, err := g.Receive(ctx, left)
					require.NoError(t, err)
					require.NoError(t, g.Ack(ctx, ms...))
					left -= len(ms)
				}
			} else {
				enqueue(t, q, "", nil)
				require.NoError(t, one(t, g).Ack(ctx))
			}
			before, start := calls(in), time.Now()
			for range 500 {
				enqueue(t, q, "x", nil)
				require.NoError(t, one(t, g).Ack(ctx))
			}
			require.Zero(t, time.Since(start))
			cost[beside] = calls(in) - before
			require.NoError(t, q.Close())
		})
	}
	t.Log(cost)
	require.LessOrEqual(t, cost[true], cost[false]*105/100)
}

// TestStatsCostTheSame: however much is pending, figures cost the same calls of the disk.
func TestStatsCostTheSame(t *testing.T) {
	bubble(t, func(t *testing.T) {
		in := vfs.NewInjector(vfs.NewMem())
		db, err := forebay.Open("data", &forebay.Options{FS: in, MarkDelay: -1})
		require.NoError(t, err)
		defer db.Close()
		q := openQueue(t, db, nil)
		g := group(t, q, "g", nil)
		cost := func() int {
			before := calls(in)
			stats(t, g)
			return calls(in) - before
		}
		enqueue(t, q, "", nil)
		few := cost()
		for range 10 {
			_, err := q.EnqueueBatch(ctx, make([]queue.Item[[]byte], 2000))
			require.NoError(t, err)
		}
		require.Equal(t, int64(20_001), stats(t, g).Pending)
		require.LessOrEqual(t, cost(), few)
		require.NoError(t, q.Close())
	})
}
