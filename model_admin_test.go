package forebay_test

import (
	"errors"
	"fmt"
	"path"
	"slices"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/vfs"
)

func opCheckpoint(w *modelWorld, _ *modelRand) {
	w.await()
	w.must(w.db.Checkpoint(background), "checkpoint")
	w.synced(w.now.lsn)
	if s := w.db.Stats(); s.MemtableEntries != 0 {
		w.fail("%d entries are in memory behind a checkpoint", s.MemtableEntries)
	}
}

func opCompact(w *modelWorld, _ *modelRand) {
	w.await()
	w.must(w.db.Compact(background), "compact")
	w.synced(w.now.lsn)
	s := w.db.Stats()
	for i, l := range s.Levels[:max(len(s.Levels)-1, 0)] {
		if l.Segments > 0 {
			w.fail("%d segments are in level %d behind a compaction of all, of %d levels", l.Segments, i, len(s.Levels))
		}
	}
	if n := len(s.Levels); n > 0 && len(w.snaps) == 0 {
		entries := 0
		for _, ks := range w.now.spaces {
			entries += len(ks.entries)
		}
		if l := s.Levels[n-1]; int(l.Versions) > entries+64 || l.Tombstones > 0 || l.RangeDeletes > 0 {
			w.fail("%d versions, %d tombstones and %d range deletes are left of %d entries", l.Versions, l.Tombstones, l.RangeDeletes, entries)
		}
	}
}

func (w *modelWorld) verify() error {
	_, err := w.db.Verify(background)
	return err
}

func opVerify(w *modelWorld, _ *modelRand) { w.must(w.verify(), "verify") }

// opBackup opens a copy and compares it, and goes on with the copy at times.
func opBackup(w *modelWorld, r *modelRand) {
	w.await()
	w.backups++
	dir := fmt.Sprintf("backup%d", w.backups)
	info, err := w.db.Backup(background, dir)
	w.must(err, "backup")
	w.synced(w.now.lsn)
	if info.At.LSN != w.now.lsn {
		w.fail("the backup has LSN %d, want %d", info.At.LSN, w.now.lsn)
	}
	_, err = w.db.Backup(background, dir)
	if err == nil {
		w.fail("a backup into a directory that is not empty")
	}
	if r.oneIn(3) { // read only first
		o := w.options(w.mem, dir)
		o.LogDir = "" // its log is still to be made
		o.ReadOnly = true
		db, err := forebay.Open(dir, o)
		w.must(err, "read-only open of a backup")
		w.compareAll(db, w.now, r.oneIn(2))
		w.refused(db)
		w.must(db.Close(), "close of a backup")
	}
	o := w.options(w.mem, dir)
	w.must(w.mem.MkdirAll(path.Join(dir, "log")), "mkdir")
	db, err := forebay.Open(dir, o)
	w.must(err, "open of a backup")
	if db.LastLSN() != w.now.lsn {
		w.fail("the backup opens with LSN %d, want %d", db.LastLSN(), w.now.lsn)
	}
	w.compareAll(db, w.now, r.oneIn(2))
	_, err = db.Verify(background)
	w.must(err, "verify of a backup")
	if r.oneIn(2) {
		w.part(db, r)
	}
	w.must(db.Close(), "close of a backup")
	w.remove(dir)
}

// part writes to a store and to its backup: who reads the changes of the one
// must not be able to go on with the other.
func (w *modelWorld) part(copied *forebay.DB, r *modelRand) {
	key, value := r.key(), r.value()
	w.must(w.db.Put(key, value), "put")
	w.committed(w.level, []modelOp{{kind: mPut, a: string(key), b: string(value)}})
	opSync(w, r)
	w.must(copied.Put([]byte("other"), nil), "put into the backup")
	w.must(copied.Sync(background), "sync of the backup")
	if v, err := copied.Get([]byte("other")); err != nil || len(v) > 0 {
		w.fail("get from the backup: %q, %v", v, err)
	}
	for _, err := range copied.Changes(background, w.db.Position()) {
		w.mustBe(err, forebay.ErrDiverged, "changes of a backup from a position of the original")
	}
}

// remove takes a directory away.
func (w *modelWorld) remove(dir string) {
	names, err := w.mem.List(dir)
	w.must(err, "list")
	for _, name := range names {
		name = path.Join(dir, name)
		if info, err := w.mem.Stat(name); err == nil && info.Dir {
			w.remove(name)
			continue
		}
		w.must(w.mem.Remove(name), "remove")
	}
	w.must(w.mem.Remove(dir), "remove")
}

// refused looks that a store that is read only takes nothing.
func (w *modelWorld) refused(db *forebay.DB) {
	b := db.NewBatch()
	w.must(b.Put([]byte("k"), nil), "put into a batch")
	_, serr := db.Submit(b, forebay.Written)
	_, kerr := db.Keyspace("never")
	_, berr := db.Backup(background, "never")
	for i, err := range []error{db.Put([]byte("k"), nil), db.Delete([]byte("k")), db.DeleteRange(nil, nil), db.Apply(b, forebay.Buffered),
		serr, db.Sync(background), db.Checkpoint(background), db.Compact(background), berr, db.Pin("p", 0), db.DropKeyspace("space0"),
		db.Update(func(*forebay.Tx) error { return nil })} {
		if !errors.Is(err, forebay.ErrReadOnly) {
			w.fail("call %d of a store that is read only: %v", i, err)
		}
	}
	w.mustBe(kerr, forebay.ErrNoKeyspace, "keyspace of a store that is read only")
}

// opReadOnly opens a copy of what another process would find, read only.
func opReadOnly(w *modelWorld, r *modelRand) {
	w.await()
	least := w.written
	mem := w.mem.Snapshot()
	if r.oneIn(2) {
		least, mem = max(w.durable, w.db.DurableLSN()), w.powerCut(r)
	}
	o := w.options(mem, w.dir)
	o.ReadOnly = true
	db, err := forebay.Open(w.dir, o)
	w.must(err, "read-only open")
	n := db.LastLSN()
	if n < least || n > w.now.lsn {
		w.fail("a read-only open gives S(%d), want %d to %d", n, least, w.now.lsn)
	}
	s := w.at(n)
	w.compareAll(db, s, r.oneIn(2))
	w.refused(db)
	snap, err := db.Snapshot()
	w.must(err, "snapshot of a read-only store")
	w.compareSnapshot(modelSnap{s: snap, state: s}, false)
	w.must(snap.Close(), "close of a snapshot")
	_, err = db.Verify(background)
	w.must(err, "verify of a read-only store")
	w.must(db.Close(), "close of a read-only store")
}

// opPin sets or removes a pin, from which opChanges reads.
func opPin(w *modelWorld, r *modelRand) {
	w.await()
	name := fmt.Sprintf("pin%d", r.IntN(3))
	if _, ok := w.pins[name]; ok && r.oneIn(3) {
		w.must(w.db.Unpin(name), "unpin")
		delete(w.pins, name)
	} else {
		opSync(w, r)
		pos := w.db.Position()
		if pos.LSN != w.now.lsn {
			w.fail("behind a sync the position is %v, want LSN %d", pos, w.now.lsn)
		}
		w.must(w.db.Pin(name, pos.LSN), "pin")
		w.pins[name] = modelPin{pos, w.now}
	}
	w.checkPins(w.db)
}

func (w *modelWorld) checkPins(db *forebay.DB) {
	pins := db.Pins()
	for name, p := range w.pins {
		if lsn, ok := pins[name]; !ok || lsn != p.pos.LSN {
			w.fail("pin %s is at %d, want %d", name, lsn, p.pos.LSN)
		}
	}
	if len(pins) != len(w.pins) {
		w.fail("there are %d pins, want %d", len(pins), len(w.pins))
	}
}

// opChanges replays what has happened since a pin.
func opChanges(w *modelWorld, r *modelRand) {
	w.await()
	if r.oneIn(2) {
		opSync(w, r)
	}
	w.checkPins(w.db)
	for name, p := range w.pins {
		w.say("    changes since @%d", p.pos.LSN)
		s := p.state
		for c, err := range w.db.Changes(background, p.pos) {
			w.must(err, "changes from "+name)
			if c.LSN != s.lsn+1 {
				w.fail("changes: LSN %d behind %d", c.LSN, s.lsn)
			}
			s = s.apply(c.LSN, w.replayed(c.Ops))
		}
		if s.lsn < w.durable {
			w.fail("changes end at %d, and %d is durable", s.lsn, w.durable)
		}
		w.same(s, w.at(s.lsn))
		if r.oneIn(3) {
			w.pins[name] = modelPin{w.db.Position(), w.at(w.db.Position().LSN)}
			w.must(w.db.Pin(name, w.pins[name].pos.LSN), "pin")
		}
	}
}

// replayed turns operations of a change into those of the model.
func (w *modelWorld) replayed(ops []forebay.Op) (out []modelOp) {
	for _, o := range ops {
		m := modelOp{space: o.Keyspace, a: string(o.Key), b: string(o.Value)}
		switch o.Kind {
		case forebay.OpPut:
			m.kind = mPut
		case forebay.OpDelete:
			m.kind = mDelete
		case forebay.OpDeleteRange:
			m.kind, m.open = mRange, o.Value == nil
		case forebay.OpCreateKeyspace:
			m.kind = mCreate
		case forebay.OpDropKeyspace:
			m.kind = mDrop
		default:
			w.fail("a change has an operation %v", o.Kind)
		}
		out = append(out, m)
	}
	return out
}

// same compares two states of the model.
func (w *modelWorld) same(got, want modelState) {
	if !slices.Equal(got.names(), want.names()) {
		w.fail("replayed changes @%d have keyspaces %q, want %q", want.lsn, got.names(), want.names())
	}
	for name, s := range want.spaces {
		if d := differ(s.entries, got.spaces[name].entries); d != "" {
			w.fail("replayed changes @%d: keyspace %q: %s", want.lsn, name, d)
		}
	}
}

func (w *modelWorld) powerCut(r *modelRand) *vfs.Mem {
	model := vfs.SectorAtomic
	if w.align == 4096 && r.oneIn(2) {
		model = vfs.NothingAssumed
	}
	if r.oneIn(4) {
		model = vfs.Ordered
	}
	return w.mem.PowerCutSeed(r.Uint64(), model)
}
