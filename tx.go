package forebay

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/forebaydb/forebay/commit"
	"github.com/forebaydb/forebay/internal/base"
	"github.com/forebaydb/forebay/memtable"
)

// Tx is a transaction under way; see DB.Update. It is a Reader and a Writer of
// the default keyspace: it reads the store as it was at one moment, with what it
// wrote itself over that. It is used by one goroutine at a time, and not after the
// function that was given it has returned.
type Tx struct {
	Reader
	Writer
	db      *DB
	batch   Batch
	own     *memtable.Table // what it wrote, for reads of ranges; nil: there were none
	seq     base.LSN        // of the last own write
	reads   *commit.Reads
	ctx     context.Context
	ahead   bool // it read what others in the lane are about to write
	at      base.LSN
	cursors []*cursor
	spaces  []*Keyspace // of this attempt
	names   int         // so many of the first reads were of names in spaces
	drops   *Keyspace   // the keyspace that it drops, or nil

	hooks []func(Outcome) // of this attempt
	rec   []byte          // that this attempt committed; nil: none
	lsn   base.LSN        // of that commit
	left  *commit.Commit  // that nobody waited for to the end; nil: none

	mode   mode
	hold   *commit.Hold // the lane, or nil
	ranges bool         // it read ranges, in this attempt or in one before
	done   bool
	err    error // why this attempt can come to nothing, or nil
}

// mode is how a transaction is run.
type mode uint8

const (
	optimistic mode = iota // reads what is applied, and is validated
	inLane                 // takes its turn with others that met a conflict
	byItself               // in the lane, with all other writers waiting
)

// aloneAfter is the number of attempts after which a transaction runs alone.
const aloneAfter = 8

// errAgain ends an attempt that must be made in another way. It is a conflict.
var errAgain = fmt.Errorf("%w: begin again", ErrConflict)

// Update runs fn in a transaction, and commits what it wrote, at the default
// level, if it returns nil: all at once, and only if nothing that it read, keys or
// ranges, has been written by others meanwhile. So transactions have one order,
// the log's, and each is as if it had run alone in its place there
// (serializability). When there was a conflict fn is called again: it must not
// have effects outside of the transaction that a second call would spoil. It is
// called as often as is needed; after a conflict it takes turns with other
// transactions, and after several all other writers wait for it.
//
// Update returns, also when fn only read or returned an error, when what it read
// is visible to all and has reached its own level: what was learned inside is
// never lost by a crash (but for what others wrote below Durable). Errors: fn's,
// and those of DB.Apply. When fn returns ErrConflict, wrapped or not, it is called
// again.
//
// Writes of the store itself inside of fn (DB.Put, DB.Update, …) are commits of
// their own, which stay when fn fails, and may be what fn conflicts with. When fn
// runs alone they fail with ErrNested. fn must not wait for another goroutine that
// writes to the store: that one may be waiting for fn.
func (db *DB) Update(fn func(tx *Tx) error) error {
	return db.UpdateLevel(context.Background(), db.opts.DefaultLevel, fn)
}

// UpdateLevel is Update at a level. When ctx ends, it returns ctx's error, and the
// transaction is not committed, unless it was waiting for its level by then: a
// commit that was ordered goes on. It does not end fn.
func (db *DB) UpdateLevel(ctx context.Context, level Level, fn func(tx *Tx) error) error {
	switch {
	case db.readOnly:
		return ErrReadOnly
	case db.shut.Load():
		return ErrClosed
	}
	ticket := db.readers.floor(db.pipe.Visible)
	defer db.readers.lift(ticket)
	db.pipe.Begin()
	defer db.pipe.End()
	tx := &Tx{db: db, ctx: ctx, reads: new(commit.Reads)}
	tx.Reader = Reader{from: tx, prefix: defaultPrefix}
	tx.Writer = Writer{b: &tx.batch}
	tx.batch.own = tx.wrote
	defer tx.close()
	leave := func() {}
	for n := 0; ; n++ {
		if n == aloneAfter {
			end, err := db.enterAlone(ctx)
			if err != nil {
				return err
			}
			leave = sync.OnceFunc(end)
			defer leave()
			tx.mode = byItself
		}
		err := tx.attempt(ctx, level, fn)
		if !errors.Is(err, ErrConflict) {
			leave()
			err = public(err)
			tx.over(err)
			return err
		}
		tx.over(ErrConflict)
		db.count.conflicts.Add(1)
		if err := db.pipe.WaitNoted(ctx); err != nil && ctx.Err() == nil && db.log.Err() != nil {
			return public(db.log.Err()) // what it was refused for never comes: so would the next attempt be
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		tx.mode = max(tx.mode, inLane)
	}
}

// attempt runs fn once and commits. A conflict is an error that calls for the
// next.
func (tx *Tx) attempt(ctx context.Context, level Level, fn func(tx *Tx) error) (err error) {
	db := tx.db
	if tx.mode != byItself {
		if err := db.admit(ctx, tx.batch.Size()); err != nil {
			return err
		}
	}
	tx.reset()
	defer tx.leave()
	if tx.mode != optimistic {
		if err := tx.enterLane(ctx); err != nil {
			return err
		}
	}
	ferr := fn(tx)
	tx.closeIterators()
	switch {
	case errors.Is(tx.err, ErrConflict): // whatever fn made of it
		return tx.err
	case tx.err != nil:
		return tx.finish(ctx, nil, Buffered, tx.err)
	case ferr != nil:
		return tx.finish(ctx, nil, Buffered, ferr)
	case tx.batch.Len() == 0:
		return tx.finish(ctx, nil, Buffered, nil)
	}
	return tx.finish(ctx, tx.batch.b.Bytes(), level, nil)
}

// reset readies tx for another attempt.
func (tx *Tx) reset() {
	tx.batch.Reset()
	tx.own, tx.seq, tx.err, tx.drops = nil, base.OwnLSN, nil, nil
	for _, ks := range tx.spaces { // it may have been made by that attempt
		ks.ending.Store(true)
	}
	tx.spaces, tx.names, tx.ahead = nil, 0, false
	tx.at = tx.db.pipe.Applied()
	tx.reads.Reset(tx.at)
}

// enterLane takes a turn. Nothing has been read yet.
func (tx *Tx) enterLane(ctx context.Context) error {
	h, err := tx.db.lane.Enter(ctx)
	if err != nil {
		return err
	}
	tx.hold = h
	tx.db.count.turns.Add(1)
	if tx.ranges || tx.mode == byItself {
		if err := h.Drain(ctx); err != nil {
			return err
		}
	}
	tx.at = h.At()
	tx.reads.Reset(tx.at)
	return nil
}

// leave gives the turn to the next.
func (tx *Tx) leave() {
	if tx.hold != nil {
		tx.hold.Leave()
		tx.hold = nil
	}
}

// finish commits an attempt, with a nil record one that writes nothing, and
// returns result if nothing else is to be said.
func (tx *Tx) finish(ctx context.Context, rec []byte, level Level, result error) error {
	if rec == nil {
		return tx.seen(ctx, result)
	}
	guard, err := tx.guard()
	if err != nil {
		return err
	}
	switch err := tx.order(ctx, rec, level, guard); {
	case err == nil:
		return result
	case errors.Is(err, ErrFull):
		tx.db.relieve()
		return tx.seen(ctx, err)
	case errors.Is(err, ErrKeyspaceDropped):
		return tx.seen(ctx, err)
	default:
		return err
	}
}

// seen returns result when what was read, if it was not in vain, is visible.
func (tx *Tx) seen(ctx context.Context, result error) error {
	if tx.reads.Empty() {
		return result
	}
	var err error
	if tx.ahead {
		err = tx.order(ctx, nil, Buffered, nil)
	} else { // it saw one state
		tx.leave()
		err = tx.db.pipe.WaitVisible(ctx, tx.reads.At())
	}
	switch {
	case err == nil || errors.Is(result, err):
		return result
	case errors.Is(err, ErrConflict):
		return err
	}
	return errors.Join(result, err)
}

// maxStale is how often a transaction is looked at in the tables before it begins
// again: writers may be faster than that, and in the end it will run alone.
const maxStale = 4

// order gives the attempt to the leader, and waits.
func (tx *Tx) order(ctx context.Context, rec []byte, level Level, guard func() error) error {
	err := tx.submit(ctx, rec, level, guard)
	for n := 0; errors.Is(err, commit.ErrStale); n++ {
		if n == maxStale {
			return errAgain
		}
		if err = tx.recheck(); err == nil {
			err = tx.submit(ctx, rec, level, guard)
		}
	}
	return err
}

func (tx *Tx) submit(ctx context.Context, rec []byte, level Level, guard func() error) error {
	pipe, hold := tx.db.pipe, tx.hold
	if hold == nil && ctx.Done() == nil {
		lsn, err := pipe.CommitTx(rec, level, tx.reads, guard)
		tx.committed(rec, lsn, err)
		return err
	}
	// The record is the commit's: the wait may end before that does, and others in
	// the lane read it.
	rec = slices.Clone(rec)
	var c *commit.Commit
	var err error
	if hold == nil {
		c, err = pipe.SubmitTx(rec, level, tx.reads, guard)
	} else {
		c, err = hold.Submit(rec, level, tx.reads, guard)
		tx.leave()
	}
	if err != nil {
		return err
	}
	err = c.Wait(ctx)
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		tx.reads = new(commit.Reads) // the commit keeps the one it has
		tx.rec, tx.left = rec, c
		return err
	}
	if err == nil {
		tx.committed(rec, c.LSN(), nil)
	}
	return err
}

// committed notes what the attempt committed, for its hooks.
func (tx *Tx) committed(rec []byte, lsn base.LSN, err error) {
	if err == nil && rec != nil {
		tx.rec, tx.lsn = rec, lsn
	}
}

// guard returns what is asked in the order of the log.
func (tx *Tx) guard() (func() error, error) {
	guard, err := tx.batch.guard(tx.db)
	if err != nil || tx.drops == nil {
		return guard, err
	}
	drops := tx.drops
	return func() error {
		if guard != nil {
			if err := guard(); err != nil {
				return err
			}
		}
		drops.ending.Store(true)
		return nil
	}, nil
}

// recheck looks into the tables for what the leader does not remember.
func (tx *Tx) recheck() error {
	v, shard, now, err := tx.db.enterAt(tx.db.pipe.Applied)
	if err != nil {
		return err
	}
	defer v.gate.exit(shard)
	var failed error
	key := func(key []byte, at base.LSN) bool {
		value, lsn, _, err := v.newest(key, now)
		value.release()
		failed = errors.Join(failed, err)
		return err == nil && lsn <= at
	}
	span := func(lo, hi []byte, at base.LSN) bool {
		changed, err := v.changed(lo, hi, at, now)
		failed = errors.Join(failed, err)
		return err == nil && !changed
	}
	if !tx.reads.Recheck(now, key, span) {
		if failed != nil {
			return tx.db.seen(failed)
		}
		return ErrConflict
	}
	tx.ahead = false // what it read from others is in the tables
	return nil
}

// closeIterators closes what fn left open: what it looked at is noted then.
func (tx *Tx) closeIterators() {
	for _, c := range tx.cursors {
		c.close()
	}
	clear(tx.cursors)
	tx.cursors = tx.cursors[:0]
}

// close ends the transaction; also when fn panics.
func (tx *Tx) close() {
	tx.closeIterators()
	tx.leave()
	tx.done = true
	tx.over(errUnfinished)
}
