package forebay

import (
	"sync/atomic"

	"github.com/forebaydb/forebay/internal/base"
	"github.com/forebaydb/forebay/memtable"
)

// loading enters the records of a long log into a loader, by a goroutine of its own,
// while the open reads and judges those that follow. They are copied to it in chunks.
type loading struct {
	load       *memtable.Loader
	work, free chan *chunk
	cur        *chunk
	bytes      atomic.Int64 // of the loader, behind the last chunk
	done       chan struct{}
	err        error // once done is closed
}

// chunk is some records, one behind the other, and where each ends.
type chunk struct {
	lsns []base.LSN
	ends []int
	buf  []byte
}

const (
	// chunkSize is how many bytes of records are handed over at once, and loadChunks how
	// many chunks there are.
	chunkSize  = 256 << 10
	loadChunks = 4
	// longLog is how large a log is from which on a second goroutine is worth it; many
	// memtables of less than that have no use for it.
	longLog = 4 << 20
)

func newLoading(load *memtable.Loader) *loading {
	l := &loading{load: load, work: make(chan *chunk, loadChunks), free: make(chan *chunk, loadChunks), done: make(chan struct{})}
	for range loadChunks - 1 {
		l.free <- new(chunk)
	}
	l.cur = new(chunk)
	go l.run()
	return l
}

func (l *loading) run() {
	defer close(l.done)
	for c := range l.work {
		from := 0
		for i, end := range c.ends {
			if l.err == nil {
				l.err = enter(l.load, c.lsns[i], c.buf[from:end])
			}
			from = end
		}
		l.bytes.Store(l.load.Bytes())
		c.lsns, c.ends, c.buf = c.lsns[:0], c.ends[:0], c.buf[:0]
		l.free <- c
	}
}

// add hands a record over, and returns how much memory the loader takes, as far as that
// is known.
func (l *loading) add(lsn base.LSN, rec []byte) int64 {
	c := l.cur
	c.lsns, c.buf = append(c.lsns, lsn), append(c.buf, rec...)
	c.ends = append(c.ends, len(c.buf))
	if len(c.buf) >= chunkSize {
		l.work <- c
		l.cur = <-l.free
	}
	return l.bytes.Load()
}

// end returns when all is entered. It is called once, and nothing is added any more.
func (l *loading) end() error {
	l.work <- l.cur
	close(l.work)
	<-l.done
	return l.err
}
