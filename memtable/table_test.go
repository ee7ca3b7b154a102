package memtable

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"sort"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/internal/base"
)

var seedFlag = flag.Uint64("seed", 0, "seed of the random tests; 0 takes one from the clock")

func newRand(t *testing.T) *rand.Rand {
	s := *seedFlag
	if s == 0 {
		s = uint64(time.Now().UnixNano())
	}
	t.Logf("replay with -seed=%d", s)
	return rand.New(rand.NewPCG(s, 0))
}

type ver struct {
	key   string
	lsn   base.LSN
	kind  base.Kind
	value string
}

func compare(a, b ver) int {
	return base.Compare([]byte(a.key), a.lsn, []byte(b.key), b.lsn)
}

func current(it base.Iterator) ver {
	return ver{string(it.Key()), it.LSN(), it.Kind(), string(it.Value())}
}

// patterns make keys that are hard in different ways.
var patterns = map[string]func(rng *rand.Rand, i int) string{
	"random":      func(rng *rand.Rand, i int) string { return fmt.Sprintf("%016x", rng.Uint64()) },
	"few":         func(rng *rand.Rand, i int) string { return fmt.Sprintf("k%d", rng.IntN(20)) },
	"one":         func(rng *rand.Rand, i int) string { return "the only key there is" },
	"ascending":   func(rng *rand.Rand, i int) string { return fmt.Sprintf("a common prefix %08d", i) },
	"descending":  func(rng *rand.Rand, i int) string { return fmt.Sprintf("a common prefix %08d", 1<<20-i) },
	"nearly":      func(rng *rand.Rand, i int) string { return fmt.Sprintf("time/%08d", i+rng.IntN(50)) },
	"interleaved": func(rng *rand.Rand, i int) string { return fmt.Sprintf("stream%d/%08d", rng.IntN(5), i) },
	"binary": func(rng *rand.Rand, i int) string {
		b := make([]byte, 1+rng.IntN(11))
		for i := range b {
			b[i] = byte(rng.IntN(3)) // Zero bytes and keys that are prefixes of others.
		}
		return string(b)
	},
	"outliers": func(rng *rand.Rand, i int) string { // most have a prefix, that of the first is longer
		switch rng.IntN(100 + i/100) {
		case 0:
			return "a common prefix"[:1+rng.IntN(15)]
		case 1:
			return "a common" + string(byte(rng.IntN(256)))
		case 2:
			return string(byte(rng.IntN(256)))
		}
		return fmt.Sprintf("a common prefix %08d", rng.IntN(10+i*i))
	},
	"long": func(rng *rand.Rand, i int) string {
		return string(bytes.Repeat([]byte{'p'}, rng.IntN(300))) + fmt.Sprint(rng.IntN(100))
	},
}

func forPatterns(t *testing.T, f func(t *testing.T, rng *rand.Rand, key func(*rand.Rand, int) string)) {
	for name, key := range patterns {
		t.Run(name, func(t *testing.T) { f(t, newRand(t), key) })
	}
}

// fill adds n versions, mostly with rising LSNs, and returns them in order. Sometimes it
// says what it will add, truly or not.
func fill(t *testing.T, rng *rand.Rand, tab *Table, n int, key func(*rand.Rand, int) string) []ver {
	all := make([]ver, 0, n)
	for i := range n {
		v := ver{key(rng, i), base.LSN(1 + i), base.KindPut, fmt.Sprint("value ", i)}
		if rng.IntN(4) == 0 {
			v.kind, v.value = base.KindDelete, ""
		}
		if rng.IntN(10) == 0 {
			v.lsn = base.LSN(n + 1 + rng.IntN(n))
		}
		all = append(all, v)
	}
	ahead, memory := rng.IntN(3), make([]byte, 0, 1<<10)
	look := func(v ver, lsn base.LSN) {
		memory = append(memory[:0], v.key...) // always the same
		tab.Ahead(lsn, memory)
	}
	kept := all[:0]
	for i, v := range all {
		switch {
		case ahead == 0:
		case i+1 < n && (ahead == 1 || rng.IntN(2) == 0):
			look(all[i+1], all[i+1].lsn)
		case rng.IntN(3) == 0:
			look(v, v.lsn)
		case rng.IntN(3) == 0:
			o := all[rng.IntN(n)]
			look(o, o.lsn+base.LSN(rng.IntN(2)))
		}
		err := tab.Add(v.lsn, v.kind, []byte(v.key), []byte(v.value))
		if errors.Is(err, ErrDuplicate) {
			continue
		}
		require.NoError(t, err)
		kept = append(kept, v)
	}
	slices.SortFunc(kept, compare)
	return kept
}

// TestAheadLeads: an insert that was said ahead goes where it leads, also where its
// leaf was split meanwhile.
func TestAheadLeads(t *testing.T) {
	rng, tab, led := newRand(t), New(0), 0
	const n = 20_000
	next := func() []byte { return fmt.Appendf(nil, "%016x", rng.Uint64()) }
	k := next()
	for i := range n {
		then := next()
		tab.Ahead(base.LSN(i+2), then)
		at := &tab.index.ahead[tab.index.looked^1]
		was := at.n
		require.NoError(t, tab.Add(base.LSN(i+1), base.KindPut, k, nil))
		if was > 0 && at.n == 0 && at.inner == tab.index.inner {
			led++
		}
		k = then
	}
	require.Greater(t, led, n*9/10)
}

func TestModel(t *testing.T) {
	forPatterns(t, func(t *testing.T, rng *rand.Rand, key func(*rand.Rand, int) string) {
		for _, n := range []int{1, 14, 15, 200, 3000} {
			tab := New(rng.IntN(1 << 20))
			all := fill(t, rng, tab, n, key)
			checkNodes(t, tab)
			checkWhole(t, tab, all)
			drive(t, rng, tab, all, func(i int) string { return key(rng, i) })
			for range 300 {
				checkGet(t, rng, tab, all, key(rng, rng.IntN(n)))
				checkGet(t, rng, tab, all, all[rng.IntN(len(all))].key)
			}
		}
	})
}

func checkWhole(t *testing.T, tab *Table, all []ver) {
	it := tab.NewIter()
	got := []ver{}
	for ok := it.First(); ok; ok = it.Next() {
		got = append(got, current(it))
	}
	require.Equal(t, all, got)
	got = got[:0]
	for ok := it.Last(); ok; ok = it.Prev() {
		got = append(got, current(it))
	}
	slices.Reverse(got)
	require.Equal(t, all, got)
	require.NoError(t, it.Err())
	require.NoError(t, it.Close())

	lo, hi := base.MaxLSN, base.LSN(0)
	for _, v := range all {
		lo, hi = min(lo, v.lsn), max(hi, v.lsn)
	}
	require.Equal(t, len(all), tab.Len())
	require.Equal(t, lo, tab.MinLSN())
	require.Equal(t, hi, tab.MaxLSN())
}

func drive(t *testing.T, rng *rand.Rand, tab *Table, all []ver, key func(int) string) {
	it := tab.NewIter()
	pos := -1
	require.False(t, it.Next())
	require.False(t, it.Prev())
	for range 500 {
		k, lsn := key(rng.IntN(len(all))), base.LSN(rng.IntN(2*len(all)+2))
		if rng.IntN(4) == 0 {
			lsn = base.MaxLSN
		}
		if rng.IntN(2) == 0 {
			v := all[rng.IntN(len(all))]
			k, lsn = v.key, v.lsn
		}
		at := sort.Search(len(all), func(i int) bool { return compare(all[i], ver{key: k, lsn: lsn}) >= 0 })
		stood := pos >= 0 && pos < len(all)
		var ok bool
		switch rng.IntN(20) {
		case 0:
			pos, ok = 0, it.First()
		case 1:
			pos, ok = len(all)-1, it.Last()
		case 2:
			pos, ok = at, it.SeekGE([]byte(k), lsn)
		case 3:
			pos, ok = at-1, it.SeekLT([]byte(k), lsn)
		case 4, 5, 6, 7, 8, 9, 10, 11:
			if ok = it.Next(); stood {
				pos++
			}
		default:
			if ok = it.Prev(); stood {
				pos--
			}
		}
		want := pos >= 0 && pos < len(all)
		require.Equal(t, want, ok)
		require.Equal(t, want, it.Valid())
		if want {
			require.Equal(t, all[pos], current(it))
		}
	}
}

func checkGet(t *testing.T, rng *rand.Rand, tab *Table, all []ver, key string) {
	lsn := base.LSN(rng.IntN(2*len(all) + 2))
	if rng.IntN(3) == 0 {
		lsn = base.MaxLSN
	}
	value, kind, entryLSN, ok := tab.Get([]byte(key), lsn)
	at := sort.Search(len(all), func(i int) bool { return compare(all[i], ver{key: key, lsn: lsn}) >= 0 })
	if at == len(all) || all[at].key != key {
		require.False(t, ok)
		return
	}
	require.True(t, ok)
	require.Equal(t, all[at], ver{key, entryLSN, kind, string(value)})
}

func TestEmpty(t *testing.T) {
	tab := New(0)
	_, _, _, ok := tab.Get([]byte("a"), base.MaxLSN)
	require.False(t, ok)
	it := tab.NewIter()
	require.False(t, it.First())
	require.False(t, it.Last())
	require.False(t, it.SeekGE([]byte("a"), 1))
	require.False(t, it.SeekLT([]byte("a"), 1))
	require.False(t, it.Next())
	require.False(t, it.Prev())
	require.Zero(t, tab.Bytes())
	require.Zero(t, tab.Len())
	require.Zero(t, tab.MinLSN())
	require.Zero(t, tab.MaxLSN())
	require.LessOrEqual(t, testing.AllocsPerRun(10, func() { New(64 << 20) }), 1.0)

	require.NoError(t, tab.Add(7, base.KindPut, []byte("a"), nil))
	require.LessOrEqual(t, tab.Bytes(), int64(8<<10), "one small entry takes little memory")
}

func TestGetAllocatesNothing(t *testing.T) {
	tab := New(0)
	fill(t, newRand(t), tab, 1000, patterns["random"])
	e := tab.arena.at(tab.index.edge(true).addrs[0])
	require.Zero(t, testing.AllocsPerRun(100, func() { tab.Get(e.key(), base.MaxLSN) }))
}

func TestRefuses(t *testing.T) {
	tab := New(0)
	require.NoError(t, tab.Add(1, base.KindPut, []byte("a"), []byte("1")))
	require.ErrorIs(t, tab.Add(1, base.KindDelete, []byte("a"), nil), ErrDuplicate)
	require.ErrorIs(t, tab.Add(2, base.KindPut, nil, nil), ErrInvalid)
	require.ErrorIs(t, tab.Add(2, base.KindPut, make([]byte, base.MaxKeySize+1), nil), ErrInvalid)
	require.ErrorIs(t, tab.Add(2, base.KindPut, []byte("b"), make([]byte, base.MaxValueSize+1)), ErrInvalid)
	require.ErrorIs(t, tab.Add(2, 3, []byte("b"), nil), ErrInvalid)
	checkWhole(t, tab, []ver{{"a", 1, base.KindPut, "1"}})
}

func TestLargestEntries(t *testing.T) {
	tab := New(1 << 20)
	key, value := make([]byte, base.MaxKeySize), make([]byte, base.MaxValueSize)
	value[0], value[len(value)-1] = 'f', 'l'
	require.NoError(t, tab.Add(1, base.KindPut, []byte("small"), []byte("1")))
	require.NoError(t, tab.Add(2, base.KindPut, key, value))
	require.NoError(t, tab.Add(3, base.KindPut, []byte("small"), []byte("2")))
	v, kind, lsn, ok := tab.Get(key, 9)
	require.True(t, ok && kind == base.KindPut && lsn == 2 && bytes.Equal(v, value))
	v, _, _, _ = tab.Get([]byte("small"), 2)
	require.Equal(t, "1", string(v))
	require.Less(t, tab.Bytes(), int64(len(key)+len(value)+64<<10))
}

// TestConcurrent reads while one goroutine writes. Every commit writes the
// same value to a group of keys; a reader at a published LSN must see every
// group whole, at that LSN or the last before it, in both directions.
func TestConcurrent(t *testing.T) {
	forPatterns(t, func(t *testing.T, rng *rand.Rand, key func(*rand.Rand, int) string) {
		const commits = 4000
		tab := New(0)
		var keys [commits + 1]string // keys[lsn] is what the commit wrote
		for i := range keys {
			keys[i] = key(rng, i)
		}
		var mark atomic.Uint64
		var wg sync.WaitGroup
		for r := range 3 {
			seed := rng.Uint64()
			wg.Go(func() {
				rng := rand.New(rand.NewPCG(seed, uint64(r)))
				for lsn := uint64(0); lsn < commits; {
					if lsn = mark.Load(); lsn == 0 {
						continue
					}
					switch rng.IntN(3) {
					case 0:
						checkCount(t, tab, lsn, rng.IntN(2) == 0)
					default:
						for range 20 {
							at := 1 + rng.Uint64N(lsn)
							v, _, got, ok := tab.Get([]byte(keys[at]), lsn)
							if !ok || got < at || got > lsn || string(v) != fmt.Sprint(got) {
								t.Errorf("Get(%q, %d) = %q at %d, %v", keys[at], lsn, v, got, ok)
								return
							}
						}
					}
				}
			})
		}
		for lsn := base.LSN(1); lsn <= commits; lsn++ {
			require.NoError(t, tab.Add(lsn, base.KindPut, []byte(keys[lsn]), fmt.Append(nil, lsn)))
			mark.Store(lsn)
		}
		wg.Wait()
	})
}

// checkCount walks the whole table, or back and forth in it, and looks that
// every LSN up to mark is met once and that the order holds.
func checkCount(t *testing.T, tab *Table, mark base.LSN, reverse bool) {
	it := tab.NewIter()
	start, step := it.First, it.Next
	if reverse {
		start, step = it.Last, it.Prev
	}
	n := base.LSN(0)
	var last []byte
	var lastLSN base.LSN
	for ok := start(); ok; ok = step() {
		if last != nil && (base.Compare(last, lastLSN, it.Key(), it.LSN()) < 0) == reverse {
			t.Errorf("order: %q@%d, then %q@%d", last, lastLSN, it.Key(), it.LSN())
			return
		}
		last, lastLSN = it.Key(), it.LSN()
		if lastLSN <= mark {
			n++
		}
	}
	if n != mark {
		t.Errorf("%d versions up to LSN %d", n, mark)
	}
}
