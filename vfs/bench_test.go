package vfs

import (
	"bytes"
	"fmt"
	"testing"
)

// store is about what a crash explorer opens: a few files, one of them with
// unsynced writes.
func store(b *testing.B) *Mem {
	m := NewMem()
	check := func(err error) {
		if err != nil {
			b.Fatal(err)
		}
	}
	check(m.MkdirAll("db"))
	check(m.SyncDir("/"))
	for i := range 5 {
		f, err := m.Create(fmt.Sprintf("db/%06d.log", i), ReadWrite)
		check(err)
		_, err = f.WriteAt(make([]byte, 16<<10), 0)
		check(err)
		check(f.Sync())
		check(f.Zero(16<<10, 64<<10))
		check(f.Sync())
		check(f.Close())
	}
	check(m.SyncDir("db"))
	f, err := m.Open("db/000004.log", ReadWrite)
	check(err)
	for i := range 4 {
		_, err = f.WriteAt(bytes.Repeat([]byte{7}, 700), int64(16<<10+i*700))
		check(err)
	}
	check(f.Close())
	return m
}

func read(b *testing.B, m *Mem, p []byte) {
	f, err := m.Open("db/000004.log", ReadOnly)
	if err != nil {
		b.Fatal(err)
	}
	if _, err := f.ReadAt(p, 0); err != nil {
		b.Fatal(err)
	}
	f.Close()
}

func BenchmarkSnapshot(b *testing.B) {
	m := store(b)
	b.ReportAllocs()
	for b.Loop() {
		m.Snapshot()
	}
}

func BenchmarkSnapshotOpenRead(b *testing.B) {
	m, p := store(b), make([]byte, 16<<10)
	b.ReportAllocs()
	for b.Loop() {
		read(b, m.Snapshot(), p)
	}
}

func BenchmarkOpenRead(b *testing.B) {
	m, p := store(b), make([]byte, 16<<10)
	b.ReportAllocs()
	for b.Loop() {
		read(b, m, p)
	}
}

func BenchmarkPowerCut(b *testing.B) {
	for name, f := range map[string]Fate{"lost": Lost, "kept": Kept} {
		b.Run(name, func(b *testing.B) {
			m := store(b)
			b.ReportAllocs()
			for b.Loop() {
				m.PowerCut(func(int, Unit) Fate { return f })
			}
		})
	}
	b.Run("seed", func(b *testing.B) {
		m, seed := store(b), uint64(0)
		b.ReportAllocs()
		for b.Loop() {
			seed++
			m.PowerCutSeed(seed, NothingAssumed)
		}
	})
}

// A small write into a synced file and its sync: what a store does in a Mem.
func BenchmarkWriteSync(b *testing.B) {
	m, p, off := store(b), make([]byte, 128), int64(0)
	f, err := m.Open("db/000000.log", ReadWrite)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := f.WriteAt(p, off); err != nil {
			b.Fatal(err)
		}
		if err := f.SyncData(); err != nil {
			b.Fatal(err)
		}
		off = (off + 128) % (80 << 10)
	}
}

func BenchmarkWriteMiB(b *testing.B) {
	p := make([]byte, 1<<20)
	b.SetBytes(int64(len(p)))
	b.ReportAllocs()
	for b.Loop() {
		f, err := NewMem().Create("a", ReadWrite)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := f.WriteAt(p, 0); err != nil {
			b.Fatal(err)
		}
		if err := f.Sync(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRecorder(b *testing.B) {
	f, err := NewRecorder(NewMem()).Create("a", ReadWrite)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := f.Size(); err != nil {
			b.Fatal(err)
		}
	}
}
