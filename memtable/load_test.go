package memtable

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/internal/base"
)

// TestLoadedIsAsAdded fills a table at once, and looks at it as at one that was
// filled by Add; then it goes on with Add.
func TestLoadedIsAsAdded(t *testing.T) {
	forPatterns(t, func(t *testing.T, rng *rand.Rand, key func(*rand.Rand, int) string) {
		for _, n := range []int{1, 2, loadFill, loadFill + 1, fan, 15, 170, 200, 3000, 20_000} {
			if n > 3000 && testing.Short() && !strings.HasSuffix(t.Name(), "/random") {
				continue
			}
			tab, all := load(t, rng, n, key)
			checkNodes(t, tab)
			checkWhole(t, tab, all)
			look := func() {
				drive(t, rng, tab, all, func(i int) string { return key(rng, i) })
				for range 300 {
					checkGet(t, rng, tab, all, key(rng, rng.IntN(n)))
					checkGet(t, rng, tab, all, all[rng.IntN(len(all))].key)
				}
				checkSkips(t, rng, tab, all)
			}
			look()
			for range 4 {
				all = addMore(t, rng, tab, all, 1+rng.IntN(n), func(i int) string { return key(rng, n+i) })
			}
			checkNodes(t, tab)
			checkWhole(t, tab, all)
			look()
		}
	})
}

// load makes a table of about n versions by a Loader.
func load(t *testing.T, rng *rand.Rand, n int, key func(*rand.Rand, int) string) (*Table, []ver) {
	l := NewLoader(rng.IntN(1 << 20))
	first := base.LSN(1 + rng.IntN(3)*1000)
	seen, all := map[ver]bool{}, []ver{}
	lsn, jumps := first, rng.IntN(2) == 0
	for i := range n {
		if rng.IntN(3) > 0 {
			lsn += base.LSN(rng.IntN(4))
		}
		v := ver{key: key(rng, i), lsn: lsn, kind: base.KindPut, value: fmt.Sprint("value ", i)}
		if jumps && rng.IntN(10) == 0 {
			v.lsn = 1 + rng.Uint64N(2*first+base.LSN(n))
		}
		if rng.IntN(4) == 0 {
			v.kind, v.value = base.KindDelete, ""
		}
		if id := (ver{key: v.key, lsn: v.lsn}); seen[id] {
			continue
		} else {
			seen[id] = true
		}
		require.NoError(t, l.Add(v.lsn, v.kind, []byte(v.key), []byte(v.value)))
		all = append(all, v)
	}
	before := l.Bytes()
	tab, err := l.Table()
	require.NoError(t, err)
	require.LessOrEqual(t, tab.Bytes(), before+int64(64<<10), "no more than was told")
	slices.SortFunc(all, compare)
	return tab, all
}

// addMore adds versions to a table, some of keys and LSNs that it has.
func addMore(t *testing.T, rng *rand.Rand, tab *Table, all []ver, n int, key func(int) string) []ver {
	top := tab.MaxLSN()
	var more []ver
	seen := map[ver]bool{}
	for i := range n {
		v := ver{key(i), top + 1 + base.LSN(i), base.KindPut, fmt.Sprint("more ", i)}
		switch rng.IntN(10) {
		case 0:
			v.lsn = 1 + rng.Uint64N(top)
		case 1:
			old := all[rng.IntN(len(all))]
			require.ErrorIs(t, tab.Add(old.lsn, v.kind, []byte(old.key), nil), ErrDuplicate)
			continue
		}
		id := ver{key: v.key, lsn: v.lsn}
		_, had := slices.BinarySearchFunc(all, id, compare)
		err := tab.Add(v.lsn, v.kind, []byte(v.key), []byte(v.value))
		if had || seen[id] {
			require.ErrorIs(t, err, ErrDuplicate)
			continue
		}
		require.NoError(t, err)
		seen[id] = true
		more = append(more, v)
	}
	all = append(all, more...)
	slices.SortFunc(all, compare)
	return all
}

// checkSkips: what SkipBelow passes over is below.
func checkSkips(t *testing.T, rng *rand.Rand, tab *Table, all []ver) {
	it := tab.NewIter().(*iter)
	for range 50 {
		at := rng.IntN(len(all))
		require.True(t, it.SeekGE([]byte(all[at].key), all[at].lsn))
		lsn := all[rng.IntN(len(all))].lsn + base.LSN(rng.IntN(3))
		var until []byte
		if rng.IntN(2) == 0 {
			until = []byte(all[rng.IntN(len(all))].key)
		}
		for at < len(all) && all[at].lsn < lsn && (until == nil || all[at].key < string(until)) {
			at++
		}
		require.Equal(t, at < len(all), it.SkipBelow(until, lsn))
		if at < len(all) {
			require.Equal(t, all[at], current(it))
		}
	}
}

// checkNodes: every node holds what index and keys promise.
func checkNodes(t *testing.T, tab *Table) {
	x, a := &tab.index, &tab.arena
	var leaves []uint32
	var walk func(ref uint32, height int, lo, hi uint32, atLeast uint32)
	check := func(k *keys, lo, hi, edge uint32, headOf func(key []byte) uint64) {
		order := k.order.Load()
		require.Positive(t, count(order))
		var common []byte
		if lo != 0 && hi != 0 {
			p, q := a.at(lo).key(), a.at(hi).key()
			common = p[:base.CommonPrefix(p, q)]
		}
		if edge != 0 {
			require.True(t, lo == 0 || hi == 0)
			common = a.at(edge).key()
		}
		require.LessOrEqual(t, int(k.skip), len(common))
		for pos := range count(order) {
			at := place(order, pos)
			e := a.at(k.addrs[at])
			require.Equal(t, headOf(e.key()), k.heads[at])
			require.False(t, lo != 0 && a.compare(lo, e.key(), e.lsn()) > 0)
			require.False(t, hi != 0 && a.compare(hi, e.key(), e.lsn()) <= 0)
			if pos > 0 {
				before := place(order, pos-1)
				require.Negative(t, a.compare(k.addrs[before], e.key(), e.lsn()))
				require.LessOrEqual(t, k.heads[before], k.heads[at])
			}
		}
	}
	walk = func(ref uint32, height int, lo, hi uint32, atMost uint32) {
		if height == 1 {
			l := x.leaves.at(ref)
			check(&l.keys, lo, hi, 0, func(key []byte) uint64 { return headOf(key, l.skip) })
			require.LessOrEqual(t, l.max.Load(), atMost)
			for pos := range count(l.order.Load()) {
				require.LessOrEqual(t, x.stamp(a.at(l.addrs[pos]).lsn()), l.max.Load())
			}
			leaves = append(leaves, ref)
			return
		}
		n := x.inners.at(ref)
		check(&n.keys, lo, hi, n.edge, func(key []byte) uint64 { return n.headOf(a, key) })
		order := n.order.Load()
		require.LessOrEqual(t, n.max.Load(), atMost)
		for kid := range count(order) + 1 {
			from, to := lo, hi
			if kid > 0 {
				from = n.addrs[place(order, kid-1)]
			}
			if kid < count(order) {
				to = n.addrs[place(order, kid)]
			}
			walk(n.slot(order, kid).Load(), height-1, from, to, n.max.Load())
		}
	}
	root := x.root.Load()
	walk(uint32(root), int(root>>32), 0, 0, 1<<32-1)
	for i, ref := range leaves {
		var prev, next uint32
		if i > 0 {
			prev = leaves[i-1]
		}
		if i < len(leaves)-1 {
			next = leaves[i+1]
		}
		require.Equal(t, prev, x.leaves.at(ref).prev.Load())
		require.Equal(t, next, x.leaves.at(ref).next.Load())
	}
}

func TestLoadNothing(t *testing.T) {
	tab, err := NewLoader(64 << 20).Table()
	require.NoError(t, err)
	require.Zero(t, tab.Len())
	require.Zero(t, tab.Bytes())
	require.NoError(t, tab.Add(1, base.KindPut, []byte("a"), []byte("1")))
	checkWhole(t, tab, []ver{{"a", 1, base.KindPut, "1"}})

	l := NewLoader(0)
	require.NoError(t, l.AddRangeDelete(7, []byte("a"), []byte("c")))
	tab, err = l.Table()
	require.NoError(t, err)
	require.Equal(t, base.LSN(7), tab.MinLSN())
	require.Equal(t, base.LSN(7), tab.MaxLSN())
	require.Equal(t, base.LSN(7), tab.Cover([]byte("b"), 9))
}

func TestLoadRefuses(t *testing.T) {
	l := NewLoader(0)
	require.ErrorIs(t, l.Add(2, base.KindPut, nil, nil), ErrInvalid)
	require.ErrorIs(t, l.Add(2, base.KindPut, make([]byte, base.MaxKeySize+1), nil), ErrInvalid)
	require.ErrorIs(t, l.Add(2, base.KindPut, []byte("b"), make([]byte, base.MaxValueSize+1)), ErrInvalid)
	require.ErrorIs(t, l.Add(2, base.KindRangeDelete, []byte("b"), nil), ErrInvalid)
	require.ErrorIs(t, l.AddRangeDelete(2, []byte("b"), []byte("a")), ErrInvalid)
	for lsn, k := range []string{"a", "b", "a", "c"} {
		require.NoError(t, l.Add(base.LSN(10+lsn), base.KindPut, []byte(k), nil))
	}
	require.NoError(t, l.AddRangeDelete(9, []byte("a"), []byte("c")))
	require.NoError(t, l.Add(11, base.KindDelete, []byte("b"), nil))
	_, err := l.Table()
	require.ErrorIs(t, err, ErrDuplicate)
	var dup *DuplicateError
	require.True(t, errors.As(err, &dup))
	require.Equal(t, base.LSN(11), dup.LSN)
}

// TestReadsBesideInsertsAfterALoad reads a loaded table while one goroutine goes on
// inserting: what was loaded is always there.
func TestReadsBesideInsertsAfterALoad(t *testing.T) {
	forPatterns(t, func(t *testing.T, rng *rand.Rand, key func(*rand.Rand, int) string) {
		tab, all := load(t, rng, 2000, key)
		mark := tab.MaxLSN()
		var done atomic.Bool
		var wg sync.WaitGroup
		for r := range 2 {
			seed := rng.Uint64()
			wg.Go(func() {
				rng := rand.New(rand.NewPCG(seed, uint64(r)))
				for !done.Load() {
					v := all[rng.IntN(len(all))]
					value, kind, lsn, ok := tab.Get([]byte(v.key), v.lsn)
					if got := (ver{v.key, lsn, kind, string(value)}); !ok || got != v {
						t.Errorf("Get(%q, %d) = %v", v.key, v.lsn, got)
						return
					}
					n := 0
					for it, ok := tab.NewIter(), false; ; n++ {
						if n == 0 {
							ok = it.First()
						} else {
							ok = it.Next()
						}
						for ok && it.LSN() > mark {
							ok = it.Next()
						}
						if !ok {
							break
						}
						if n >= len(all) || current(it) != all[n] {
							t.Errorf("version %d is not what was loaded", n)
							return
						}
					}
					if n != len(all) {
						t.Errorf("%d of %d versions", n, len(all))
					}
				}
			})
		}
		for i := range 3000 {
			k := key(rng, 2000+i)
			require.NoError(t, tab.Add(mark+1+base.LSN(i), base.KindPut, []byte(k), []byte("more")))
		}
		done.Store(true)
		wg.Wait()
	})
}
