package forebay

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/forebaydb/forebay/commit"
	"github.com/forebaydb/forebay/internal/base"
	"github.com/forebaydb/forebay/internal/batch"
	"github.com/forebaydb/forebay/internal/keyspace"
)

// Batch collects writes that are applied together, to any keyspaces of one store:
// after any crash all of them are there, or none. Inside a batch the later
// operation on a key wins, and a DeleteRange removes what the batch did before
// it. A Batch is used by one goroutine at a time and may be used again after
// Reset.
type Batch struct {
	b      batch.Batch
	spaces []*Keyspace // that are written to, but for the default one
	lo, hi []byte      // stored keys of the call under way
	own    func(kind base.Kind, key, value []byte) error
	rec    []byte // as it was last given to the log
}

// NewBatch returns an empty batch.
func (db *DB) NewBatch() *Batch { return new(Batch) }

// Put sets key to value in the default keyspace. Both are copied. Errors:
// ErrEmptyKey, *LimitError; the batch is then as it was.
func (b *Batch) Put(key, value []byte) error { return b.put(nil, key, value) }

// Delete removes key from the default keyspace. It is copied. Errors as for Put.
func (b *Batch) Delete(key []byte) error { return b.delete(nil, key) }

// DeleteRange removes all keys in [lo, hi) from the default keyspace, with what
// the batch did to them before. nil bounds are open; both are copied. An empty
// range is no error. Errors: *LimitError.
func (b *Batch) DeleteRange(lo, hi []byte) error { return b.deleteRange(nil, lo, hi) }

// In returns a Writer that adds to the batch what is written to a keyspace. When
// that is of another open store, Apply and Submit refuse the batch.
func (b *Batch) In(ks *Keyspace) Writer { return Writer{b, ks} }

// Len returns the number of operations, each key counted once.
func (b *Batch) Len() int { return b.b.Len() }

// Size returns the length in bytes of the batch in the log.
func (b *Batch) Size() int { return b.b.Size() }

// Reset empties the batch and keeps its memory.
func (b *Batch) Reset() {
	b.b.Reset()
	b.rec = nil
	clear(b.spaces)
	b.spaces = b.spaces[:0]
}

// Writer adds what is written to one keyspace to a batch or a transaction. It is
// used by one goroutine at a time.
type Writer struct {
	b  *Batch
	ks *Keyspace
}

// Put sets key to value. Both are copied. Errors as for Batch.Put.
func (w Writer) Put(key, value []byte) error { return w.b.put(w.ks, key, value) }

// Delete removes key; that it is not there is no error.
func (w Writer) Delete(key []byte) error { return w.b.delete(w.ks, key) }

// DeleteRange removes all keys in [lo, hi); nil bounds are open.
func (w Writer) DeleteRange(lo, hi []byte) error { return w.b.deleteRange(w.ks, lo, hi) }

var defaultPrefix = keyspace.AppendPrefix(nil, keyspace.Default)

// use notes that a keyspace is written to, and returns its prefix.
func (b *Batch) use(ks *Keyspace) []byte {
	if ks == nil || ks.id == keyspace.Default {
		return defaultPrefix
	}
	if !slices.Contains(b.spaces, ks) {
		b.spaces = append(b.spaces, ks)
	}
	return ks.prefix
}

func (b *Batch) put(ks *Keyspace, key, value []byte) error {
	if err := checkKey(key); err != nil {
		return err
	}
	b.lo = append(append(b.lo[:0], b.use(ks)...), key...)
	if err := b.b.Put(b.lo, value); err != nil || b.own == nil {
		return err
	}
	return b.own(base.KindPut, b.lo, value)
}

func (b *Batch) delete(ks *Keyspace, key []byte) error {
	if err := checkKey(key); err != nil {
		return err
	}
	b.lo = append(append(b.lo[:0], b.use(ks)...), key...)
	if err := b.b.Delete(b.lo); err != nil || b.own == nil {
		return err
	}
	return b.own(base.KindDelete, b.lo, nil)
}

func (b *Batch) deleteRange(ks *Keyspace, lo, hi []byte) (err error) {
	if b.lo, b.hi, err = storedRange(b.lo, b.hi, b.use(ks), lo, hi); err != nil || bytes.Compare(b.lo, b.hi) >= 0 {
		return err
	}
	if err := b.b.DeleteRange(b.lo, b.hi); err != nil || b.own == nil {
		return err
	}
	return b.own(base.KindRangeDelete, b.lo, b.hi)
}

// storedRange makes the stored bounds of a range in the memory of sLo and sHi.
func storedRange(sLo, sHi, prefix, lo, hi []byte) ([]byte, []byte, error) {
	if n := max(len(lo), len(hi)); n > base.MaxUserKey+1 { // a key, and the byte that makes it the one behind
		return sLo, sHi, &LimitError{What: "key", Size: n, Limit: base.MaxUserKey}
	}
	sLo = append(append(sLo[:0], prefix...), lo...)
	if hi == nil {
		id, _, _ := keyspace.Cut(prefix)
		return sLo, append(sHi[:0], keyspace.End(id)...), nil // who follows changes takes it apart
	}
	return sLo, append(append(sHi[:0], prefix...), hi...), nil
}

// guard returns what refuses the batch when a keyspace that it writes to has
// been dropped before it; nil when none can be.
func (b *Batch) guard(db *DB) (func() error, error) {
	if len(b.spaces) == 0 {
		return nil, nil
	}
	spaces := slices.Clone(b.spaces)
	for _, ks := range spaces {
		if ks.db != db {
			return nil, fmt.Errorf("forebay: keyspace %q is of another open store", ks.name)
		}
	}
	if len(spaces) == 1 {
		return spaces[0].mayWrite, nil
	}
	return func() error {
		for _, ks := range spaces {
			if err := ks.mayWrite(); err != nil {
				return err
			}
		}
		return nil
	}, nil
}

// encoder is memory for a commit of one operation.
type encoder struct {
	lo, hi, rec []byte
	c           commit.Commit
}

var encoders = sync.Pool{New: func() any { return new(encoder) }}

// release gives the memory back, unless it has become large.
func (e *encoder) release() {
	if cap(e.rec) <= 1<<20 {
		encoders.Put(e)
	}
}

// Put sets key to value in the default keyspace at the default level. Both are
// copied. Errors: ErrEmptyKey, *LimitError, and those of Apply.
func (db *DB) Put(key, value []byte) error { return db.space.Put(key, value) }

// Delete removes key from the default keyspace at the default level; a key that
// is not there is no error.
func (db *DB) Delete(key []byte) error { return db.space.Delete(key) }

// DeleteRange removes all keys in [lo, hi) from the default keyspace at the
// default level, in one commit, whatever there is. nil bounds are open.
func (db *DB) DeleteRange(lo, hi []byte) error { return db.space.DeleteRange(lo, hi) }

// Apply commits a batch and returns when it has reached its level. The batch is
// unchanged and must not be changed meanwhile. A batch of no operations is a
// commit like any other. Errors: ErrUnknown, and, with nothing applied, ErrClosed,
// ErrReadOnly, ErrFull, ErrPoisoned, ErrKeyspaceDropped, and ErrNested.
func (db *DB) Apply(b *Batch, level Level) error {
	guard, err := b.guard(db)
	if err != nil {
		return err
	}
	b.rec = b.b.Bytes()
	return db.commit(b.rec, level, guard)
}

func (db *DB) commit(rec []byte, level Level, guard func() error) error {
	if err := db.admit(context.Background(), len(rec)); err != nil {
		return err
	}
	_, err := db.pipe.ApplyGuarded(rec, level, guard)
	return db.committed(err)
}

// commit commits the operation that was encoded at the default level.
func (e *encoder) commit(ks *Keyspace) error {
	db := ks.db
	if err := db.admit(context.Background(), len(e.rec)); err != nil {
		return err
	}
	_, err := db.pipe.ApplyIn(&e.c, e.rec, db.opts.DefaultLevel, ks.guard())
	return db.committed(err)
}

// committed is the result of a commit; it makes room when the log is full.
func (db *DB) committed(err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, ErrFull) {
		db.relieve()
	}
	return public(err)
}

// Commit is a commit on its way, ordered by Submit. It goes its way whether
// somebody waits for it or not. One goroutine at a time uses it.
type Commit struct {
	c  *commit.Commit
	db *DB
}

// Submit orders a commit and does not wait for its level. The batch is copied.
// Where more than some megabytes of commits wait already, because the disk hangs,
// say, it waits until they are being written.
// Commits have the order of their Submit and Apply calls. Errors as for Apply.
func (db *DB) Submit(b *Batch, level Level) (*Commit, error) {
	guard, err := b.guard(db)
	if err != nil {
		return nil, err
	}
	rec := slices.Clone(b.b.Bytes())
	b.rec = rec
	if err := db.admit(context.Background(), len(rec)); err != nil {
		return nil, err
	}
	c, err := db.pipe.SubmitGuarded(rec, level, guard)
	if err != nil {
		return nil, public(err)
	}
	return &Commit{c, db}, nil
}

// Wait waits until the commit has reached its level. When ctx ends first, Wait
// returns its error, and the commit goes on. Errors as for Apply.
func (c *Commit) Wait(ctx context.Context) error { return c.db.committed(c.c.Wait(ctx)) }

// LSN returns the commit's log sequence number, known once Wait returned nil.
func (c *Commit) LSN() uint64 { return c.c.LSN() }
