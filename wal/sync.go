package wal

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"syscall"
	"time"

	"github.com/forebaydb/forebay/vfs"
)

// unsynced returns the number of bytes laid out or written and not synced.
func (l *Log) unsynced() int64 {
	n := int64(l.b.Len())
	if l.handed != nil {
		n += int64(len(l.handed.buf))
	}
	if l.cur != nil {
		n += l.cur.unsynced
	}
	for _, f := range l.behind {
		n += f.unsynced
	}
	return n
}

// writeOut writes what is laid out and, if asked, syncs all that is unsynced,
// older files first.
func (l *Log) writeOut(sync bool) error {
	if l.cur == nil {
		return nil
	}
	var start time.Time
	if err := l.takeHandoff(); err != nil {
		return err
	}
	if sync {
		if err := l.takeAside(); err != nil {
			return err
		}
		start = time.Now()
	}
	if buf := l.b.Bytes(); len(buf) > 0 {
		f, through := l.cur.f, false
		if sync && l.cur.sync != nil && l.cur.unsynced == 0 && len(l.behind) == 0 {
			f, through = l.cur.sync, l.opts.Mechanism != Direct
		}
		var err error
		switch {
		case through:
			err = l.timed(l.slow, func() error { return writeAt(f, buf, l.b.Offset()) })
		case sync:
			err = writeAt(f, buf, l.b.Offset())
		default:
			err = writeAt(l.place(int64(len(buf))), buf, l.b.Offset())
		}
		if err != nil {
			return fmt.Errorf("write %s: %w", l.cur.path, err)
		}
		l.wrote(int64(len(buf)))
		l.noteFrames()
		if through {
			l.cur.synced(int64(len(buf)))
		} else {
			l.cur.unsynced += int64(len(buf))
		}
		l.b.Advance()
		l.written.Store(l.next - 1)
		l.flushDue = l.flushAt()
	}
	if !sync {
		if from, n := l.writeback(); n > 0 {
			vfs.StartWriteback(l.cur.f, from, n)
		}
		return nil
	}
	left := len(l.behind) > 0
	for len(l.behind) > 0 {
		f := l.behind[0]
		if err := l.syncFile(f); err != nil {
			return err
		}
		f.close()
		l.behind = l.behind[1:]
	}
	if err := l.fillAhead(); err != nil {
		return fmt.Errorf("fill %s: %w", l.cur.path, err)
	}
	if err := l.syncFile(l.cur); err != nil {
		return err
	}
	l.syncTakes += (time.Since(start) - l.syncTakes) / 8
	l.madeDurable(l.next - 1)
	if left {
		l.archiveSoon()
	}
	return nil
}

// startSize is how much of the log that nobody syncs is given to the disk at once, so
// that the sync at the end of the file finds little to do. A window is left by then.
const startSize = windowSize

// writeback returns which part of the current file the disk is to begin with: what
// lies behind, and was not returned before. No bytes: none.
func (l *Log) writeback() (from, n int64) {
	f, end := l.cur, l.b.Offset()&^(startSize-1)
	if end <= f.started || l.opts.Policy.kind == policyNever {
		return 0, 0
	}
	from, f.started = f.started, end
	return from, end - from
}

// synced counts a sync of n bytes.
func (f *logFile) synced(n int64) {
	f.syncs++
	if f.small++; n >= smallSync {
		f.small = 0
	}
}

// syncFile makes what was written to a file durable.
func (l *Log) syncFile(f *logFile) error {
	if f.unsynced == 0 {
		return nil
	}
	if err := l.sync(l.slow, f); err != nil {
		return err
	}
	f.synced(f.unsynced)
	f.unsynced = 0
	return nil
}

// sync calls the sync of a file.
func (l *Log) sync(w *slowWatch, f *logFile) error {
	if err := l.timed(w, f.f.SyncData); err != nil {
		return fmt.Errorf("sync %s: %w", f.path, err)
	}
	return nil
}

// timed runs a sync, or a write that is one, and counts it. There is one at a time
// with each watch.
func (l *Log) timed(w *slowWatch, sync func() error) error {
	start := time.Now()
	if w != nil {
		w.begin(start)
	}
	err := sync()
	took := time.Since(start)
	if took >= l.opts.SlowSync {
		l.stats.slowSyncs.Add(1)
	}
	if w != nil {
		w.end(took)
	}
	if err == nil {
		l.stats.syncs.Add(1)
		l.stats.syncTime.Add(int64(took))
	}
	return err
}

// writeAt repeats a write that was interrupted before it wrote anything.
func writeAt(f io.WriterAt, b []byte, off int64) error {
	for try := 0; ; try++ {
		n, err := f.WriteAt(b, off)
		if err == nil || n > 0 || try == 10 || !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}

// slowWatch tells Options.OnSlowSync of syncs that hang. They begin and end one at a
// time.
//
// Its timer is not set anew for each sync: while it runs it runs on, and when it
// fires it looks how old the sync is that runs then.
type slowWatch struct {
	limit time.Duration
	hook  func(took time.Duration, done bool)

	mu    sync.Mutex // guards all below; a leaf
	timer *time.Timer
	armed bool
	since time.Time          // of the sync that runs; zero: none
	told  chan time.Duration // the hook knows of it, and waits for how long it took
}

func (w *slowWatch) begin(now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.since = now
	if !w.armed {
		w.arm(w.limit)
	}
}

// arm sets the timer; mu is held.
func (w *slowWatch) arm(d time.Duration) {
	w.armed = true
	if w.timer == nil {
		w.timer = time.AfterFunc(d, w.fire)
	} else {
		w.timer.Reset(d)
	}
}

func (w *slowWatch) end(took time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.since = time.Time{}
	if w.told != nil {
		w.told <- took // it has room for one
		w.told = nil
	}
}

// fire runs in the timer's own goroutine. It calls the hook twice, so that it
// hears of the end of a sync after its beginning.
func (w *slowWatch) fire() {
	w.mu.Lock()
	w.armed = false
	if w.since.IsZero() {
		w.mu.Unlock()
		return
	}
	age := time.Since(w.since)
	if age < w.limit {
		w.arm(w.limit - age)
		w.mu.Unlock()
		return
	}
	told := make(chan time.Duration, 1)
	w.told = told
	w.mu.Unlock()
	w.hook(age, false)
	w.hook(<-told, true)
}

// stop ends the watch; no sync runs.
func (w *slowWatch) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.timer != nil {
		w.timer.Stop()
	}
}
