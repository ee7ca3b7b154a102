package segment

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/internal/base"
	"github.com/forebaydb/forebay/internal/rangedel"
)

// smallDels are range deletes for smallVersions: before all keys, overlapping,
// nested, touching, behind all keys.
func smallDels() []base.RangeDelete {
	d := func(lo, hi string, lsn base.LSN) base.RangeDelete {
		return base.RangeDelete{Lo: []byte(lo), Hi: []byte(hi), LSN: lsn}
	}
	return []base.RangeDelete{
		d("a", "b", 700), d("key003", "key020", 310), d("key003", "key020", 120), d("key010", "key015", 130),
		d("key015", "key016", 5), d("key016", "z", 1<<50), d("z", "zz", 1),
	}
}

// randomDels makes about n range deletes in the order of a writer.
func randomDels(r *rand.Rand, n int) []base.RangeDelete {
	var dels []base.RangeDelete
	key := func() []byte {
		k := fmt.Appendf(nil, "%03d", r.IntN(400))
		return append(k[:1+r.IntN(3)], make([]byte, r.IntN(3))...)
	}
	for range n {
		d := base.RangeDelete{Lo: key(), Hi: key(), LSN: 1 + r.Uint64N(50)}
		if c := bytes.Compare(d.Lo, d.Hi); c > 0 {
			d.Lo, d.Hi = d.Hi, d.Lo
		} else if c == 0 {
			d.Hi = append(bytes.Clone(d.Hi), 0)
		}
		if r.IntN(20) == 0 {
			d.LSN = 1 + r.Uint64()>>1
		}
		dels = append(dels, d)
	}
	return rangedel.New(dels).Ranges()
}

// sameDels says whether a set is that of dels.
func sameDels(dels []base.RangeDelete, s *rangedel.Set) bool {
	return slices.EqualFunc(rangedel.New(dels).Ranges(), s.Ranges(), func(a, b base.RangeDelete) bool {
		return bytes.Equal(a.Lo, b.Lo) && bytes.Equal(a.Hi, b.Hi) && a.LSN == b.LSN
	})
}

// lowest is the lower bound of versions and range deletes.
func lowest(vs []version, dels []base.RangeDelete) []byte {
	if len(vs) > 0 && (len(dels) == 0 || vs[0].key < string(dels[0].Lo)) {
		return []byte(vs[0].key)
	}
	return dels[0].Lo
}

// TestRangeDeletesModel compares what a segment says of its range deletes with
// what it was made of. Replay a failure with -segment.seed.
func TestRangeDeletesModel(t *testing.T) {
	seed := *modelSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("-segment.seed=%d", seed)
	for round := range 60 {
		r := rand.New(rand.NewPCG(seed, uint64(round)))
		var vs []version
		if r.IntN(3) > 0 {
			vs = randomVersions(r, 1+r.IntN(200))
		}
		dels := randomDels(r, 1+r.IntN(1<<r.IntN(9)))
		b, meta := buildDels(t, testID, WriterOptions{BlockSize: 512}, vs, dels)
		rd, err := openBytes(b, Options{})
		require.NoError(t, err)
		require.Zero(t, rd.Memory())
		s, err := rd.RangeDeletes()
		require.NoError(t, err)
		require.True(t, sameDels(dels, s))
		again, err := rd.RangeDeletes()
		require.NoError(t, err)
		require.Same(t, s, again)
		require.GreaterOrEqual(t, rd.Memory(), int64(s.Memory()))

		want := Meta{Number: 7, Size: uint64(len(b)), Count: uint64(len(vs)), RangeDeletes: uint64(len(dels)), Hash: rd.Hash(), MinLSN: s.MinLSN(), MaxLSN: s.MaxLSN()}
		want.Lo, want.Hi = s.Bounds()
		pointMax := base.LSN(0)
		for _, v := range vs {
			if v.kind == base.KindDelete {
				want.Tombstones++
			}
			want.MinLSN, want.MaxLSN = min(want.MinLSN, v.lsn), max(want.MaxLSN, v.lsn)
			pointMax = max(pointMax, v.lsn)
			if end := []byte(v.key + "\x00"); bytes.Compare(end, want.Hi) > 0 {
				want.Hi = end
			}
		}
		want.Lo = lowest(vs, dels)
		require.Equal(t, want, meta)
		require.Equal(t, pointMax, rd.PointMaxLSN(meta.MaxLSN))
		require.True(t, rd.HasRangeDeletes())
		p, err := rd.Props()
		require.NoError(t, err)
		require.Equal(t, []any{meta.Count, meta.Tombstones, meta.RangeDeletes, meta.MinLSN, meta.MaxLSN, meta.Lo, meta.Hi},
			[]any{p.Count, p.Tombstones, p.RangeDeletes, p.MinLSN, p.MaxLSN, p.Lo, p.Hi})
		lo, hi, err := rd.Bounds()
		require.NoError(t, err)
		require.True(t, bytes.Equal(meta.Lo, lo) && bytes.Equal(meta.Hi, hi))
		got, err := scan(rd)
		require.NoError(t, err)
		require.True(t, slices.Equal(vs, got))
		require.NoError(t, rd.Verify(t.Context()))
	}
}

func TestRangeDeletesAlone(t *testing.T) {
	b, meta := buildDels(t, testID, WriterOptions{}, nil, smallDels())
	require.Less(t, len(b), 420)
	require.Zero(t, meta.Count)
	r, err := openBytes(b, Options{Cache: NewCache(1 << 20)})
	require.NoError(t, err)
	for _, it := range []base.Iterator{r.NewIter(), r.NewScanIter()} {
		require.False(t, it.First() || it.Last() || it.SeekGE([]byte("a"), 5) || it.SeekLT([]byte("z"), 5) || it.Next() || it.Prev())
		require.NoError(t, it.Err())
		require.NoError(t, it.Close())
	}
	_, _, _, found, err := r.Get([]byte("key003"), base.MaxLSN)
	require.NoError(t, err)
	require.False(t, found)
	require.Zero(t, r.PointMaxLSN(meta.MaxLSN))
	require.NoError(t, r.Verify(t.Context()))
}

// A segment without range deletes reads nothing to say so, and one with them
// reads once.
func TestRangeDeletesAreReadOnce(t *testing.T) {
	for _, dels := range [][]base.RangeDelete{nil, smallDels()} {
		b, meta := buildDels(t, testID, WriterOptions{}, smallVersions(), dels)
		reads := 0
		f := &bytesFile{b: b, readErr: func(int64) error { reads++; return nil }}
		r, err := Open(f, "000007.seg", testID, Options{})
		require.NoError(t, err)
		require.Equal(t, 1, reads)
		for range 3 {
			s, err := r.RangeDeletes()
			require.NoError(t, err)
			require.Equal(t, dels == nil, s == nil)
			r.HasRangeDeletes()
			r.PointMaxLSN(meta.MaxLSN)
		}
		require.Equal(t, 1+min(1, len(dels)), reads)
	}
}

func TestWriterRefusesRangeDeletes(t *testing.T) {
	f := &bytesFile{}
	w := newWriter(t, f, WriterOptions{})
	a, b := []byte("a"), []byte("b")
	long := make([]byte, maxBound+1)
	require.ErrorIs(t, w.AddRangeDelete(b, b, 1), ErrLimit)
	require.ErrorIs(t, w.AddRangeDelete(b, a, 1), ErrLimit)
	require.ErrorIs(t, w.AddRangeDelete(nil, nil, 1), ErrLimit)
	require.ErrorIs(t, w.AddRangeDelete(a, b, 0), ErrLimit)
	require.ErrorIs(t, w.AddRangeDelete(a, b, base.MaxLSN), ErrLimit)
	require.ErrorIs(t, w.AddRangeDelete(nil, long, 1), ErrLimit)
	require.ErrorIs(t, w.AddRangeDelete(long, a, 1), ErrLimit)
	_, err := w.Finish()
	require.ErrorIs(t, err, ErrEmpty)
	require.Empty(t, f.b)
}

func TestRangeDeletesHaveAnOrder(t *testing.T) {
	f := &bytesFile{}
	w := newWriter(t, f, WriterOptions{})
	add := func(lo, hi string, lsn base.LSN) error { return w.AddRangeDelete([]byte(lo), []byte(hi), lsn) }
	require.NoError(t, add("b", "d", 5))
	require.ErrorIs(t, add("a", "z", 9), ErrOrder)
	require.ErrorIs(t, add("b", "z", 5), ErrOrder)
	require.ErrorIs(t, add("b", "z", 6), ErrOrder)
	require.NoError(t, add("b", "c", 4), "a refusal changes nothing")
	require.NoError(t, w.Add([]byte("z"), 1, base.KindPut, nil), "they are in no order with versions")
	require.NoError(t, add("bb", "bc", 7))
	require.ErrorIs(t, w.AddRangeDeletes(rangedel.New(smallDels())), ErrOrder)
	require.NoError(t, w.AddRangeDeletes(rangedel.New(smallDels()[1:])))
	require.NoError(t, w.AddRangeDeletes(nil))
	meta, err := w.Finish()
	require.NoError(t, err)
	require.EqualValues(t, 3+len(smallDels())-1, meta.RangeDeletes)
	require.Equal(t, "zz", string(meta.Hi))
	require.ErrorIs(t, add("zzz", "zzzz", 7), ErrFinished)
	r, err := openBytes(f.b, Options{})
	require.NoError(t, err)
	require.NoError(t, r.Verify(t.Context()))
}

// Nested range deletes take room in proportion to their number, in the file and
// in a reader, and the writer says beforehand how much.
func TestManyNestedRangeDeletes(t *testing.T) {
	const n = 2000
	var dels []base.RangeDelete
	for i := range n {
		dels = append(dels, base.RangeDelete{Lo: fmt.Appendf(nil, "a%07d", i), Hi: fmt.Appendf(nil, "z%07d", n-i), LSN: uint64(i + 1)})
	}
	f := &bytesFile{}
	w := newWriter(t, f, WriterOptions{})
	require.NoError(t, w.AddRangeDeletes(rangedel.New(dels)))
	estimate := w.EstimatedSize()
	meta, err := w.Finish()
	require.NoError(t, err)
	require.InEpsilon(t, meta.Size, estimate, 0.01)
	require.Less(t, meta.Size, uint64(25*n))
	r, err := openBytes(f.b, Options{})
	require.NoError(t, err)
	s, err := r.RangeDeletes()
	require.NoError(t, err)
	require.True(t, sameDels(dels, s))
	require.NoError(t, r.Verify(t.Context()))
}

// A payload that verifies and does not hold together is refused, by its own
// lengths, before anything is allocated by a number in it.
func TestDecodeRangeDeletes(t *testing.T) {
	var d delsBuilder
	for _, r := range smallDels() {
		d.add(r.Lo, r.Hi, r.LSN)
	}
	whole := d.finish()
	got, reason := decodeDels(whole)
	require.Empty(t, reason)
	require.Equal(t, smallDels(), got)
	for n := range whole {
		_, reason := decodeDels(whole[:n:n])
		require.NotEmpty(t, reason, "cut to %d", n)
	}
	_, reason = decodeDels(append(slices.Clone(whole), 0))
	require.NotEmpty(t, reason)
	bad := func(n uint32, rest ...byte) {
		t.Helper()
		_, reason := decodeDels(append(binary.LittleEndian.AppendUint32(nil, n), rest...))
		require.NotEmpty(t, reason)
	}
	a, b := byte('a'), byte('b')
	bad(0, 3, a, 1, b, 1)
	bad(2, 3, a, 1, b, 1)
	bad(1<<32-1, 3, a, 1, b, 1)
	bad(1, sameLo, 1, b, 1)
	bad(1, sameHi, 1, b, 1)
	bad(1, 3, a, 1, b, 0)                                                             // LSN 0
	bad(1, 3, a, 1, b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1)       // MaxLSN
	bad(1, 3, b, 1, b, 1)                                                             // empty
	bad(2, 3, a, 1, b, 7, sameLo, 1, b, 7)                                            // twice
	bad(2, 3, a, 1, b, 7, sameLo, 1, b, 8)                                            // order of LSNs
	bad(2, 3, b, 1, 'c', 7, 3, a, 1, b, 8)                                            // order of bounds
	bad(1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 1, b, 1)          // no such length
	bad(1, 3, a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, b, b, b, 1) // no such length
	got, reason = decodeDels([]byte{2, 0, 0, 0, 3, a, 1, b, 7, sameLo, 1, b, 6})
	require.Empty(t, reason)
	require.Len(t, got, 2)
}
