package queue

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"github.com/forebaydb/forebay"
)

// update runs a transaction, and calls then exactly once, when it is known what became
// of it: with nil when it is committed and can be seen. That is before update returns,
// unless ctx ended while the commit was under way: Close waits for it then. No lock is
// held.
func (q *core) update(ctx context.Context, level forebay.Level, fn func(tx *forebay.Tx) error, then func(error)) error {
	var mu sync.Mutex // guards open and returned
	open, returned := 0, false
	var once sync.Once
	q.commits.Add(1)
	tell := func(err error) {
		once.Do(func() {
			defer q.commits.Done()
			then(err)
		})
	}
	err := q.db.UpdateLevel(ctx, level, func(tx *forebay.Tx) error {
		mu.Lock()
		open++
		mu.Unlock()
		tx.OnDone(func(o forebay.Outcome) {
			mu.Lock()
			open--
			last := returned || !errors.Is(o.Err, forebay.ErrConflict)
			mu.Unlock()
			if last {
				tell(o.Err)
			}
		})
		return fn(tx)
	})
	mu.Lock()
	returned = true
	known := open == 0
	mu.Unlock()
	if known {
		tell(err)
	}
	return err
}

// apply is update for a batch, which is not used again. Without a context that may end
// it costs no copy of it.
func (q *core) apply(ctx context.Context, level forebay.Level, b *forebay.Batch, then func(error)) error {
	if ctx.Done() == nil {
		err := q.db.Apply(b, level)
		then(err)
		return err
	}
	if err := ctx.Err(); err != nil {
		then(err)
		return err
	}
	c, err := q.db.Submit(b, level)
	if err != nil {
		then(err)
		return err
	}
	err = c.Wait(ctx)
	if err != nil && ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		q.commits.Go(func() { then(c.Wait(context.Background())) }) // it ends with the commit, or with the log
		return err
	}
	then(err)
	return err
}

// fence notes that this handle is the one in use. What handles before it have ordered is
// visible then, and no transaction of theirs is committed any more.
func (q *core) fence() error {
	n := uint64(0)
	switch value, err := q.ks.Get([]byte{kindHandle}); {
	case err == nil:
		c := cutter{b: value}
		if n = c.uint64(); c.bad {
			return fmt.Errorf("%w: a handle: %x", ErrDamaged, value[:min(len(value), 64)])
		}
	case !errors.Is(err, forebay.ErrNotFound):
		return err
	}
	q.handle = binary.BigEndian.AppendUint64(nil, n+1)
	b := q.db.NewBatch()
	if err := b.In(q.ks).Put([]byte{kindHandle}, q.handle); err != nil {
		return err
	}
	return q.db.Apply(b, forebay.Durable)
}

// space returns the queue's keyspace inside of a transaction, which is in vain when
// another handle is in use by the time it is committed.
func (q *core) space(tx *forebay.Tx) (forebay.Space, error) {
	ks, err := tx.Keyspace(topicPrefix + q.name)
	if err != nil {
		return ks, err
	}
	value, err := ks.Get([]byte{kindHandle})
	if err == nil && !bytes.Equal(value, q.handle) {
		err = ErrClosed
	}
	return ks, err
}
