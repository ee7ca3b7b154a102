package forebay

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/forebaydb/forebay/checkpoint"
	"github.com/forebaydb/forebay/commit"
	"github.com/forebaydb/forebay/compaction"
	"github.com/forebaydb/forebay/internal/base"
	"github.com/forebaydb/forebay/internal/batch"
	"github.com/forebaydb/forebay/internal/keyspace"
	"github.com/forebaydb/forebay/internal/publish"
	"github.com/forebaydb/forebay/manifest"
	"github.com/forebaydb/forebay/memtable"
	"github.com/forebaydb/forebay/vfs"
)

// maxFrozen is how many frozen memtables may wait before writers do. The pacer
// slows them so that they seldom come to that.
const maxFrozen = 2

// memtables is the store's tables in memory as the commit pipeline sees them.
type memtables struct{ db *DB }

func (t memtables) Apply(lsn base.LSN, record []byte) error {
	publish.Count(&t.db.count.user, int64(len(record)))
	t.db.logged += int64(len(record))
	return t.db.apply(lsn, record)
}

func (t memtables) Ahead(lsn base.LSN, record []byte) {
	active := t.db.view.Load().active
	if active.Near() {
		return
	}
	if kind, key := batch.First(record); kind == base.KindPut || kind == base.KindDelete {
		active.Ahead(lsn, key)
	}
}

func (t memtables) Applied(last base.LSN) {
	t.db.grew()
	t.db.maybeFreeze(last)
}

// apply enters one batch into the active memtable. One goroutine at a time.
func (db *DB) apply(lsn base.LSN, record []byte) error {
	active, watched := db.view.Load().active, db.gap.on.Load()
	if kind, key, value, ok := batch.One(record); ok && !watched {
		return active.Add(lsn, kind, key, value)
	}
	r, err := batch.Decode(record)
	if err != nil {
		return err
	}
	for more := r.Next(); more; {
		kind, key, value := r.Kind(), r.Key(), r.Value()
		if more = r.Next(); more && r.Kind() < base.KindRangeDelete {
			active.Ahead(lsn, r.Key())
		}
		if watched && kind == base.KindPut {
			db.gap.put(key)
		}
		switch kind {
		case base.KindRangeDelete:
			err = active.AddRangeDelete(lsn, key, value)
		case base.KindAppend:
			err = addEntry(active, lsn, key, value)
		default:
			err = active.Add(lsn, kind, key, value)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// addEntry enters the index entry of an append.
func addEntry(into batchTable, lsn base.LSN, key, value []byte) error {
	var k [keyspace.MaxPrefix + 8]byte
	var v [2 * binary.MaxVarintLen64]byte
	entryKey, entryValue := batch.IndexEntry(k[:0], v[:0], key, value)
	return into.Add(lsn, base.KindPut, entryKey, entryValue)
}

// grewStep is how many bytes a memtable grows between two words to the pacer.
const grewStep = 256 << 10

// grew tells the pacer how the active memtable grows. The goroutine that
// applies calls it.
func (db *DB) grew() {
	n := db.view.Load().active.Bytes()
	d := n - db.told
	if d >= 0 && d < min(grewStep, db.opts.MemtableSize/16) {
		return
	}
	db.told = n
	if d > 0 {
		db.pacer.Grew(d)
	}
	// Also behind a freeze: the first group of a memtable may be as large as it gets.
	if n > db.reserved.Load() && n < db.opts.MemtableSize {
		db.mu.Lock()
		db.share(db.view.Load())
		db.mu.Unlock()
	}
}

// readOnlyMemtable is the size in bytes of the memtables of a store that is open
// for reading only.
const readOnlyMemtable = 1 << 30

// memtableLimit returns at how many bytes a memtable is frozen.
func (db *DB) memtableLimit() int64 {
	if db.readOnly { // they are never settled, and each costs every read
		return max(db.opts.MemtableSize, readOnlyMemtable)
	}
	return db.opts.MemtableSize
}

// maybeFreeze freezes the active memtable when it is large enough. It is called
// where no commit is applied, after the one with LSN last.
func (db *DB) maybeFreeze(last base.LSN) {
	limit := db.memtableLimit()
	if db.view.Load().active.Bytes() >= limit || db.logged >= logLimit*limit && !db.readOnly {
		db.freezeActive(last)
	}
}

// logLimit is how many memtables' worth of log may be unsettled: items of sequences are
// in no memtable, and an open reads them all the same.
const logLimit = 4

// freezeActive freezes the active memtable. It is called as maybeFreeze is.
func (db *DB) freezeActive(last base.LSN) {
	db.mu.Lock()
	db.freeze(last)
	db.settleSoon()
	db.mu.Unlock()
}

// freeze makes a new memtable active; the old one holds nothing above last. mu
// is held.
func (db *DB) freeze(last base.LSN) {
	db.keepMemory()
	db.logged = 0
	db.install(func(v *view) {
		v.frozen = append([]*frozen{{v.active, last}}, v.frozen...)
		v.active = memtable.NewShared(int(db.opts.MemtableSize), db.pool)
	})
	db.backlog()
}

// poolFor is for how long the memory of a memtable is kept for another.
const poolFor = 2 * time.Second

// keepMemory has the memory of memtables kept for those that come, until for some time
// none did. mu is held.
func (db *DB) keepMemory() {
	if db.pool == nil || db.readOnly || db.closed {
		return
	}
	db.froze = time.Now()
	if !db.pooling {
		db.pooling = true
		db.pool.Open()
		time.AfterFunc(poolFor, db.letMemoryGo)
	}
}

// letMemoryGo ends what keepMemory began, or waits on.
func (db *DB) letMemoryGo() {
	free := func() {}
	defer func() { free() }()
	db.mu.Lock()
	defer db.mu.Unlock()
	if left := poolFor - time.Since(db.froze); left > 0 && !db.closed {
		time.AfterFunc(left, db.letMemoryGo)
		return
	}
	db.pooling = false
	free = db.pool.Shut()
	if !db.closed {
		db.share(db.view.Load())
	}
}

// backlog tells the pacer what waits. mu is held.
func (db *DB) backlog() {
	v := db.view.Load()
	b := compaction.Backlog{Memory: v.active.Bytes()}
	for _, f := range v.frozen {
		b.Memory += f.table.Bytes()
	}
	for _, t := range v.zero {
		b.Level0 += int64(t.meta.Size)
	}
	if len(v.levels) > 0 {
		b.Debt = compaction.Debt(v.segments(), db.shape())
	}
	db.pacer.Update(b, time.Now())
}

// settleSoon starts the goroutine that settles frozen memtables; mu is held.
// While the store opens there is no context yet, and Open starts it later; a
// store that is read only has none.
func (db *DB) settleSoon() {
	if db.settling || db.closed || db.ctx == nil {
		return
	}
	db.settling = db.spawn(db.settleAll)
}

// settleAll settles frozen memtables, oldest first, until none is left, the
// store closes, or the log is poisoned. Other errors are tried again.
func (db *DB) settleAll() {
	delay := 20 * time.Millisecond
	for {
		err := db.settleOne(db.ctx)
		db.mu.Lock()
		db.attempted(err)
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

// attempted tells who waits for a memtable to be settled how it went, whoever
// settled it. mu is held.
func (db *DB) attempted(err error) {
	db.failure = err
	db.wake()
}

// wake makes those who wait for a memtable to be settled look again. mu is held.
func (db *DB) wake() {
	close(db.settled)
	db.settled = make(chan struct{})
}

// stuck returns the error after which nothing can be settled until the store is
// opened again, or nil.
func (db *DB) stuck() error {
	if err := db.man.Err(); errors.Is(err, manifest.ErrClosed) {
		return ErrClosed // no fault of the disk
	} else if err != nil {
		// Whose edit failed is about to. That a store is poisoned is said to
		// nobody before it is: he might see the next write accepted.
		db.log.Poison(err)
	}
	return db.log.Err()
}

// files says how segments are made.
func (db *DB) files() compaction.Files {
	return compaction.Files{
		FS: db.opts.FS, Dir: db.dir, Store: db.man.StoreID(), Next: db.man.NextSegment, Writer: db.opts.writer(), Reader: db.cfg.Segment,
	}
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
	err := db.settleTable(ctx, old)
	if err != nil {
		db.event(Event{Kind: EventCheckpoint, Err: err, LSN: old.high})
		// Nothing can be settled any more:
		if merr := db.man.Err(); merr != nil {
			db.log.Poison(merr)
		} else if errors.Is(err, vfs.ErrDirSync) {
			db.log.Poison(err)
		}
		return err
	}
	return db.log.TruncateFront(old.high)
}

func (db *DB) settleTable(ctx context.Context, old *frozen) error {
	return db.settleFrom(ctx, old.table, old.high, func(v *view) { v.frozen = v.frozen[: len(v.frozen)-1 : len(v.frozen)-1] })
}

// settleFrom settles a table, of which all commits through high are, or are in what
// was settled before it, and which leaves the view in which it is.
func (db *DB) settleFrom(ctx context.Context, from checkpoint.Table, high base.LSN, leave func(v *view)) error {
	start := time.Now()
	db.pacer.Settling(start)
	cfg := &checkpoint.Config{
		FS: db.opts.FS, Dir: db.dir, Manifest: db.man, Writer: db.opts.writer(), Reader: db.cfg.Segment, Sync: db.syncThrough,
		Yield: func() { db.yield(1) },
	}
	cfg.Snapshots, cfg.Above = db.readers.keep(db.pipe.Visible)
	r, listed, err := checkpoint.Settle(ctx, cfg, from, high)
	if err != nil {
		db.pacer.Settled(0, 0, time.Now())
		return err
	}
	db.mu.Lock()
	db.install(func(v *view) {
		leave(v)
		v.settled = high
		if r != nil {
			v.place(&table{meta: listed, file: &segmentFile{r: r}})
		}
	})
	db.attempted(nil)
	db.pacer.Settled(from.Bytes(), int64(listed.Size), time.Now())
	db.backlog()
	db.mu.Unlock()
	db.count.checkpoints.Add(1)
	db.count.settled.Add(int64(listed.Size))
	db.event(Event{Kind: EventCheckpoint, LSN: high, Bytes: int64(listed.Size), Duration: time.Since(start)})
	db.compactSoon()
	return nil
}

// syncThrough makes the log durable through lsn.
func (db *DB) syncThrough(ctx context.Context, lsn base.LSN) error {
	if db.log.DurableLSN() >= lsn {
		return db.log.Err()
	}
	return db.log.Sync(ctx)
}

// admit lets a write of about n bytes in. It makes it wait as the pacer says,
// while too many frozen memtables wait to be settled, and while a transaction
// runs alone.
func (db *DB) admit(ctx context.Context, n int) error {
	if db.readOnly {
		return ErrReadOnly
	}
	if a := db.alone.Load(); a != nil {
		if err := db.waitAlone(ctx, a); err != nil {
			return err
		}
	}
	if db.pacer.Limits() {
		d, err := db.pacer.Wait(ctx, int64(n))
		if err != nil {
			return err
		}
		if d > stallCounted {
			db.stalled(d)
		}
	}
	if len(db.view.Load().frozen) < maxFrozen {
		return nil
	}
	start := time.Now()
	err := db.waitSettled(ctx)
	db.stalled(time.Since(start))
	return err
}

// waitSettled waits until fewer frozen memtables wait.
func (db *DB) waitSettled(ctx context.Context) error {
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
	if db.readOnly {
		return ErrReadOnly
	}
	if ctx.Done() == nil {
		return db.checkpoint(ctx)
	}
	// The disk may hang, and who holds the log's leadership with it.
	done := make(chan error, 1)
	if !db.spawn(func() { done <- db.checkpoint(ctx) }) {
		return ErrClosed
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (db *DB) checkpoint(ctx context.Context) error {
	var err error
	if xerr := db.log.Exclusive(func() {
		// A commit that did nothing is durable behind it, too.
		if last := db.log.LastLSN(); last > db.view.Load().high() {
			db.mu.Lock()
			db.freeze(last)
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
	db.spawn(func() {
		defer db.relieving.Store(false)
		if err := db.checkpoint(db.ctx); err != nil {
			db.opts.Logger.Error("the log is full and a checkpoint fails", "error", err)
		}
	})
}

var _ commit.Table = memtables{}
