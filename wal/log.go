package wal

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/forebaydb/forebay/internal/editlog"
	"github.com/forebaydb/forebay/vfs"
	"github.com/forebaydb/forebay/wal/frame"
)

// Log is an open log. All its methods may be called at once from many
// goroutines.
//
// One goroutine at a time is the leader: it alone assigns LSNs, writes and
// syncs, or begins a sync aside, and owns the fields marked so. Who commits when
// nobody leads becomes the leader; the others join the open group and wait. While
// nobody leads, who holds mu may do what a leader may (see quick).
//
// Lock order: leadership → fileMu → mu, histMu (which are leaves, never held
// together). No lock but leadership is held during a sync of the log.
type Log struct {
	fsys vfs.FS
	dir  string
	opts Options
	cat  Catalog
	own  *fileCatalog // the catalog, when it is the log's own
	lock interface{ Close() error }
	rec  Recovery

	mu      sync.Mutex // guards the queue and the life of the log
	open    *group     // the group that committers join; nil: none
	alone   group      // that of a leader whom nobody can join
	leading bool
	closed  bool
	timer   *time.Timer
	armed   bool
	armedAt int64 // groups when the timer was armed
	syncDue bool  // it is armed for a sync by interval
	quicks  int64 // records that were appended without a leader
	calm    bool  // neither Applier nor policy ask for anything behind a Buffered record; it does not change

	fail atomic.Pointer[poison]

	_       [64]byte
	waiting atomic.Int64 // see Waiting; a line of the cache of its own
	_       [56]byte
	looks   looks
	_       [64]byte

	// owned by the leader
	cur    *logFile // nil until the first commit after an open
	behind []*logFile
	aside  *aside   // nil: none is under way, or its result was taken
	wanted LSN      // through which somebody wants a sync behind that one
	handed *handoff // nil: none is under way, or its result was taken
	idle   []byte   // memory for b, when it is handed off
	// flushDue is how many bytes are laid out before they are handed off.
	flushDue int
	b        frame.Builder
	next     LSN   // of the next record
	pos      Floor // the last record that was laid out, and the file it lies in
	epoch    uint64
	marked   LSN // durable LSN of the last mark
	entries  []frame.IndexEntry
	places   places
	keepSum  uint64
	expect   int // requests that the next group is likely to have
	// syncTakes is how long a group's write and sync take, about.
	syncTakes time.Duration

	assigned, written, durable atomic.Uint64

	fileMu   sync.Mutex // guards the making and releasing of files
	spare    *logFile
	unused   atomic.Int64 // bytes of files that hist does not show: spare, recyclable, taken by the leader
	nextSize int64
	recycle  []recyclable
	number   uint64   // highest file number ever used
	void     []uint64 // listed files that are no part of the history
	pins     map[string]LSN

	histMu sync.Mutex // guards the history
	hist   []*span
	floor  Floor
	gen    atomic.Uint64 // changes, under histMu, when history is cut
	wait   chan struct{} // closed when durable moves; nil: nobody waits

	background sync.WaitGroup
	bgCtx      context.Context
	bgStop     context.CancelFunc
	preparing  atomic.Bool
	spareTried atomic.Uint64 // number of the file beside which a spare was asked for last
	archiving  atomic.Bool

	slow      *slowWatch // nil: nobody wants to know
	slowAside *slowWatch // likewise
	stats     counters
}

type poison struct{ err error }

type recyclable struct {
	name string
	size int64
}

// logFile is a file that this open made.
type logFile struct {
	meta     FileMeta
	head     frame.FileHeader
	path     string
	f        vfs.File
	sync     vfs.File // handle for DSync, DirectDSync and Direct; nil otherwise
	size     int64    // preallocated
	unsynced int64    // bytes written and not synced
	started  int64    // up to where the disk was told to begin
	filled   int64    // up to where zeros were written, or it was used before
	syncs    int64    // of this file
	small    int64    // how many of the last were of less than smallSync bytes each
	window   window
}

// Open opens the log in dir, or makes one, recovers it and takes its lock. It
// returns a *CorruptionError, and changes nothing, when something that was
// durable is missing; a torn end is cut. What it shows is durable.
func Open(dir string, opts *Options) (*Log, error) {
	o, err := opts.withDefaults()
	if err != nil {
		return nil, err
	}
	l := &Log{fsys: o.FS, dir: dir, opts: o, cat: o.Catalog}
	l.flushDue = l.flushAt()
	l.calm = o.Applier == nil && o.Policy.kind != policyBytes && o.Policy.kind != policyInterval
	if o.OnSlowSync != nil {
		l.slow = &slowWatch{limit: o.SlowSync, hook: o.OnSlowSync}
		l.slowAside = &slowWatch{limit: o.SlowSync, hook: o.OnSlowSync}
	}
	if l.cat == nil {
		l.fsys = vfs.StickyDirSync(o.FS) // with a catalog, its owner's business
		if err := l.openAlone(); err != nil {
			return nil, err
		}
	}
	if err := l.recover(); err != nil {
		l.closeFiles()
		l.release()
		return nil, err
	}
	l.archiveSoon() // what was not before: full files may keep the log from going on
	return l, nil
}

// openAlone takes the lock and opens the catalog of a log without an engine.
func (l *Log) openAlone() error {
	if !hasCatalog(l.fsys, l.dir) {
		if err := vfs.MkdirDurable(l.fsys, l.dir); err != nil {
			return err
		}
	}
	lock, err := l.fsys.Lock(join(l.dir, "LOCK"))
	if err != nil {
		return fmt.Errorf("wal: %s: %w", l.dir, err)
	}
	l.lock = lock
	if l.own, err = openCatalog(l.fsys, l.dir, l.opts.Rand); err != nil {
		lock.Close()
		return err
	}
	l.cat = l.own
	return nil
}

// release gives back what Open took.
func (l *Log) release() {
	if l.own != nil {
		l.own.close()
	}
	if l.lock != nil {
		l.lock.Close()
	}
}

// Inspect reports what Open would find in dir and changes nothing; it takes no
// lock, and nobody may write to the log meanwhile: what is written between two
// reads of it looks like damage. Of the options it uses FS, Catalog, Proven and OnRecord alone.
func Inspect(dir string, opts *Options) (Recovery, error) {
	o, err := opts.withDefaults()
	if err != nil {
		return Recovery{}, err
	}
	cat := o.Catalog
	if cat == nil {
		c, _, err := loadCatalog(o.FS, dir)
		if errors.Is(err, editlog.ErrNone) {
			err = refuseOrphans(o.FS, dir)
		}
		if err != nil {
			return Recovery{}, err
		}
		cat = c
	}
	s := newScan(o.FS, dir, cat, &o)
	defer s.close()
	err = s.run()
	return s.rep, err
}

func newScan(fsys vfs.FS, dir string, cat Catalog, o *Options) *scan {
	return &scan{fsys: fsys, dir: dir, state: cat.LogState(), store: cat.StoreID(), proven: o.Proven, size: o.OnSize, each: o.OnRecord}
}

// recover scans the log, makes durable what it shows, and readies l.
func (l *Log) recover() error {
	s := newScan(l.fsys, l.dir, l.cat, &l.opts)
	defer s.close()
	if err := s.run(); err != nil {
		return err
	}
	pos, err := s.place(s.rep.Proven)
	if err != nil {
		return err
	}
	if err := l.beforeChange(); err != nil {
		return err
	}
	l.rec = s.rep
	l.floor = s.state.Floor
	l.pins = s.state.Pins
	l.next = s.rep.Last + 1
	// A catalog that somebody put together may know an epoch by its floor alone,
	// and so a file number.
	l.epoch = max(s.state.Epoch, s.state.Floor.Epoch) + 1
	l.nextSize = l.opts.FirstFileSize
	for i := range s.spans {
		l.hist = append(l.hist, &s.spans[i])
	}
	l.number = max(s.state.Number, s.state.Floor.File)
	for _, name := range s.names {
		// A file that was made and never listed keeps its number from use.
		if n, ok := ParseFileName(name); ok {
			l.number = max(l.number, n)
		}
	}
	l.pos = pos
	l.trimHistory(l.pos.LSN)
	l.durable.Store(s.rep.Proven)
	if s.rep.Proven < s.rep.Last {
		if err := l.copyForward(s); err != nil {
			return err
		}
	}
	l.assigned.Store(s.rep.Last)
	l.written.Store(s.rep.Last)
	l.durable.Store(s.rep.Last)
	return l.dropVoid(s)
}

// beforeChange makes durable what the catalog says.
func (l *Log) beforeChange() error {
	if l.own != nil {
		return l.own.ready()
	}
	if l.opts.BeforeChange != nil {
		return l.opts.BeforeChange()
	}
	return nil
}

// copyForward writes the records above the last proof into a new file, whose
// link names them, syncs it, and then proves them by a mark. Syncing the old
// file instead would prove nothing: after an earlier error its pages are clean.
func (l *Log) copyForward(s *scan) error {
	from, to := s.rep.Proven, s.rep.Last
	lf, err := l.newFile(l.opts.FirstFileSize, true)
	if err != nil {
		return err
	}
	l.cur = lf
	l.b.Reset(&lf.head, l.opts.Compression, lf.head.Start(), 0)
	l.b.Link(frame.Link{Pred: l.pos.File, Kept: from, Hash: l.pos.Hash, Copies: to, CopyEpoch: s.pos.Epoch}, from)
	for i := range s.tail {
		t := &s.tail[i]
		if t.last <= from {
			continue
		}
		err := s.again(t, func(fr *frame.Frame) error {
			err := fr.EachRecord(func(lsn LSN, keep uint64, rec []byte) error {
				if lsn > from && lsn <= t.last {
					l.b.Record(lsn, keep, rec, from, frame.FlagCopy)
					l.keepSum += keep
				}
				return nil
			})
			if err != nil || l.b.Len() <= 1<<20 {
				return err
			}
			return l.writeOut(false)
		})
		if err != nil {
			return err
		}
	}
	if err := l.writeOut(true); err != nil {
		return err
	}
	l.unused.Add(-lf.size)
	l.hist = append(l.hist, &span{meta: lf.meta, first: from + 1, last: to, hash: l.b.LastData(), copies: to, copyEpoch: s.pos.Epoch, keep: l.keepSum, size: lf.size, live: true})
	l.pos = Floor{File: lf.meta.Number, LSN: to, Hash: l.b.LastData(), Epoch: lf.meta.Epoch}
	l.written.Store(to)
	l.durable.Store(to)
	return l.putMark(0, true)
}

// trimHistory forgets what lies above lsn in files that were superseded.
func (l *Log) trimHistory(lsn LSN) {
	keep := l.hist[:0]
	for _, sp := range l.hist {
		if sp.live && sp.first > lsn {
			continue
		}
		if sp.live && sp.last > lsn {
			sp.last, sp.hash = lsn, l.pos.Hash
		}
		keep = append(keep, sp)
	}
	l.hist = keep
}

// dropVoid takes files that are no part of the history off the catalog and
// removes them, with files that the catalog does not name. It comes last: what
// supersedes them is durable.
func (l *Log) dropVoid(s *scan) error {
	inUse := map[uint64]bool{}
	for _, n := range s.foreign {
		inUse[n] = true
	}
	for _, sp := range l.hist {
		inUse[sp.meta.Number] = true
	}
	if l.cur != nil {
		inUse[l.cur.meta.Number] = true
	}
	var e Edit
	for _, f := range s.files {
		if !inUse[f.meta.Number] {
			e.Remove = append(e.Remove, f.meta.Number)
		}
	}
	if len(e.Remove) > 0 && l.cur != nil {
		if err := l.cat.EditLog(&e); err != nil {
			return err
		}
	} else {
		// Nothing was written by this open: the void files go once something
		// that supersedes them is durable.
		l.void = e.Remove
		for _, n := range e.Remove {
			inUse[n] = true
		}
	}
	for _, name := range s.names {
		if n, ok := ParseFileName(name); ok && !inUse[n] {
			if err := l.fsys.Remove(join(l.dir, name)); err != nil {
				return err
			}
		}
	}
	return nil
}

// Recovery reports what Open found.
func (l *Log) Recovery() Recovery { return l.rec }

// LastLSN returns the last LSN that was assigned.
func (l *Log) LastLSN() LSN { return l.assigned.Load() }

// DurableLSN returns the LSN through which the log is durable.
func (l *Log) DurableLSN() LSN { return l.durable.Load() }

// WrittenLSN returns the LSN through which the log is with the operating
// system.
func (l *Log) WrittenLSN() LSN { return l.written.Load() }

// Err returns the error that poisoned the log, or nil.
func (l *Log) Err() error {
	if p := l.fail.Load(); p != nil {
		return p.err
	}
	return nil
}

// poisonWith makes the log refuse everything until it is opened again.
func (l *Log) poisonWith(err error) {
	l.fail.CompareAndSwap(nil, &poison{fmt.Errorf("%w: %w", ErrPoisoned, err)})
	l.notify()
}

// Close syncs what is unsynced, writes a close mark and closes the files. It
// waits for the groups under way. A poisoned log is closed without a write and
// returns the cause.
func (l *Log) Close() error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return ErrClosed
	}
	l.mu.Unlock()
	err := l.exec(l.finish)
	if errors.Is(err, ErrClosed) {
		return err
	}
	if l.bgStop != nil {
		l.bgStop()
	}
	l.notify()
	l.background.Wait()
	l.fileMu.Lock()
	defer l.fileMu.Unlock()
	l.closeFiles()
	l.release()
	return err
}

// finish is the last thing that a leader does.
func (l *Log) finish() error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return ErrClosed
	}
	l.closed = true
	if l.timer != nil {
		l.timer.Stop()
	}
	l.mu.Unlock()
	if err := l.Err(); err != nil {
		return err
	}
	if l.cur == nil {
		return nil
	}
	err := l.writeOut(true)
	if err == nil {
		// What a file keeps in reserve has room for this, however full it is.
		err = l.putMark(frame.FlagClose, true)
	}
	if err != nil {
		l.poisonWith(err)
		return l.Err()
	}
	return l.dropUnused()
}

func (l *Log) closeFiles() {
	if l.slow != nil {
		l.slow.stop()
		l.slowAside.stop()
	}
	for _, f := range append([]*logFile{l.cur, l.spare}, l.behind...) {
		if f != nil {
			f.close()
		}
	}
	l.dropRecyclable()
}

func (f *logFile) close() {
	f.window.close()
	f.f.Close()
	if f.sync != nil {
		f.sync.Close()
	}
}

// Exclusive runs fn as the leader: while it runs no request is written or
// applied. fn must not call the log's committing methods.
func (l *Log) Exclusive(fn func()) error {
	return l.exec(func() error { fn(); return nil })
}

// Poison makes the log refuse everything until it is opened again, as a failed
// sync does: for an Applier that could not follow it.
func (l *Log) Poison(err error) { l.poisonWith(err) }
