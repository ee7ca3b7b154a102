package memtable

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/internal/base"
)

func (i *iter) skip(until string, lsn base.LSN) bool {
	if until == "" {
		return i.SkipBelow(nil, lsn)
	}
	return i.SkipBelow([]byte(until), lsn)
}

// TestSkipBelow compares every skip with a walk over a sorted list.
func TestSkipBelow(t *testing.T) {
	forPatterns(t, func(t *testing.T, rng *rand.Rand, key func(*rand.Rand, int) string) {
		for _, n := range []int{1, 14, 15, 200, 3000, 20_000} {
			tab := New(0)
			all := fill(t, rng, tab, n, key)
			it := tab.NewIter().(*iter)
			require.False(t, it.skip("", 1), "stands nowhere")
			for range 400 {
				at := rng.IntN(len(all))
				require.True(t, it.SeekGE([]byte(all[at].key), all[at].lsn))
				until, lsn := all[rng.IntN(len(all))].key, base.LSN(rng.IntN(2*n+2))
				switch rng.IntN(4) {
				case 0:
					until = ""
				case 1:
					until = key(rng, rng.IntN(n))
				case 2:
					until = all[min(at+rng.IntN(50), len(all)-1)].key + "\x00"
				}
				if rng.IntN(3) == 0 {
					lsn = base.MaxLSN
				}
				for at < len(all) && (until == "" || all[at].key < until) && all[at].lsn < lsn {
					at++
				}
				require.Equal(t, at < len(all), it.skip(until, lsn))
				require.Equal(t, at < len(all), it.Valid())
				if at < len(all) {
					require.Equal(t, all[at], current(it))
					require.Equal(t, at+1 < len(all), it.Next())
				}
			}
		}
	})
}

// TestSkipBelowOwnLSN is about a transaction's table, and about one whose LSNs
// do not fit into stamps.
func TestSkipBelowOwnLSN(t *testing.T) {
	for _, lsns := range [][]base.LSN{
		{base.OwnLSN, base.OwnLSN + 1, base.OwnLSN + 2},
		{5, base.OwnLSN, 1 << 40, 3, base.MaxLSN},
		{1 << 50, 1, 2, 1<<50 + 1, 1 << 20},
	} {
		rng := newRand(t)
		tab := New(0)
		var all []ver
		for i := range 2000 {
			v := ver{fmt.Sprintf("%05d", i), lsns[0], base.KindPut, ""}
			if i > 0 && rng.IntN(100) == 0 {
				v.lsn = lsns[rng.IntN(len(lsns))]
			}
			require.NoError(t, tab.Add(v.lsn, v.kind, []byte(v.key), nil))
			all = append(all, v)
		}
		it := tab.NewIter().(*iter)
		for _, lsn := range append(lsns, base.MaxLSN, 0, lsns[0]+1) {
			at := 0
			for ok := it.First(); ok; ok = it.Next() {
				ok := it.skip("", lsn)
				for at < len(all) && all[at].lsn < lsn {
					at++
				}
				require.Equal(t, at < len(all), ok)
				if !ok {
					break
				}
				require.Equal(t, all[at], current(it))
				at++
			}
		}
	}
}

// TestSkipBelowSkips tells by the time it takes that little is looked at, also
// where the highest LSN is just one too low.
func TestSkipBelowSkips(t *testing.T) {
	const n = 100_000
	tab := New(0)
	for i := range n {
		k := randomKey(i)
		require.NoError(t, tab.Add(base.LSN(i/100+1), base.KindPut, k[:], nil))
	}
	it := tab.NewIter().(*iter)
	best := func(f func() bool) time.Duration {
		least := time.Hour
		for range 20 {
			start := time.Now()
			require.False(t, f())
			least = min(least, time.Since(start))
		}
		return least
	}
	walk := best(func() bool {
		ok := it.First()
		for ok {
			ok = it.Next()
		}
		return ok
	})
	skip := best(func() bool { return it.First() && it.skip("", n) })
	just := best(func() bool { return it.First() && it.skip("", n/100+1) })
	t.Logf("over %d versions: %v by Next, %v by SkipBelow, %v if it is just one LSN", n, walk, skip, just)
	require.Less(t, 20*just, walk)
	require.Less(t, 100*skip, walk)
}

// TestSkipBelowConcurrent skips while one goroutine writes. A reader knows
// which LSN has which key; from a random place it skips to the next version at
// or above an LSN again and again, and must meet all of them up to its mark.
func TestSkipBelowConcurrent(t *testing.T) {
	forPatterns(t, func(t *testing.T, rng *rand.Rand, key func(*rand.Rand, int) string) {
		const commits = 6000
		tab := New(0)
		var keys [commits + 1]string
		for i := range keys {
			keys[i] = key(rng, i)
		}
		var mark atomic.Uint64
		var wg sync.WaitGroup
		for r := range 2 {
			seed := rng.Uint64()
			wg.Go(func() {
				rng := rand.New(rand.NewPCG(seed, uint64(r)))
				for lsn := uint64(0); lsn < commits; {
					if lsn = mark.Load(); lsn > 0 && !skipAll(t, rng, tab, keys[:], lsn) {
						return
					}
				}
			})
		}
		for lsn := base.LSN(1); lsn <= commits; lsn++ {
			require.NoError(t, tab.Add(lsn, base.KindPut, []byte(keys[lsn]), nil))
			mark.Store(lsn)
		}
		wg.Wait()
	})
}

// skipAll meets all versions from one LSN up to mark, between two keys.
func skipAll(t *testing.T, rng *rand.Rand, tab *Table, keys []string, mark base.LSN) bool {
	from := mark - rng.Uint64N(min(mark, 1<<rng.IntN(13)))
	lo, hi := "\x00", keys[1+rng.Uint64N(mark)]
	if rng.IntN(2) == 0 {
		lo = keys[1+rng.Uint64N(mark)]
	}
	if rng.IntN(3) == 0 {
		hi = ""
	}
	inside := func(k string) bool { return k >= lo && (hi == "" || k < hi) }
	want := map[base.LSN]bool{}
	for lsn := from; lsn <= mark; lsn++ {
		if inside(keys[lsn]) {
			want[lsn] = true
		}
	}
	it := tab.NewIter().(*iter)
	last, lastLSN := "", base.LSN(0)
	for ok := it.SeekGE([]byte(lo), base.MaxLSN); ok; ok = it.Next() {
		if hi != "" && lo >= hi || !it.skip(hi, from) || !inside(string(it.Key())) {
			break
		}
		k, lsn := string(it.Key()), it.LSN()
		if lsn < from || keys[lsn] != k || last != "" && base.Compare([]byte(last), lastLSN, []byte(k), lsn) >= 0 {
			t.Errorf("from LSN %d in %q to %q: %q@%d behind %q@%d", from, lo, hi, k, lsn, last, lastLSN)
			return false
		}
		last, lastLSN = k, lsn
		delete(want, lsn)
	}
	if len(want) > 0 {
		t.Errorf("LSNs %d to %d in %q to %q: missed %v", from, mark, lo, hi, want)
	}
	return len(want) == 0
}
