package segment

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/forebaydb/forebay/internal/base"
)

const benchEntries = 1_000_000

// benchKey is 16 bytes, benchValue 100 of which about half compress.
func benchKey(b []byte, i int) []byte {
	b = append(b[:0], "key-000000000000"...)
	for at := len(b) - 1; i > 0; at-- {
		b[at] = byte('0' + i%10)
		i /= 10
	}
	return b
}

var benchValues = sync.OnceValue(func() []byte {
	b := make([]byte, 1<<20)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range b {
		if i%100 < 50 {
			b[i] = byte(r.Uint32())
		} else {
			b[i] = 'v'
		}
	}
	return b
})

func benchValue(i int) []byte {
	v := benchValues()
	at := i * 100 % (len(v) - 100)
	return v[at : at+100]
}

func benchBuild(b *testing.B, f *bytesFile, opts WriterOptions) Meta {
	w, err := NewWriter(f, testID, opts)
	if err != nil {
		b.Fatal(err)
	}
	var key []byte
	for i := range benchEntries {
		key = benchKey(key, 2*i) // the odd ones are missing
		if err := w.Add(key, uint64(i+1), base.KindPut, benchValue(i)); err != nil {
			b.Fatal(err)
		}
	}
	meta, err := w.Finish()
	if err != nil {
		b.Fatal(err)
	}
	return meta
}

var benchShapes = []WriterOptions{
	{Compression: NoCompression, BlockSize: 4 << 10},
	{Compression: NoCompression, BlockSize: 8 << 10},
	{Compression: NoCompression, BlockSize: 16 << 10},
	{Compression: S2}, {Compression: Zstd},
}

func (o WriterOptions) benchName() string {
	o, _ = o.withDefaults()
	return fmt.Sprintf("%v-%dK", o.Compression, o.BlockSize>>10)
}

func BenchmarkBuild1M(b *testing.B) {
	benchValues()
	for _, o := range benchShapes {
		b.Run(o.benchName(), func(b *testing.B) {
			f := &bytesFile{b: make([]byte, 0, 160<<20)}
			b.ReportAllocs()
			var meta Meta
			for range b.N {
				f.b, f.writes = f.b[:0], nil
				meta = benchBuild(b, f, o)
			}
			b.SetBytes(benchEntries * 116)
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/benchEntries, "ns/entry")
			b.ReportMetric(float64(meta.Size)/benchEntries, "B/entry")
		})
	}
}

// benchReader opens a segment of 1M entries; warm has a cache that holds it all.
func benchReader(b *testing.B, o WriterOptions, warm bool) *Reader {
	f := &bytesFile{b: make([]byte, 0, 160<<20)}
	benchBuild(b, f, o)
	var ro Options
	if warm {
		ro.Cache = NewCache(512 << 20)
	}
	r, err := Open(f, "bench", testID, ro)
	if err != nil {
		b.Fatal(err)
	}
	if warm {
		key := make([]byte, 0, 32)
		for i := range 2 * benchEntries {
			if _, _, _, _, err := r.Get(benchKey(key, i), base.MaxLSN); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.Cleanup(func() { _ = r.Close() })
	return r
}

func BenchmarkGet(b *testing.B) {
	for _, o := range benchShapes {
		for _, warm := range []bool{true, false} {
			b.Run(fmt.Sprintf("%s/cache=%v", o.benchName(), warm), func(b *testing.B) {
				r := benchReader(b, o, warm)
				for odd, what := range []string{"hit", "miss"} {
					b.Run(what, func(b *testing.B) {
						b.ReportAllocs()
						rnd := rand.New(rand.NewPCG(4, 4))
						var key []byte
						for range b.N {
							key = benchKey(key, 2*rnd.IntN(benchEntries)+odd)
							_, _, _, found, err := r.Get(key, base.MaxLSN)
							if err != nil || found != (odd == 0) {
								b.Fatal(found, err)
							}
						}
					})
				}
			})
		}
	}
}

func BenchmarkScan(b *testing.B) {
	for _, o := range benchShapes {
		r := benchReader(b, o, false)
		for _, back := range []bool{false, true} {
			b.Run(fmt.Sprintf("%s/back=%v", o.benchName(), back), func(b *testing.B) {
				b.ReportAllocs()
				it := r.NewScanIter()
				defer it.Close()
				for range b.N {
					if ok := it.Valid() && (back && it.Prev() || !back && it.Next()); !ok {
						if back {
							it.Last()
						} else {
							it.First()
						}
					}
				}
				if err := it.Err(); err != nil {
					b.Fatal(err)
				}
			})
		}
	}
}

// BenchmarkRun is a scan of cached blocks by runs; an operation is one version.
func BenchmarkRun(b *testing.B) {
	r := benchReader(b, WriterOptions{}, true)
	for _, back := range []bool{false, true} {
		b.Run(fmt.Sprintf("back=%v", back), func(b *testing.B) {
			it := r.NewIter().(*iter)
			defer it.Close()
			var run []base.Version
			for n := 0; n < b.N; {
				ok := false
				switch {
				case !it.Valid() && back:
					ok = it.Last()
				case !it.Valid():
					ok = it.First()
				case back:
					ok = it.Prev()
				default:
					ok = it.Next()
				}
				if !ok {
					continue
				}
				run = it.Run(run, 128, back)
				n += len(run)
				it.Advance(len(run) - 1)
			}
		})
	}
}

func BenchmarkSeek(b *testing.B) {
	r := benchReader(b, WriterOptions{Compression: NoCompression}, true)
	it := r.NewIter()
	rnd := rand.New(rand.NewPCG(4, 4))
	var key []byte
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		key = benchKey(key, rnd.IntN(2*benchEntries))
		it.SeekGE(key, base.MaxLSN)
	}
}

func BenchmarkVerify(b *testing.B) {
	r := benchReader(b, WriterOptions{}, false)
	b.SetBytes(int64(r.Size()))
	b.ResetTimer()
	for range b.N {
		if err := r.Verify(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkOpenScanClose is the whole life of a reader of a segment of 10 KB.
func BenchmarkOpenScanClose(b *testing.B) {
	for _, comp := range []Compression{NoCompression, S2, Zstd} {
		b.Run(comp.String(), func(b *testing.B) {
			f := &bytesFile{}
			w, _ := NewWriter(f, testID, WriterOptions{Compression: comp})
			for i := range 85 {
				if err := w.Add(benchKey(nil, i), 1, base.KindPut, benchValue(i)); err != nil {
					b.Fatal(err)
				}
			}
			if _, err := w.Finish(); err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for range b.N {
				r, err := Open(f, "bench", testID, Options{})
				if err != nil {
					b.Fatal(err)
				}
				it := r.NewScanIter()
				n := 0
				for ok := it.First(); ok; ok = it.Next() {
					n++
				}
				if n != 85 || it.Err() != nil || it.Close() != nil || r.Close() != nil {
					b.Fatal(n, it.Err())
				}
			}
			b.ReportMetric(float64(len(f.b)), "B/file")
		})
	}
}
