package memtable

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"

	"github.com/forebaydb/forebay/internal/base"
)

const benchLen = 1_000_000

// The benchmarks work on tables of up to benchLen entries of a 16-byte key
// and a 100-byte value. Run them with -benchtime=1000000x: then an insert is
// measured while one table grows to its full size.

func randomKey(i int) [16]byte {
	var k [16]byte
	h := uint64(i)*0x9e3779b97f4a7c15 + 1
	h ^= h >> 29
	h *= 0xbf58476d1ce4e5b9
	h ^= h >> 32
	binary.BigEndian.PutUint64(k[:], h)
	binary.BigEndian.PutUint64(k[8:], h*31)
	return k
}

func prefixKey(i int) [16]byte {
	var k [16]byte
	copy(k[:], fmt.Sprintf("usr/%012d", randomID(i)))
	return k
}

func randomID(i int) uint64 {
	k := randomKey(i)
	return binary.BigEndian.Uint64(k[:]) % 1e12
}

func sequentialKey(i int) [16]byte {
	var k [16]byte
	copy(k[:], "sequence")
	binary.BigEndian.PutUint64(k[8:], uint64(i))
	return k
}

func hotKey(i int) [16]byte { return randomKey(i & 63) }

var benchKeys = []struct {
	name string
	key  func(int) [16]byte
}{
	{"random", randomKey}, {"prefix", prefixKey}, {"sequential", sequentialKey}, {"hot", hotKey},
}

func fillBench(b *testing.B, n int, key func(int) [16]byte) *Table {
	t := New(64 << 20)
	value := make([]byte, 100)
	for i := range n {
		k := key(i)
		if err := t.Add(base.LSN(i+1), base.KindPut, k[:], value); err != nil {
			b.Fatal(err)
		}
	}
	return t
}

func BenchmarkInsert(b *testing.B)      { benchInsert(b, false) }
func BenchmarkInsertAhead(b *testing.B) { benchInsert(b, true) }

func benchInsert(b *testing.B, ahead bool) {
	for _, k := range benchKeys {
		b.Run(k.name, func(b *testing.B) {
			keys := make([][16]byte, min(b.N, benchLen))
			for i := range keys {
				keys[i] = k.key(i)
			}
			value := make([]byte, 100)
			runtime.GC()
			b.ResetTimer()
			t := New(64 << 20)
			for i := range b.N {
				at := i % benchLen
				if at == 0 {
					t = New(64 << 20)
				}
				if ahead && at+1 < len(keys) {
					t.Ahead(base.LSN(i+2), keys[at+1][:])
				}
				if err := t.Add(base.LSN(i+1), base.KindPut, keys[at][:], value); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(t.Bytes())/float64(t.Len()), "B/entry")
		})
	}
}

func BenchmarkGet(b *testing.B) {
	for _, k := range benchKeys {
		b.Run(k.name, func(b *testing.B) {
			t := fillBench(b, benchLen, k.key)
			rng := rand.New(rand.NewPCG(1, 2))
			order := make([][16]byte, 1<<16)
			for i := range order {
				order[i] = k.key(rng.IntN(benchLen))
			}
			b.ResetTimer()
			for i := range b.N {
				if _, _, _, ok := t.Get(order[i&(1<<16-1)][:], base.MaxLSN); !ok {
					b.Fatal("missing")
				}
			}
		})
	}
}

func BenchmarkNext(b *testing.B) { benchWalk(b, base.Iterator.First, base.Iterator.Next) }
func BenchmarkPrev(b *testing.B) { benchWalk(b, base.Iterator.Last, base.Iterator.Prev) }

func benchWalk(b *testing.B, start, step func(base.Iterator) bool) {
	t := fillBench(b, benchLen, randomKey)
	it := t.NewIter()
	ok := start(it)
	b.ResetTimer()
	for range b.N {
		if !ok && !start(it) {
			b.Fatal("empty")
		}
		_ = it.Key()
		ok = step(it)
	}
}

func BenchmarkSeekGE(b *testing.B) {
	t := fillBench(b, benchLen, randomKey)
	it := t.NewIter()
	b.ResetTimer()
	for i := range b.N {
		k := randomKey(i * 7)
		it.SeekGE(k[:], base.MaxLSN)
	}
}

func BenchmarkNewAndTenInserts(b *testing.B) {
	value := make([]byte, 100)
	b.ReportAllocs()
	for b.Loop() {
		t := New(64 << 20)
		for i := range 10 {
			k := randomKey(i)
			_ = t.Add(base.LSN(i+1), base.KindPut, k[:], value)
		}
	}
}

// BenchmarkNewAndThreeInserts is the table of a small transaction.
func BenchmarkNewAndThreeInserts(b *testing.B) {
	value := make([]byte, 100)
	keys := [3][16]byte{randomKey(0), randomKey(1), randomKey(2)}
	b.ReportAllocs()
	for b.Loop() {
		t := New(0)
		for i := range keys {
			_ = t.Add(base.OwnLSN+base.LSN(i), base.KindPut, keys[i][:], value)
		}
	}
}
