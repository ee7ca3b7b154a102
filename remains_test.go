package forebay_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/check"
	"github.com/forebaydb/forebay/vfs"
)

// logBytes is what the log files of a store have on disk.
func logBytes(t *testing.T, fs vfs.FS) (n int64) {
	t.Helper()
	names, err := fs.List("data")
	require.NoError(t, err)
	for _, name := range names {
		if len(name) > 4 && name[len(name)-4:] == ".log" {
			info, err := fs.Stat("data/" + name)
			if errors.Is(err, os.ErrNotExist) { // it went meanwhile
				continue
			}
			require.NoError(t, err)
			n += info.Size
		}
	}
	return n
}

// TestRemainsAreSettled: a few items of a sequence that nobody trims do not keep the log
// files of one that is trimmed all the time, and are read as before: from the beginning,
// from the middle, by commit, by who follows, by Verify, from a backup, after opens, and
// when what is left of them is trimmed.
func TestRemainsAreSettled(t *testing.T) {
	ctx := context.Background()
	mem := vfs.NewMem()
	opts := &forebay.Options{FS: mem, LogFileSize: 64 << 10, MemtableSize: 32 << 10, MarkDelay: -1, SettleShare: .25}
	open := func() *forebay.DB {
		db, err := forebay.Open("data", opts)
		require.NoError(t, err)
		return db
	}
	db := open()
	slow, err := db.Sequence("slow")
	require.NoError(t, err)
	fast, err := db.Sequence("fast")
	require.NoError(t, err)
	follow, cancel := context.WithCancel(ctx)
	defer cancel()
	var followed []string
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() {
		for it, err := range slow.Follow(follow, 0) {
			if err != nil {
				return
			}
			time.Sleep(time.Millisecond) // so that it comes behind
			followed = append(followed, string(it.Value))
		}
	})
	var want []string
	var lsns []uint64
	ba := db.NewBatch()
	for i := range 3000 {
		ba.Reset()
		require.NoError(t, ba.Append(fast, make([]byte, 400)))
		if i%60 == 0 {
			for j := range 1 + i/60%3 {
				want = append(want, fmt.Sprintf("item %d.%d", i, j))
				require.NoError(t, ba.Append(slow, []byte(want[len(want)-1])))
			}
		}
		before := db.LastLSN()
		require.NoError(t, db.Apply(ba, forebay.Durable))
		if i%60 == 0 {
			for it, err := range slow.Read(ctx, uint64(len(lsns))) { // the last LSN may be that of what settles
				require.NoError(t, err)
				require.Greater(t, it.LSN, before)
				require.LessOrEqual(t, it.LSN, db.LastLSN())
				lsns = append(lsns, it.LSN)
			}
			require.Len(t, lsns, len(want))
		}
		if i%50 == 49 {
			require.NoError(t, fast.Trim(fast.Next()-20))
		}
	}
	require.NoError(t, db.Checkpoint(ctx))
	require.NoError(t, fast.Trim(fast.Next()-1))
	require.Eventually(t, func() bool { return logBytes(t, mem) < 6*64<<10 }, time.Minute, time.Millisecond, "of %d", logBytes(t, mem))

	check1 := func(db *forebay.DB, first int) {
		t.Helper()
		s, err := db.Sequence("slow")
		require.NoError(t, err)
		for from := first; from <= len(want); from += 7 {
			require.Equal(t, append([]string{}, want[from:]...), append([]string{}, items(t, s, uint64(from))...))
		}
		for i := first; i < len(want); i++ {
			found := false
			for it, err := range s.Commit(ctx, lsns[i]) {
				require.NoError(t, err)
				found = found || it.Offset == uint64(i) && string(it.Value) == want[i] && it.LSN == lsns[i]
			}
			require.True(t, found, "item %d of commit %d", i, lsns[i])
		}
		n := uint64(first)
		for a, err := range s.Appends(uint64(first)) {
			require.NoError(t, err)
			require.Equal(t, lsns[n], a.LSN)
			n += a.Items
		}
		require.Equal(t, uint64(len(want)), n)
		v, err := db.Verify(ctx)
		require.NoError(t, err)
		require.GreaterOrEqual(t, v.Items, uint64(len(want)-first))
		lo, next, err := s.Bounds()
		require.NoError(t, err)
		require.Equal(t, []uint64{uint64(first), uint64(len(want))}, []uint64{lo, next})
	}
	check1(db, 0)
	require.Eventually(t, func() bool {
		n := 0
		for _, err := range slow.Appends(0) {
			require.NoError(t, err)
			n++
		}
		return n > 0
	}, time.Minute, time.Millisecond)

	_, err = db.Backup(ctx, "copy")
	require.NoError(t, err)
	copied, err := forebay.Open("copy", opts)
	require.NoError(t, err)
	check1(copied, 0)
	require.NoError(t, copied.Close())

	// Nobody who follows changes is told of what was settled as of something that was done.
	cancel()
	wg.Wait()
	require.Equal(t, want[:len(followed)], followed)
	for range 2 {
		require.NoError(t, db.Close())
		db = open()
		check1(db, 0)
		require.NoError(t, db.Compact(ctx))
	}
	require.NoError(t, db.Close())
	rep, err := check.Verify(ctx, &check.Config{FS: mem, Dir: "data"})
	require.NoError(t, err)
	require.NoError(t, rep.Err())
	out, err := check.Salvage(ctx, &check.Config{FS: mem, Dir: "data"}, "saved")
	require.NoError(t, err)
	require.Zero(t, out.LostItems)
	saved, err := forebay.Open("saved", opts)
	require.NoError(t, err)
	s, err := saved.Sequence("slow")
	require.NoError(t, err)
	require.Equal(t, want, items(t, s, 0))
	require.NoError(t, saved.Close())

	db = open()
	slow, err = db.Sequence("slow")
	require.NoError(t, err)
	require.NoError(t, slow.Trim(31))
	first, _, err := slow.Bounds()
	require.NoError(t, err)
	check1(db, int(first))
	require.NoError(t, slow.Trim(^uint64(0)))
	require.Empty(t, items(t, slow, uint64(len(want))))
	require.NoError(t, db.DropSequence("slow"))
	require.NoError(t, db.Close())
}

// TestRemainsBesideAll: settling beside appends, trims, reads, backups, drops and power
// cuts: what was acknowledged and not trimmed is there.
func TestRemainsBesideAll(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rounds, most := 12, uint64(20)
	if testing.Short() {
		rounds, most = 1, 6
	}
	for round := range rounds {
		rng := rand.New(rand.NewPCG(seed, uint64(round)))
		mem := vfs.NewMem()
		type state struct {
			first, next uint64
		}
		var mu sync.Mutex // guards states
		var states [3]state
		for life := range 4 {
			opts := &forebay.Options{FS: mem, LogFileSize: 16 << 10, MemtableSize: 8 << 10, MarkDelay: -1, SettleShare: 1}
			db, err := forebay.Open("data", opts)
			require.NoError(t, err)
			var wg sync.WaitGroup
			for i := range states {
				st, seed := &states[i], rng.Uint64()
				wg.Go(func() {
					rng := rand.New(rand.NewPCG(seed, 2))
					s, err := db.Sequence(fmt.Sprintf("s%d", i))
					if !fine(t, err) {
						return
					}
					lo, next, err := s.Bounds()
					if !fine(t, err) {
						return
					}
					if lo > st.first || next < st.next {
						t.Errorf("round %d, life %d: bounds are %d and %d, were %d and %d", round, life, lo, next, st.first, st.next)
						return
					}
					acked := func(first, next uint64) {
						mu.Lock()
						defer mu.Unlock()
						st.first, st.next = first, next
					}
					acked(lo, next)
					for range 60 {
						b := db.NewBatch()
						n := 1 + rng.IntN(3)
						for j := range n {
							v := fmt.Appendf(nil, "%d/%d/%0*d", i, st.next+uint64(j), rng.IntN(400), 0)
							if !fine(t, b.Append(s, v)) {
								return
							}
						}
						if !fine(t, db.Apply(b, forebay.Durable)) {
							return
						}
						acked(st.first, st.next+uint64(n))
						if rng.IntN(6) == 0 {
							// The others keep a few old ones for long.
							to := st.first + rng.Uint64N(st.next-st.first+1)/uint64(1+4*i)
							if !fine(t, s.Trim(to)) {
								return
							}
							if lo, _, err := s.Bounds(); fine(t, err) {
								acked(lo, st.next)
							}
						}
						if rng.IntN(4) == 0 {
							from := st.first + rng.Uint64N(st.next-st.first+1)
							at := from
							for it, err := range s.Read(context.Background(), from) {
								if !fine(t, err) {
									return
								}
								if want := fmt.Sprintf("%d/%d/", i, at); it.Offset != at || string(it.Value[:len(want)]) != want {
									t.Errorf("item %d is %d, %.20q", at, it.Offset, it.Value)
									return
								}
								at++
							}
							if at != st.next {
								t.Errorf("round %d: read to %d of %d", round, at, st.next)
							}
						}
					}
				})
			}
			copies := rng.Uint64()
			wg.Go(func() {
				for n := range 3 {
					fine(t, db.Checkpoint(context.Background()))
					_, err := db.Verify(context.Background())
					fine(t, err)
					dir := fmt.Sprintf("copy%d.%d.%d", life, n, copies)
					if _, err := db.Backup(context.Background(), dir); fine(t, err) {
						rep, err := check.Verify(context.Background(), &check.Config{FS: mem, Dir: dir})
						if fine(t, err) {
							fine(t, rep.Err())
						}
					}
				}
			})
			type cut struct {
				mem    *vfs.Mem
				states [3]state
			}
			var cuts []cut
			cutting, seed := make(chan struct{}), rng.Uint64()
			var cutter sync.WaitGroup
			cutter.Go(func() {
				for n := range most {
					select {
					case <-cutting:
						return
					case <-time.After(2 * time.Millisecond):
					}
					mu.Lock()
					was := states
					mu.Unlock()
					cuts = append(cuts, cut{mem.PowerCutSeed(seed+n, vfs.SectorAtomic), was})
				}
			})
			wg.Wait()
			close(cutting)
			cutter.Wait()
			for n, c := range cuts {
				rep, err := check.Verify(context.Background(), &check.Config{FS: c.mem, Dir: "data"})
				require.NoError(t, err)
				require.NoError(t, rep.Err(), "round %d, life %d, cut %d", round, life, n)
				db, err := forebay.Open("data", &forebay.Options{FS: c.mem, MarkDelay: -1, SettleShare: 1})
				require.NoError(t, err)
				for i, was := range c.states {
					s, err := db.Sequence(fmt.Sprintf("s%d", i))
					require.NoError(t, err)
					lo, next, err := s.Bounds()
					require.NoError(t, err)
					require.GreaterOrEqual(t, lo, was.first)
					require.GreaterOrEqual(t, next, was.next)
					for _, v := range items(t, s, lo) {
						require.Regexp(t, fmt.Sprintf("^%d/%d/0", i, lo), v)
						lo++
					}
					require.Equal(t, next, lo, "round %d, life %d, cut %d", round, life, n)
				}
				require.NoError(t, db.Close())
			}
			if t.Failed() {
				t.Fatalf("round %d", round)
			}
			if life%2 == 0 {
				cut := mem.PowerCutSeed(rng.Uint64(), vfs.SectorAtomic)
				require.NoError(t, db.Close())
				mem = cut
			} else {
				require.NoError(t, db.Close())
			}
		}
	}
}

func fine(t *testing.T, err error) bool {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
	return err == nil
}
