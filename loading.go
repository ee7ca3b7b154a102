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
	handed     weight // over in all, cur among it
	entered    atomic.Pointer[weight]
	bytes      atomic.Int64 // of the loader, behind the last chunk
	done       chan struct{}
	err        error // once done is closed: why the record at lsn was not entered
	lsn        base.LSN
}

// weight is how much of something there is.
type weight struct{ records, bytes int64 }

// most is about the memory that a loader may take for it.
func (h weight) most() int64 { return h.bytes + h.records*perRecord }

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
	// perRecord is about what a short record takes in a loader beside its bytes.
	perRecord = 64
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
	var in weight
	for c := range l.work {
		from := 0
		for i, end := range c.ends {
			if l.err == nil {
				l.err, l.lsn = enter(l.load, c.lsns[i], c.buf[from:end]), c.lsns[i]
			}
			from = end
		}
		in.records, in.bytes = in.records+int64(len(c.lsns)), in.bytes+int64(from)
		l.bytes.Store(l.load.Bytes())
		l.entered.Store(&weight{in.records, in.bytes})
		c.lsns, c.ends, c.buf = c.lsns[:0], c.ends[:0], c.buf[:0]
		if cap(c.buf) > 2*chunkSize { // a large record's
			c.buf = nil
		}
		l.free <- c
	}
}

// add hands a record over, and returns how much memory the loader takes, and will take
// for what is on its way, about.
func (l *loading) add(lsn base.LSN, rec []byte) int64 {
	c := l.cur
	c.lsns, c.buf = append(c.lsns, lsn), append(c.buf, rec...)
	c.ends = append(c.ends, len(c.buf))
	l.handed.records++
	l.handed.bytes += int64(len(rec))
	if len(c.buf) >= chunkSize {
		l.work <- c
		l.cur = <-l.free
	}
	on := l.handed
	if in := l.entered.Load(); in != nil {
		on.records, on.bytes = on.records-in.records, on.bytes-in.bytes
	}
	return l.bytes.Load() + on.most()
}

// end returns when all is entered, or with the record that was not, and why. It is called
// once, and nothing is added any more.
func (l *loading) end() (base.LSN, error) {
	l.work <- l.cur
	close(l.work)
	<-l.done
	return l.lsn, l.err
}
