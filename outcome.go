package forebay

import (
	"context"
	"errors"

	"github.com/forebaydb/forebay/internal/batch"
)

// Outcome is what became of an attempt of a transaction; see Tx.OnDone.
type Outcome struct {
	// LSN of the commit; 0 when there was none, or nothing to commit.
	LSN uint64
	// Err is nil when the transaction is committed, has reached its level and can be
	// seen. ErrConflict: it is attempted again. All else is what Update returns, but
	// for the end of its context: the commit's own result comes then.
	Err error

	rec []byte
}

// Appended returns the offset of the first of the n items that the transaction appended
// to a sequence, 0 and 0 if it appended none, or was not committed.
func (o Outcome) Appended(s *Sequence) (first uint64, n int) {
	if o.Err != nil {
		return 0, 0
	}
	return s.placed(o.rec)
}

// placed returns the items of a committed record that are the sequence's.
func (s *Sequence) placed(rec []byte) (first uint64, n int) {
	if !batch.HasAppends(rec) {
		return 0, 0
	}
	value, err := batch.Appended(rec, s.ks.prefix)
	if err != nil || value == nil {
		return 0, 0
	}
	return batch.FirstOffset(value), batch.CountItems(value)
}

// Appended returns the offset of the first of the n items that the batch appended to a
// sequence when it was last committed: Apply, or the Wait of what Submit returned, came
// back without an error, and the batch was not changed since. It is 0 and 0 if there
// were none.
func (b *Batch) Appended(s *Sequence) (first uint64, n int) { return s.placed(b.rec) }

// OnDone has fn called once when the fate of this attempt of the transaction is known,
// by the goroutine of Update before that returns, or by another one when Update's
// context ended first. An attempt that met a conflict tells fn of it, and the next one
// calls OnDone again. Such functions are called in their order, with no lock held; they
// must be quick, for they keep the store from forgetting old versions, and must not
// write to the store. They are what keeps memory beside the store like it.
func (tx *Tx) OnDone(fn func(Outcome)) { tx.hooks = append(tx.hooks, fn) }

// errUnfinished is the outcome of a transaction whose function panicked.
var errUnfinished = errors.New("forebay: the transaction's function did not return")

// over tells the hooks what became of the attempt.
func (tx *Tx) over(err error) {
	hooks, out := tx.hooks, Outcome{LSN: tx.lsn, Err: err, rec: tx.rec}
	tx.hooks, tx.rec, tx.lsn = nil, nil, 0
	c := tx.left
	if tx.left = nil; out.rec == nil {
		c = nil // what was not waited for is what it had read; it commits nothing
	}
	if len(hooks) == 0 {
		return
	}
	call := func() {
		for _, fn := range hooks {
			fn(out)
		}
	}
	if c == nil {
		call()
		return
	}
	go func() { // It ends with the commit, or with the log.
		if out.Err = public(c.Wait(context.Background())); out.Err == nil {
			out.LSN = c.LSN()
		}
		call()
	}()
}
