package idem_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/idem"
	"github.com/forebaydb/forebay/vfs"
)

// cut is a file system as a crash left it, and what was acknowledged and done by then.
type cut struct {
	mem    *vfs.Mem
	acked  map[string]string
	effect map[string]int
}

// TestCrashAtEveryStep kills the process, and cuts the power, behind each call of the disk
// while requests are done: what was acknowledged is answered as before, the effect of each
// is there once, and the result with it or neither; what is outside happens once at most.
func TestCrashAtEveryStep(t *testing.T) {
	mem := vfs.NewMem()
	db := openStore(t, mem)
	k := openKeys(t, db, idem.Options{})
	var mu sync.Mutex // guards the two
	acked, effect := map[string]string{}, map[string]int{}
	var cuts []cut
	var seed uint64
	mem.OnIO(func(vfs.Op) {
		mu.Lock()
		defer mu.Unlock()
		c := cut{acked: map[string]string{}, effect: map[string]int{}}
		for k, v := range acked {
			c.acked[k] = v
		}
		for k, v := range effect {
			c.effect[k] = v
		}
		seed++
		if seed%3 == 0 {
			c.mem = mem.Snapshot()
		} else {
			c.mem = mem.PowerCutSeed(seed, vfs.SectorAtomic)
		}
		cuts = append(cuts, c)
	})
	outside := func(k *idem.Keys, key string, effect map[string]int) (idem.Result, error) {
		return k.DoOutside(background, []byte(key), nil, func(context.Context) ([]byte, error) {
			mu.Lock()
			defer mu.Unlock()
			effect[key]++
			return []byte("receipt of " + key), nil
		})
	}
	const n = 8
	var g sync.WaitGroup
	for w := range 2 { // they share commits
		g.Go(func() {
			for i := range n {
				key := fmt.Sprint("in ", w, i)
				r, err := do2(k, key, add(key, "value of "+key))
				out := fmt.Sprint("out ", w, i)
				ro, oerr := outside(k, out, effect)
				if err = errors.Join(err, oerr); err != nil {
					t.Error(err)
				}
				mu.Lock()
				acked[key], acked[out] = string(r.Value), string(ro.Value)
				mu.Unlock()
			}
		})
	}
	g.Wait()
	_, err := do2(k, "refused", func(*forebay.Tx) ([]byte, error) { return nil, idem.Final(errors.New("no")) })
	require.Error(t, err)
	mem.OnIO(nil)
	require.Greater(t, len(cuts), 2*n)
	step := 1
	if testing.Short() {
		step = 3
	}
	for i := 0; i < len(cuts); i += step {
		c := cuts[i]
		db, err := forebay.Open("data", &forebay.Options{FS: c.mem})
		require.NoError(t, err)
		k, err := idem.Open(db, "api", &idem.Options{Every: -1})
		require.NoError(t, err)
		before := map[string]bool{}
		for w := range 2 {
			for j := range n {
				key := fmt.Sprint("in ", w, j)
				before[key] = times(t, db, key) == 1
				r, err := do2(k, key, add(key, "value of "+key))
				require.NoError(t, err)
				require.Equal(t, "value of "+key, string(r.Value))
				require.Equal(t, before[key], r.Replayed, "cut %d: effect and result of %s", i, key)
				require.Equal(t, 1, times(t, db, key))
				if c.acked[key] != "" {
					require.True(t, r.Replayed)
				}
				out := fmt.Sprint("out ", w, j)
				r, err = outside(k, out, c.effect)
				if err != nil {
					require.ErrorIs(t, err, idem.ErrInProgress)
					require.Empty(t, c.acked[out])
				} else {
					require.Equal(t, "receipt of "+out, string(r.Value))
					require.Equal(t, 1, c.effect[out], "cut %d: %s", i, out)
				}
				require.LessOrEqual(t, c.effect[out], 1)
			}
		}
		stats := k.Stats()
		require.NoError(t, k.Close())
		k, err = idem.Open(db, "api", &idem.Options{Every: -1}) // what is counted is what there is
		require.NoError(t, err)
		require.Equal(t, stats, k.Stats())
		require.NoError(t, k.Close())
		require.NoError(t, db.Close())
	}
	t.Logf("%d cuts", len(cuts))
}

// TestFailedCalls lets one call of the disk fail: each request is done once, and answered,
// after the store was opened again.
func TestFailedCalls(t *testing.T) {
	for fail := 1; fail < 40; fail += 3 {
		mem := vfs.NewMem()
		in := vfs.NewInjector(mem)
		db := openStore(t, in)
		k := openKeys(t, db, idem.Options{})
		in.Add(vfs.Rule{K: fail, Err: errors.New("a call fails")})
		var effects atomic.Int32
		outside := func(k *idem.Keys) (idem.Result, error) {
			return k.DoOutside(background, []byte("out"), nil, func(context.Context) ([]byte, error) {
				effects.Add(1)
				return []byte("v"), nil
			})
		}
		for i := range 5 {
			_, _ = do2(k, fmt.Sprint(i), add(fmt.Sprint("n", i), "v"))
		}
		_, _ = outside(k)
		require.NoError(t, k.Close())
		db.Close()
		db = openStore(t, mem.PowerCutSeed(uint64(fail), vfs.SectorAtomic))
		k = openKeys(t, db, idem.Options{})
		for i := range 5 {
			_, err := do2(k, fmt.Sprint(i), add(fmt.Sprint("n", i), "v"))
			require.NoError(t, err)
			require.Equal(t, 1, times(t, db, fmt.Sprint("n", i)), "call %d fails", fail)
		}
		if _, err := outside(k); err != nil {
			require.ErrorIs(t, err, idem.ErrInProgress)
		}
		require.LessOrEqual(t, effects.Load(), int32(1))
		require.NoError(t, k.Close())
		require.NoError(t, db.Close())
	}
}
