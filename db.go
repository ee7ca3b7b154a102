package forebay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/forebaydb/forebay/commit"
	"github.com/forebaydb/forebay/compaction"
	"github.com/forebaydb/forebay/internal/keyspace"
	"github.com/forebaydb/forebay/manifest"
	"github.com/forebaydb/forebay/memtable"
	"github.com/forebaydb/forebay/recovery"
	"github.com/forebaydb/forebay/segment"
	"github.com/forebaydb/forebay/vfs"
	"github.com/forebaydb/forebay/wal"
)

// DB is an open store. All its methods may be called at once from many
// goroutines.
//
// Locks, in the order in which they are taken:
//
//	checkMu     one checkpoint at a time; held over its I/O
//	compact.mu  guards which compactions run; never held over I/O, but for the
//	            first read of a segment's range deletes
//	(the log's leadership and locks: see package wal)
//	(the manifest's lock)
//	mu          guards the replacing of view, and closed, settling, failure
//	readers.mu, gap.mu, spaces.mu, bgMu, events.mu, the pacer's: leaves
//
// No lock is held while user code runs.
type DB struct {
	opts     Options
	dir      string
	readOnly bool
	cfg      *recovery.Config
	locks    []io.Closer
	cache    *segment.Cache
	// pool keeps memory of memtables, nil if they are small. While memtables come one
	// after the other, pooling, which mu guards with froze, when the last one was frozen.
	pool    *memtable.Pool
	pooling bool
	froze   time.Time

	man  *manifest.Manifest
	log  *wal.Log // nil when read only
	pipe *commit.Pipeline
	lane *commit.Lane
	rep  recovery.Report

	view    atomic.Pointer[view]
	readers readers
	gap     gap
	seqs    sequences
	// logged is how many bytes of records there are behind the last memtable that was
	// frozen; who applies, and nobody else, changes it.
	logged  int64
	spaces  spaces
	space   *Keyspace // the default one
	shut    atomic.Bool
	opening atomic.Bool // nothing is compacted

	checkMu  sync.Mutex
	compact  compactor
	pacer    *compaction.Pacer
	reserved atomic.Int64 // for the active memtable; changed by share
	told     int64        // bytes of the active memtable that the pacer knows; the applier's
	alone    atomic.Pointer[alone]
	solo     chan struct{} // holds one token: who takes it may run alone

	mu       sync.Mutex
	closed   bool
	settling bool          // a goroutine settles frozen tables
	settled  chan struct{} // closed, and replaced, after each attempt to settle and by Close
	failure  error         // of the last attempt

	bgMu       sync.Mutex // guards bgClosed, that nothing is begun after it, and the setting of shut
	bgClosed   bool
	background sync.WaitGroup
	ctx        context.Context
	stop       context.CancelFunc
	relieving  atomic.Bool
	events     events
	count      counters
}

// Open opens the store in dir, or makes one, and recovers it: what it then shows
// is durable. opts may be nil. Errors: ErrLocked, *CorruptionError, one that names
// what a newer version wrote and this one does not know, and those of the file
// system. After an error nothing that the store holds was changed.
//
// With Options.ReadOnly it opens a store that exists, writes nothing at all, and
// replays the log into memory, which takes about as much memory as the log's
// unsettled part has bytes. Any number of processes may have it open so at the
// same time, and none for writing. Without a store in dir the error wraps
// fs.ErrNotExist.
func Open(dir string, opts *Options) (*DB, error) {
	o, err := opts.withDefaults()
	if err != nil {
		return nil, err
	}
	o.FS = vfs.StickyDirSync(o.FS)
	db := &DB{opts: o, dir: filepath.Clean(dir), readOnly: o.ReadOnly, settled: make(chan struct{}), solo: make(chan struct{}, 1)}
	db.solo <- struct{}{}
	db.cache = o.newCache()
	db.pool = memtable.NewPool(o.MemtableSize)
	db.cfg = o.recovery(db.dir, db.cache)
	db.compact.ended = make(chan struct{})
	db.pacer = compaction.NewPacer(compaction.PacerOptions{MemtableSize: o.MemtableSize, Memtables: 1 + maxFrozen})
	db.events.start(o.OnEvent)
	db.space = db.spaces.defaults(db)
	first := &view{active: memtable.NewShared(int(o.MemtableSize), nil), plain: true}
	first.retain()
	db.view.Store(first)
	if err := db.lock(); err != nil {
		return nil, err
	}
	db.opening.Store(true)
	if err := db.recover(); err != nil {
		db.view.Load().release() // nobody has looked at it
		db.unlock()
		db.events.end()
		return nil, fmt.Errorf("forebay: open %s: %w", db.dir, err)
	}
	err = db.settleLog()
	db.opening.Store(false)
	if err != nil {
		db.refuse()
		return nil, fmt.Errorf("forebay: open %s: %w", db.dir, errors.Join(err, db.close()))
	}
	if !db.readOnly {
		db.compactSoon()
		db.recountSoon()
	}
	return db, nil
}

// lock makes the directories and takes their locks.
func (db *DB) lock() error {
	dirs := []string{db.cfg.Dir}
	if db.cfg.LogDir != db.cfg.Dir {
		dirs = append(dirs, db.cfg.LogDir)
	}
	names, _ := db.opts.FS.List(db.dir)
	// A manifest is made once the path to it is durable.
	found := slices.ContainsFunc(names, func(name string) bool { _, ok := manifest.ParseFileName(name); return ok })
	for _, dir := range dirs {
		take := db.opts.FS.Lock
		var err error
		if db.readOnly {
			take = db.opts.FS.LockShared
		} else if !found {
			err = vfs.MkdirDurable(db.opts.FS, dir)
		}
		if err == nil {
			var l io.Closer
			if l, err = take(filepath.Join(dir, "LOCK")); err == nil {
				db.locks = append(db.locks, l)
				continue
			}
		}
		db.unlock()
		return fmt.Errorf("forebay: open %s: %w", dir, err)
	}
	return nil
}

func (db *DB) unlock() {
	for _, l := range db.locks {
		l.Close()
	}
}

func (db *DB) recover() error {
	db.pipe = commit.New(memtables{db})
	db.lane = commit.NewLane(db.pipe, insideTwo)
	db.cfg.Log.Applier = commit.Applier{Pipeline: db.pipe}
	if db.opts.OnEvent != nil {
		db.cfg.Log.OnSlowSync = db.slowSync
	}
	replay := &replayer{db: db, whole: db.readOnly}
	db.cfg.Size, db.cfg.Apply, db.cfg.Applied = replay.size, replay.apply, replay.loaded
	open := recovery.Open
	if db.readOnly {
		open = recovery.OpenReadOnly
	}
	store, err := open(db.cfg)
	if err != nil {
		replay.drop()
		return err
	}
	db.man, db.log, db.rep = store.Manifest, store.Log, store.Report
	if db.readOnly {
		db.pipe.Start(nil, max(db.rep.Last, db.rep.ReplayStart-1))
	} else {
		db.pipe.Start(db.log, db.log.LastLSN())
	}
	db.ctx, db.stop = context.WithCancel(context.Background())
	db.populate(store)
	return nil
}

// populate puts the segments into the view, and starts what is to be done about
// memtables that the replay has filled.
func (db *DB) populate(store *recovery.Store) {
	db.mu.Lock()
	defer db.mu.Unlock()
	if db.rep.ReplayStart > 1 {
		db.install(func(v *view) {
			v.settled = db.rep.ReplayStart - 1
			for i, r := range store.Segments {
				v.place(&table{meta: store.Listed[i], file: &segmentFile{r: r}})
			}
		})
	}
	v := db.view.Load()
	if db.readOnly || len(v.frozen)+len(v.zero)+len(v.levels) == 0 {
		return
	}
	db.backlog()
	if len(v.frozen) > 0 {
		db.settleSoon()
	}
}

// spawn runs fn in the background, if the store is not closing; Close waits for
// it. It says whether it will run.
func (db *DB) spawn(fn func()) bool {
	db.bgMu.Lock()
	defer db.bgMu.Unlock()
	if !db.bgClosed {
		db.background.Go(fn)
	}
	return !db.bgClosed
}

// begin is beginRead for calls that write.
func (db *DB) begin(ctx context.Context) (_ context.Context, end func(), err error) {
	if db.readOnly {
		return nil, nil, ErrReadOnly
	}
	return db.beginRead(ctx)
}

// beginRead begins a long call, which Close ends and waits for. The context ends
// with the caller's and with the store; end is to be called.
func (db *DB) beginRead(ctx context.Context) (_ context.Context, end func(), err error) {
	db.bgMu.Lock()
	defer db.bgMu.Unlock()
	if db.bgClosed {
		return nil, nil, ErrClosed
	}
	db.background.Add(1)
	ctx, cancel := context.WithCancel(ctx)
	release := context.AfterFunc(db.ctx, cancel)
	return ctx, func() {
		release()
		cancel()
		db.background.Done()
	}, nil
}

// ended is the error of a call that the end of the store may have ended.
func (db *DB) ended(err error) error {
	if errors.Is(err, context.Canceled) && db.ctx.Err() != nil {
		return ErrClosed
	}
	return public(err)
}

// Sync returns when every commit that returned, or was submitted, before it is
// durable. When ctx ends first, it returns ctx's error and the sync goes on.
func (db *DB) Sync(ctx context.Context) error {
	if db.readOnly {
		return ErrReadOnly
	}
	return public(db.log.Sync(ctx))
}

// DurableLSN returns the log sequence number through which all commits are
// durable.
func (db *DB) DurableLSN() uint64 {
	if db.readOnly {
		return db.pipe.Visible()
	}
	return db.log.DurableLSN()
}

// LastLSN returns the last log sequence number that was assigned.
func (db *DB) LastLSN() uint64 {
	if db.readOnly {
		return db.pipe.Visible()
	}
	return db.log.LastLSN()
}

// Recovery reports what Open found and did.
func (db *DB) Recovery() Recovery { return db.rep }

// Recovery is the report of an open.
type Recovery = recovery.Report

// Explain reports what Open would find in dir and do, and changes nothing; it
// takes no lock. Nobody may write to the store meanwhile: what is written
// between two reads of it looks like damage. With a *CorruptionError the report
// says how far it came.
func Explain(dir string, opts *Options) (Recovery, error) {
	o, err := opts.withDefaults()
	if err != nil {
		return Recovery{}, err
	}
	return recovery.Explain(o.recovery(filepath.Clean(dir), nil))
}

// Close syncs everything, marks the log as closed in order, and gives the
// directory back. Memtables are not settled: the next open replays them. It
// waits for commits, and ends checkpoints, compactions and the other long calls
// under way; iterators that still run end with ErrClosed at their next step, and
// files stay open until then. It must not be called inside of a function given
// to Update, View or GetFunc.
func (db *DB) Close() error {
	if err := db.refuse(); err != nil {
		return err
	}
	return db.close()
}

// Shutdown is Close with a deadline: when ctx ends first, it returns ctx's error,
// and the closing goes on by itself. Whichever way it returns, the store takes
// no more calls.
func (db *DB) Shutdown(ctx context.Context) error {
	if err := db.refuse(); err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() { done <- db.close() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("forebay: shutdown goes on: %w", ctx.Err())
	}
}

// refuse makes the store take no more calls; the first who closes it gets nil.
func (db *DB) refuse() error {
	db.mu.Lock()
	defer db.mu.Unlock()
	if db.closed {
		return ErrClosed
	}
	db.closed = true
	db.wake() // the settling that a writer waits for may never be tried again
	return nil
}

func (db *DB) close() error {
	db.bgMu.Lock()
	db.bgClosed = true
	db.bgMu.Unlock()
	db.stop()
	db.background.Wait()
	db.checkMu.Lock()
	defer db.checkMu.Unlock()
	var err error
	if !db.readOnly {
		if err = db.trimLarge(); db.man.Err() == nil {
			err = nil // it was refused, for want of room: the files stay
		}
		err = errors.Join(err, db.log.Close(), db.man.Close())
	}
	db.bgMu.Lock() // see removeWhileOpen
	db.shut.Store(true)
	db.bgMu.Unlock()
	db.pool.Shut()()
	last := db.view.Load()
	last.gate.shut(func() { db.drop(last) })
	db.unlock()
	db.events.end()
	return err
}

// trimLarge takes the log's files off the disk when all they hold is settled, unless
// they are small: an edit of the manifest costs more than reading them.
func (db *DB) trimLarge() error {
	v := db.view.Load()
	if db.log.Err() != nil || v.settled < db.log.LastLSN() || db.log.Stats().FileBytes <= smallLog {
		return nil
	}
	return db.log.Trim(v.settled)
}

// smallLog is the size in bytes of the log files that a store which is closed keeps
// though all is settled.
const smallLog = 256 << 10

// prefixOf is the prefix of the stored keys of a keyspace.
func prefixOf(id uint64) []byte { return keyspace.AppendPrefix(nil, id) }
