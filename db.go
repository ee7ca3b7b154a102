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

	"github.com/forebaydb/forebay/checkpoint"
	"github.com/forebaydb/forebay/commit"
	"github.com/forebaydb/forebay/internal/base"
	"github.com/forebaydb/forebay/internal/batch"
	"github.com/forebaydb/forebay/internal/cache"
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
//	checkMu  one checkpoint at a time; held over its I/O
//	(the log's leadership and locks: see package wal)
//	(the manifest's lock)
//	mu       guards the replacing of view, and closed, settling, failure
//
// No lock is held while user code runs.
type DB struct {
	opts  Options
	dir   string
	cfg   *recovery.Config
	locks []io.Closer
	cache *cache.Cache

	man  *manifest.Manifest
	log  *wal.Log
	pipe *commit.Pipeline
	rep  recovery.Report

	view    atomic.Pointer[view]
	readers gate

	checkMu sync.Mutex

	mu       sync.Mutex
	closed   bool
	settling bool          // a goroutine settles frozen tables
	settled  chan struct{} // closed, and replaced, after each attempt to settle
	failure  error         // of the last attempt

	background sync.WaitGroup
	ctx        context.Context
	stop       context.CancelFunc
	relieving  atomic.Bool
	checkpoints,
	settledBytes atomic.Int64
}

// view is what a reader looks at: it never changes, only DB.view does.
type view struct {
	active *memtable.Table
	frozen []*frozen         // newest first
	segs   []*segment.Reader // newest first
}

// frozen is a memtable that takes no more writes; high is the LSN behind which
// the next one begins.
type frozen struct {
	table *memtable.Table
	high  base.LSN
}

// maxFrozen is how many frozen memtables may wait before writers do.
const maxFrozen = 2

var encodePool = sync.Pool{New: func() any { return new([]byte) }}

// Open opens the store in dir, or makes one, and recovers it: what it then shows
// is durable. opts may be nil. Errors: ErrLocked, *CorruptionError, those of the
// file system.
func Open(dir string, opts *Options) (*DB, error) {
	o, err := opts.withDefaults()
	if err != nil {
		return nil, err
	}
	o.FS = vfs.StickyDirSync(o.FS)
	db := &DB{opts: o, dir: filepath.Clean(dir), settled: make(chan struct{})}
	db.cache = cache.New(o.MemoryLimit / 2)
	db.cfg = o.recovery(db.dir, db.cache)
	db.view.Store(&view{active: memtable.New(int(o.MemtableSize))})
	if err := db.lock(); err != nil {
		return nil, err
	}
	if err := db.recover(); err != nil {
		db.unlock()
		return nil, fmt.Errorf("forebay: open %s: %w", db.dir, err)
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
		var err error
		if !found {
			err = vfs.MkdirDurable(db.opts.FS, dir)
		}
		if err == nil {
			var l io.Closer
			if l, err = db.opts.FS.Lock(filepath.Join(dir, "LOCK")); err == nil {
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
	db.pipe = commit.New(table{db})
	db.cfg.Log.Applier = commit.Applier{Pipeline: db.pipe}
	db.cfg.Apply = func(lsn base.LSN, rec []byte) error {
		if err := db.enter(lsn, rec); err != nil {
			return err
		}
		db.maybeFreeze(lsn)
		return nil
	}
	store, err := recovery.Open(db.cfg)
	if err != nil {
		return err
	}
	db.man, db.log, db.rep = store.Manifest, store.Log, store.Report
	db.pipe.Start(db.log, db.log.LastLSN())
	v := *db.view.Load()
	for _, r := range store.Segments {
		v.segs = append([]*segment.Reader{r}, v.segs...)
	}
	db.view.Store(&v)
	db.ctx, db.stop = context.WithCancel(context.Background())
	if len(v.frozen) > 0 {
		db.mu.Lock()
		db.settleSoon()
		db.mu.Unlock()
	}
	return nil
}

// table is the memtables as the commit pipeline sees them.
type table struct{ db *DB }

func (t table) Apply(lsn base.LSN, record []byte) error { return t.db.enter(lsn, record) }

func (t table) Applied(last base.LSN) { t.db.maybeFreeze(last) }

// enter enters one batch into the active memtable. One goroutine at a time.
func (db *DB) enter(lsn base.LSN, record []byte) error {
	r, err := batch.Decode(record)
	if err != nil {
		return err
	}
	active := db.view.Load().active
	for r.Next() {
		if err := active.Add(lsn, r.Kind(), r.Key(), r.Value()); err != nil {
			return err
		}
	}
	return nil
}

// maybeFreeze freezes the active memtable when it is large enough. It is called
// where no commit is entered, after the one with LSN last.
func (db *DB) maybeFreeze(last base.LSN) {
	if db.view.Load().active.Bytes() >= db.opts.MemtableSize {
		db.mu.Lock()
		db.freeze(last)
		db.settleSoon()
		db.mu.Unlock()
	}
}

// freeze makes a new memtable active; the old one holds nothing above last. mu
// is held.
func (db *DB) freeze(last base.LSN) {
	v := *db.view.Load()
	v.frozen = append([]*frozen{{v.active, last}}, v.frozen...)
	v.active = memtable.New(int(db.opts.MemtableSize))
	db.view.Store(&v)
}

// settleSoon starts the goroutine that settles frozen memtables; mu is held.
// While the store opens there is no context yet, and Open starts it later.
func (db *DB) settleSoon() {
	if db.settling || db.closed || db.ctx == nil {
		return
	}
	db.settling = true
	db.background.Go(db.settleAll)
}

// settleAll settles frozen memtables, oldest first, until none is left, the
// store closes, or the log is poisoned. Other errors are tried again.
func (db *DB) settleAll() {
	delay := 20 * time.Millisecond
	for {
		err := db.settleOne(db.ctx)
		db.mu.Lock()
		db.failure = err
		close(db.settled)
		db.settled = make(chan struct{})
		if db.closed || len(db.view.Load().frozen) == 0 || db.stuck() != nil {
			db.settling = false
			db.mu.Unlock()
			return
		}
		db.mu.Unlock()
		if err == nil {
			delay = 20 * time.Millisecond
			continue
		}
		db.opts.Logger.Error("checkpoint failed; it will be tried again", "error", err, "in", delay)
		select {
		case <-db.ctx.Done():
		case <-time.After(delay):
		}
		delay = min(2*delay, 10*time.Second)
	}
}

// stuck returns the error after which nothing can be settled until the store is
// opened again, or nil.
func (db *DB) stuck() error {
	if err := db.log.Err(); err != nil {
		return err
	}
	if err := db.man.Err(); err != nil {
		return fmt.Errorf("%w: %w", ErrPoisoned, err)
	}
	return nil
}

// settleOne settles the oldest frozen memtable, if there is one.
func (db *DB) settleOne(ctx context.Context) error {
	db.checkMu.Lock()
	defer db.checkMu.Unlock()
	db.mu.Lock()
	closed := db.closed
	db.mu.Unlock()
	v := db.view.Load()
	switch {
	case closed: // the directory may be somebody else's by now
		return ErrClosed
	case len(v.frozen) == 0:
		return nil
	}
	old := v.frozen[len(v.frozen)-1]
	cfg := &checkpoint.Config{
		FS: db.opts.FS, Dir: db.dir, Manifest: db.man, Writer: db.opts.writer(), Reader: db.cfg.Segment,
		Sync:  func(ctx context.Context, lsn base.LSN) error { return db.syncThrough(ctx, lsn) },
		Above: min(db.pipe.Visible(), old.high),
	}
	r, _, err := checkpoint.Settle(ctx, cfg, old.table, old.high)
	if err != nil {
		if merr := db.man.Err(); merr != nil {
			db.log.Poison(merr) // nothing can be settled any more
		}
		return err
	}
	if r != nil {
		db.settledBytes.Add(int64(r.Size()))
	}
	db.mu.Lock()
	n := *db.view.Load()
	n.frozen = n.frozen[: len(n.frozen)-1 : len(n.frozen)-1]
	if r != nil {
		n.segs = append([]*segment.Reader{r}, n.segs...)
	}
	db.view.Store(&n)
	db.mu.Unlock()
	db.checkpoints.Add(1)
	return db.log.TruncateFront(old.high)
}

// syncThrough makes the log durable through lsn.
func (db *DB) syncThrough(ctx context.Context, lsn base.LSN) error {
	if db.log.DurableLSN() >= lsn {
		return db.log.Err()
	}
	return db.log.Sync(ctx)
}

// admit lets a write in, or makes it wait while too many frozen memtables wait
// to be settled.
func (db *DB) admit(ctx context.Context) error {
	if len(db.view.Load().frozen) < maxFrozen {
		return nil
	}
	for {
		db.mu.Lock()
		wait, failure, closed := db.settled, db.failure, db.closed
		full := len(db.view.Load().frozen) >= maxFrozen
		db.mu.Unlock()
		switch {
		case closed:
			return ErrClosed
		case !full:
			return nil
		case db.stuck() != nil:
			return db.stuck()
		case failure != nil:
			return fmt.Errorf("%w: memory is full and settling fails: %w", ErrFull, failure)
		}
		select {
		case <-wait:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Checkpoint settles everything committed before it into segments, so that the
// next open replays nothing of it and its log files are let go. Commits below
// Durable become durable by it. When ctx ends, it returns ctx's error and leaves
// the rest to the background.
func (db *DB) Checkpoint(ctx context.Context) error {
	var err error
	if xerr := db.log.Exclusive(func() {
		if v := db.view.Load(); v.active.Len() > 0 {
			db.mu.Lock()
			db.freeze(db.log.LastLSN())
			db.mu.Unlock()
		}
	}); xerr != nil {
		return public(xerr)
	}
	for len(db.view.Load().frozen) > 0 && err == nil {
		if err = db.stuck(); err == nil {
			err = db.settleOne(ctx)
		}
	}
	if err != nil {
		db.mu.Lock()
		db.settleSoon()
		db.mu.Unlock()
	}
	return public(err)
}

// relieve settles everything in the background, because the log is full: then
// its files can go.
func (db *DB) relieve() {
	db.mu.Lock()
	defer db.mu.Unlock()
	if db.closed || !db.relieving.CompareAndSwap(false, true) {
		return
	}
	db.background.Go(func() {
		defer db.relieving.Store(false)
		if err := db.Checkpoint(db.ctx); err != nil {
			db.opts.Logger.Error("the log is full and a checkpoint fails", "error", err)
		}
	})
}

// Sync returns when every commit that returned, or was submitted, before it is
// durable. When ctx ends first, it returns ctx's error and the sync goes on.
func (db *DB) Sync(ctx context.Context) error { return public(db.log.Sync(ctx)) }

// DurableLSN returns the log sequence number through which all commits are
// durable.
func (db *DB) DurableLSN() uint64 { return db.log.DurableLSN() }

// LastLSN returns the last log sequence number that was assigned.
func (db *DB) LastLSN() uint64 { return db.log.LastLSN() }

// Recovery reports what Open found and did.
func (db *DB) Recovery() Recovery { return db.rep }

// Recovery is the report of an open.
type Recovery = recovery.Report

// Explain reports what Open would find in dir and do, and changes nothing; it
// takes no lock. Nobody may write to the store meanwhile: what is written
// between two reads of it looks like damage. With a *CorruptionError the report says how far it came.
func Explain(dir string, opts *Options) (Recovery, error) {
	o, err := opts.withDefaults()
	if err != nil {
		return Recovery{}, err
	}
	return recovery.Explain(o.recovery(filepath.Clean(dir), nil))
}

// Close syncs everything, marks the log as closed in order, and gives the
// directory back. Memtables are not settled: the next open replays them. It
// waits for commits and checkpoints under way; iterators that still run end
// with ErrClosed at their next step, and files stay open until then.
func (db *DB) Close() error {
	db.mu.Lock()
	if db.closed {
		db.mu.Unlock()
		return ErrClosed
	}
	db.closed = true
	db.mu.Unlock()
	db.stop()
	db.background.Wait()
	db.checkMu.Lock()
	defer db.checkMu.Unlock()
	err := db.log.Close()
	err = errors.Join(err, db.man.Close())
	db.readers.shut(func() {
		for _, r := range db.view.Load().segs {
			r.Close()
		}
	})
	db.unlock()
	return err
}
