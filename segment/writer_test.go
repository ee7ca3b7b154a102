package segment

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/internal/base"
)

func newWriter(t *testing.T, f *bytesFile, opts WriterOptions) *Writer {
	w, err := NewWriter(f, testID, opts)
	require.NoError(t, err)
	return w
}

func TestWriterRefusesDisorder(t *testing.T) {
	f := &bytesFile{}
	w := newWriter(t, f, WriterOptions{})
	require.NoError(t, w.Add([]byte("b"), 5, base.KindPut, nil))
	require.NoError(t, w.Add([]byte("b"), 4, base.KindDelete, nil))
	for _, v := range []version{{key: "a", lsn: 1}, {key: "b", lsn: 4}, {key: "b", lsn: 5}} {
		require.ErrorIs(t, w.Add([]byte(v.key), v.lsn, base.KindPut, nil), ErrOrder)
	}
	require.NoError(t, w.Add([]byte("b\x00"), 9, base.KindPut, nil), "a refusal changes nothing")
	meta, err := w.Finish()
	require.NoError(t, err)
	require.Equal(t, Meta{
		Number: 7, Size: uint64(len(f.b)), Count: 3, Tombstones: 1,
		Lo: []byte("b"), Hi: []byte("b\x00\x00"), MinLSN: 4, MaxLSN: 9, Hash: meta.Hash,
	}, meta)
	require.ErrorIs(t, w.Add([]byte("c"), 1, base.KindPut, nil), ErrFinished)
	_, err = w.Finish()
	require.ErrorIs(t, err, ErrFinished)
}

func TestWriterLimits(t *testing.T) {
	f := &bytesFile{}
	w := newWriter(t, f, WriterOptions{})
	k := []byte("k")
	require.ErrorIs(t, w.Add(nil, 1, base.KindPut, nil), ErrLimit)
	require.ErrorIs(t, w.Add(make([]byte, base.MaxKeySize+1), 1, base.KindPut, nil), ErrLimit)
	require.ErrorIs(t, w.Add(k, 1, base.KindPut, make([]byte, base.MaxValueSize+1)), ErrLimit)
	require.ErrorIs(t, w.Add(k, 1, 3, nil), ErrLimit)
	require.ErrorIs(t, w.Add(k, 1, base.KindDelete, k), ErrLimit)
	require.ErrorIs(t, w.Add(k, base.MaxLSN, base.KindPut, nil), ErrLimit)
	_, err := w.Finish()
	require.ErrorIs(t, err, ErrEmpty)
	require.Empty(t, f.b)
	for _, o := range []WriterOptions{{Compression: 4}, {BlockSize: 255}, {BlockSize: -1}, {BlockSize: maxBlockSize + 1}, {FilterBitsPerKey: 65}} {
		_, err := NewWriter(f, testID, o)
		require.ErrorIs(t, err, ErrLimit, "%+v", o)
	}
}

func TestLargestKeyAndValue(t *testing.T) {
	noise := make([]byte, base.MaxValueSize)
	r := rand.NewChaCha8([32]byte{1})
	_, _ = r.Read(noise)
	comps := []Compression{S2, NoCompression, Zstd}
	if testing.Short() || raceDetector {
		comps = comps[:1]
	}
	for _, comp := range comps {
		f := &bytesFile{}
		w := newWriter(t, f, WriterOptions{Compression: comp})
		long := bytes.Repeat([]byte("k"), base.MaxKeySize)
		require.NoError(t, w.Add([]byte("a"), 1, base.KindPut, []byte("small")))
		require.NoError(t, w.Add(long, base.MaxLSN-1, base.KindPut, noise))
		require.NoError(t, w.Add(long, 0, base.KindPut, make([]byte, base.MaxValueSize)))
		require.NoError(t, w.Add([]byte("z"), 1, base.KindPut, []byte("small")))
		estimate := w.EstimatedSize()
		meta, err := w.Finish()
		require.NoError(t, err)
		require.InEpsilon(t, meta.Size, estimate, 0.01)
		rd, err := openBytes(f.b, Options{Cache: NewCache(8 << 20)})
		require.NoError(t, err)
		v, _, at, found, err := rd.Get(long, base.MaxLSN)
		require.NoError(t, err)
		require.True(t, found && at == base.MaxLSN-1 && bytes.Equal(v, noise))
		v, _, _, found, err = rd.Get(long, 77)
		require.NoError(t, err)
		require.True(t, found && bytes.Equal(v, make([]byte, base.MaxValueSize)))
		require.NoError(t, rd.Verify(t.Context()))
	}
}

func TestWritesAreLarge(t *testing.T) {
	f := &bytesFile{}
	w := newWriter(t, f, WriterOptions{Compression: NoCompression})
	value := make([]byte, 3000)
	for i := range 1000 {
		require.NoError(t, w.Add(fmt.Appendf(nil, "%06d", i), 1, base.KindPut, value))
	}
	_, err := w.Finish()
	require.NoError(t, err)
	for _, n := range f.writes[:len(f.writes)-1] {
		require.Equal(t, writeSize, n)
	}
}

// After a failed write nothing is accepted, and Finish never calls it a success.
func TestWriteErrors(t *testing.T) {
	full := errors.New("no space left on device")
	f := &bytesFile{callErr: full}
	w := newWriter(t, f, WriterOptions{Compression: NoCompression})
	var err error
	for i := 0; err == nil && i < 1000; i++ {
		err = w.Add(fmt.Appendf(nil, "%06d", i), 1, base.KindPut, make([]byte, 1000))
	}
	require.ErrorIs(t, err, full)
	f.callErr = nil
	require.ErrorIs(t, w.Add([]byte("z"), 1, base.KindPut, nil), full)
	_, err = w.Finish()
	require.ErrorIs(t, err, full)

	f = &bytesFile{callErr: full}
	w = newWriter(t, f, WriterOptions{})
	require.NoError(t, w.Add([]byte("z"), 1, base.KindPut, nil))
	_, err = w.Finish()
	require.ErrorIs(t, err, full)
}

func TestFilterAnswersWrongSeldom(t *testing.T) {
	for _, n := range []int{1, 10, 100, 4000, 100000} {
		var all []uint64
		var keys hashes
		r := rand.New(rand.NewPCG(uint64(n), 1))
		for range n {
			h := r.Uint64()
			all = append(all, h)
			keys.add(h)
		}
		require.Equal(t, n, keys.len())
		shape, pages := buildBloom(&keys, defaultBitsPerKey)
		require.Zero(t, len(pages)%lineSize)
		pageLen := shape.linesPerPage * lineSize
		may := func(h uint64) bool {
			p := shape.page(h) * pageLen
			return shape.mayContain(pages[p:p+pageLen], h)
		}
		for _, h := range all {
			require.True(t, may(h))
		}
		wrong := 0
		const tries = 100000
		for range tries {
			if may(r.Uint64()) {
				wrong++
			}
		}
		require.Less(t, wrong, tries*2/100, "%d keys", n)
		t.Logf("%d keys: %.2f bits a key, %.2f%% wrong", n, float64(len(pages)*8)/float64(n), float64(wrong)*100/tries)
	}
}

func TestIteratorStandsNowhereAfterClose(t *testing.T) {
	b, _ := build(t, testID, WriterOptions{}, smallVersions())
	r, err := openBytes(b, Options{})
	require.NoError(t, err)
	it := r.NewIter()
	require.False(t, it.Valid() || it.Next() || it.Prev(), "and before it was placed")
	require.True(t, it.First())
	require.NoError(t, it.Close())
	require.NoError(t, it.Close())
	require.False(t, it.Valid() || it.Next() || it.First() || it.Last() || it.SeekGE([]byte("a"), 1))
	require.NoError(t, r.Close())
	require.True(t, r.f.(*bytesFile).closed)
}
