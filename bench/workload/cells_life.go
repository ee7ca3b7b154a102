package workload

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/forebaydb/forebay/bench/engines"
)

func lifeCells() []Cell {
	return []Cell{{
		Name:  "recovery",
		About: "open a store whose process was killed with all its records in the log alone; MB of records a second",
		Any:   true,
		Needs: func(e *engines.Engine) string {
			return e.NoLog
		},
		run: (*trial).recovery,
	}, {
		Name:  "reopen",
		About: "open a settled store that was closed in order, and get one record",
		Any:   true, Load: plainLoad, Changes: true,
		run: (*trial).reopen,
	}, {
		Name:  "load-settle",
		About: "put all records in a random order, each in a commit of its own, 1 goroutine, and settle: rate, space, bytes written, memory",
		Any:   true,
		run:   (*trial).loadSettle,
	}, {
		Name:  "load-settle-frames",
		About: "as load-settle, with the log's frames compressed as well",
		Any:   true, Compressed: true, Needs: ofHome,
		run: (*trial).loadSettle,
	}, {
		Name:  "memory",
		About: "4 goroutines overwrite and 4 get, random records: the most memory that is resident",
		Any:   true, Load: plainLoad, Changes: true,
		run: (*trial).memory,
	}}
}

// recoveryConfig has a memtable that takes all records of a recovery, so that
// nothing of them is settled.
func (t *trial) recoveryConfig(l engines.Level) engines.Config {
	cache := t.scale.Cache
	if cache == 0 {
		cache = engines.DefaultCache
	}
	return engines.Config{Level: l, Memtable: 4 * t.scale.LogBytes, Cache: cache}
}

const partWrite = "write"

// rotations of memtables before the records are written: Pebble's memtables begin
// at 256 KiB and double up to what is asked for.
const rotations = 14

func (t *trial) recoveryRecords() int64 { return t.scale.LogBytes / plain.recordBytes() }

// recovery has a process write, kills it, and opens what it left.
func (t *trial) recovery() error {
	if t.engine.Has(engines.Written) { // else what waits in memory is made durable at the end
		t.level = engines.Written
	}
	if t.Part == partWrite {
		return t.recoveryWrite()
	}
	if err := t.killed(); err != nil {
		return err
	}
	before := readMemory()
	profiled := t.startProfile()
	began := time.Now()
	s, err := t.engine.Open(t.Dir, t.recoveryConfig(t.level))
	if err != nil {
		return err
	}
	t.store = s
	// SQLite looks at its log at the first read.
	n := t.recoveryRecords()
	err = t.verifySome(plain, 1, func(int) uint64 { return uint64(n - 1) })
	took := time.Since(began)
	profiled()
	if err == nil {
		err = t.verifyLoad(load{n, KeySize, plain.valueSize})
	}
	if err == nil {
		mb := float64(n*plain.recordBytes()) / 1e6
		r := t.add(t.cell.Name, mb/took.Seconds(), "MB/s")
		r.Ops, r.Seconds, r.OpsPerS = n, took.Seconds(), float64(n)/took.Seconds()
		r.MBPerS, r.BeforeAnon = r.Value, before.anon
		r.Note = fmt.Sprintf("%d records", n)
	}
	return t.closed(err)
}

// recoveryWrite fills the log, says so, and waits to be killed.
func (t *trial) recoveryWrite() error {
	s, err := t.engine.Open(t.Dir, t.recoveryConfig(t.level))
	if err != nil {
		return err
	}
	t.store = s
	d, key, value := plain, make([]byte, KeySize), make([]byte, plain.valueSize)
	put := func(l engines.Level, i uint64) error {
		w, err := t.store.Writer(l)
		if err != nil {
			return err
		}
		return errors.Join(w.Put(d.key(key, i), d.value(value, i, 0)), w.Close())
	}
	for range rotations {
		if err := errors.Join(put(t.level, 0), t.store.Settle(context.Background())); err != nil {
			return err
		}
	}
	n := t.recoveryRecords()
	if err := t.fill(load{n, KeySize, d.valueSize}, 1); err != nil {
		return err
	}
	// A durable commit makes all before it durable, and what waits in memory of the
	// process is written.
	if t.engine.Mixed {
		if err := put(engines.Durable, uint64(n-1)); err != nil {
			return err
		}
	}
	fmt.Println(ready)
	time.Sleep(time.Hour)
	return errors.New("nobody killed it")
}

const ready = "ready"

// killed starts the part that writes, and kills it when it is ready.
func (t *trial) killed() error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	k := t.task
	k.Part = partWrite
	in, err := json.Marshal(&k)
	if err != nil {
		return err
	}
	var errOut bytes.Buffer
	cmd := exec.Command(self, childName)
	cmd.Stdin, cmd.Stderr = bytes.NewReader(in), &errOut
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	said, _ := bufio.NewReader(out).ReadString('\n')
	kill := cmd.Process.Kill()
	// It was killed: its exit is no news. Its pipe is read to the end before.
	_, _ = io.Copy(io.Discard, out)
	_ = cmd.Wait()
	if said != ready+"\n" {
		return fmt.Errorf("the process that writes ended early: %s", bytes.TrimSpace(errOut.Bytes()))
	}
	return kill
}

const reopens = 5

// reopen opens and closes the store again and again. The first is what counts: the
// process has nothing of it yet.
func (t *trial) reopen() error {
	draw, times := rng(1), make([]float64, 0, reopens)
	for range reopens {
		began := time.Now()
		if err := t.open(1); err != nil {
			return err
		}
		err := t.verifySome(t.load.data(), 1, func(int) uint64 { return draw.below(uint64(t.load.Records)) })
		times = append(times, float64(time.Since(began).Microseconds())/1e3)
		if err := t.closed(err); err != nil {
			return err
		}
	}
	r := t.add(t.cell.Name, times[0], "ms")
	r.Lower, r.Ops = true, reopens
	r.Note = fmt.Sprintf("the first of the process; the ones behind it: %.4g ms", times[1:])
	return nil
}

// loadSettle is one load with all that it costs.
func (t *trial) loadSettle() error {
	l := plainLoad(t.scale)
	user := l.Records * l.data().recordBytes()
	written := writtenBytes()
	if err := t.open(1); err != nil {
		return err
	}
	began := time.Now()
	if err := t.fill(l, 1); err != nil {
		return t.closed(err)
	}
	loaded := time.Since(began)
	if err := t.store.Settle(context.Background()); err != nil {
		return t.closed(err)
	}
	settled := time.Since(began)
	// What is trimmed and removed behind it is part of being settled.
	time.Sleep(min(time.Second, t.scale.Warm))
	open := onDisk(t.Dir)
	if err := t.closed(nil); err != nil {
		return err
	}
	written = writtenBytes() - written
	most := t.peak.soFar()

	name := t.cell.Name
	r := t.add(name, float64(l.Records)/loaded.Seconds(), "ops/s")
	r.OpsPerS, r.Ops, r.Seconds = r.Value, l.Records, loaded.Seconds()
	t.add(name+"-time", settled.Seconds(), "s").Lower = true
	r = t.add(name+"-space", float64(open)/float64(user), "× user bytes")
	r.Lower, r.UserBytes = true, user
	r.Note = fmt.Sprintf("%d bytes allocated while open, %d after Close", open, onDisk(t.Dir))
	r = t.add(name+"-written", float64(written)/float64(user), "× user bytes")
	r.Lower, r.UserBytes, r.WrittenBytes = true, user, written
	t.add(name+"-rss-anon", float64(most.anon)/(1<<20), "MiB").Lower = true
	t.add(name+"-rss-file", float64(most.file)/(1<<20), "MiB").Lower = true

	if err := t.open(1); err != nil {
		return err
	}
	return t.closed(t.verifyLoad(l))
}

// onDisk returns the bytes that the files in dir have on the disk: holes do not
// count, what was allocated ahead does.
func onDisk(dir string) int64 {
	total := int64(0)
	// A file that goes meanwhile takes no space.
	_ = filepath.WalkDir(dir, func(_ string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil
		}
		if info, err := d.Info(); err == nil {
			total += allocated(info)
		}
		return nil
	})
	return total
}

// memory loads the store as heavily as it can, and looks at what it takes.
func (t *trial) memory() error {
	const writers = 4
	if err := t.open(2 * writers); err != nil {
		return err
	}
	d, records := t.load.data(), uint64(t.load.Records)
	l := t.writeLoop(2*writers, d)
	l.start = func(w *worker) (func() error, func() error, error) {
		y, err := newYCSB(t, d)
		if err != nil {
			return nil, nil, err
		}
		if w.id < writers {
			return func() error { return y.put(w.rng.below(records)) }, y.close, nil
		}
		return func() error { return y.get.get(w.rng.below(records)) }, y.close, nil
	}
	if _, err := t.measure(t.cell.Name, l, 1, d.recordBytes()); err != nil {
		return t.closed(err)
	}
	most := t.peak.soFar()
	t.add(t.cell.Name+"-rss-anon", float64(most.anon)/(1<<20), "MiB").Lower = true
	t.add(t.cell.Name+"-rss-file", float64(most.file)/(1<<20), "MiB").Lower = true
	return t.closed(nil)
}
