package wal

import (
	"io"

	"github.com/forebaydb/forebay/vfs"
	"github.com/forebaydb/forebay/wal/frame"
)

const (
	// windowSize is how much of a file is mapped at a time, in bytes, at multiples
	// of it: a huge page, which one fault maps where the file system keeps the
	// zeros together.
	windowSize = 2 << 20
	// windowFrom is the default of Options.MapFrom. A file system may write a huge
	// page for each byte of a mapping that was changed since the last sync, so that
	// syncs must not be near each other.
	windowFrom = 2 << 20
	// windowMost is the longest write that goes there: of a longer one the system
	// call is the smaller part.
	windowMost = 16 << 10
)

// window is a mapped part of the current file, for small writes without a sync: a
// system call takes some microseconds, a store into mapped memory a few hundredths.
// It needs the file to have room for what is mapped, durably, and is
// gone before the file is anybody else's.
type window struct {
	m        vfs.Mapping // nil: none
	from, to int64
	never    bool // the file cannot be mapped
}

// place returns what to write the next n bytes to that are not synced at once.
// After an error of a window nothing is written any more: the log is poisoned.
func (l *Log) place(n int64) io.WriterAt {
	f, off := l.cur, l.b.Offset()
	w := &f.window
	switch {
	case n > windowMost || l.opts.MapFrom < 0 || f.unsynced < l.opts.MapFrom || w.never:
		return f.f
	case w.m != nil && off >= w.from && off+n <= w.to:
		return w.m
	case f.sync != nil || f.head.Align != frame.FrameAlign:
		// A mapping writes blocks again that hold synced bytes.
		w.never = true
		return f.f
	}
	w.close()
	w.from = off &^ (windowSize - 1)
	w.to = min(w.from+windowSize, f.size)
	if off+n > w.to {
		return f.f
	}
	m, err := vfs.Map(f.f, w.from, w.to-w.from)
	if err != nil {
		w.never = true
		return f.f
	}
	w.m = m
	if l.fillWindows(off) != nil {
		w.close()
		w.never = true
		return f.f
	}
	return m
}

// fillWindows writes zeros from where the log stands to the end of this window and of
// the next, where there are none: a fault then maps a huge page, and not 4 KiB.
// Nothing waits for them, most are written over before the disk sees them, and so
// Stats.Zeroed does not count them.
func (l *Log) fillWindows(off int64) error {
	f := l.cur
	from, to := max(off, f.filled), min(f.window.to+windowSize, f.size)
	for from < to {
		n := min(to, (from+windowSize)&^(windowSize-1)) - from
		if err := f.f.Zero(from, n); err != nil {
			return err
		}
		from += n
		f.filled = from
	}
	return nil
}

// close may be called again.
func (w *window) close() {
	if w.m != nil {
		// An error leaves memory mapped, and nothing undone.
		_ = w.m.Close()
		w.m = nil
	}
}
