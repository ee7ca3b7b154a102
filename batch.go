package forebay

import (
	"context"
	"errors"

	"github.com/forebaydb/forebay/commit"
	"github.com/forebaydb/forebay/internal/batch"
)

// Batch collects writes that are applied together: after any crash all of them
// are there, or none. Inside a batch the later operation on a key wins. A Batch
// is used by one goroutine at a time and may be used again after Reset.
type Batch struct{ b batch.Batch }

// NewBatch returns an empty batch.
func (db *DB) NewBatch() *Batch { return new(Batch) }

// Put sets key to value. Both are copied. Errors: ErrEmptyKey, *LimitError;
// the batch is then as it was.
func (b *Batch) Put(key, value []byte) error { return b.b.Put(key, value) }

// Delete removes key. It is copied. Errors as for Put.
func (b *Batch) Delete(key []byte) error { return b.b.Delete(key) }

// Len returns the number of operations, each key counted once.
func (b *Batch) Len() int { return b.b.Len() }

// Size returns the length in bytes of the batch in the log.
func (b *Batch) Size() int { return b.b.Size() }

// Reset empties the batch and keeps its memory.
func (b *Batch) Reset() { b.b.Reset() }

// Put sets key to value at the default level. Both are copied.
func (db *DB) Put(key, value []byte) error {
	buf := encodePool.Get().(*[]byte)
	defer encodePool.Put(buf)
	rec, err := batch.AppendPut((*buf)[:0], key, value)
	if err != nil {
		return err
	}
	*buf = rec
	return db.apply(rec, db.opts.DefaultLevel)
}

// Delete removes key at the default level; a key that is not there is no error.
func (db *DB) Delete(key []byte) error {
	buf := encodePool.Get().(*[]byte)
	defer encodePool.Put(buf)
	rec, err := batch.AppendDelete((*buf)[:0], key)
	if err != nil {
		return err
	}
	*buf = rec
	return db.apply(rec, db.opts.DefaultLevel)
}

// Apply commits a batch and returns when it has reached its level. The batch is
// unchanged and must not be changed meanwhile. Errors: ErrUnknown, and, with
// nothing applied, ErrClosed, ErrFull, ErrPoisoned.
func (db *DB) Apply(b *Batch, level Level) error {
	return db.apply(b.b.Bytes(), level)
}

func (db *DB) apply(rec []byte, level Level) error {
	if err := db.admit(context.Background()); err != nil {
		return err
	}
	_, err := db.pipe.Apply(rec, level, nil)
	if errors.Is(err, ErrFull) {
		db.relieve()
	}
	return public(err)
}

// Commit is a commit on its way, ordered by Submit.
type Commit struct{ c *commit.Commit }

// Submit orders a commit and does not wait for its level. The batch is copied.
// Commits have the order of their Submit and Apply calls. Errors: ErrClosed,
// ErrFull, ErrPoisoned.
func (db *DB) Submit(b *Batch, level Level) (*Commit, error) {
	if err := db.admit(context.Background()); err != nil {
		return nil, err
	}
	c, err := db.pipe.Submit(append([]byte(nil), b.b.Bytes()...), level)
	if err != nil {
		return nil, public(err)
	}
	return &Commit{c}, nil
}

// Wait waits until the commit has reached its level. When ctx ends first, Wait
// returns its error, and the commit goes on. Errors as for Apply.
func (c *Commit) Wait(ctx context.Context) error { return public(c.c.Wait(ctx)) }

// LSN returns the commit's log sequence number, known once Wait returned nil.
func (c *Commit) LSN() uint64 { return c.c.LSN() }
