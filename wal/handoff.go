package wal

import (
	"fmt"

	"github.com/forebaydb/forebay/internal/publish"
	"github.com/forebaydb/forebay/vfs"
	"github.com/forebaydb/forebay/wal/frame"
)

// handoff is a write of what Buffered records have filled, by a goroutine, while the
// leader fills other memory. There is one at a time, and no other write to the log
// runs meanwhile: whoever writes takes its result first, and so does whoever syncs what
// it has written. A sync aside may run beside it, and counts nothing of it.
//
// Until then nothing counts as written, or as unsynced of its file. The goroutine
// changes nothing of the log but, where it fails, that it is poisoned.
type handoff struct {
	file *logFile
	buf  []byte
	last LSN           // written when it has ended
	done chan struct{} // closed when it has
	err  error         // once done is closed
}

// flushBytes is how many bytes of Buffered records are collected before a write, where
// files are not so small that it would never come to it.
const flushBytes = 256 << 10

// While the write before still runs, flushMore times as many are collected, and
// flushLooks looks at whether it does are taken meanwhile for each flushAt of them.
const (
	flushMore  = 4
	flushLooks = 4
)

// bufferedFrame is how many bytes of Buffered records one frame has, about. The commit
// that ends a frame hashes all of it.
const bufferedFrame = 32 << 10

// endFrame ends a frame of Buffered records that is long enough. A record follows: the
// last frame of a group is ended with it. Compression wants longer ones.
func (l *Log) endFrame() {
	if l.b.Open() >= bufferedFrame && l.opts.Compression == NoCompression {
		l.b.CloseFrame(false)
	}
}

// flushAt is how many bytes are collected before they are handed off.
func (l *Log) flushAt() int { return int(min(flushBytes, l.opts.FileSize/8)) }

// handOff has what is laid out written by a goroutine, or, where one still writes,
// leaves it for a while.
func (l *Log) handOff() error {
	if h := l.handed; h != nil {
		select {
		case <-h.done:
		default:
			if at := l.flushAt(); l.b.Len() < flushMore*at {
				l.flushDue = l.b.Len() + at/flushLooks
				return nil
			}
		}
	}
	if err := l.takeHandoff(); err != nil {
		return err
	}
	f, off := l.cur, l.b.Offset()
	l.b.CloseFrame(true)
	l.noteFrames()
	h := &handoff{file: f, buf: l.b.Detach(l.idle), last: l.next - 1, done: make(chan struct{})}
	l.handed, l.idle, l.flushDue = h, nil, l.flushAt()
	from, n := l.writeback()
	l.goBackground(func() {
		if err := writeAt(f.f, h.buf, off); err != nil {
			h.err = fmt.Errorf("write %s: %w", f.path, err)
			l.poisonWith(h.err)
		} else if n > 0 {
			vfs.StartWriteback(f.f, from, n)
		}
		close(h.done)
	})
	return nil
}

// takeHandoff waits for the write that is under way, if there is one, and takes its
// result.
func (l *Log) takeHandoff() error {
	h := l.handed
	if h == nil {
		return nil
	}
	<-h.done
	if h.err != nil {
		return h.err // to all that ask: nothing is written behind the hole
	}
	l.handed = nil
	if l.idle = h.buf; cap(h.buf) > frame.MostKept {
		l.idle = nil
	}
	l.wrote(int64(len(h.buf)))
	h.file.unsynced += int64(len(h.buf))
	l.written.Store(h.last)
	return nil
}

// wrote counts a write of n bytes.
func (l *Log) wrote(n int64) {
	l.stats.writes.Add(1)
	l.stats.bytes.Add(n)
}

// noteFrames remembers where frames are that were laid out and are written now.
func (l *Log) noteFrames() {
	for _, e := range l.b.Frames() {
		if n := len(l.entries); n == 0 || e.Offset-l.entries[n-1].Offset >= frame.IndexSpacing {
			l.entries = append(l.entries, e)
		}
	}
	l.places.note(l.b.Frames())
}

// quick appends a Buffered record where nobody leads, and where there is nothing to do
// but to lay it out. It is done under mu, as somebody who leads meanwhile would take
// longer to begin and to end than that takes.
func (l *Log) quick(r *Record) (LSN, bool) {
	if !l.calm {
		return 0, false
	}
	size := frame.RecordSize(len(r.Data))
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.leading || l.closed || !l.armed && l.opts.MarkDelay >= 0 || int64(l.b.Len())+size >= int64(l.flushDue) ||
		l.fail.Load() != nil || !l.room(size) || l.next > lastLSN {
		return 0, false
	}
	lsn := l.next
	l.endFrame()
	l.b.Record(lsn, r.Keep, r.Data, l.durable.Load(), 0)
	l.keepSum += r.Keep
	l.next++
	l.quicks++
	l.expect = 1
	publish.Uint64(&l.assigned, lsn) // nothing is applied: there is no Applier
	return lsn, true
}
