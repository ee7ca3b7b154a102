package merge

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/internal/base"
	"github.com/forebaydb/forebay/internal/rangedel"
)

// history is versions and range deletes, and the tables they are in.
type history struct {
	all    []ver // sorted
	dels   []base.RangeDelete
	tables [][]ver
	sets   [][]base.RangeDelete
	loose  []bool // the table says base.MaxLSN of itself
	last   base.LSN
}

// makeHistory makes n commits, of which some delete ranges, and spreads them
// over k tables, in order of age or all over the place. The first table may be
// one of own writes.
func makeHistory(rng *rand.Rand, n, keys, k int, own bool) *history {
	h := &history{tables: make([][]ver, k), sets: make([][]base.RangeDelete, k), loose: make([]bool, k), last: base.LSN(n)}
	ordered, rare := rng.IntN(3) > 0, 1+rng.IntN(30)
	short := 1 + rng.IntN(30)
	for i := range h.loose {
		h.loose[i] = rng.IntN(3) == 0
	}
	key := func(i int) string { return fmt.Sprintf("k%02d", i) }
	for i := 1; i <= n; i++ {
		lsn, at := base.LSN(i), rng.IntN(k)
		if ordered {
			at = k - 1 - (i-1)*k/n
		}
		if own && i > n*9/10 {
			lsn, at = base.OwnLSN+lsn, 0
		}
		if rng.IntN(rare) == 0 {
			lo := rng.IntN(keys)
			d := base.RangeDelete{Lo: []byte(key(lo)), Hi: []byte(key(lo + rng.IntN(short))), LSN: lsn}
			h.dels, h.sets[at] = append(h.dels, d), append(h.sets[at], d)
			if rng.IntN(2) == 0 { // And a key of the same batch, or none.
				continue
			}
		}
		v := ver{key(rng.IntN(keys)), lsn, base.KindPut, fmt.Sprint("v", lsn)}
		if rng.IntN(4) == 0 {
			v.kind, v.value = base.KindDelete, ""
		}
		h.all, h.tables[at] = append(h.all, v), append(h.tables[at], v)
		if k > 1 && rng.IntN(20) == 0 && lsn < base.OwnLSN {
			at = (at + 1) % k
			h.tables[at] = append(h.tables[at], v)
		}
	}
	h.all = sorted(h.all)
	return h
}

// parted returns dels as up to three sets.
func parted(rng *rand.Rand, dels []base.RangeDelete) []*rangedel.Set {
	parts := make([][]base.RangeDelete, 1+rng.IntN(3))
	for _, d := range dels {
		i := rng.IntN(len(parts))
		parts[i] = append(parts[i], d)
	}
	var sets []*rangedel.Set
	for _, p := range parts {
		sets = append(sets, rangedel.New(p))
	}
	return sets
}

func (h *history) sources(rng *rand.Rand, f *fuse) []Source {
	var out []Source
	for i, vs := range h.tables {
		s := Source{Iter: newSliceIter(sorted(vs), f), Dels: parted(rng, h.sets[i])}
		for _, v := range vs {
			s.MaxLSN = max(s.MaxLSN, v.lsn)
		}
		if h.loose[i] {
			s.MaxLSN = base.MaxLSN
			if rng.IntN(3) > 0 {
				s.Iter = &skipIter{sliceIter: s.Iter.(*sliceIter), rng: rng}
			}
		}
		out = append(out, s)
	}
	return out
}

// skipIter is a table that can skip, and sometimes stops early.
type skipIter struct {
	*sliceIter
	rng *rand.Rand
}

func (s *skipIter) SkipBelow(until []byte, lsn base.LSN) bool {
	at := s.pos
	for at < len(s.vs) && s.vs[at].key < string(until) && s.vs[at].lsn < lsn && s.rng.IntN(10) > 0 {
		at++
	}
	return s.stand(at)
}

func (s *skipIter) SkipBelowBack(until []byte, lsn base.LSN) bool {
	at := s.pos
	for at >= 0 && s.vs[at].key >= string(until) && s.vs[at].lsn < lsn && s.rng.IntN(10) > 0 {
		at--
	}
	return s.stand(at)
}

// seen is the model: what a reader at lsn sees of all under dels in [lo, hi).
func seen(all []ver, dels []base.RangeDelete, lsn base.LSN, lo, hi []byte) []ver {
	var out []ver
	done := map[string]bool{}
	for _, v := range all {
		if v.lsn > lsn && v.lsn < base.OwnLSN || done[v.key] {
			continue
		}
		done[v.key] = true
		hidden := slices.ContainsFunc(dels, func(d base.RangeDelete) bool {
			return string(d.Lo) <= v.key && v.key < string(d.Hi) && d.LSN > v.lsn && (d.LSN <= lsn || d.LSN >= base.OwnLSN)
		})
		if !hidden && v.kind == base.KindPut && (lo == nil || v.key >= string(lo)) && (hi == nil || v.key < string(hi)) {
			out = append(out, v)
		}
	}
	return out
}

func TestReaderModel(t *testing.T) {
	rng := newRand(t)
	for range 3000 {
		checkReader(t, rng, 1+rng.IntN(300), 1+rng.IntN(30), 1+rng.IntN(5))
	}
}

func checkReader(t *testing.T, rng *rand.Rand, n, keys, tables int) {
	t.Helper()
	own := rng.IntN(4) == 0
	h := makeHistory(rng, n, keys, tables, own)
	lsn := base.LSN(rng.IntN(n + 2))
	if !own && rng.IntN(4) == 0 {
		lsn = base.MaxLSN
	}
	lo, hi := bound(rng), bound(rng)
	it := NewReader(h.sources(rng, &fuse{-1}), lsn, lo, hi)
	roam(t, rng, it, seen(h.all, h.dels, lsn, lo, hi), 60)
	require.NoError(t, it.Close())
}

// FuzzReader lets the fuzzer choose the shape of a history.
func FuzzReader(f *testing.F) {
	f.Add(uint64(1), uint8(200), uint8(9), uint8(3))
	f.Fuzz(func(t *testing.T, seed uint64, n, keys, tables uint8) {
		checkReader(t, rand.New(rand.NewPCG(seed, 1)), 1+int(n), 1+int(keys)%30, 1+int(tables)%6)
	})
}

// TestReaderErrorAtEveryStep: a source that fails ends the walk, and until
// then only true rows are shown, also where sources are moved by jumps.
func TestReaderErrorAtEveryStep(t *testing.T) {
	rng := newRand(t)
	for range 50 {
		f := &fuse{-1}
		h := makeHistory(rng, 100, 20, 3, false)
		want := seen(h.all, h.dels, 90, nil, nil)
		it := NewReader(h.sources(rng, f), 90, nil, nil)
		for _, reverse := range []bool{false, true} {
			for k := 0; ; k++ {
				f.left = k
				step, place := it.Next, it.First
				if reverse {
					step, place = it.Prev, it.Last
				}
				n := 0
				for ok := place(); ok; ok = step() {
					row := n
					if reverse {
						row = len(want) - 1 - n
					}
					require.Equal(t, want[row], shown(it))
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
}

// randomKeep returns readers: no snapshot, or some, and a mark above them or
// among them.
func randomKeep(rng *rand.Rand, n int) Keep {
	k := Keep{Above: base.LSN(rng.IntN(n + 2))}
	for range rng.IntN(5) {
		k.Snapshots = append(k.Snapshots, base.LSN(rng.IntN(n+2)))
	}
	slices.Sort(k.Snapshots)
	return k
}

func readers(k Keep, n int) []base.LSN {
	out := slices.Clone(k.Snapshots)
	for lsn := k.Above; lsn <= base.LSN(n+1); lsn++ {
		out = append(out, lsn)
	}
	return out
}

func compacted(t *testing.T, c *Compacted) []ver {
	t.Helper()
	var got []ver
	for range 2 { // First begins anew.
		got = nil
		for ok := c.First(); ok; ok = c.Next() {
			got = append(got, ver{string(c.Key()), c.LSN(), c.Kind(), string(c.Value())})
		}
	}
	require.NoError(t, c.Err())
	require.False(t, c.Next())
	require.NoError(t, c.Close())
	return got
}

// TestCompactReaders: readers see the same before and after, of all keys, and
// what is below the inputs stays hidden where it was. What is left out is just
// what the rule says.
func TestCompactReaders(t *testing.T) {
	rng := newRand(t)
	for range 3000 {
		n := 1 + rng.IntN(200)
		h := makeHistory(rng, n, 1+rng.IntN(30), 1+rng.IntN(4), false)
		keep := randomKeep(rng, n)
		// Below are all versions of the first part of the history, for keys that are
		// not in empty, which is the same for keys and spans.
		cut := base.LSN(rng.IntN(n + 1))
		split := fmt.Sprintf("k%02d", rng.IntN(31))
		var below, inputs []ver
		var belowDels, inputDels []base.RangeDelete
		for _, v := range h.all {
			switch {
			case v.lsn > cut:
				inputs = append(inputs, v)
			case v.key < split:
				below = append(below, v)
			}
		}
		for _, d := range h.dels {
			if d.LSN > cut {
				inputDels = append(inputDels, d)
			} else {
				belowDels = append(belowDels, d)
			}
		}
		last := ""
		if rng.IntN(3) > 0 {
			keep.Elide = func(key []byte) bool {
				require.LessOrEqual(t, last, string(key), "Elide wants ascending keys")
				last = string(key)
				return last >= split
			}
			keep.ElideSpan = func(lo, _ []byte) bool { return string(lo) >= split }
		}
		dels := rangedel.New(inputDels)
		c := Compact(newSliceIter(inputs, &fuse{-1}), dels, keep)
		var got []ver
		for ok := c.First(); ok; ok = c.Next() {
			got = append(got, ver{string(c.Key()), c.LSN(), c.Kind(), string(c.Value())})
		}
		require.NoError(t, c.Err())
		left := keep.Dels(dels)

		after := sorted(append(slices.Clone(got), below...))
		afterDels := append(left.Ranges(), belowDels...)
		before := sorted(append(slices.Clone(inputs), below...))
		for _, lsn := range readers(keep, n) {
			require.Equal(t, seen(before, h.dels, lsn, nil, nil), seen(after, afterDels, lsn, nil, nil), "reader at %d", lsn)
		}

		// The rule itself.
		rs := readers(keep, n)
		var want []ver
		for i, v := range inputs {
			var hiders []base.LSN
			if i > 0 && inputs[i-1].key == v.key {
				hiders = append(hiders, inputs[i-1].lsn)
			}
			for _, d := range inputDels {
				if d.LSN > v.lsn && string(d.Lo) <= v.key && v.key < string(d.Hi) {
					hiders = append(hiders, d.LSN)
				}
			}
			drop := slices.ContainsFunc(hiders, func(by base.LSN) bool {
				return !slices.ContainsFunc(rs, func(r base.LSN) bool { return v.lsn <= r && r < by })
			})
			if v.kind == base.KindDelete && keep.Elide != nil && v.key >= split && v.lsn <= slices.Min(rs) {
				drop = true
			}
			if !drop {
				want = append(want, v)
			}
		}
		require.Equal(t, want, got)
		for _, s := range left.Spans() {
			lsns := s.LSNs()
			for i, lsn := range lsns {
				require.False(t, i > 0 && !slices.ContainsFunc(rs, func(r base.LSN) bool { return lsn <= r && r < lsns[i-1] }), "range delete without a reader")
				require.False(t, keep.ElideSpan != nil && keep.ElideSpan(s.Lo, s.Hi) && lsn <= slices.Min(rs), "range delete over nothing")
			}
		}
	}
}

// TestCompactUncovered: a merge of what NewUncovered leaves gives the same as
// one of all.
func TestCompactUncovered(t *testing.T) {
	rng := newRand(t)
	for range 1000 {
		n := 1 + rng.IntN(200)
		h := makeHistory(rng, n, 1+rng.IntN(30), 1+rng.IntN(4), false)
		keep := randomKeep(rng, n)
		if rng.IntN(2) == 0 {
			keep.Elide = func([]byte) bool { return true }
		}
		dels := rangedel.New(h.dels)
		want := compacted(t, Compact(newSliceIter(h.all, &fuse{-1}), dels, keep))
		sources := h.sources(rng, &fuse{-1})
		require.Equal(t, want, compacted(t, Compact(NewUncovered(sources, keep.Oldest(), []byte("k00"), []byte("k31")), dels, keep)))
	}
}

// TestCompactAll: with no reader below, one version a key and no delete stays.
func TestCompactAll(t *testing.T) {
	vs := []ver{
		{"a", 9, base.KindDelete, ""}, {"a", 3, base.KindPut, "x"},
		{"b", 8, base.KindPut, "y"}, {"b", 2, base.KindPut, "x"},
		{"c", 5, base.KindPut, "z"},
	}
	dels := rangedel.New([]base.RangeDelete{{Lo: []byte("b"), Hi: []byte("d"), LSN: 6}, {Lo: []byte("a"), Hi: []byte("z"), LSN: 1}})
	yes := Keep{Above: 20, Elide: func([]byte) bool { return true }, ElideSpan: func(_, _ []byte) bool { return true }}
	require.Equal(t, []ver{vs[2]}, compacted(t, Compact(newSliceIter(vs, &fuse{-1}), dels, yes)))
	require.Nil(t, yes.Dels(dels))
	require.Len(t, compacted(t, Compact(newSliceIter(vs, &fuse{-1}), dels, Keep{})), len(vs))
	require.Equal(t, dels.Ranges(), Keep{}.Dels(dels).Ranges())
	require.Equal(t, vs[2:3], compacted(t, Compact(newSliceIter(vs[2:3], &fuse{-1}), nil, Keep{Above: base.MaxLSN})), "the newest stays wherever the mark is")
}

func TestConcatModel(t *testing.T) {
	rng := newRand(t)
	for range 1000 {
		all, _ := spread(rng, 1+rng.IntN(150), 1+rng.IntN(30), 1, &fuse{-1})
		var parts [][]ver
		var los, his [][]byte
		for i := 0; i < 31; {
			w := 1 + rng.IntN(8)
			lo, hi := fmt.Sprintf("k%02d", i), fmt.Sprintf("k%02d", i+w)
			var part []ver
			for _, v := range all {
				if lo <= v.key && v.key < hi {
					part = append(part, v)
				}
			}
			parts, los, his = append(parts, part), append(los, []byte(lo)), append(his, []byte(hi))
			i += w
		}
		opened, closed := 0, 0
		it := Concat(len(parts), func(i int) (lo, hi []byte) { return los[i], his[i] }, func(i int) base.Iterator {
			require.Equal(t, opened, closed, "two are open at a time")
			opened++
			s := newSliceIter(parts[i], &fuse{-1})
			s.closed = &closed
			return s
		})
		ref := newSliceIter(all, &fuse{-1})
		for range 60 {
			key, lsn := fmt.Appendf(nil, "k%02d", rng.IntN(32)), base.LSN(rng.IntN(150))
			if rng.IntN(2) == 0 {
				lsn = base.MaxLSN
			}
			var a, b bool
			switch m := rng.IntN(10); {
			case m == 0:
				a, b = it.First(), ref.First()
			case m == 1:
				a, b = it.Last(), ref.Last()
			case m == 2:
				a, b = it.SeekGE(key, lsn), ref.SeekGE(key, lsn)
			case m == 3:
				a, b = it.SeekLT(key, lsn), ref.SeekLT(key, lsn)
			case m == 4 && ref.Valid(): // a key that dies when its source is left
				a, b = it.SeekGE(it.Key(), it.LSN()), ref.SeekGE(bytes.Clone(ref.Key()), ref.LSN())
			case m < 7 && ref.Valid():
				a, b = it.Next(), ref.Next()
			case ref.Valid():
				a, b = it.Prev(), ref.Prev()
			}
			require.Equal(t, b, a)
			require.Equal(t, ref.Valid(), it.Valid())
			require.NoError(t, it.Err())
			if b {
				require.Equal(t, current(ref), current(it))
			}
		}
		err := it.Close()
		require.Equal(t, opened, closed)
		require.Equal(t, opened > 0, err != nil, "errors of Close are told")
	}
	none := Concat(0, nil, nil)
	require.False(t, none.First() || none.Last() || none.SeekGE(nil, 1) || none.SeekLT(nil, 1) || none.Valid())
	require.NoError(t, none.Close())
}

// TestConcatError: a source that fails ends the walk where it stands.
func TestConcatError(t *testing.T) {
	f := &fuse{-1}
	it := Concat(3, func(i int) (lo, hi []byte) { return []byte{byte('a' + i)}, []byte{byte('b' + i)} }, func(i int) base.Iterator {
		return newSliceIter([]ver{{string(rune('a' + i)), 1, base.KindPut, ""}}, f)
	})
	for k := range 6 {
		f.left = k
		n := 0
		for ok := it.First(); ok; ok = it.Next() {
			n++
		}
		require.Equal(t, (k+1)/2, n)
		require.ErrorIs(t, it.Err(), errInjected)
		require.False(t, it.Valid())
	}
	f.left = -1
	require.True(t, it.First())
	require.NoError(t, it.Err())
}

// TestUncoveredModel walks what is not hidden, version by version.
func TestUncoveredModel(t *testing.T) {
	rng := newRand(t)
	for range 1000 {
		n := 1 + rng.IntN(200)
		h := makeHistory(rng, n, 1+rng.IntN(30), 1+rng.IntN(4), false)
		lsn := base.LSN(rng.IntN(n + 2))
		dels := rangedel.New(h.dels)
		var want []ver
		for _, v := range h.all {
			if v.lsn >= dels.Cover([]byte(v.key), lsn) {
				want = append(want, v)
			}
		}
		it := NewUncovered(h.sources(rng, &fuse{-1}), lsn, []byte("k0"), []byte("k4"))
		drive(t, rng, it, want, 60)
		require.NoError(t, it.Close())
	}
}

// stuckIter skips nothing, which it may.
type stuckIter struct{ *sliceIter }

func (s stuckIter) SkipBelow([]byte, base.LSN) bool     { return true }
func (s stuckIter) SkipBelowBack([]byte, base.LSN) bool { return true }

func TestSkipMayStandStill(t *testing.T) {
	var vs []ver
	for i := range 30 {
		vs = append(vs, ver{fmt.Sprintf("k%02d", i), base.LSN(i + 1), base.KindPut, ""})
	}
	dels := rangedel.New([]base.RangeDelete{{Lo: []byte("k00"), Hi: []byte("k99"), LSN: 25}})
	it := NewReader([]Source{{Iter: stuckIter{newSliceIter(vs, &fuse{-1})}, Dels: []*rangedel.Set{dels}, MaxLSN: base.MaxLSN}}, 50, nil, nil)
	require.True(t, it.First())
	require.Equal(t, vs[24], shown(it))
	require.True(t, it.Last())
	for range 5 {
		require.True(t, it.Prev())
	}
	require.False(t, it.Prev())
	require.NoError(t, it.Err())
}
