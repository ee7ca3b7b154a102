package forebay_test

import (
	"errors"
	"fmt"

	"github.com/forebaydb/forebay"
)

func (r *modelRand) spaceName() string { return fmt.Sprintf("space%d", r.IntN(modelSpaces)) }

// opKeyspace makes or drops a keyspace, or uses a handle of one that is gone.
func opKeyspace(w *modelWorld, r *modelRand) {
	w.await()
	name := r.spaceName()
	_, there := w.now.spaces[name]
	switch {
	case r.oneIn(3):
		w.useHandles()
	case !there && r.oneIn(4):
		w.mustBe(w.db.DropKeyspace(name), forebay.ErrNoKeyspace, "drop of what is not there")
	case there && r.oneIn(3):
		if len(w.handles) < 8 {
			w.handle(name)
		}
		w.must(w.db.DropKeyspace(name), "drop of "+name)
		w.committed(w.level, []modelOp{{kind: mDrop, space: name}})
		w.useHandles()
	default:
		ks, err := w.db.Keyspace(name)
		w.must(err, "keyspace "+name)
		if ks.Name() != name {
			w.fail("keyspace %q says that it is %q", name, ks.Name())
		}
		if !there {
			w.committed(w.level, []modelOp{{kind: mCreate, space: name}})
		}
		w.handles = append(w.handles, modelHandle{ks, name, w.now.spaces[name].gen})
	}
}

// useHandles looks that handles of dropped keyspaces do nothing.
func (w *modelWorld) useHandles() {
	k := []byte("k001")
	for _, h := range w.handles {
		if s, ok := w.now.spaces[h.name]; ok && s.gen == h.gen {
			continue
		}
		gone := func(err error, what string) {
			if !errors.Is(err, forebay.ErrKeyspaceDropped) {
				w.fail("%s through a handle of the dropped keyspace %s: %v", what, h.name, err)
			}
		}
		gone(h.ks.Put(k, k), "put")
		gone(h.ks.Delete(k), "delete")
		gone(h.ks.DeleteRange(k, nil), "delete range")
		_, err := h.ks.Get(k)
		gone(err, "get")
		_, err = h.ks.Has(k)
		gone(err, "has")
		it := h.ks.NewIterator(nil)
		if it.First() {
			w.fail("an iterator over a dropped keyspace moves")
		}
		gone(it.Err(), "iterator")
		it.Close()
		for _, err := range h.ks.Range(nil, nil) {
			gone(err, "range")
		}
		b := w.db.NewBatch()
		w.must(b.Put(k, k), "put into a batch")
		w.must(b.In(h.ks).Put(k, k), "put into a batch")
		gone(w.db.Apply(b, forebay.Durable), "apply")
		if c, err := w.db.Submit(b, forebay.Durable); err == nil {
			gone(c.Wait(background), "submit")
		} else {
			gone(err, "submit")
		}
	}
}
