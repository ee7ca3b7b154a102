package workload

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// growCells are of more records than the others have, and than fit into the cache.
func growCells() []Cell {
	grown := func(s Scale) load { return load{s.Grow, KeySize, plain.valueSize} }
	without := func(s Scale) bool { return s.Grow == 0 }
	return []Cell{{
		Name: "grow-load", About: "put 10,000,000 records (--quick: 3,000,000) in a random order, 1 goroutine; then open and memory",
		Any: true, Absent: without,
		run: func(t *trial) error { return t.grow(grown(t.scale)) },
	}, {
		Name: "grow-load-max", About: "put 50,000,000 records (not with --quick) in a random order, 1 goroutine; then open and memory",
		Any: true, Absent: func(s Scale) bool { return s.GrowMax == 0 },
		run: func(t *trial) error { return t.grow(load{t.scale.GrowMax, KeySize, plain.valueSize}) },
	}, {
		Name: "grow-readrandom-1", About: "get random ones of 10,000,000 records, 1 goroutine",
		Any: true, Absent: without, Load: grown,
		run: func(t *trial) error { return errors.Join(readFiles(t.Dir), t.gets(1, uniform, false)) },
	}, {
		Name: "grow-scan", About: "read 10,000,000 records in order",
		Any: true, Absent: without, Load: grown,
		run: func(t *trial) error { return errors.Join(readFiles(t.Dir), t.scans(false)) },
	}, {
		Name: "cold-readrandom-8", About: "get random ones of 10,000,000 records whose files were dropped from the page cache, 8 goroutines, 20,000 gets",
		Any: true, Absent: without, Load: grown,
		run: (*trial).cold,
	}}
}

// growLimit ends loads of engines that would take hours; the result says so.
const growLimit = 20 * time.Minute

func (t *trial) grow(l load) error {
	if err := t.open(1); err != nil {
		return err
	}
	w, err := t.store.Writer(t.level)
	if err != nil {
		return t.closed(err)
	}
	d, perm := l.data(), newPermutation(uint64(l.Records))
	key, value := make([]byte, d.keySize), make([]byte, d.valueSize)
	began, n := time.Now(), int64(0)
	for ; n < l.Records; n++ {
		if n&0xffff == 0 && time.Since(began) > growLimit {
			break
		}
		i := perm.at(uint64(n))
		if err := w.Put(d.key(key, i), d.value(value, i, 0)); err != nil {
			return t.closed(errors.Join(err, w.Close()))
		}
	}
	took := time.Since(began)
	if err := w.Close(); err != nil {
		return t.closed(err)
	}
	r := t.add(t.cell.Name, float64(n)/took.Seconds(), "ops/s")
	r.Ops, r.Seconds, r.OpsPerS = n, took.Seconds(), r.Value
	if n < l.Records {
		r.Note = fmt.Sprintf("ended after %s with %d of %d records", growLimit, n, l.Records)
	}
	r = t.add(t.cell.Name+"-rss-anon", float64(t.peak.soFar().anon)/(1<<20), "MiB")
	r.Lower = true
	if err := errors.Join(t.store.Settle(context.Background()), t.closed(nil)); err != nil {
		return err
	}
	began = time.Now()
	if err := t.open(1); err != nil {
		return err
	}
	draw := rng(1)
	read := func() uint64 { return perm.at(draw.below(uint64(n))) }
	err = t.verifySome(d, 1, func(int) uint64 { return read() })
	t.add(t.cell.Name+"-open", float64(time.Since(began).Microseconds())/1e3, "ms").Lower = true
	if err == nil {
		err = t.verifySome(d, 1000, func(int) uint64 { return read() })
	}
	return t.closed(err)
}

// readFiles reads all files in dir, so that what is in the page cache does not depend on
// what was done since they were made: an engine may let go of what it has merged.
func readFiles(dir string) error {
	return filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, f)
		return errors.Join(err, f.Close())
	})
}

func (t *trial) cold() error {
	if err := forget(t.Dir); err != nil {
		return err
	}
	const goroutines, gets = 8, 20_000
	if err := t.open(goroutines); err != nil {
		return err
	}
	l := loop{goroutines: goroutines, every: 1, ops: gets / goroutines, start: t.getRandom}
	r, err := t.measure(t.cell.Name, l, 1, t.load.data().recordBytes())
	if err == nil {
		r.WorstSecond = nil
	}
	return t.closed(err)
}
