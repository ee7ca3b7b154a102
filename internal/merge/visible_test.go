package merge

import (
	"fmt"
	"math/rand/v2"
	"sort"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/internal/base"
)

// visible is the model: what a reader at lsn sees of all in [lo, hi).
func visible(all []ver, lsn base.LSN, lo, hi []byte) []ver {
	var out []ver
	seen := map[string]bool{}
	for _, v := range all { // Newest first within a key.
		if v.lsn > lsn || seen[v.key] {
			continue
		}
		seen[v.key] = true
		if v.kind == base.KindPut && (lo == nil || v.key >= string(lo)) && (hi == nil || v.key < string(hi)) {
			out = append(out, v)
		}
	}
	return out
}

func bound(rng *rand.Rand) []byte {
	if rng.IntN(2) == 0 {
		return nil
	}
	return fmt.Appendf(nil, "k%02d", rng.IntN(31))
}

func shown(v *Visible) ver {
	return ver{string(v.Key()), v.LSN(), base.KindPut, string(v.Value())}
}

// TestVisibleModel drives a Visible with random moves, over few keys with many
// versions and over many keys with few.
func TestVisibleModel(t *testing.T) {
	rng := newRand(t)
	for range 300 {
		n := rng.IntN(200)
		all, iters := spread(rng, n, 1+rng.IntN(30), 1+rng.IntN(5), &fuse{-1})
		lsn := base.LSN(rng.IntN(n + 2))
		if rng.IntN(4) == 0 {
			lsn = base.MaxLSN
		}
		lo, hi := bound(rng), bound(rng)
		want := visible(all, lsn, lo, hi)
		it := NewVisible(New(iters...), lsn, lo, hi)
		roam(t, rng, it, want, 100)
		require.NoError(t, it.Close())
	}
}

// roam makes n random moves of it, which should show want.
func roam(t *testing.T, rng *rand.Rand, it *Visible, want []ver, n int) {
	t.Helper()
	pos := -1
	for range n {
		key := fmt.Sprintf("k%02d", rng.IntN(31))
		if it.Valid() && rng.IntN(2) == 0 {
			key = string(it.Key())
		}
		at := sort.Search(len(want), func(i int) bool { return want[i].key >= key })
		stood := pos >= 0 && pos < len(want)
		var ok bool
		switch rng.IntN(14) {
		case 0:
			pos, ok = 0, it.First()
		case 1:
			pos, ok = len(want)-1, it.Last()
		case 2:
			pos, ok = at, it.SeekGE([]byte(key))
		case 3:
			pos, ok = at-1, it.SeekLT([]byte(key))
		case 4, 5, 6, 7, 8:
			if ok = it.Next(); stood {
				pos++
			}
		default:
			if ok = it.Prev(); stood {
				pos--
			}
		}
		require.NoError(t, it.Err())
		if pos < 0 || pos >= len(want) {
			require.False(t, ok)
			require.False(t, it.Valid())
			continue
		}
		require.True(t, ok)
		require.Equal(t, want[pos], shown(it))
	}
}

// TestVisibleErrorAtEveryStep lets a source fail at its k-th move, in both
// directions: only true rows are shown, in order and without a gap, and the
// end is told as a failure.
func TestVisibleErrorAtEveryStep(t *testing.T) {
	rng := newRand(t)
	f := &fuse{-1}
	all, iters := spread(rng, 150, 8, 4, f)
	const lsn = 120
	want := visible(all, lsn, nil, nil)
	it := NewVisible(New(iters...), lsn, nil, nil)
	for _, reverse := range []bool{false, true} {
		for k := 0; ; k++ {
			f.left = k
			step, place := it.Next, it.First
			if reverse {
				step, place = it.Prev, it.Last
			}
			n := 0
			for ok := place(); ok; ok = step() {
				row := want[min(n, len(want)-1)]
				if reverse {
					row = want[max(0, len(want)-1-n)]
				}
				require.Equal(t, row, shown(it))
				n++
			}
			require.False(t, it.Valid())
			if it.Err() == nil {
				require.Len(t, want, n)
				break
			}
			require.ErrorIs(t, it.Err(), errInjected)
		}
	}
}

func TestVisibleErrorAtTurn(t *testing.T) {
	rng := newRand(t)
	for range 500 {
		f := &fuse{-1}
		all, iters := spread(rng, 60, 6, 3, f)
		want := visible(all, 50, nil, nil)
		it := NewVisible(New(iters...), 50, nil, nil)
		if !it.First() {
			continue
		}
		f.left = rng.IntN(60)
		for pos := 0; ; {
			step := 1
			if rng.IntN(2) == 0 && pos > 0 {
				step = -1
			}
			var ok bool
			if step > 0 {
				ok = it.Next()
			} else {
				ok = it.Prev()
			}
			pos += step
			if !ok {
				if it.Err() == nil {
					require.Equal(t, len(want), pos)
				}
				break
			}
			require.Equal(t, want[pos], shown(it))
		}
	}
}

func TestCompactModel(t *testing.T) {
	rng := newRand(t)
	for range 200 {
		n := rng.IntN(200)
		all, iters := spread(rng, n, 1+rng.IntN(30), 1+rng.IntN(4), &fuse{-1})
		keep := base.LSN(rng.IntN(n + 2))
		var want []ver
		floor := map[string]bool{}
		for _, v := range all {
			if v.lsn > keep || !floor[v.key] {
				want = append(want, v)
			}
			if v.lsn <= keep {
				floor[v.key] = true
			}
		}
		c := Compact(New(iters...), nil, Keep{Above: keep})
		var got []ver
		for range 2 { // First begins anew.
			got = nil
			for ok := c.First(); ok; ok = c.Next() {
				got = append(got, ver{string(c.Key()), c.LSN(), c.Kind(), string(c.Value())})
			}
		}
		require.NoError(t, c.Err())
		require.False(t, c.Next())
		require.Equal(t, want, got)
		require.NoError(t, c.Close())

		// Nothing changes for any reader at or above keep.
		for lsn := keep; lsn <= base.LSN(n); lsn += 1 + base.LSN(rng.IntN(20)) {
			require.Equal(t, visible(all, lsn, nil, nil), visible(got, lsn, nil, nil))
		}
	}
}

func TestCompactErrorAtEveryStep(t *testing.T) {
	rng := newRand(t)
	f := &fuse{-1}
	_, iters := spread(rng, 200, 5, 3, f)
	c := Compact(New(iters...), nil, Keep{Above: 150})
	var truth []ver
	for ok := c.First(); ok; ok = c.Next() {
		truth = append(truth, ver{string(c.Key()), c.LSN(), c.Kind(), string(c.Value())})
	}
	for k := 0; ; k++ {
		f.left = k
		n := 0
		for ok := c.First(); ok; ok = c.Next() {
			require.Equal(t, truth[n], ver{string(c.Key()), c.LSN(), c.Kind(), string(c.Value())})
			n++
		}
		if c.Err() == nil {
			require.Len(t, truth, n)
			break
		}
		require.ErrorIs(t, c.Err(), errInjected)
	}
}
