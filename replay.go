package forebay

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/forebaydb/forebay/checkpoint"
	"github.com/forebaydb/forebay/internal/base"
	"github.com/forebaydb/forebay/internal/batch"
	"github.com/forebaydb/forebay/memtable"
	"github.com/forebaydb/forebay/recovery"
)

// A log that is not much larger than a memtable is replayed into one while the open
// reads it: the versions are collected, and sorted when all are there. A larger one is
// read, judged and made durable first, so that whatever is damaged is found before
// anything is written. Then it is read a second time, and settled piece by piece: a
// run of records is sorted while the run before is written to a segment, as a
// checkpoint writes it.

// replayer is what an open does with the records of the log.
type replayer struct {
	db *DB
	// whole: all of it goes into memtables.
	whole bool
	// full: the memtable takes no more.
	full bool
	// load collects the records of the memtable that is to come, nil if there are
	// none. The active one is empty meanwhile.
	load *memtable.Loader
	// long: another goroutine collects them, which is aside while it does.
	long  bool
	aside *loading
}

// size says, before the first record, at least how large the log is.
func (p *replayer) size(bytes int64) {
	p.full = !p.whole && bytes > p.db.opts.MemtableSize/2
	p.long = bytes >= longLog && p.db.memtableLimit() >= longLog
}

// apply is recovery.Config.Apply.
func (p *replayer) apply(lsn base.LSN, rec []byte) error {
	if p.full {
		if _, err := batch.Decode(rec); err != nil {
			return err
		}
		return recovery.ErrLeft
	}
	if p.load == nil {
		p.load = memtable.NewLoader(int(p.db.opts.MemtableSize))
		if p.long {
			p.aside = newLoading(p.load)
		}
	}
	var bytes int64
	if p.aside != nil {
		// What is no batch is found here, where it is known where it lies.
		if _, _, _, ok := batch.One(rec); !ok {
			if _, err := batch.Decode(rec); err != nil {
				return err
			}
		}
		bytes = p.aside.add(lsn, rec)
	} else {
		if err := enter(p.load, lsn, rec); err != nil {
			return err
		}
		bytes = p.load.Bytes()
	}
	if bytes < p.db.memtableLimit() {
		return nil
	}
	err := p.loaded()
	if err == nil {
		p.db.freezeActive(lsn)
		p.full = !p.whole
	}
	return err
}

// loaded is recovery.Config.Applied: what was collected becomes the active memtable.
func (p *replayer) loaded() error {
	if p.load == nil {
		return nil
	}
	lsn, err := p.collected()
	load := p.load
	p.load = nil
	var t *memtable.Table
	if err == nil {
		t, err = load.Table()
		if dup := new(memtable.DuplicateError); errors.As(err, &dup) {
			lsn = dup.LSN
		}
	}
	if err != nil {
		load.Drop()
		return &CorruptionError{File: p.db.cfg.LogDir, Offset: -1, Reason: fmt.Sprintf("log record %d verifies and is no batch", lsn), Err: err}
	}
	p.db.mu.Lock()
	defer p.db.mu.Unlock()
	p.db.install(func(v *view) { v.active = t })
	return nil
}

// collected returns when all records are collected, or with the one that cannot be.
func (p *replayer) collected() (lsn base.LSN, err error) {
	if p.aside != nil {
		lsn, err = p.aside.end()
		p.aside = nil
	}
	return lsn, err
}

// drop ends what an open that failed has begun.
func (p *replayer) drop() {
	_, _ = p.collected() // nobody wants it
	if p.load != nil {
		p.load.Drop()
		p.load = nil
	}
}

// runSize is the memory of one of the two runs that a replay fills and settles.
func (o *Options) runSize() int64 { return min(o.MemtableSize, max(o.MemoryLimit/4, 4<<10)) }

// settleLog settles what the open has left in the log. Where the disk has no room
// for it, it goes into memtables, however many these become.
func (db *DB) settleLog() error {
	from := db.rep.Left
	if from == 0 {
		return nil
	}
	err := db.settleFrozen()
	if err == nil {
		f := newFiller(db.cfg.LogDir, db.opts.runSize())
		go f.fill(db.log.Replay, from)
		err = f.each(func(run *checkpoint.Run, high base.LSN) error {
			if err := db.settleFrom(db.ctx, run, high, func(*view) {}); err != nil {
				return err
			}
			from = high + 1
			return db.log.TruncateFront(high)
		})
	}
	if err == nil {
		err = db.trimLarge()
	}
	if !errors.Is(err, syscall.ENOSPC) || db.stuck() != nil {
		return err
	}
	db.opts.Logger.Warn("the disk has no room for the segments of what is in the log; it goes into memory", "error", err)
	p := &replayer{db: db, whole: true}
	if err := db.log.Replay(from, p.apply); err != nil {
		return err
	}
	return p.loaded()
}

// settleFrozen settles the memtables that the open has filled.
func (db *DB) settleFrozen() (err error) {
	for err == nil && len(db.view.Load().frozen) > 0 {
		err = db.settleOne(db.ctx)
	}
	return err
}

// filler makes sorted runs of the log's records in one goroutine while another
// settles them: there are two runs, and each is filled, sorted and settled by turns.
type filler struct {
	dir   string
	free  chan *checkpoint.Run
	ready chan filled
	quit  chan struct{} // closed when no run is wanted any more
	err   error         // of fill; set before ready is closed
}

// filled is a sorted run of all records through high that those before have not.
type filled struct {
	run  *checkpoint.Run
	high base.LSN
}

var errQuit = errors.New("nobody wants it any more")

// newFiller returns a filler of the log in dir, whose runs have size bytes each.
func newFiller(dir string, size int64) *filler {
	f := &filler{dir: dir, free: make(chan *checkpoint.Run, 2), ready: make(chan filled), quit: make(chan struct{})}
	f.free <- checkpoint.NewRun(size)
	f.free <- checkpoint.NewRun(size)
	return f
}

// fill makes runs of all records from an LSN on; replay is wal.Log.Replay.
func (f *filler) fill(replay func(base.LSN, func(base.LSN, []byte) error) error, from base.LSN) {
	defer close(f.ready)
	run, high := <-f.free, from-1
	f.err = replay(from, func(lsn base.LSN, rec []byte) error {
		if !run.Fits(len(rec)) {
			if err := f.give(run, high); err != nil {
				return err
			}
			run = <-f.free
			run.Reset()
		}
		high = lsn
		return enter(run, lsn, rec)
	})
	if f.err == nil {
		f.err = f.give(run, high)
	}
}

// give hands a run over to be settled.
func (f *filler) give(run *checkpoint.Run, high base.LSN) error {
	if err := run.Sort(); err != nil {
		return &CorruptionError{File: f.dir, Offset: -1, Reason: fmt.Sprintf("a log record at or below %d verifies and is no batch", high), Err: err}
	}
	select {
	case f.ready <- filled{run, high}:
		return nil
	case <-f.quit:
		return errQuit
	}
}

// each settles the runs in the order of the log, and ends the filling.
func (f *filler) each(settle func(run *checkpoint.Run, high base.LSN) error) (err error) {
	for next := range f.ready {
		if err == nil {
			if err = settle(next.run, next.high); err != nil {
				close(f.quit)
			}
		}
		f.free <- next.run
	}
	if err == nil {
		err = f.err
	}
	return err
}

// batchTable is what takes batches in: a memtable, or a run.
type batchTable interface {
	Add(lsn base.LSN, kind base.Kind, key, value []byte) error
	AddRangeDelete(lsn base.LSN, lo, hi []byte) error
}

// enter enters one batch into a table.
func enter(into batchTable, lsn base.LSN, record []byte) error {
	if kind, key, value, ok := batch.One(record); ok {
		return into.Add(lsn, kind, key, value)
	}
	r, err := batch.Decode(record)
	for err == nil && r.Next() {
		switch r.Kind() {
		case base.KindRangeDelete:
			err = into.AddRangeDelete(lsn, r.Key(), r.Value())
		case base.KindAppend:
			err = addEntry(into, lsn, r.Key(), r.Value())
		default:
			err = into.Add(lsn, r.Kind(), r.Key(), r.Value())
		}
	}
	return err
}
