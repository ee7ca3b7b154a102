package merge

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sort"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/internal/base"
)

func current(it base.Iterator) ver {
	return ver{string(it.Key()), it.LSN(), it.Kind(), string(it.Value())}
}

func TestNone(t *testing.T) {
	it := New()
	require.False(t, it.First())
	require.False(t, it.Last())
	require.False(t, it.SeekGE([]byte("a"), 1))
	require.False(t, it.Next())
	require.False(t, it.Valid())
	require.NoError(t, it.Err())
	require.NoError(t, it.Close())
}

func TestOneVersionInTwoSources(t *testing.T) {
	a := []ver{{"a", 3, base.KindPut, "first"}, {"b", 1, base.KindPut, "first"}}
	b := []ver{{"a", 3, base.KindPut, "second"}, {"a", 2, base.KindPut, "second"}}
	f := &fuse{-1}
	it := New(newSliceIter(a, f), newSliceIter(b, f), newSliceIter(a, f), newSliceIter(b, f))
	var got []string
	for ok := it.First(); ok; ok = it.Next() {
		got = append(got, current(it).String())
	}
	for ok := it.Last(); ok; ok = it.Prev() {
		got = append(got, current(it).String())
	}
	require.Equal(t, []string{
		"a@3 put first", "a@2 put second", "b@1 put first",
		"b@1 put first", "a@2 put second", "a@3 put first",
	}, got)
}

// TestModel drives the merged iterator with random moves and compares each
// step with a sorted slice.
func TestModel(t *testing.T) {
	rng := newRand(t)
	for range 150 {
		f := &fuse{-1}
		n := rng.IntN(120)
		all, iters := spread(rng, n, 1+rng.IntN(30), 1+rng.IntN(9), f)
		it := New(iters...)
		drive(t, rng, it, all, 200)
		require.NoError(t, it.Close())
	}
}

// TestHeads: with the bounds of all keys at hand nothing comes in another order, whatever
// the keys have in common, and however long they are.
func TestHeads(t *testing.T) {
	rng := newRand(t)
	for range 300 {
		prefix := strings.Repeat("p", rng.IntN(12))
		k, n := 2+rng.IntN(6), rng.IntN(200)
		parts := make([][]ver, k)
		lo, hi := "\xff", ""
		for lsn := range n {
			key := make([]byte, rng.IntN(12))
			for i := range key {
				key[i] = "\x00\x01\xff"[rng.IntN(3)]
			}
			v := ver{prefix + string(key), base.LSN(lsn + 1), base.KindPut, fmt.Sprint(lsn)}
			if v.key == "" {
				continue
			}
			lo, hi = min(lo, v.key), max(hi, v.key+"\x00")
			for range 1 + rng.IntN(2) { // some are in two
				i := rng.IntN(k)
				parts[i] = append(parts[i], v)
			}
		}
		var plain, headed []base.Iterator
		for _, p := range parts {
			p = slices.Compact(sorted(p))
			plain, headed = append(plain, newSliceIter(p, &fuse{-1})), append(headed, newSliceIter(p, &fuse{-1}))
		}
		want, got := New(plain...), newOf(headed, base.CommonPrefix([]byte(lo), []byte(hi)))
		for range 2 {
			ok := want.First()
			require.Equal(t, ok, got.First())
			for ok {
				require.Equal(t, current(want), current(got))
				ok = want.Next()
				require.Equal(t, ok, got.Next())
			}
			ok = want.Last()
			require.Equal(t, ok, got.Last())
			for ok {
				require.Equal(t, current(want), current(got))
				ok = want.Prev()
				require.Equal(t, ok, got.Prev())
			}
		}
	}
}

func drive(t *testing.T, rng *rand.Rand, it base.Iterator, all []ver, steps int) {
	pos := -1
	for range steps {
		key, lsn := fmt.Sprintf("k%02d", rng.IntN(31)), base.LSN(rng.IntN(len(all)+2))
		if rng.IntN(4) == 0 {
			lsn = base.MaxLSN
		}
		if pos >= 0 && pos < len(all) && rng.IntN(2) == 0 {
			key, lsn = all[pos].key, all[pos].lsn
		}
		at := sort.Search(len(all), func(i int) bool { return compare(all[i], key, lsn) >= 0 })
		stood := pos >= 0 && pos < len(all)
		var ok bool
		switch rng.IntN(14) {
		case 0:
			pos, ok = 0, it.First()
		case 1:
			pos, ok = len(all)-1, it.Last()
		case 2:
			pos, ok = at, it.SeekGE([]byte(key), lsn)
		case 3:
			pos, ok = at-1, it.SeekLT([]byte(key), lsn)
		case 4, 5, 6, 7, 8:
			if !stood {
				continue
			}
			pos, ok = pos+1, it.Next()
		default:
			if !stood {
				continue
			}
			pos, ok = pos-1, it.Prev()
		}
		require.NoError(t, it.Err())
		want := pos >= 0 && pos < len(all)
		require.Equal(t, want, ok)
		require.Equal(t, want, it.Valid())
		if want {
			require.Equal(t, all[pos], current(it))
		}
	}
}

// TestSeekToOwnKey passes a key that dies when the first source moves.
func TestSeekToOwnKey(t *testing.T) {
	f := &fuse{-1}
	it := New(newSliceIter([]ver{{"a", 1, 1, ""}, {"c", 1, 1, ""}}, f),
		newSliceIter([]ver{{"b", 1, 1, ""}, {"d", 1, 1, ""}}, f))
	require.True(t, it.SeekGE([]byte("c"), 1))
	require.True(t, it.SeekGE(it.Key(), 1))
	require.Equal(t, "c", string(it.Key()))
	require.True(t, it.SeekLT(it.Key(), 1))
	require.Equal(t, "b", string(it.Key()))
}

func TestTurnAtLSNZero(t *testing.T) {
	f := &fuse{-1}
	it := New(newSliceIter([]ver{{"a", 0, 1, ""}, {"b", 0, 1, ""}}, f), newSliceIter(nil, f))
	require.True(t, it.Last())
	require.True(t, it.Prev())
	require.True(t, it.Next())
	require.Equal(t, "b", string(it.Key()))
}

// TestErrorAtEveryStep lets a source fail at its k-th move: what was shown
// before is a prefix of the truth, and the end is told as a failure.
func TestErrorAtEveryStep(t *testing.T) {
	rng := newRand(t)
	f := &fuse{-1}
	all, iters := spread(rng, 60, 10, 4, f)
	it := New(iters...)
	for _, reverse := range []bool{false, true} {
		for k := 0; ; k++ {
			f.left = k
			step, ok := it.Next, false
			if reverse {
				step = it.Prev
				ok = it.Last()
			} else {
				ok = it.First()
			}
			n := 0
			for ; ok; ok = step() {
				want := all[n]
				if reverse {
					want = all[len(all)-1-n]
				}
				require.Equal(t, want, current(it))
				n++
			}
			require.False(t, it.Valid())
			require.False(t, step())
			if it.Err() == nil {
				require.Len(t, all, n)
				break
			}
			require.ErrorIs(t, it.Err(), errInjected)
			if f.left = -1; k%7 == 0 { // A new placing tries again.
				require.True(t, it.First())
				require.NoError(t, it.Err())
			}
		}
	}
}

// TestErrorAtRandomMoves does the same among all moves.
func TestErrorAtRandomMoves(t *testing.T) {
	rng := newRand(t)
	for range 300 {
		f := &fuse{-1}
		all, iters := spread(rng, 40, 8, 3, f)
		it := New(iters...)
		require.True(t, it.First())
		pos := 0
		f.left = rng.IntN(40)
		for it.Valid() {
			var ok bool
			if rng.IntN(2) == 0 || pos == 0 {
				pos, ok = pos+1, it.Next()
			} else {
				pos, ok = pos-1, it.Prev()
			}
			if !ok {
				if it.Err() == nil {
					require.Equal(t, len(all), pos)
				}
				break
			}
			require.Equal(t, all[pos], current(it))
		}
	}
}

func TestCloseClosesAll(t *testing.T) {
	n := 0
	a, b := newSliceIter(nil, &fuse{-1}), newSliceIter(nil, &fuse{-1})
	a.closed, b.closed = &n, &n
	require.ErrorIs(t, New(a, b).Close(), errInjected)
	require.Equal(t, 2, n)
}

func BenchmarkNext(b *testing.B) {
	for _, k := range []int{2, 8} {
		b.Run(fmt.Sprint(k), func(b *testing.B) {
			parts := make([][]ver, k)
			for i := range 10_000 {
				parts[i%k] = append(parts[i%k], ver{fmt.Sprintf("key%08d", i), 1, base.KindPut, "v"})
			}
			iters := make([]base.Iterator, k)
			for i := range iters {
				iters[i] = newSliceIter(parts[i], &fuse{-1})
			}
			it := New(iters...)
			it.First()
			for b.Loop() {
				if !it.Next() {
					it.First()
				}
			}
		})
	}
}
