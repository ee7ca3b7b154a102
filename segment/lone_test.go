package segment

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/cespare/xxhash/v2"
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
	it := r.NewLastIter(nil, opts)
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
		anew, _ := build(t, testID, opts, left)
		require.True(t, bytes.Equal(anew, to))
		for _, v := range left {
			value, kind, at, found, err := dst.Get([]byte(v.key), v.lsn)
			require.NoError(t, err)
			require.True(t, found)
			require.Equal(t, v, version{v.key, at, kind, string(value)})
		}
		if opts.Compression == Zstd {
			require.Zero(t, countPacked(t, src, WriterOptions{Compression: S2, BlockSize: opts.BlockSize}))
		}
		require.Zero(t, countPacked(t, src, WriterOptions{Compression: opts.Compression, BlockSize: 64 << 10}), "they would not be alone")
	}
}

func countPacked(t *testing.T, r *Reader, opts WriterOptions) (n int) {
	it := r.NewLastIter(nil, opts)
	for ok := it.First(); ok; ok = it.Next() {
		if it.Kind() == base.KindPacked {
			n++
		}
	}
	require.NoError(t, it.Err())
	require.NoError(t, it.Close())
	return n
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
	it := r.NewLastIter(nil, WriterOptions{Compression: NoCompression, BlockSize: 4096})
	require.True(t, it.SeekGE([]byte("b"), base.MaxLSN))
	require.Equal(t, base.KindPacked, it.Kind())
	block := bytes.Clone(it.Value())
	w, err := NewWriter(&bytesFile{}, testID, WriterOptions{})
	require.NoError(t, err)
	for _, bad := range [][]byte{nil, block[:10], block[:len(block)-1], block[len(block)-trailerSize-loneSize:], append(bytes.Clone(block), make([]byte, trailerSize)...)} {
		require.ErrorIs(t, w.Add([]byte("b"), 1, base.KindPacked, bad), ErrLimit)
	}
	require.ErrorIs(t, w.Add([]byte("b"), base.MaxLSN, base.KindPacked, block), ErrLimit)
	require.ErrorIs(t, w.Add([]byte("b"), 2, base.KindPacked, block), ErrLimit)
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

func noise(r *rand.Rand, n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return string(b)
}

func blocksIn(t testing.TB, b []byte) int {
	r, err := openBytes(b, Options{})
	require.NoError(t, err)
	x, err := r.loadIndex()
	require.NoError(t, err)
	return len(x.blocks)
}

// TestSmallOnesAreNotLone: bodies of 16 KiB and 60 bytes about each lie beside each
// other; then the bodies are deleted. What is left shares blocks again.
func TestSmallOnesAreNotLone(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	var vs []version
	for i := range 1500 {
		vs = append(vs, version{fmt.Sprintf("doc/%06d/body", i), base.LSN(2*i + 1), base.KindPut, noise(r, 16<<10)},
			version{fmt.Sprintf("doc/%06d/meta", i), base.LSN(2*i + 2), base.KindPut, noise(r, 60)})
	}
	b, _ := build(t, testID, WriterOptions{}, vs)
	for range 4 { // merges
		src, err := openBytes(b, Options{})
		require.NoError(t, err)
		it := src.NewLastIter(nil, WriterOptions{})
		f := &bytesFile{}
		w, err := NewWriter(f, testID, WriterOptions{})
		require.NoError(t, err)
		for ok := it.First(); ok; ok = it.Next() {
			if !bytes.HasSuffix(it.Key(), []byte("body")) {
				require.NoError(t, w.Add(it.Key(), it.LSN(), it.Kind(), it.Value()))
			}
		}
		_, err = w.Finish()
		require.NoError(t, err)
		b = f.b
	}
	left := slices.DeleteFunc(vs, func(v version) bool { return strings.HasSuffix(v.key, "body") })
	fresh, _ := build(t, testID, WriterOptions{}, left)
	n, m := blocksIn(t, b), blocksIn(t, fresh)
	t.Logf("blocks %d after merges, %d when written anew; bytes %d and %d", n, m, len(b), len(fresh))
	require.LessOrEqual(t, n, 2*m)
}

// TestLongKeysAreNotInTheIndex: the index stays in memory, and is no copy of the data
// where keys are as long as blocks.
func TestLongKeysAreNotInTheIndex(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for _, keyLen := range []int{1 << 10, 5 << 10, 16 << 10} {
		var vs []version
		for i := range 300 {
			value := 10
			if keyLen == 1<<10 {
				value = 8 << 10
			}
			vs = append(vs, version{noise(r, keyLen), base.LSN(i + 1), base.KindPut, noise(r, value)})
		}
		slices.SortFunc(vs, compareVersions)
		b, _ := build(t, testID, WriterOptions{}, vs)
		rd, err := openBytes(b, Options{})
		require.NoError(t, err)
		_, err = rd.loadIndex()
		require.NoError(t, err)
		t.Logf("keys of %d: file %d, in memory %d", keyLen, len(b), rd.Memory())
		if rd.Memory() > int64(len(b)/20) {
			t.Errorf("keys of %d: the index takes %d%% of the data's size in memory", keyLen, rd.Memory()*100/int64(rd.foot.dataLen))
		}
	}
}

// flaky fails some reads.
type flaky struct {
	*bytesFile
	r *rand.Rand
	p int
}

var errFlaky = errors.New("flaky")

func (f *flaky) ReadAt(p []byte, off int64) (int, error) {
	if f.p > 0 && f.r.IntN(f.p) == 0 {
		n, _ := f.bytesFile.ReadAt(p[:f.r.IntN(len(p)+1)], off)
		return n, errFlaky
	}
	return f.bytesFile.ReadAt(p, off)
}

// TestPackedMoves: moves in all directions, reads that fail, Rest, over and over: each
// packed value verifies and is the version that it should be.
func TestPackedMoves(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	packed, failed := 0, 0
	for range 12 {
		vs := largeAndSmall(r, 150)
		for range 4 {
			vs = append(vs, version{fmt.Sprintf("key%06d", r.IntN(450)), base.LSN(5000 + r.IntN(1000)), base.KindPut, noise(r, 200<<10+r.IntN(400<<10))})
		}
		slices.SortFunc(vs, compareVersions)
		vs = slices.CompactFunc(vs, func(a, b version) bool { return compareVersions(a, b) == 0 })
		comp := Compression(1 + r.IntN(3))
		opts := WriterOptions{Compression: comp, BlockSize: 512 << r.IntN(5)}
		b, _ := build(t, testID, opts, vs)
		f := &flaky{bytesFile: &bytesFile{b: b}, r: r}
		rd, err := Open(f, "000007.seg", testID, Options{})
		require.NoError(t, err)
		_, err = rd.loadIndex()
		require.NoError(t, err)
		it := rd.NewLastIter(func() bool { return true }, opts).(*iter)
		at := -1 // where it should stand
		find := func(key string, lsn base.LSN) int {
			i, _ := slices.BinarySearchFunc(vs, version{key: key, lsn: lsn}, compareVersions)
			return i
		}
		for step := range 1500 {
			if f.p = 0; step%100 > 60 {
				f.p = 4
			}
			var ok bool
			want := -1
			key, lsn := fmt.Sprintf("key%06d", r.IntN(460)), base.LSN(r.IntN(7000))
			op := r.IntN(40)
			switch {
			case op == 0:
				ok, want = it.First(), 0
			case op == 1:
				ok, want = it.Last(), len(vs)-1
			case op == 2:
				it.Rest()
				at = -1
				require.False(t, it.Next())
				continue
			case op < 6 || at < 0:
				ok, want = it.SeekGE([]byte(key), lsn), find(key, lsn)
			case op < 9:
				ok, want = it.SeekLT([]byte(key), lsn), find(key, lsn)-1
			case op < 25:
				ok, want = it.Next(), at+1
			default:
				ok, want = it.Prev(), at-1
			}
			if !ok {
				if it.Err() != nil {
					require.ErrorIs(t, it.Err(), errFlaky)
					failed++
				} else {
					require.True(t, want < 0 || want >= len(vs), "op %d", op)
				}
				at = -1
				continue
			}
			at = want
			v := vs[want]
			require.Equal(t, v.key, string(it.Key()))
			require.Equal(t, v.lsn, it.LSN())
			if it.Kind() != base.KindPacked {
				require.Equal(t, v, read(it))
				continue
			}
			packed++
			k := it.Value()
			require.Equal(t, xxhash.Sum64(k[:len(k)-8]), binary.LittleEndian.Uint64(k[len(k)-8:]), "op %d", op)
			payload, tr, n, ok := openLone(k, it.Key(), it.LSN())
			require.True(t, ok)
			require.Equal(t, len(v.value), n)
			if step%7 == 0 && tr.comp != NoCompression {
				raw, err := decompress(tr.comp, nil, payload, tr.rawLen)
				require.NoError(t, err)
				var bi blockIter
				require.True(t, bi.init(raw) && bi.first())
				require.Equal(t, v, version{string(bi.key), bi.lsn, bi.kind, string(bi.value)})
			}
		}
	}
	t.Logf("%d packed, %d reads failed", packed, failed)
	require.Greater(t, packed, 500)
	require.Greater(t, failed, 50)
}

// TestPackedFromSeveral: several sources, cuts, range deletes, values around writeSize, in all
// compressions and other block sizes: what comes out verifies and is what went in.
func TestPackedFromSeveral(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	for range 40 {
		comp := Compression(1 + r.IntN(3))
		opts := WriterOptions{Compression: comp, BlockSize: 256 << r.IntN(6), FilterBitsPerKey: r.IntN(3)*10 - 10}
		var all []version
		var its []base.Iterator
		for s := range 1 + r.IntN(3) {
			vs := largeAndSmall(r, 1+r.IntN(60))
			for i := range vs {
				vs[i].lsn = vs[i].lsn*4 + base.LSN(s)
			}
			for range 3 {
				n := writeSize - 100 + r.IntN(200)
				value := noise(r, n)
				if r.IntN(3) == 0 {
					value = noise(r, n/2) + strings.Repeat("z", r.IntN(3*n))
				}
				vs = append(vs, version{fmt.Sprintf("key%06d", r.IntN(200)), base.LSN(4*(9000+r.IntN(1000)) + s), base.KindPut, value})
			}
			slices.SortFunc(vs, compareVersions)
			vs = slices.CompactFunc(vs, func(a, b version) bool { return compareVersions(a, b) == 0 })
			b, _ := build(t, testID, WriterOptions{Compression: comp, BlockSize: 256 << r.IntN(6)}, vs)
			rd, err := openBytes(b, Options{})
			require.NoError(t, err)
			its, all = append(its, rd.NewLastIter(nil, opts)), append(all, vs...)
		}
		slices.SortFunc(all, compareVersions)
		var got []version
		var f *bytesFile
		var w *Writer
		var id ID
		live := map[base.Iterator]bool{}
		for _, it := range its {
			live[it] = it.First()
		}
		cut := func() {
			if w == nil {
				return
			}
			dels := r.IntN(2) == 0
			if dels {
				require.NoError(t, w.AddRangeDelete([]byte("a"), []byte("b"), 7))
			}
			meta, err := w.Finish()
			require.NoError(t, err)
			require.Equal(t, uint64(len(f.b)), meta.Size)
			rd, err := Open(&bytesFile{b: f.b}, "x", id, Options{})
			require.NoError(t, err)
			require.NoError(t, rd.Verify(context.Background()))
			vs, err := scan(rd)
			require.NoError(t, err)
			for _, v := range vs {
				value, kind, at, found, err := rd.Get([]byte(v.key), v.lsn)
				require.NoError(t, err)
				require.True(t, found)
				require.Equal(t, v, version{v.key, at, kind, string(value)})
			}
			got, w = append(got, vs...), nil
		}
		num := uint64(100)
		for {
			var top base.Iterator
			for _, it := range its {
				if live[it] && (top == nil || base.Compare(it.Key(), it.LSN(), top.Key(), top.LSN()) < 0) {
					top = it
				}
			}
			if top == nil {
				break
			}
			if w == nil {
				num++
				id = ID{Store: testID.Store, Number: num}
				f = &bytesFile{}
				var err error
				w, err = NewWriter(f, id, opts)
				require.NoError(t, err)
			}
			if r.IntN(10) == 0 { // refused: the writer is as it was
				require.Error(t, w.Add(top.Key(), base.MaxLSN, top.Kind(), top.Value()))
				require.Error(t, w.Add(top.Key(), top.LSN(), base.KindPacked, []byte("nonsense, and too short")))
			}
			require.NoError(t, w.Add(top.Key(), top.LSN(), top.Kind(), top.Value()))
			live[top] = top.Next()
			if r.IntN(25) == 0 {
				cut()
			}
		}
		cut()
		for _, it := range its {
			require.NoError(t, it.Err())
		}
		require.Equal(t, len(all), len(got))
		require.True(t, slices.Equal(all, got))
	}
}

// TestForgedLoneIsDamage: a lone block that verifies and cannot be is damage of a file
// with a place, for a merge as for all who read it.
func TestForgedLoneIsDamage(t *testing.T) {
	vs := []version{
		{"a", 3, base.KindPut, strings.Repeat("x", 9000)},
		{"b", 3, base.KindPut, strings.Repeat("y", 9000)},
		{"c", 3, base.KindPut, strings.Repeat("z", 9000)},
	}
	for name, forge := range map[string]func(tail []byte){
		"compression": func(tail []byte) { tail[1] = 9 },
		"length":      func(tail []byte) { binary.LittleEndian.PutUint32(tail[4:], 3) },
	} {
		b, _ := build(t, testID, WriterOptions{}, vs)
		rd, err := openBytes(b, Options{})
		require.NoError(t, err)
		x, err := rd.loadIndex()
		require.NoError(t, err)
		off, n := x.block(1)
		k := b[off : off+n]
		forge(k[n-trailerSize:])
		binary.LittleEndian.PutUint64(k[n-8:], xxhash.Sum64(k[:n-8])^bind(&testID, off, kindData))
		rd, err = openBytes(b, Options{})
		require.NoError(t, err)
		_, _, _, _, err = rd.Get([]byte("b"), 9)
		require.True(t, isDamage(err, len(b)), "%s: Get: %v", name, err)
		w, err := NewWriter(&bytesFile{}, testID, WriterOptions{})
		require.NoError(t, err)
		it := rd.NewLastIter(nil, WriterOptions{})
		for ok := it.First(); ok && err == nil; ok = err == nil && it.Next() {
			err = w.Add(it.Key(), it.LSN(), it.Kind(), it.Value())
		}
		if err == nil {
			err = it.Err()
		}
		if !isDamage(err, len(b)) {
			t.Errorf("%s: a merge is told: %v", name, err)
		}
	}
}

// TestAbusePacked: adversary-made files through the iterator and the writer of a merge:
// no panic, errors of the right kinds.
func TestAbusePacked(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 3))
	var seeds [][]byte
	for _, comp := range []Compression{NoCompression, S2, Zstd} {
		vs := largeAndSmall(r, 8)
		b, _ := build(t, testID, WriterOptions{Compression: comp, BlockSize: 300}, vs)
		seeds = append(seeds, b)
	}
	packed := 0
	for round := range 2500 {
		b := slices.Clone(seeds[r.IntN(len(seeds))])
		for range 1 + r.IntN(4) {
			i := r.IntN(len(b))
			if r.IntN(2) == 0 { // the index and what is behind it
				i = len(b) - 1 - r.IntN(min(len(b), 900))
			}
			spoil(r, b, i)
		}
		reseal(b)
		rd, err := openBytes(b, Options{})
		if err != nil {
			continue
		}
		it := rd.NewLastIter(nil, WriterOptions{Compression: rd.foot.compression, BlockSize: 300})
		w, err := NewWriter(&bytesFile{}, testID, WriterOptions{Compression: S2})
		require.NoError(t, err)
		n := 0
		for ok := it.First(); ok && n < 3000; ok = it.Next() {
			if n++; it.Kind() == base.KindPacked {
				packed++
			}
			if err := w.Add(it.Key(), it.LSN(), it.Kind(), it.Value()); err != nil {
				require.True(t, errors.Is(err, ErrLimit) || errors.Is(err, ErrOrder), "%v", err)
			}
		}
		if it.Err() != nil {
			require.True(t, isDamage(it.Err(), len(b)))
		}
		if n > 0 && w.props.Count > 0 {
			_, err = w.Finish()
			require.NoError(t, err)
		}
		for ok, n := it.Last(), 0; ok && n < 3000; ok, n = it.Prev(), n+1 {
		}
		if round%20 > 0 {
			continue
		}
		m, err := Survey(context.Background(), &bytesFile{b: b}, "000007.seg", testID)
		if err == nil {
			si := m.NewIter(&bytesFile{b: b})
			for ok := si.First(); ok; ok = si.Next() {
			}
		}
	}
	require.Greater(t, packed, 100)
}

type nullFile struct{ bytesFile }

func (f *nullFile) WriteAt(p []byte, off int64) (int, error) { return len(p), nil }

// TestLargeLoneTakesNoHeap: a merge that passes values of 512 KiB on takes no memory for
// each.
func TestLargeLoneTakesNoHeap(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	var vs []version
	for i := range 40 {
		vs = append(vs, version{fmt.Sprintf("k%05d", i), base.LSN(i + 1), base.KindPut, noise(r, 512<<10)})
	}
	b, _ := build(t, testID, WriterOptions{}, vs)
	rd, err := openBytes(b, Options{})
	require.NoError(t, err)
	per := func(it base.Iterator) uint64 {
		w, err := NewWriter(&nullFile{}, testID, WriterOptions{})
		require.NoError(t, err)
		var before, after runtime.MemStats
		n := 0
		for ok := it.First(); ok; ok = it.Next() {
			if n++; n == 10 {
				runtime.ReadMemStats(&before)
			}
			require.NoError(t, w.Add(it.Key(), it.LSN(), it.Kind(), it.Value()))
		}
		runtime.ReadMemStats(&after)
		require.NoError(t, it.Close())
		return (after.TotalAlloc - before.TotalAlloc) / 31
	}
	plain, packed := per(rd.NewScanIter()), per(rd.NewLastIter(nil, WriterOptions{}))
	t.Logf("bytes of the heap for each value of 512 KiB: %d unpacked, %d packed", plain, packed)
	require.Less(t, packed, uint64(100<<10))
}
