package segment

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/internal/base"
)

// largeAndSmall are versions, many of which have a block for themselves.
func largeAndSmall(r *rand.Rand, n int) (vs []version) {
	for i := range n {
		key := fmt.Sprintf("key%06d", i*3)
		for lsn := 1 + r.IntN(3); lsn > 0; lsn-- {
			v := version{key: key, lsn: base.LSN(1000*lsn + r.IntN(1000)), kind: base.KindPut}
			switch r.IntN(6) {
			case 0:
				v.kind = base.KindDelete
			case 1:
				v.value = strings.Repeat("s", r.IntN(40))
			case 2:
				b := make([]byte, 300+r.IntN(3000))
				for i := range b {
					b[i] = byte(r.Uint32())
				}
				v.value = string(b)
			default:
				v.value = strings.Repeat(fmt.Sprint(r.IntN(1000), " "), 100+r.IntN(1000))
			}
			vs = append(vs, v)
		}
	}
	slices.SortFunc(vs, compareVersions)
	return slices.CompactFunc(vs, func(a, b version) bool { return compareVersions(a, b) == 0 })
}

// copyPacked writes what an iterator shows into a new segment, and says how many of it
// were packed.
func copyPacked(t *testing.T, r *Reader, id ID, opts WriterOptions, skip func(i int) bool) (b []byte, packed int) {
	f := &bytesFile{}
	w, err := NewWriter(f, id, opts)
	require.NoError(t, err)
	it := r.NewLastIter(nil, opts.Compression)
	i := 0
	for ok := it.First(); ok; ok = it.Next() {
		if i++; skip(i - 1) {
			continue
		}
		if it.Kind() == base.KindPacked {
			packed++
		}
		require.NoError(t, w.Add(it.Key(), it.LSN(), it.Kind(), it.Value()))
	}
	require.NoError(t, it.Err())
	require.NoError(t, it.Close())
	_, err = w.Finish()
	require.NoError(t, err)
	return f.b, packed
}

// TestPackedIsWhatItWas: versions that are passed on packed are in the new segment as
// they were in the old one, whichever comes first and whatever is left out between them;
// and where nothing is, the two segments are of the same size.
func TestPackedIsWhatItWas(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	for round := range 60 {
		vs := largeAndSmall(r, 1+r.IntN(40))
		opts := WriterOptions{Compression: Compression(r.IntN(4)), BlockSize: 512 + r.IntN(4096)}
		from, _ := build(t, testID, opts, vs)
		src, err := openBytes(from, Options{})
		require.NoError(t, err)
		require.NoError(t, src.Verify(context.Background()))
		drop := r.IntN(3)
		gone := map[int]bool{}
		for i := range vs[1:] {
			gone[i] = drop > 0 && r.IntN(2*drop) == 0
		}
		left := []version{}
		for i, v := range vs {
			if !gone[i] {
				left = append(left, v)
			}
		}
		to, packed := copyPacked(t, src, testID, opts, func(i int) bool { return gone[i] })
		if round == 0 {
			t.Logf("%d of %d packed", packed, len(vs))
		}
		dst, err := openBytes(to, Options{Cache: NewCache(1 << 20)})
		require.NoError(t, err)
		require.NoError(t, dst.Verify(context.Background()))
		got, err := scan(dst)
		require.NoError(t, err)
		require.Equal(t, left, got)
		if drop == 0 {
			require.Equal(t, from, to)
		}
		for _, v := range left {
			value, kind, at, found, err := dst.Get([]byte(v.key), v.lsn)
			require.NoError(t, err)
			require.True(t, found)
			require.Equal(t, v, version{v.key, at, kind, string(value)})
		}
		if opts.Compression == Zstd {
			require.Zero(t, countPacked(t, src, S2))
		}
	}
}

func countPacked(t *testing.T, r *Reader, comp Compression) (n int) {
	it := r.NewLastIter(nil, comp)
	for ok := it.First(); ok; ok = it.Next() {
		if it.Kind() == base.KindPacked {
			n++
		}
	}
	require.NoError(t, it.Err())
	require.NoError(t, it.Close())
	return n
}

// TestPackedMoves: an iterator that leaves versions packed stands on the same ones as
// one that does not, wherever it is placed and in both directions.
func TestPackedMoves(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	vs := largeAndSmall(r, 60)
	b, _ := build(t, testID, WriterOptions{BlockSize: 1024}, vs)
	src, err := openBytes(b, Options{})
	require.NoError(t, err)
	a, p := src.NewScanIter(), src.NewLastIter(nil, S2)
	packed := 0
	for step := range 5000 {
		var x, y bool
		key := fmt.Appendf(nil, "key%06d", r.IntN(200))
		lsn := base.LSN(r.IntN(4000))
		switch op := r.IntN(12); {
		case op == 0:
			x, y = a.First(), p.First()
		case op == 1:
			x, y = a.Last(), p.Last()
		case op == 2:
			x, y = a.SeekGE(key, lsn), p.SeekGE(key, lsn)
		case op == 3:
			x, y = a.SeekLT(key, lsn), p.SeekLT(key, lsn)
		case op < 8:
			x, y = a.Next(), p.Next()
		default:
			x, y = a.Prev(), p.Prev()
		}
		require.Equal(t, x, y, "step %d", step)
		require.Equal(t, x, p.Valid())
		if !x {
			continue
		}
		require.Equal(t, a.Key(), p.Key())
		require.Equal(t, a.LSN(), p.LSN())
		if p.Kind() != base.KindPacked {
			require.Equal(t, read(a), read(p))
			continue
		}
		packed++
		require.Equal(t, base.KindPut, a.Kind())
		_, _, n, ok := openLone(p.Value(), p.Key())
		require.True(t, ok)
		require.Len(t, a.Value(), n)
	}
	require.Greater(t, packed, 100)
}

// TestPackedIsRefused: what is no lone block is refused, and the writer is as it was.
func TestPackedIsRefused(t *testing.T) {
	vs := []version{
		{"a", 1, base.KindPut, strings.Repeat("x", 5000)},
		{"b", 1, base.KindPut, strings.Repeat("y", 5000)},
		{"c", 1, base.KindPut, "small"},
		{"d", 1, base.KindPut, "small"},
	}
	b, _ := build(t, testID, WriterOptions{Compression: NoCompression, BlockSize: 4096}, vs)
	r, err := openBytes(b, Options{})
	require.NoError(t, err)
	it := r.NewLastIter(nil, NoCompression)
	require.True(t, it.SeekGE([]byte("b"), base.MaxLSN))
	require.Equal(t, base.KindPacked, it.Kind())
	block := bytes.Clone(it.Value())
	w, err := NewWriter(&bytesFile{}, testID, WriterOptions{})
	require.NoError(t, err)
	for _, bad := range [][]byte{nil, block[:10], block[:len(block)-1], block[len(block)-trailerSize-loneSize:], append(bytes.Clone(block), make([]byte, trailerSize)...)} {
		require.ErrorIs(t, w.Add([]byte("b"), 1, base.KindPacked, bad), ErrLimit)
	}
	require.ErrorIs(t, w.Add([]byte("b"), base.MaxLSN, base.KindPacked, block), ErrLimit)
	require.NoError(t, w.Add([]byte("b"), 1, base.KindPacked, block))
	require.ErrorIs(t, w.Add([]byte("b"), 1, base.KindPacked, block), ErrOrder)
	require.NoError(t, w.Add([]byte("b2"), 1, base.KindPut, nil))
	meta, err := w.Finish()
	require.NoError(t, err)
	require.Equal(t, uint64(2), meta.Count)
}

// TestLoneSaysTheTruth: Verify finds a block that says of itself that it has one version,
// and has another one, or more.
func TestLoneSaysTheTruth(t *testing.T) {
	vs := []version{
		{"a", 3, base.KindPut, strings.Repeat("x", 5000)},
		{"b", 3, base.KindPut, strings.Repeat("y", 5000)},
		{"c", 3, base.KindPut, strings.Repeat("z", 5000)},
	}
	b, _ := build(t, testID, WriterOptions{Compression: NoCompression, BlockSize: 4096}, vs)
	r, err := openBytes(b, Options{})
	require.NoError(t, err)
	x, err := r.loadIndex()
	require.NoError(t, err)
	off, n := x.block(1)
	forged := bytes.Clone(b)
	forged[off+n-trailerSize-loneSize]++ // the LSN
	resealBlock(forged, off, n, kindData)
	reseal(forged)
	r, err = openBytes(forged, Options{})
	require.NoError(t, err)
	require.ErrorContains(t, r.Verify(context.Background()), "says that it has one version")
}
