package segment

import (
	"context"
	"errors"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/internal/base"
)

// fuzzSeeds are valid files of all shapes.
func fuzzSeeds(t testing.TB) [][]byte {
	var seeds [][]byte
	for _, vs := range [][]version{
		smallVersions(), smallVersions()[:1], randomVersions(rand.New(rand.NewPCG(9, 9)), 30)[:20],
	} {
		for _, opts := range []WriterOptions{
			{Compression: NoCompression, BlockSize: 256}, {BlockSize: 512},
			{Compression: Zstd, BlockSize: 1024, FilterBitsPerKey: -1},
		} {
			b, _ := build(t, testID, opts, vs)
			if len(b) < 32<<10 {
				seeds = append(seeds, b)
			}
		}
	}
	one := []version{{"key015", 9, base.KindPut, "v"}}
	for _, vs := range [][]version{nil, one, smallVersions()} {
		for _, dels := range [][]base.RangeDelete{smallDels()[:1], smallDels(), randomDels(rand.New(rand.NewPCG(9, 9)), 60)} {
			b, _ := buildDels(t, testID, WriterOptions{BlockSize: 1024}, vs, dels)
			seeds = append(seeds, b)
		}
	}
	return seeds
}

// abuse does everything a reader can do with a file that may be anything. It
// fails on a panic, a wrong kind of error, an iterator that does not end, and
// on more memory than the file's size and a constant.
func abuse(t *testing.T, b []byte) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	check := func(err error) bool {
		var c *base.CorruptionError
		var u *UnsupportedError
		if err != nil && !errors.As(err, &c) && !errors.As(err, &u) {
			t.Fatalf("an error of the wrong kind: %v", err)
		}
		return err == nil
	}
	r, err := openBytes(b, Options{})
	if !check(err) {
		return
	}
	_, err = r.loadIndex()
	check(err)
	_, err = r.Props()
	check(err)
	if r.HasRangeDeletes() {
		_, _, err = r.readDels()
		check(err)
	}
	// Up to here all that is allocated is bounded by lengths in the file. The
	// constant has room for what other goroutines allocate.
	runtime.ReadMemStats(&after)
	// A range delete of four bytes takes 56 when decoded.
	if got := after.TotalAlloc - before.TotalAlloc; got > 4*uint64(len(b))+16*r.foot.delsLen+256<<10 {
		t.Fatalf("open, index, range deletes and properties allocated %d bytes for a file of %d", got, len(b))
	}
	if _, err := r.RangeDeletes(); check(err) {
		_, _, err := r.Bounds()
		check(err)
	}
	// An entry takes at least five bytes of a block, decompressed; a compressed
	// block can be large, so walk only so far.
	const steps = 20000
	it := r.NewScanIter()
	var keys [][]byte
	n := 0
	for ok := it.First(); ok && n < steps; ok = it.Next() {
		if n++; len(keys) < 8 {
			keys = append(keys, slices.Clone(it.Key()[:min(len(it.Key()), 100)]))
		}
	}
	check(it.Err())
	n = 0
	for ok := it.Last(); ok && n < steps; ok = it.Prev() {
		n++
	}
	check(it.Err())
	for _, k := range append(keys, []byte("key015"), []byte("\xff\xff"), nil) {
		for _, lsn := range []base.LSN{0, 100, base.MaxLSN} {
			it.SeekGE(k, lsn)
			check(it.Err())
			it.SeekLT(k, lsn)
			check(it.Err())
			_, _, _, _, err := r.Get(k, lsn)
			check(err)
		}
	}
	require.NoError(t, it.Close())
	check(r.Verify(context.Background()))
	runtime.ReadMemStats(&after)
	// Nothing above bounds how often a large block is unpacked, so the total is
	// bounded by the number of reads, each of at most one block.
	if got := after.TotalAlloc - before.TotalAlloc; got > 60*(uint64(len(b))+maxPayload+maxPayload/4) {
		t.Fatalf("allocated %d bytes for a file of %d", got, len(b))
	}
	abuseCached(t, b, check)
}

// abuseCached reads the file by blocks that lie in a cache, and so are laid out anew.
// Two walks and all gets must agree: what a block shows is the same however it lies.
func abuseCached(t *testing.T, b []byte, check func(error) bool) {
	const steps = 5000
	plain, err := openBytes(b, Options{})
	if !check(err) {
		return
	}
	cached, err := openBytes(b, Options{Cache: NewCache(1 << 20)})
	require.NoError(t, err)
	for range 2 { // a block is laid out when it is read or when it is asked for again
		p, c := plain.NewIter(), cached.NewIter()
		okP, okC := p.First(), c.First()
		for n := 0; okP && okC && n < steps; n++ {
			require.Equal(t, p.Key(), c.Key())
			require.Equal(t, p.LSN(), c.LSN())
			require.Equal(t, p.Kind(), c.Kind())
			require.Equal(t, p.Value(), c.Value())
			if n < 8 {
				_, _, _, _, err := cached.Get(c.Key(), c.LSN())
				check(err)
			}
			if n%16 == 0 {
				if run := c.(base.Runner).Run(nil, 24, false); len(run) > 1 {
					require.Equal(t, c.Key(), run[0].Key)
				}
			}
			okP, okC = p.Next(), c.Next()
		}
		require.Equal(t, okP, okC)
		require.Equal(t, p.Err() == nil, c.Err() == nil)
		check(c.Err())
		for ok, n := c.Last(), 0; ok && n < steps; ok, n = c.Prev(), n+1 {
			if n%16 == 0 {
				c.(base.Runner).Run(nil, 24, true)
			}
		}
		check(c.Err())
		require.NoError(t, p.Close())
		require.NoError(t, c.Close())
	}
}

// FuzzOpen opens anything. Run both targets with -fuzzminimizetime 1x: pools and
// memory statistics make coverage waver, and the fuzzer would minimize for ever.
func FuzzOpen(f *testing.F) {
	for _, b := range fuzzSeeds(f) {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) { abuse(t, b) })
}

// FuzzOpenResealed repairs all checksums of the mutated file, so that the
// mutation reaches what lies behind them.
func FuzzOpenResealed(f *testing.F) {
	for _, b := range fuzzSeeds(f) {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		b = slices.Clone(b)
		reseal(b)
		abuse(t, b)
	})
}

// TestResealedDamage is the fuzz target's idea with plain random changes, in
// every test run.
func TestResealedDamage(t *testing.T) {
	seeds := fuzzSeeds(t)
	r := rand.New(rand.NewPCG(3, 3))
	rounds := 3000
	if testing.Short() {
		rounds = 300
	}
	opened := 0
	for range rounds {
		b := slices.Clone(seeds[r.IntN(len(seeds))])
		for range 1 + r.IntN(3) {
			spoil(r, b, r.IntN(len(b)))
		}
		reseal(b)
		if _, err := openBytes(b, Options{}); err == nil {
			opened++
		}
		abuse(t, b)
	}
	t.Logf("%d of %d files opened", opened, rounds)
	require.Greater(t, opened, rounds/2, "reseal must get past the footer")
}

// spoil changes a bit, a byte or a number at i.
func spoil(r *rand.Rand, b []byte, i int) {
	switch r.IntN(3) {
	case 0:
		b[i] ^= 1 << r.IntN(8)
	case 1:
		b[i] = byte(r.Uint32())
	case 2:
		copy(b[i:], []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1}[r.IntN(9):])
	}
}

func TestResealLeavesAnIntactFileAlone(t *testing.T) {
	for _, b := range fuzzSeeds(t) {
		c := slices.Clone(b)
		reseal(c)
		require.Equal(t, b, c)
	}
}

// What a file says of itself must not make a reader allocate: blocks that claim
// to unpack to far more than a block may hold, or than their content does.
func TestDecompressionBombs(t *testing.T) {
	vs := []version{{"key", 1, base.KindPut, string(make([]byte, 200<<10))}}
	for _, comp := range []Compression{S2, Zstd} {
		for _, claim := range []uint32{0, 1, 200 << 10, maxPayload, maxPayload + 1, 1<<32 - 1} {
			b, _ := build(t, testID, WriterOptions{Compression: comp}, vs)
			at := blocksOf(t, b)[0]
			tail := b[at.off+at.n-trailerSize:]
			tail[4], tail[5], tail[6], tail[7] = byte(claim), byte(claim>>8), byte(claim>>16), byte(claim>>24)
			reseal(b)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			r, err := openBytes(b, Options{})
			require.NoError(t, err)
			_, err = scan(r)
			require.True(t, isDamage(err, len(b)), "%v %d: %v", comp, claim, err)
			runtime.ReadMemStats(&after)
			require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(16<<20))
		}
	}
}
