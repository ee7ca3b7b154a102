package forebay_test

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/vfs"
)

// The benchmarks of durable puts write into a directory below FOREBAY_BENCH_DIR
// (default: the system's temporary directory, which must be a disk).
func benchDir(b *testing.B) string {
	dir, err := os.MkdirTemp(os.Getenv("FOREBAY_BENCH_DIR"), "forebay-bench-")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// BenchmarkRawSync is the limit of one durable put at a time: a write of as many
// bytes as a put's frame has, and fdatasync, on a file filled with zeros.
func BenchmarkRawSync(b *testing.B) {
	fsys := vfs.OS()
	f, err := fsys.Create(filepath.Join(benchDir(b), "raw"), vfs.ReadWrite)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	const size = 64 << 20
	if err := f.Zero(0, size); err != nil {
		b.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		b.Fatal(err)
	}
	buf := make([]byte, 192)
	for i := range buf {
		buf[i] = byte(i)
	}
	off := int64(0)
	for b.Loop() {
		if _, err := f.WriteAt(buf, off%(size-4096)); err != nil {
			b.Fatal(err)
		}
		if err := f.SyncData(); err != nil {
			b.Fatal(err)
		}
		off += int64(len(buf))
	}
}

// BenchmarkPut puts 16-byte keys with 100-byte values at level Buffered into one memtable:
// what a put costs the processors, beside a disk that is hardly used.
func BenchmarkPut(b *testing.B) {
	for _, c := range []struct {
		order   string
		writers int
	}{{"rising", 1}, {"random", 1}, {"random", 8}} {
		b.Run(fmt.Sprintf("%s/writers=%d", c.order, c.writers), func(b *testing.B) {
			db, err := forebay.Open(benchDir(b), &forebay.Options{DefaultLevel: forebay.Buffered, MemoryLimit: 4 << 30, MemtableSize: 1 << 30})
			if err != nil {
				b.Fatal(err)
			}
			defer db.Close()
			var wg sync.WaitGroup
			for w := range c.writers {
				wg.Go(func() {
					key, value := make([]byte, 16), make([]byte, 100)
					for i := w; i < b.N; i += c.writers {
						n := uint64(i)
						if c.order == "random" {
							n *= 0x9e3779b97f4a7c15
						}
						binary.BigEndian.PutUint64(key, n)
						binary.BigEndian.PutUint64(value, n)
						if err := db.Put(key, value); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
		})
	}
}

// BenchmarkDurablePut puts 16-byte keys with 100-byte values, durably.
func BenchmarkDurablePut(b *testing.B) {
	for _, writers := range []int{1, 8, 64, 256} {
		b.Run(fmt.Sprint("writers=", writers), func(b *testing.B) {
			db, err := forebay.Open(benchDir(b), nil)
			if err != nil {
				b.Fatal(err)
			}
			defer db.Close()
			value := make([]byte, 100)
			var next atomic.Int64
			var wg sync.WaitGroup
			db.Put([]byte("first"), value)
			before := db.Stats().Log
			b.ResetTimer()
			for range writers {
				wg.Go(func() {
					key := make([]byte, 0, 16)
					for i := next.Add(1); i <= int64(b.N); i = next.Add(1) {
						key = fmt.Appendf(key[:0], "%016d", i*7919%1_000_003)
						if err := db.Put(key, value); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
			b.StopTimer()
			after := db.Stats().Log
			b.ReportMetric(float64(after.Records-before.Records)/float64(max(1, after.Syncs-before.Syncs)), "records/sync")
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "puts/s")
		})
	}
}
