package forebay

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/vfs"
)

// TestRecyclingBesideCheckpoints explores schedules: each call of the disk in turn,
// whoever makes it, is held while everybody else goes on as far as he can. One
// writer fills log files, two goroutines checkpoint, so that files are let go and
// used again under their hands. While the call is held the process is killed and
// the power is cut; then it is let go, and at the end there are crashes once more.
// A file that is used again too early, by whoever decides on an old state, loses
// what it held.
func TestRecyclingBesideCheckpoints(t *testing.T) {
	step := 1
	if testing.Short() {
		step = 7
	}
	schedules, states := 0, 0
	for _, call := range []vfs.Call{vfs.CallCreate, vfs.CallRename, vfs.CallRemove, vfs.CallZero, vfs.CallWrite, vfs.CallSync, vfs.CallSyncData, vfs.CallSyncDir} {
		for k := 1; ; k += step {
			n, hit := heldCall(t, vfs.Rule{Call: call, K: k})
			states += n
			if !hit {
				break
			}
			schedules++
		}
	}
	t.Logf("%d schedules, %d crash states", schedules, states)
	require.Greater(t, schedules, 20)
}

// heldCall plays one schedule; hit says whether the call was made.
func heldCall(t *testing.T, rule vfs.Rule) (states int, hit bool) {
	const writes, size = 60, 1200
	mem := vfs.NewMem()
	in := vfs.NewInjector(mem)
	o := small(in)
	o.MemtableSize = 16 << 10
	db := open(t, o)
	gate := vfs.NewGate()
	rule.Gate = gate
	armed := in.Add(rule)
	key := func(i int) []byte { return fmt.Appendf(nil, "key %d", i%7) }
	value := func(i int) []byte { return fmt.Appendf(nil, "%0*d", size, i) }
	var begun, acked atomic.Int64 // writes
	done := make(chan struct{})
	var all sync.WaitGroup
	all.Go(func() {
		defer close(done)
		for i := 1; i <= writes; i++ {
			begun.Store(int64(i))
			if err := db.Put(key(i), value(i)); err != nil {
				t.Error(err)
				return
			}
			acked.Store(int64(i))
		}
	})
	for range 2 {
		all.Go(func() {
			for {
				if err := db.Checkpoint(context.Background()); err != nil {
					t.Error(err)
					return
				}
				select {
				case <-done:
					return
				case <-time.After(100 * time.Microsecond):
				}
			}
		})
	}
	// check opens a disk that holds the first n writes, for an n from lo to hi.
	check := func(disk *vfs.Mem, lo, hi int64) {
		states++
		db, err := Open("db", small(disk))
		require.NoError(t, err, "%s %d", rule.Call, rule.K)
		got := contents(t, db)
		n := int(db.LastLSN())
		require.True(t, int64(n) >= lo && int64(n) <= hi, "%s %d: %d commits, %d to %d are legal", rule.Call, rule.K, n, lo, hi)
		want := map[string]string{}
		for i := 1; i <= n; i++ {
			want[string(key(i))] = string(value(i))
		}
		require.Equal(t, want, got, "%s %d", rule.Call, rule.K)
		require.NoError(t, db.Put([]byte("k"), bytes.Repeat([]byte("v"), size)))
		require.NoError(t, db.Close())
	}
	crash := func() {
		lo := acked.Load()
		snap := mem.Snapshot()
		hi := begun.Load()
		check(snap.Snapshot(), lo, hi)
		check(snap.PowerCut(func(int, vfs.Unit) vfs.Fate { return vfs.Lost }), lo, hi)
		check(snap.PowerCutSeed(uint64(rule.K), vfs.SectorAtomic), lo, hi)
	}
	finished := make(chan struct{})
	go func() { all.Wait(); close(finished) }()
	select {
	case <-gate.Arrived():
		// Until the others have come to where they wait for whoever is held.
		for last := int64(-1); last != acked.Load(); {
			last = acked.Load()
			time.Sleep(500 * time.Microsecond)
		}
		crash()
	case <-finished:
	}
	gate.Release()
	<-finished
	crash()
	require.NoError(t, db.Close())
	check(mem.PowerCut(func(int, vfs.Unit) vfs.Fate { return vfs.Lost }), writes, writes)
	return states, armed.Hits() > 0
}
