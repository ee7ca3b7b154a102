package forebay_test

import (
	"context"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/vfs"
)

// orphan marks what belongs to a store that was closed. The iterators and the
// snapshots stay for a while, to be used in vain.
func (w *modelWorld) orphan() {
	for _, it := range w.iters {
		it.dead = true
	}
	for i := range w.snaps {
		w.snaps[i].dead = true
	}
	w.handles = nil
}

// opReopen closes and opens.
func opReopen(w *modelWorld, r *modelRand) {
	if r.oneIn(2) {
		w.await()
	}
	old := w.db
	if r.oneIn(3) {
		w.must(w.db.Shutdown(context.Background()), "shutdown")
	} else {
		w.must(w.db.Close(), "close")
	}
	w.await() // a close waits for commits
	w.closed()
	w.orphan()
	if len(w.iters) > 0 && r.oneIn(2) && w.iters[0].it.Next() {
		w.fail("an iterator of a closed store moves")
	}
	w.over(old)
	w.open()
	if w.db.LastLSN() != w.now.lsn {
		w.fail("an open behind a close gives S(%d), want %d", w.db.LastLSN(), w.now.lsn)
	}
	w.checkPins(w.db)
	w.compareAll(w.db, w.now, r.oneIn(3))
}

// over looks that a closed store says so.
func (w *modelWorld) over(db *forebay.DB) {
	b := db.NewBatch()
	w.must(b.Put([]byte("k"), nil), "put into a batch")
	_, gerr := db.Get([]byte("k"))
	_, serr := db.Snapshot()
	_, uerr := db.Submit(b, forebay.Written)
	_, verr := db.Verify(background)
	_, berr := db.Backup(background, "never")
	_, kerr := db.Keyspaces()
	names := []string{"get", "snapshot", "submit", "verify", "backup", "keyspaces", "put", "sync", "checkpoint", "compact", "close", "update", "view", "pin"}
	for i, err := range []error{gerr, serr, uerr, verr, berr, kerr, db.Put([]byte("k"), nil), db.Sync(background), db.Checkpoint(background),
		db.Compact(background), db.Close(), db.Update(func(tx *forebay.Tx) error { return tx.Put([]byte("k"), nil) }),
		db.View(func(*forebay.Snapshot) error { return nil }), db.Pin("p", 0)} {
		w.mustBe(err, forebay.ErrClosed, names[i]+" of a closed store")
	}
	for _, err := range db.Changes(background, forebay.Position{}) {
		w.mustBe(err, forebay.ErrClosed, "changes of a closed store")
	}
	db.Stats()
}

// crash makes a copy as a crash leaves it, with its bounds on n.
func (w *modelWorld) crash(r *modelRand) (mem *vfs.Mem, least uint64) {
	if r.oneIn(3) {
		return w.mem.Snapshot(), max(w.written, w.db.DurableLSN())
	}
	least = max(w.durable, w.db.DurableLSN())
	return w.powerCut(r), least
}

// opCrash lets the machine or the process crash, and goes on with what is left.
func opCrash(w *modelWorld, r *modelRand) {
	mem, least := w.crash(r)
	w.closeReaders()
	w.db.Close()
	w.waiting = nil
	w.mem = mem
	w.open()
	w.cut(least)
	w.compareAll(w.db, w.now, r.oneIn(3))
	if r.oneIn(3) { // once more, right behind the open
		if w.written == w.now.lsn && w.durable != w.now.lsn {
			w.fail("what an open shows is not durable")
		}
		mem := w.powerCut(r)
		w.db.Close()
		w.mem = mem
		w.open()
		w.cut(w.now.lsn)
		w.compareAll(w.db, w.now, false)
	}
	w.keepPins()
}

// cut takes over how far an open came.
func (w *modelWorld) cut(least uint64) {
	n := w.db.LastLSN()
	if n < least || n > w.now.lsn {
		w.fail("an open behind a crash gives S(%d), want %d to %d", n, least, w.now.lsn)
	}
	w.say("    S(%d) of %d to %d", n, least, w.now.lsn)
	w.now = w.at(n)
	w.hist = w.hist[:n-w.hist[0].lsn+1]
	w.durable, w.written = n, n // it is durable, before it is shown
}

// keepPins looks that pins have come through a crash.
func (w *modelWorld) keepPins() { w.checkPins(w.db) }

// opProbe looks at a crash, and goes on as if it had not been.
func opProbe(w *modelWorld, r *modelRand) {
	mem, least := w.crash(r)
	db, err := forebay.Open(w.dir, w.options(mem, w.dir))
	w.must(err, "open of a copy")
	n := db.LastLSN()
	if n < least || n > w.now.lsn {
		w.fail("an open of a copy gives S(%d), want %d to %d", n, least, w.now.lsn)
	}
	w.compareAll(db, w.at(n), r.oneIn(3))
	w.checkPins(db)
	if r.oneIn(4) {
		_, err := db.Verify(background)
		w.must(err, "verify of a copy")
		w.must(db.Compact(background), "compact of a copy")
		w.compareAll(db, w.at(n), false)
	}
	w.must(db.Close(), "close of a copy")
}
