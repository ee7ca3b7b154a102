package segment

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/internal/base"
	"github.com/forebaydb/forebay/vfs"
)

// scanBack reads all versions backward with a scan iterator, and returns them in
// order.
func scanBack(r *Reader) ([]version, error) {
	it := r.NewScanIter()
	defer it.Close()
	var vs []version
	for ok := it.Last(); ok; ok = it.Prev() {
		vs = append(vs, read(it))
	}
	slices.Reverse(vs)
	return vs, it.Err()
}

// readsFile notes the reads of a file.
type readsFile struct {
	vfs.File
	offs, lens []int
}

func (f *readsFile) ReadAt(p []byte, off int64) (int, error) {
	f.offs, f.lens = append(f.offs, int(off)), append(f.lens, len(p))
	return f.File.ReadAt(p, off)
}

// bigVersions are about 4 MB.
func bigVersions() []version {
	r := rand.New(rand.NewPCG(8, 8))
	var vs []version
	for i := range 4000 {
		value := make([]byte, 1000)
		for j := range value {
			value[j] = byte(r.Uint32())
		}
		vs = append(vs, version{fmt.Sprintf("key%06d", i), 1, base.KindPut, string(value)})
	}
	vs[2000].value = string(make([]byte, 500)) + string(slices.Repeat([]byte(vs[7].value), 700)) // larger than a read
	return vs
}

// A scan reads 256 KiB or more at once in either direction, each byte of the
// data once, and neither fills nor asks the cache.
func TestScanReadsAhead(t *testing.T) {
	vs := bigVersions()
	for _, comp := range []Compression{NoCompression, S2} {
		b, _ := build(t, testID, WriterOptions{Compression: comp}, vs)
		f := &readsFile{File: &bytesFile{b: b}}
		c := NewCache(16 << 20)
		r, err := Open(f, "000007.seg", testID, Options{Cache: c})
		require.NoError(t, err)
		for _, back := range []bool{false, true} {
			_, err := r.loadIndex()
			require.NoError(t, err)
			f.offs, f.lens = nil, nil
			var got []version
			if back {
				got, err = scanBack(r)
			} else {
				it := r.NewScanIter()
				for ok := it.First(); ok; ok = it.Next() {
					got = append(got, read(it))
				}
				err = it.Err()
				require.NoError(t, it.Close())
			}
			require.NoError(t, err)
			require.True(t, slices.Equal(vs, got))
			sum := 0
			for i, n := range f.lens {
				sum += n
				if i < len(f.lens)-1 {
					require.GreaterOrEqual(t, n, scanRead)
				}
			}
			require.EqualValues(t, r.foot.dataLen, sum)
		}
		require.Zero(t, c.Stats().Hits+c.Stats().Misses)
		require.Zero(t, c.Bytes())
	}
}

// All moves of a scan iterator, among blocks that it has and has not read.
func TestScanWalk(t *testing.T) {
	vs := bigVersions()
	b, _ := build(t, testID, WriterOptions{}, vs)
	r, err := openBytes(b, Options{})
	require.NoError(t, err)
	it := r.NewScanIter()
	defer it.Close()
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		i := rnd.IntN(len(vs))
		if rnd.IntN(2) == 0 {
			require.True(t, it.SeekGE([]byte(vs[i].key), base.MaxLSN))
		} else if ok := it.SeekLT([]byte(vs[i].key), base.MaxLSN); i > 0 {
			require.True(t, ok)
			i--
		} else {
			require.False(t, ok)
			continue
		}
		for range rnd.IntN(100) {
			require.Equal(t, vs[i], read(it))
			step, move := 1, it.Next
			if rnd.IntN(3) == 0 {
				step, move = -1, it.Prev
			}
			if i += step; i < 0 || i == len(vs) {
				require.False(t, move())
				break
			}
			require.True(t, move())
		}
	}
}

// What lies ahead and cannot be read is no error of what lies before it.
func TestScanUpToABadPlace(t *testing.T) {
	vs := bigVersions()
	b, _ := build(t, testID, WriterOptions{}, vs)
	bf := &bytesFile{b: b}
	r, err := Open(bf, "000007.seg", testID, Options{})
	require.NoError(t, err)
	x, err := r.loadIndex()
	require.NoError(t, err)
	eio := errors.New("input/output error")
	bad, n := x.block(50)
	r.f = badRange{bf, int64(bad), int64(bad + n), eio}
	it := r.NewScanIter()
	defer it.Close()
	var got []version
	for ok := it.First(); ok; ok = it.Next() {
		got = append(got, read(it))
	}
	require.ErrorIs(t, it.Err(), eio)
	require.ErrorContains(t, it.Err(), fmt.Sprintf("000007.seg at offset %d", bad))
	require.True(t, slices.Equal(vs[:len(got)], got))
	require.Equal(t, x.find([]byte(vs[len(got)].key), base.MaxLSN), 50, "all before the bad block")
}

// badRange is a file of which a part cannot be read.
type badRange struct {
	vfs.File
	from, to int64
	err      error
}

func (f badRange) ReadAt(p []byte, off int64) (int, error) {
	if off < f.to && off+int64(len(p)) > f.from {
		return 0, f.err
	}
	return f.File.ReadAt(p, off)
}
