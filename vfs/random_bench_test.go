package vfs

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"testing"
)

// BenchmarkPlaces writes 4 KiB at a time into a file of 256 MiB that has its blocks, one
// write after the other or at random places, with a sync after each, or after 64.
func BenchmarkPlaces(b *testing.B) {
	const size, block = 256 << 20, 4 << 10
	for _, writes := range []int{1, 64} {
		for _, place := range []string{"sequential", "random"} {
			b.Run(fmt.Sprintf("%s/writes-a-sync=%d", place, writes), func(b *testing.B) {
				f, err := OS().Create(filepath.Join(b.TempDir(), "f"), ReadWrite)
				if err != nil {
					b.Fatal(err)
				}
				defer f.Close()
				fill := make([]byte, 1<<20)
				for off := int64(0); off < size; off += int64(len(fill)) {
					if _, err := f.WriteAt(fill, off); err != nil {
						b.Fatal(err)
					}
				}
				if err := f.Sync(); err != nil {
					b.Fatal(err)
				}
				r, at := rand.New(rand.NewPCG(1, 1)), int64(0)
				for b.Loop() {
					for range writes {
						if place == "random" {
							at = r.Int64N(size/block) * block
						}
						if _, err := f.WriteAt(fill[:block], at); err != nil {
							b.Fatal(err)
						}
						at = (at + block) % size
					}
					if err := f.SyncData(); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(b.N*writes)/b.Elapsed().Seconds(), "writes/s")
			})
		}
	}
}
