package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/vfs"
)

// follow checks what followers are told: nothing that a power cut can take back,
// nothing of another history as if it were this one.
func follow(ctx context.Context) string {
	for _, f := range []func() string{onlyDurable, lostFuture, parted, compacted, pinned, readersOfRecycled, failedDirectory} {
		if ctx.Err() != nil {
			return ""
		}
		step("follow")
		if what := attempt(f); what != "" {
			return what
		}
	}
	return ""
}

// seen reads all changes behind a position.
func seen(db *forebay.DB, from forebay.Position) (out []forebay.Change, err error) {
	for c, err := range db.Changes(background, from) {
		if err != nil {
			return out, err
		}
		out = append(out, c)
	}
	return out, nil
}

// onlyDurable: what a follower has seen is there after a power cut.
func onlyDurable() string {
	o := small()
	o.Sync = forebay.SyncNever
	w := newWorld(20, o)
	must(w.open())
	must(w.commit(forebay.Durable, "a", "1"))
	for i := range 3 {
		must(w.commit(forebay.Written, "b", value(i, 100)))
		cs, err := seen(w.db, forebay.Position{})
		if err != nil {
			return "a follower fails: " + err.Error()
		}
		disk := w.mem.PowerCut(func(int, vfs.Unit) vfs.Fate { return vfs.Lost })
		if what := w.judge(disk, uint64(len(cs)), uint64(len(w.ops))); what != "" {
			return "what a follower saw: " + what
		}
	}
	return ""
}

// lostFuture: a position of commits that a power cut took is told from the new
// ones under the same numbers.
func lostFuture() string {
	for _, level := range []forebay.Level{forebay.Written, forebay.Durable} {
		o := small()
		o.Sync = forebay.SyncNever
		w := newWorld(21, o)
		must(w.open())
		must(w.commit(forebay.Durable, "a", "1"))
		at := w.mem.Snapshot()
		must(w.commit(level, "b", "old"))
		must(w.commit(level, "b", "older"))
		must(w.db.Sync(background))
		lost := w.db.Position()
		must(w.db.Close())
		// The disk of before: it lied, or an older copy was put back.
		disk := at.PowerCut(func(int, vfs.Unit) vfs.Fate { return vfs.Kept })
		next := &world{mem: disk, fsys: disk, dir: w.dir, opts: o, ops: slices.Clone(w.ops[:1]), seed: 99}
		must(next.open())
		for i := range 3 {
			must(next.commit(forebay.Durable, "b", fmt.Sprint("new", i)))
		}
		_, err := seen(next.db, lost)
		if !errors.Is(err, forebay.ErrDiverged) {
			return fmt.Sprintf("a follower of a lost future goes on in the new one (%v)", err)
		}
		must(next.db.Close())
	}
	return ""
}

// parted: a position of the original is none of the backup, once they differ.
func parted() string {
	w := newWorld(22, small())
	must(w.open())
	must(w.commit(forebay.Durable, "a", "1"))
	_, err := w.db.Backup(background, "copy")
	must(err)
	must(w.db.Close())
	must(w.open()) // the next incarnation of either has the same place
	must(w.commit(forebay.Durable, "b", "original"))
	pos := w.db.Position()
	must(w.db.Close())
	c := &world{mem: w.mem, fsys: w.mem, dir: "copy", opts: w.opts, ops: slices.Clone(w.ops[:1]), seed: 98}
	must(c.open())
	must(c.commit(forebay.Durable, "b", "copy"))
	must(c.commit(forebay.Durable, "c", "copy"))
	_, err = seen(c.db, pos)
	if !errors.Is(err, forebay.ErrDiverged) {
		return fmt.Sprintf("a follower of the original goes on in the backup (%v)", err)
	}
	must(c.db.Close())
	return ""
}

// compacted: who asks for what is gone is told so, and nobody gets a later
// record in its place.
func compacted() string {
	w := newWorld(23, small())
	must(w.open())
	for i := range 12 {
		must(w.commit(forebay.Durable, "a", value(i, 4000)))
	}
	must(w.db.Checkpoint(background))
	cs, err := seen(w.db, forebay.Position{})
	var gone *forebay.CompactedError
	if err == nil && len(cs) != len(w.ops) {
		return fmt.Sprintf("a follower gets %d of %d changes, and no error", len(cs), len(w.ops))
	}
	if err != nil && !errors.As(err, &gone) {
		return "a follower from the beginning: " + err.Error()
	}
	ahead := w.db.Position()
	ahead.LSN += 5
	if _, err := seen(w.db, ahead); !errors.Is(err, forebay.ErrDiverged) {
		return fmt.Sprintf("a position behind the end of the log is taken (%v)", err)
	}
	must(w.db.Close())
	return ""
}

// pinned: what is pinned can be read on, over checkpoints, crashes and opens,
// and is let go with the pin, and the store stands.
func pinned() string {
	w := newWorld(24, small())
	t := &tape{w: w, where: "pins"}
	t.start()
	must(w.open())
	must(w.db.Pin("here", 3))
	for i := range 12 {
		t.commit(forebay.Durable, "a", value(i, 4000))
		if i%3 == 2 {
			must(w.db.Checkpoint(background))
		}
	}
	if what := pinHolds(w); what != "" {
		return what
	}
	t.reopen()
	if what := pinHolds(w); what != "" {
		return "after an open: " + what
	}
	for i := range 3 {
		t.commit(forebay.Durable, "b", value(i, 4000))
	}
	must(w.db.Pin("here", 8))
	must(w.db.Checkpoint(background))
	must(w.db.Unpin("here"))
	t.commit(forebay.Durable, "c", "1")
	must(w.db.Close())
	t.synced()
	return t.explore(background, vfs.SectorAtomic, quickly)
}

func pinHolds(w *world) string {
	first := uint64(0)
	var gone *forebay.CompactedError
	cs, err := seen(w.db, forebay.Position{})
	if errors.As(err, &gone) {
		first = gone.Oldest
	} else if err == nil && len(cs) > 0 {
		first = cs[0].LSN
	}
	if first > 4 {
		return fmt.Sprintf("who has come to LSN 3 has a pin, and the oldest that can be read is %d", first)
	}
	return ""
}

// readersOfRecycled: a follower that stands in a file which a checkpoint lets go
// reads on, and never the bytes of the file's next use.
func readersOfRecycled() string {
	w := newWorld(25, small())
	must(w.open())
	for i := range 3 {
		must(w.commit(forebay.Durable, "a", value(i, 3000)))
	}
	n := 0
	for c, err := range w.db.Changes(background, forebay.Position{}) {
		if err != nil {
			var gone *forebay.CompactedError
			if errors.As(err, &gone) {
				return ""
			}
			return "a follower in a file that was let go: " + err.Error()
		}
		if what := w.sameChange(c); what != "" {
			return what
		}
		if n++; n == 1 {
			for i := range 14 {
				must(w.commit(forebay.Durable, "b", value(i, 3000)))
				if i%3 == 2 {
					must(w.db.Checkpoint(background))
				}
			}
		}
	}
	must(w.db.Close())
	return ""
}

// failedDirectory: once a sync of a directory has failed, none that returns
// success is of the same entries.
func failedDirectory() string {
	m := vfs.NewMem()
	must(m.MkdirAll("db"))
	in := vfs.NewInjector(m)
	fsys := vfs.StickyDirSync(in)
	f, err := fsys.Create("db/a", vfs.ReadWrite)
	must(err)
	must(f.Close())
	in.Add(vfs.Rule{Call: vfs.CallSyncDir, Err: syscall.EIO})
	if fsys.SyncDir("db") == nil {
		return "a sync of a directory fails, and nobody is told"
	}
	if fsys.SyncDir("db") == nil {
		disk := m.PowerCut(func(_ int, u vfs.Unit) vfs.Fate {
			if u.Name == "db" {
				return vfs.Kept
			}
			return vfs.Lost
		})
		if disk.Bytes("db/a") == nil {
			return "a directory is synced again after a failure, with success, and an entry is lost"
		}
	}
	return ""
}

// snapshots checks that what a snapshot, an iterator or a transaction reads stays
// as it was, whatever checkpoints and compactions do.
func snapshots(ctx context.Context) string {
	for round := range 3 {
		step("snapshots")
		if what := attempt(func() string { return snapshotRound(round) }); what != "" || ctx.Err() != nil {
			return what
		}
	}
	step("snapshots")
	return attempt(floors)
}

func snapshotRound(round int) string {
	w := newWorld(uint64(30+round), small())
	must(w.open())
	type held struct {
		s    *forebay.Snapshot
		want string
	}
	var all []held
	read := func(s *forebay.Snapshot) string {
		out := ""
		for e, err := range s.Range(nil, nil) {
			if err != nil {
				return "error: " + err.Error()
			}
			out += fmt.Sprintf("%q=%q\n", e.Key, e.Value)
		}
		return out
	}
	for i := range 6 {
		must(w.commit(forebay.Durable, "a", value(i, 900), fmt.Sprint("k", i), value(i, 700)))
		if i > 2 {
			must(w.commit(forebay.Durable, fmt.Sprint("k", i-2), ""))
		}
		s, err := w.db.Snapshot()
		must(err)
		all = append(all, held{s, w.state(s.LSN())})
		it := w.db.NewIterator(nil)
		it.First()
		if i%2 == round%2 {
			must(w.db.Checkpoint(background))
		}
		if i%3 == 2 {
			must(w.db.Compact(background))
		}
		for it.Valid() {
			it.Next()
		}
		if err := it.Err(); err != nil {
			return "an iterator fails beside a compaction: " + err.Error()
		}
		must(it.Close())
		for _, h := range all {
			if got := read(h.s); got != h.want {
				return fmt.Sprintf("a snapshot at LSN %d has changed: %s", h.s.LSN(), differ(got, h.want))
			}
		}
	}
	for _, h := range all {
		must(h.s.Close())
	}
	if what, err := w.reads(w.db, uint64(len(w.ops))); err != nil || what != "" {
		return fmt.Sprint(what, err)
	}
	must(w.db.Close())
	w.acked = uint64(len(w.ops))
	return w.judge(w.mem.Snapshot(), w.acked, w.acked)
}

// floors: a transaction that began long ago finds what was written to what it
// has read, although checkpoints and compactions went over it.
func floors() string {
	o := small()
	o.MemtableSize, o.MemoryLimit, o.LogFileSize = 4<<20, 32<<20, 4<<20
	w := newWorld(40, o)
	must(w.open())
	must(w.commit(forebay.Durable, "a", "1", "b", "1"))
	tries := 0
	err := w.db.Update(func(tx *forebay.Tx) error {
		v, err := tx.Get([]byte("a"))
		if err != nil && !errors.Is(err, forebay.ErrNotFound) {
			return err
		}
		if tries++; tries == 1 {
			// Longer than the tracker remembers, then settled and merged.
			done := make(chan error, 1)
			go func() {
				err := w.commit(forebay.Durable, "a", "2")
				if err == nil { // now, or the tracker remembers it
					err = w.commit(forebay.Durable, "a", "")
				}
				for i := 0; i < 2600 && err == nil; i++ { // 128 keys each: more than the tracker has room for
					var kv []string
					for k := range 128 {
						kv = append(kv, fmt.Sprint("c", i, ".", k), "1")
					}
					err = w.commit(forebay.Durable, kv...)
				}
				if err == nil {
					err = w.db.Compact(background)
				}
				done <- err
			}()
			if err := <-done; err != nil {
				return err
			}
		}
		return tx.Put([]byte("b"), append([]byte("saw "), v...))
	})
	if err != nil {
		return "a transaction fails: " + err.Error()
	}
	if tries == 1 {
		return "a transaction was committed although what it had read was written since"
	}
	must(w.db.Close())
	return ""
}
