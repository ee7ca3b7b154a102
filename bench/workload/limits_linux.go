package workload

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// logRecord is what one durable put of a plain record costs in a log, in bytes.
const logRecord = 150

// limitCells measure what the machine allows, without an engine.
func limitCells() []Cell {
	var out []Cell
	add := func(name, about string, run func(t *trial) error) {
		out = append(out, Cell{Name: "limit-" + name, About: about, Limit: true, run: run})
	}
	add("fdatasync", fmt.Sprintf("write %d bytes behind the last ones in a zero-filled file, fdatasync", logRecord),
		func(t *trial) error { return t.syncs(logRecord, 0, true) })
	add("dsync", fmt.Sprintf("write %d bytes with O_DSYNC in a zero-filled file", logRecord),
		func(t *trial) error { return t.syncs(logRecord, unix.O_DSYNC, false) })
	add("direct", "write 4 KiB with O_DIRECT in a zero-filled file, fdatasync",
		func(t *trial) error { return t.syncs(4096, unix.O_DIRECT, true) })
	add("direct-dsync", "write 4 KiB with O_DIRECT|O_DSYNC in a zero-filled file",
		func(t *trial) error { return t.syncs(4096, unix.O_DIRECT|unix.O_DSYNC, false) })
	add("write-1m", "write 1 MiB in a zero-filled file, fdatasync",
		func(t *trial) error { return t.syncs(1<<20, 0, true) })
	add("write-1m-direct", "write 1 MiB with O_DIRECT|O_DSYNC in a zero-filled file",
		func(t *trial) error { return t.syncs(1<<20, unix.O_DIRECT|unix.O_DSYNC, false) })
	add("pwrite", fmt.Sprintf("write %d bytes, no sync", logRecord),
		func(t *trial) error { return t.syncs(logRecord, 0, false) })
	for _, g := range []int{1, 8, 64, 256} {
		for _, hold := range []time.Duration{0, 100 * time.Microsecond} {
			name, about := suffix("group", g), "group commit without an engine"
			if hold > 0 {
				name, about = suffix("group", g, "hold"), about+", the group held up to 100 µs until the last group's writers are back"
			}
			add(name, fmt.Sprintf("%s, %d goroutines", about, g), func(t *trial) error { return t.groups(g, hold) })
		}
	}
	add("memory", "sum a block of 256 MiB (--quick: 64), 1 goroutine", (*trial).memoryRead)
	add("misses", "two reads of memory that depend on each other, in 512 MiB (--quick: 128), 1 goroutine", (*trial).misses)
	add("map-insert", "insert 1,000,000 keys of 16 bytes into a Go map", (*trial).mapInsert)
	return out
}

// zeroed makes a file of zeros that are on the disk.
func zeroed(path string, size int64, flags int) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	zeros := make([]byte, 1<<20)
	for at := int64(0); at < size; at += int64(len(zeros)) {
		if _, err := f.WriteAt(zeros, at); err != nil {
			return nil, errors.Join(err, f.Close())
		}
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return nil, err
	}
	return os.OpenFile(path, os.O_RDWR|flags, 0)
}

// aligned returns n bytes at an address that O_DIRECT takes.
func aligned(n int) []byte {
	const page = 4096
	b := make([]byte, n+page)
	off := int(-uintptr(unsafe.Pointer(&b[0])) & (page - 1))
	return b[off : off+n : off+n]
}

// syncs writes size bytes, again and again, one behind the other.
func (t *trial) syncs(size, flags int, sync bool) error {
	f, err := zeroed(filepath.Join(t.Dir, "file"), t.scale.LimitBytes, flags)
	if err != nil {
		return err
	}
	op := t.syncing(f, size, sync)
	l := loop{goroutines: 1, warm: t.scale.Warm, length: t.scale.Read * 2, every: 1,
		start: func(*worker) (func() error, func() error, error) { return op, f.Close, nil }}
	r, err := t.measure(t.cell.Name, l, 1, int64(size))
	if err == nil && size >= 1<<20 {
		r.Value, r.Unit = r.MBPerS, "MB/s"
	}
	return err
}

// syncing writes size bytes into a file of zeros, one behind the other and from the
// beginning again, with a sync behind each if sync says so.
func (t *trial) syncing(f *os.File, size int, sync bool) func() error {
	buf, at := aligned(size), int64(0)
	for i := range buf {
		buf[i] = byte(mix(uint64(i)))
	}
	return func() error {
		if at+int64(size) > t.scale.LimitBytes {
			at = 0
		}
		if _, err := f.WriteAt(buf, at); err != nil {
			return err
		}
		at += int64(size)
		if sync {
			return unix.Fdatasync(int(f.Fd()))
		}
		return nil
	}
}

// group is what writers have put together for one write and one sync.
type group struct {
	buf  []byte
	n    atomic.Int64
	done chan struct{}
	err  error
}

// groups is the least that group commit costs: the first writer of a group copies
// nothing but the others' bytes, writes, and syncs.
func (t *trial) groups(goroutines int, hold time.Duration) error {
	f, err := zeroed(filepath.Join(t.Dir, "file"), t.scale.LimitBytes, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	var (
		mu     sync.Mutex // guards open, and the buffer of the group that it names
		open   *group
		leader sync.Mutex // one writes and syncs at a time; guards at and last
		at     int64
		last   int64
	)
	commit := func(record []byte) error {
		mu.Lock()
		g, lead := open, false
		if g == nil {
			g, lead = &group{done: make(chan struct{})}, true
			open = g
		}
		g.buf = append(g.buf, record...)
		g.n.Add(1)
		mu.Unlock()
		if !lead {
			<-g.done
			return g.err
		}
		leader.Lock()
		defer leader.Unlock()
		if hold > 0 && last > 1 {
			for began := time.Now(); g.n.Load() < last && time.Since(began) < hold; {
				runtime.Gosched()
			}
		}
		mu.Lock()
		open = nil
		mu.Unlock()
		if at+int64(len(g.buf)) > t.scale.LimitBytes {
			at = 0
		}
		_, g.err = f.WriteAt(g.buf, at)
		g.err = errors.Join(g.err, unix.Fdatasync(int(f.Fd())))
		at, last = at+int64(len(g.buf)), g.n.Load()
		close(g.done)
		return g.err
	}
	l := loop{goroutines: goroutines, warm: t.scale.Warm, length: t.scale.Read * 2, every: 1,
		start: func(w *worker) (func() error, func() error, error) {
			record := make([]byte, logRecord)
			return func() error { return commit(record) }, nil, nil
		}}
	_, err = t.measure(t.cell.Name, l, 1, logRecord)
	return err
}

func (t *trial) memoryRead() error {
	block := make([]uint64, t.scale.LimitBytes/8)
	for i := range block {
		block[i] = uint64(i)
	}
	n := uint64(len(block))
	op := func() error {
		var a, b, c, d uint64
		for s := block; len(s) >= 8; s = s[8:] {
			a += s[0] + s[4]
			b += s[1] + s[5]
			c += s[2] + s[6]
			d += s[3] + s[7]
		}
		if got := a + b + c + d; got != n*(n-1)/2 {
			return fmt.Errorf("the sum of the numbers below %d is not %d", n, got)
		}
		return nil
	}
	r, err := t.alone(op, 1, int64(len(block)*8))
	if err == nil {
		r.Value, r.Unit = r.MBPerS, "MB/s"
	}
	return err
}

// alone measures an operation of one goroutine.
func (t *trial) alone(op func() error, every int, bytes int64) (*Result, error) {
	l := loop{goroutines: 1, warm: t.scale.Warm / 2, length: t.scale.Read, every: every,
		start: func(*worker) (func() error, func() error, error) { return op, nil, nil }}
	return t.measure(t.cell.Name, l, 1, bytes)
}

func (t *trial) misses() error {
	n := 2 * uint64(t.scale.LimitBytes) / 8
	next, perm := make([]uint64, n), newPermutation(n)
	// One circle through all places, in a random order.
	from := perm.at(0)
	for i := uint64(1); i <= n; i++ {
		to := perm.at(i % n)
		next[from], from = to, to
	}
	at := uint64(0)
	_, err := t.alone(func() error { at = next[next[at]]; return nil }, readEvery, 0)
	if at >= n {
		err = errors.Join(err, fmt.Errorf("the circle left its places for %d", at))
	}
	return err
}

func (t *trial) mapInsert() error {
	perm := newPermutation(uint64(t.scale.Records))
	began := time.Now()
	m, key := map[[KeySize]byte]uint64{}, [KeySize]byte{}
	for i := range uint64(t.scale.Records) {
		plain.key(key[:], perm.at(i))
		m[key] = i
	}
	r := t.add(t.cell.Name, 0, "ops/s")
	r.Ops, r.Seconds = t.scale.Records, time.Since(began).Seconds()
	r.OpsPerS = float64(len(m)) / r.Seconds
	r.Value = r.OpsPerS
	return nil
}
