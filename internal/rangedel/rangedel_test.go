package rangedel

import (
	"bytes"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
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

const keys = 40

// key returns the i-th key of the tests. Between two of them there are others.
func key(i int) []byte { return fmt.Appendf(nil, "k%02d", i) }

func del(lo, hi int, lsn base.LSN) base.RangeDelete {
	return base.RangeDelete{Lo: key(lo), Hi: key(hi), LSN: lsn}
}

// randomDels returns up to n range deletes, some empty, some with one LSN,
// nested, staggered, all over the place.
func randomDels(rng *rand.Rand, n int) []base.RangeDelete {
	var out []base.RangeDelete
	shape, lsns := rng.IntN(5), 1+rng.IntN(2*n+1)
	for i := range rng.IntN(n + 1) {
		lsn := base.LSN(1 + rng.IntN(lsns))
		if rng.IntN(8) == 0 {
			lsn = base.OwnLSN + base.LSN(rng.IntN(5))
		}
		lo := rng.IntN(keys)
		d := del(lo, min(lo+rng.IntN(6), keys), lsn)
		switch shape {
		case 0:
			d = del(rng.IntN(keys), rng.IntN(keys), lsn)
		case 1: // each prefix longer than the last
			d = del(0, i%keys, base.LSN(i+1))
		case 2: // each reaches to the end, and begins further behind
			d = del(i%keys, keys, base.LSN(i+1))
		}
		out = append(out, d)
	}
	return out
}

// cover is the model of Cover.
func cover(dels []base.RangeDelete, key []byte, lsn base.LSN) (top base.LSN) {
	for _, d := range dels {
		if bytes.Compare(d.Lo, key) <= 0 && bytes.Compare(key, d.Hi) < 0 && (d.LSN <= lsn || d.LSN >= base.OwnLSN) {
			top = max(top, d.LSN)
		}
	}
	return top
}

// check compares s with dels, which it should hold.
func check(t *testing.T, dels []base.RangeDelete, s *Set) {
	t.Helper()
	lo, hi := base.LSN(0), base.LSN(0)
	for i := range keys {
		k := key(i)
		var lsns []base.LSN
		for _, d := range dels {
			if d.LSN > 0 && bytes.Compare(d.Lo, k) <= 0 && bytes.Compare(k, d.Hi) < 0 {
				lsns = append(lsns, d.LSN)
				if lo == 0 || d.LSN < lo {
					lo = d.LSN
				}
				hi = max(hi, d.LSN)
			}
		}
		slices.Sort(lsns)
		slices.Reverse(lsns)
		lsns = slices.Compact(lsns)
		var got []base.LSN
		at := new(Span)
		for i, p := range s.Spans() {
			if bytes.Compare(p.Lo, k) <= 0 && bytes.Compare(k, p.Hi) < 0 {
				at = &s.Spans()[i]
				got = at.LSNs()
			}
		}
		require.Equal(t, lsns, got, "%s", k)
		for _, lsn := range []base.LSN{0, 1, 2, 5, 9, 20, base.OwnLSN - 1, base.OwnLSN + 2, base.MaxLSN} {
			above := base.LSN(0) // lsns descend
			for _, l := range lsns {
				if l > lsn {
					above = l
				}
			}
			if want := cover(dels, k, lsn); want != s.Cover(k, lsn) || above != at.Above(lsn) {
				require.Equal(t, []base.LSN{want, above}, []base.LSN{s.Cover(k, lsn), at.Above(lsn)}, "%s at %d", k, lsn)
			}
		}
	}
	require.Equal(t, lo, s.MinLSN())
	require.Equal(t, hi, s.MaxLSN())
	checkForm(t, s)
}

// checkForm checks what holds of every set.
func checkForm(t *testing.T, s *Set) {
	t.Helper()
	if s == nil {
		return
	}
	require.NotZero(t, s.Len())
	for i, p := range s.Spans() {
		require.Negative(t, bytes.Compare(p.Lo, p.Hi))
		lsns := p.LSNs()
		require.NotEmpty(t, lsns)
		require.Len(t, lsns, p.Len())
		for j := 1; j < len(lsns); j++ {
			require.Greater(t, lsns[j-1], lsns[j])
		}
		if i == 0 {
			continue
		}
		require.LessOrEqual(t, bytes.Compare(s.Spans()[i-1].Hi, p.Lo), 0)
		require.False(t, joins(&s.Spans()[i-1], &p), "two spans that are one")
	}
	lo, hi := s.Bounds()
	require.Equal(t, s.Spans()[0].Lo, lo)
	require.Equal(t, s.Spans()[s.Len()-1].Hi, hi)
	requireSame(t, s, New(s.Ranges()))
}

// requireSame compares two sets, span by span.
func requireSame(t *testing.T, want, got *Set) {
	t.Helper()
	require.Equal(t, want.Len(), got.Len())
	for i := range want.Spans() {
		w, g := &want.Spans()[i], &got.Spans()[i]
		require.Equal(t, w.Lo, g.Lo)
		require.Equal(t, w.Hi, g.Hi)
		require.Equal(t, w.LSNs(), g.LSNs())
	}
	require.Equal(t, want.Ranges(), got.Ranges())
}

func TestEmpty(t *testing.T) {
	var s *Set
	require.Nil(t, New(nil))
	require.Nil(t, New([]base.RangeDelete{del(3, 3, 5), del(4, 2, 5), del(1, 2, 0)}))
	require.Nil(t, Merge())
	require.Nil(t, Merge(nil, s))
	require.Zero(t, s.Len())
	require.Zero(t, s.Memory())
	require.Zero(t, s.Cover(key(1), 9))
	require.Zero(t, s.Find(key(1), 3))
	require.False(t, s.Overlaps(nil, nil))
	require.Nil(t, s.Clip(nil, nil))
	require.Empty(t, s.Ranges())
	check(t, nil, s)
}

func TestModel(t *testing.T) {
	rng := newRand(t)
	for range 2000 {
		dels := randomDels(rng, 30)
		given := slices.Clone(dels)
		s := New(dels)
		require.Equal(t, given, dels, "the argument is not changed")
		check(t, dels, s)

		// In parts, over all keys and cut at random ones.
		parts := make([][]base.RangeDelete, 1+rng.IntN(4))
		for _, d := range dels {
			i := rng.IntN(len(parts))
			parts[i] = append(parts[i], d)
		}
		sets := []*Set{nil}
		for _, p := range parts {
			sets = append(sets, New(p))
		}
		check(t, dels, Merge(sets...))
		a, b := rng.IntN(keys), rng.IntN(keys)
		a, b = min(a, b), max(a, b)
		check(t, dels, Merge(s.Clip(key(b), nil), s.Clip(nil, key(a)), s.Clip(key(a), key(b))))
		requireSame(t, s, Merge(s.Clip(key(b), nil), s.Clip(nil, key(a)), s.Clip(key(a), key(b))))
	}
}

func TestClipAndFind(t *testing.T) {
	rng := newRand(t)
	bound := func() []byte {
		if rng.IntN(4) == 0 {
			return nil
		}
		return key(rng.IntN(keys))
	}
	for range 2000 {
		dels := randomDels(rng, 12)
		s := New(dels)
		lo, hi := bound(), bound()
		var inside []base.RangeDelete
		for _, d := range dels {
			if lo != nil && bytes.Compare(d.Lo, lo) < 0 {
				d.Lo = lo
			}
			if hi != nil && bytes.Compare(d.Hi, hi) > 0 {
				d.Hi = hi
			}
			inside = append(inside, d)
		}
		clipped := s.Clip(lo, hi)
		check(t, inside, clipped)
		require.Equal(t, clipped.Len() > 0, s.Overlaps(lo, hi))
		for range 10 {
			k := key(rng.IntN(keys))
			want := slices.IndexFunc(s.Spans(), func(p Span) bool { return bytes.Compare(p.Hi, k) > 0 })
			if want < 0 {
				want = s.Len()
			}
			require.Equal(t, want, s.Find(k, rng.IntN(s.Len()+3)-1))
		}
	}
}

// TestHidden: what HiddenTo and HiddenFrom pass over is hidden, whole, and a
// stretch of newer range deletes that all are seen is passed at once.
func TestHidden(t *testing.T) {
	rng := newRand(t)
	for range 2000 {
		dels := randomDels(rng, 20)
		s := New(dels)
		old, lsn := base.LSN(rng.IntN(10)), base.LSN(rng.IntN(40))
		for i, p := range s.Spans() {
			to, from := s.HiddenTo(i, old, lsn), s.HiddenFrom(i, old, lsn)
			if p.Newest(lsn) <= old {
				require.Nil(t, to)
				require.Nil(t, from)
				continue
			}
			require.GreaterOrEqual(t, bytes.Compare(to, p.Hi), 0)
			require.LessOrEqual(t, bytes.Compare(from, p.Lo), 0)
			for j := range keys {
				if k := key(j); bytes.Compare(from, k) <= 0 && bytes.Compare(k, to) < 0 {
					require.Greater(t, cover(dels, k, lsn), old)
				}
			}
		}
	}
	s := New([]base.RangeDelete{del(1, 3, 5), del(3, 4, 9), del(4, 8, 7), del(9, 10, 3)})
	require.Equal(t, key(8), s.HiddenTo(1, 4, 9))
	require.Equal(t, key(1), s.HiddenFrom(2, 4, 9))
	require.Equal(t, key(4), s.HiddenTo(1, 5, 9))
	require.Equal(t, key(10), s.HiddenTo(3, 2, 9))
}

// TestNestedIsSmall: a queue that is cut from its front again and again makes
// spans whose lists share their memory.
func TestNestedIsSmall(t *testing.T) {
	const n = 2000
	for _, front := range []bool{true, false} {
		var dels []base.RangeDelete
		for i := range n {
			k := fmt.Appendf(nil, "%08d", i+1)
			if front {
				dels = append(dels, base.RangeDelete{Lo: []byte("0"), Hi: k, LSN: base.LSN(i + 1)})
			} else {
				dels = append(dels, base.RangeDelete{Lo: k, Hi: []byte("9"), LSN: base.LSN(i + 1)})
			}
		}
		s := New(dels)
		require.Equal(t, n, s.Len())
		require.Less(t, s.Memory(), n*200)
		require.Len(t, s.Ranges(), n)
	}
}

// FuzzNew reads range deletes from data, three bytes each.
func FuzzNew(f *testing.F) {
	f.Add([]byte{1, 5, 7, 3, 9, 9})
	f.Add([]byte{0, 9, 1, 0, 8, 2, 0, 7, 3, 2, 3, 4})
	f.Fuzz(func(t *testing.T, data []byte) {
		var dels []base.RangeDelete
		for ; len(data) >= 3 && len(dels) < 60; data = data[3:] {
			dels = append(dels, del(int(data[0])%keys, int(data[1])%keys, base.LSN(data[2])))
		}
		s := New(dels)
		check(t, dels, s)
		half := len(dels) / 2
		check(t, dels, Merge(New(dels[half:]), New(dels[:half])))
		for i := range keys {
			requireSame(t, s, Merge(s.Clip(nil, key(i)), s.Clip(key(i), nil)))
		}
	})
}

// BenchmarkNew makes sets of range deletes as they come from deleting queue
// items one by one, and of overlapping ones.
func BenchmarkNew(b *testing.B) {
	for _, width := range []int{1, 8} {
		b.Run(fmt.Sprintf("width=%d", width), func(b *testing.B) {
			var dels []base.RangeDelete
			for i := range 10000 {
				dels = append(dels, base.RangeDelete{Lo: fmt.Appendf(nil, "%08d", i), Hi: fmt.Appendf(nil, "%08d", i+width), LSN: base.LSN(i + 1)})
			}
			b.ReportAllocs()
			for b.Loop() {
				New(dels)
			}
		})
	}
}

func BenchmarkCover(b *testing.B) {
	var dels []base.RangeDelete
	for i := range 1000 {
		dels = append(dels, base.RangeDelete{Lo: fmt.Appendf(nil, "%08d", 2*i), Hi: fmt.Appendf(nil, "%08d", 2*i+1), LSN: base.LSN(i + 1)})
	}
	s := New(dels)
	k := []byte("00000998")
	for b.Loop() {
		s.Cover(k, 5000)
	}
}

// BenchmarkCoverCrossing asks at a key where half of twenty thousand range
// deletes apply, for who sees all of them and for an older reader.
func BenchmarkCoverCrossing(b *testing.B) {
	s := New(crossing(20_000, rand.New(rand.NewPCG(1, 1))))
	k := []byte("00010000")
	for _, lsn := range []base.LSN{20_000, 10_000} {
		b.Run(fmt.Sprintf("lsn=%d", lsn), func(b *testing.B) {
			for b.Loop() {
				s.Cover(k, lsn)
			}
		})
	}
}
