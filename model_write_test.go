package forebay_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/forebaydb/forebay"
)

func opPut(w *modelWorld, r *modelRand) {
	for range 1 + r.IntN(3) {
		name, ks := w.space(r)
		key, value := r.key(), r.value()
		w.must(ks.Put(key, value), "put")
		w.committed(w.level, []modelOp{{kind: mPut, space: name, a: string(key), b: string(value)}})
		clear(key) // it was copied
		clear(value)
	}
}

// someKey is more often than not one that is there.
func (w *modelWorld) someKey(r *modelRand, s modelSpace) []byte {
	if len(s.entries) > 0 && !r.oneIn(3) {
		return []byte(s.entries[r.IntN(len(s.entries))].key)
	}
	return r.key()
}

func opDelete(w *modelWorld, r *modelRand) {
	name, ks := w.space(r)
	key := w.someKey(r, w.now.spaces[name])
	w.must(ks.Delete(key), "delete")
	w.committed(w.level, []modelOp{{kind: mDelete, space: name, a: string(key)}})
}

func rangeOp(space string, lo, hi []byte) modelOp {
	return modelOp{kind: mRange, space: space, a: string(lo), b: string(hi), open: hi == nil}
}

func opDeleteRange(w *modelWorld, r *modelRand) {
	name, ks := w.space(r)
	lo, hi := r.span()
	w.must(ks.DeleteRange(lo, hi), "delete range")
	if o := rangeOp(name, lo, hi); o.open || o.a < o.b {
		w.committed(w.level, []modelOp{o})
	}
}

// modelWriter is what takes the operations of a batch or of a transaction.
type modelWriter interface {
	Put(key, value []byte) error
	Delete(key []byte) error
	DeleteRange(lo, hi []byte) error
}

// write adds one operation, or none when there is nothing to do.
func (w *modelWorld) write(r *modelRand, to modelWriter, name string, s modelSpace) []modelOp {
	switch k := r.IntN(20); {
	case k < 13:
		key, value := r.key(), r.value()
		w.must(to.Put(key, value), "put")
		return []modelOp{{kind: mPut, space: name, a: string(key), b: string(value)}}
	case k < 17:
		key := w.someKey(r, s)
		w.must(to.Delete(key), "delete")
		return []modelOp{{kind: mDelete, space: name, a: string(key)}}
	}
	lo, hi := r.span()
	w.must(to.DeleteRange(lo, hi), "delete range")
	if o := rangeOp(name, lo, hi); o.open || o.a < o.b {
		return []modelOp{o}
	}
	return nil
}

func (w *modelWorld) fillBatch(r *modelRand, b *forebay.Batch) (ops []modelOp) {
	for range r.IntN(12) {
		name := w.now.someSpace(r)
		var to modelWriter = b
		if name != "" {
			to = b.In(w.handle(name).ks)
		}
		ops = append(ops, w.write(r, to, name, w.now.spaces[name])...)
		if r.oneIn(30) {
			w.mustBe(to.Put(nil, nil), forebay.ErrEmptyKey, "empty key in a batch")
		}
	}
	return ops
}

func opBatch(w *modelWorld, r *modelRand) {
	b := w.db.NewBatch()
	for range 1 + r.IntN(2) {
		b.Reset()
		ops := w.fillBatch(r, b)
		level := forebay.Level(r.IntN(3))
		w.must(w.db.Apply(b, level), "apply")
		w.committed(level, ops)
	}
}

func opSubmit(w *modelWorld, r *modelRand) {
	b := w.db.NewBatch()
	for range 1 + r.IntN(4) {
		ops := w.fillBatch(r, b)
		level := forebay.Level(r.IntN(3))
		c, err := w.db.Submit(b, level)
		b.Reset() // it was copied
		w.must(err, "submit")
		w.order(ops)
		w.waiting = append(w.waiting, modelWait{c, level, w.now.lsn})
	}
	if r.oneIn(4) {
		ctx, cancel := context.WithCancel(background)
		cancel()
		if err := w.waiting[len(w.waiting)-1].c.Wait(ctx); err != nil && !errors.Is(err, context.Canceled) {
			w.fail("a wait that was given up: %v", err)
		}
	}
	if r.oneIn(3) {
		i := r.IntN(len(w.waiting))
		c := w.waiting[i]
		w.must(c.c.Wait(background), "wait")
		w.acked(c.level, c.lsn)
	}
}

func opWait(w *modelWorld, _ *modelRand) { w.await() }

func opSync(w *modelWorld, _ *modelRand) {
	w.must(w.db.Sync(background), "sync")
	w.synced(w.now.lsn)
}

// opLimit is refused, and changes nothing.
func opLimit(w *modelWorld, r *modelRand) {
	w.await()
	_, ks := w.space(r)
	long := bytes.Repeat([]byte{'k'}, forebay.MaxKeySize+1)
	var limit *forebay.LimitError
	asLimit := func(err error, what string) {
		if !errors.As(err, &limit) {
			w.fail("%s: error is %v, want a LimitError", what, err)
		}
	}
	b := w.db.NewBatch()
	switch r.IntN(7) {
	case 0:
		asLimit(ks.Put(long, nil), "put of a long key")
		w.must(ks.Put(long[1:], []byte("longest")), "put of the longest key")
		name := w.nameOf(ks)
		w.committed(w.level, []modelOp{{kind: mPut, space: name, a: string(long[1:]), b: "longest"}})
	case 1:
		asLimit(ks.Delete(long), "delete of a long key")
		_, err := ks.Get(long)
		asLimit(err, "get of a long key")
	case 2:
		asLimit(ks.DeleteRange(nil, append(long, 0)), "range with a long bound")
	case 3:
		asLimit(b.Put([]byte("k"), tooLarge), "batch with a large value")
		asLimit(ks.Put([]byte("k"), tooLarge), "large value")
		if b.Len() != 0 {
			w.fail("a refused put is in the batch")
		}
	case 4:
		w.mustBe(ks.Put(nil, nil), forebay.ErrEmptyKey, "put of an empty key")
		w.mustBe(ks.Delete([]byte{}), forebay.ErrEmptyKey, "delete of an empty key")
		_, err := ks.Has(nil)
		w.mustBe(err, forebay.ErrEmptyKey, "has of an empty key")
	case 5:
		for _, name := range []string{"", string(long[:256])} {
			if _, err := w.db.Keyspace(name); err == nil {
				w.fail("a keyspace with a name of %d bytes", len(name))
			}
		}
	default:
		err := w.db.Update(func(tx *forebay.Tx) error { return tx.Put(long, nil) })
		asLimit(err, "long key in a transaction")
	}
}

var tooLarge = make([]byte, forebay.MaxValueSize+1)

func (w *modelWorld) nameOf(ks modelKeys) string {
	if ks, ok := ks.(*forebay.Keyspace); ok {
		return ks.Name()
	}
	return ""
}

// modelTx is a transaction under way; now has what it wrote with LSN 0.
type modelTx struct {
	w     *modelWorld
	tx    *forebay.Tx
	now   modelState
	ops   []modelOp
	iters []*modelIter
}

func (m *modelTx) wrote(ops []modelOp) {
	if len(ops) > 0 {
		m.ops = append(m.ops, ops...)
		m.now = m.now.apply(0, ops)
	}
}

// space draws a keyspace inside of the transaction, and makes one at times.
func (m *modelTx) space(r *modelRand) (string, interface {
	modelReader
	modelWriter
}) {
	name := m.now.someSpace(r)
	if r.oneIn(40) {
		name = r.spaceName()
	}
	if name == "" {
		return "", m.tx
	}
	s, err := m.tx.Keyspace(name)
	m.w.must(err, "keyspace "+name+" in a transaction")
	if _, ok := m.now.spaces[name]; !ok {
		m.wrote([]modelOp{{kind: mCreate, space: name}})
	}
	return name, s
}

func (m *modelTx) step(r *modelRand) {
	name, s := m.space(r)
	switch k := r.IntN(20); {
	case k < 8:
		m.wrote(m.w.write(r, s, name, m.now.spaces[name]))
	case k < 13:
		m.w.checkPoint(r, s, m.now.spaces[name])
	case k < 15:
		m.w.checkWalk(r, s, m.now.spaces[name])
	case k < 17:
		it := newIter(r, s, m.now.spaces[name])
		it.what += fmt.Sprintf(" of %q in a transaction", name)
		m.iters = append(m.iters, it)
		m.w.moves(r, it, 1+r.IntN(6))
	case len(m.iters) > 0:
		i := r.IntN(len(m.iters))
		m.w.moves(r, m.iters[i], 1+r.IntN(6))
		if r.oneIn(3) {
			m.w.must(m.iters[i].it.Close(), "close of an iterator in a transaction")
			m.iters = append(m.iters[:i], m.iters[i+1:]...)
		}
	}
}

func opUpdate(w *modelWorld, r *modelRand) {
	w.await()
	level := forebay.Level(r.IntN(3))
	fail := r.oneIn(5)
	m := &modelTx{w: w}
	calls := 0
	err := w.db.UpdateLevel(background, level, func(tx *forebay.Tx) error {
		calls++
		m.tx, m.now = tx, w.now
		for range r.IntN(12) {
			m.step(r)
		}
		if fail {
			return errModel
		}
		return nil
	})
	if calls != 1 {
		w.fail("a transaction alone in the store was run %d times", calls)
	}
	w.mustBe(m.tx.Put([]byte("k"), nil), forebay.ErrTxDone, "put behind a transaction")
	_, gerr := m.tx.Get([]byte("k"))
	w.mustBe(gerr, forebay.ErrTxDone, "get behind a transaction")
	for _, it := range m.iters {
		if it.it.First() {
			w.fail("an iterator moves behind its transaction")
		}
	}
	if fail {
		w.mustBe(err, errModel, "update that fails")
		return
	}
	w.must(err, "update")
	if len(m.ops) > 0 {
		w.committed(level, m.ops)
	}
}
