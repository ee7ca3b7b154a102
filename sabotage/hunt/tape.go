package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/vfs"
)

// A cut is a disk between two I/Os, with what a power cut there must leave, and
// at most.
type cut struct {
	disk   *vfs.Mem
	lo, hi uint64
	op     vfs.Op
	where  string
	copies []made
}

// tape keeps a cut after each I/O of a world.
type tape struct {
	w     *world
	mu    sync.Mutex // guards cuts
	cuts  []cut
	where string
	// under is above the last commit while one is under way.
	under  uint64
	copies []made
}

func (t *tape) start() {
	t.w.mem.OnIO(func(op vfs.Op) {
		snap := t.w.mem.Snapshot()
		lo := t.w.acked
		if db := t.w.db; db != nil {
			lo = max(lo, db.DurableLSN())
		}
		t.mu.Lock()
		defer t.mu.Unlock()
		t.cuts = append(t.cuts, cut{disk: snap, lo: lo, hi: t.under, op: op, where: t.where, copies: t.copies})
	})
}

// commit is the world's, on tape.
func (t *tape) commit(level forebay.Level, kv ...string) {
	t.mu.Lock()
	t.under = uint64(len(t.w.ops)) + 1
	t.mu.Unlock()
	must(t.w.commit(level, kv...))
	t.raise()
}

// together submits commits without waiting for any before the last.
func (t *tape) together(n int) {
	var all []*forebay.Commit
	for i := range n {
		b := t.w.db.NewBatch()
		k, v := fmt.Sprint("s", len(t.w.ops)), value(len(t.w.ops), 40)
		must(b.Put([]byte(k), []byte(v)))
		t.mu.Lock()
		t.w.ops = append(t.w.ops, map[string]string{k: v})
		t.under = uint64(len(t.w.ops))
		t.mu.Unlock()
		c, err := t.w.db.Submit(b, forebay.Durable)
		must(err)
		all = append(all, c)
		if i == 0 && n > 6 {
			must(c.Wait(background))
		}
	}
	for _, c := range all {
		must(c.Wait(background))
		t.mu.Lock()
		t.w.acked = max(t.w.acked, c.LSN())
		t.mu.Unlock()
		t.raise()
	}
}

// raise makes what is acknowledged now the least that the last cut must leave:
// nothing was written since.
func (t *tape) raise() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if n := len(t.cuts); n > 0 {
		t.cuts[n-1].lo = max(t.cuts[n-1].lo, t.w.acked, t.w.db.DurableLSN())
	}
}

func (t *tape) say(where string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.where = where
}

// synced says that all commits are durable.
func (t *tape) synced() {
	t.w.acked = uint64(len(t.w.ops))
	t.raise()
}

// quickly is a chance that makes no states but the first eight.
const quickly = -1

// states calls try with what power cuts at a cut may leave: nothing that is
// unsynced, all of it, all but one, one alone, and some by chance.
func states(disk *vfs.Mem, model vfs.Model, chance int, try func(*vfs.Mem, string) string) string {
	units := disk.Unsynced()
	pick := func(name string, fate func(i int, u vfs.Unit) vfs.Fate) string {
		return try(disk.PowerCut(func(i int, u vfs.Unit) vfs.Fate {
			f := fate(i, u)
			if !slices.Contains(vfs.LegalFates(u, model), f) {
				f = vfs.Kept
			}
			return f
		}), name)
	}
	if what := try(disk.Snapshot(), "killed"); what != "" {
		return what
	}
	if what := pick("all lost", func(int, vfs.Unit) vfs.Fate { return vfs.Lost }); what != "" || len(units) == 0 {
		return what
	}
	if what := pick("all kept", func(int, vfs.Unit) vfs.Fate { return vfs.Kept }); what != "" {
		return what
	}
	first, last := 0, len(units)-1
	if k := slices.IndexFunc(units, func(u vfs.Unit) bool { return u.Kind == vfs.SectorUnit && !u.Zeros }); k > 0 {
		first = k // what else there is stays as it is
	}
	if what := pick("lost "+units[last].Name, func(i int, _ vfs.Unit) vfs.Fate {
		if i == last {
			return vfs.Lost
		}
		return vfs.Kept
	}); what != "" {
		return what
	}
	if what := pick("lost "+units[0].Name, func(i int, _ vfs.Unit) vfs.Fate {
		if i == 0 {
			return vfs.Lost
		}
		return vfs.Kept
	}); what != "" {
		return what
	}
	if what := pick("kept, the first, "+units[first].Name, func(i int, u vfs.Unit) vfs.Fate { // a header, say
		if i == first || i < first && u.Kind != vfs.SectorUnit {
			return vfs.Kept
		}
		return vfs.Lost
	}); what != "" {
		return what
	}
	recent := slices.IndexFunc(units, func(u vfs.Unit) bool { return u.Kind == vfs.SectorUnit && !u.Zeros && u.Name == units[last].Name })
	if recent > first { // of the file that was written last
		if what := pick("kept, the first of the last file, "+units[recent].Name, func(i int, u vfs.Unit) vfs.Fate {
			if i == recent || u.Kind != vfs.SectorUnit {
				return vfs.Kept
			}
			return vfs.Lost
		}); what != "" {
			return what
		}
	}
	if what := pick("kept "+units[last].Name, func(i int, _ vfs.Unit) vfs.Fate { // a mark, say
		if i == last {
			return vfs.Kept
		}
		return vfs.Lost
	}); what != "" {
		return what
	}
	for k := range units {
		if k > 24 || chance == quickly {
			break
		}
		name := units[k].Name
		if what := pick("lost "+name, func(i int, _ vfs.Unit) vfs.Fate {
			if i == k {
				return vfs.Lost
			}
			return vfs.Kept
		}); what != "" {
			return what
		}
		if what := pick("kept "+name, func(i int, _ vfs.Unit) vfs.Fate {
			if i == k {
				return vfs.Kept
			}
			return vfs.Lost
		}); what != "" {
			return what
		}
	}
	for s := range max(chance, 0) {
		if what := try(disk.PowerCutSeed(uint64(s), model), "by chance"); what != "" {
			return what
		}
	}
	return ""
}

// explore judges the states of all cuts, those of the same length of history in
// any order.
func (t *tape) explore(ctx context.Context, model vfs.Model, chance int) string {
	t.w.mem.OnIO(nil)
	for i, c := range t.cuts {
		if ctx.Err() != nil {
			return ""
		}
		step("crash")
		hi := c.hi
		what := states(c.disk, model, chance, func(disk *vfs.Mem, name string) string {
			what := t.copied(disk, c)
			if what == "" {
				what = t.w.judge(disk, c.lo, hi)
			}
			if what != "" {
				return fmt.Sprintf("crash in %s, behind I/O %d (%s %s), %s: %s", c.where, i, c.op.Call, c.op.Name, name, what)
			}
			return ""
		})
		if what == "" {
			what = t.again(c)
		}
		if what != "" {
			return what
		}
	}
	return ""
}

// judge judges the states of all cuts of a life that began with what a crash had
// left: those within its open, the first opened, by the history of before.
func (t *tape) judge(ctx context.Context, hunt string, opened int, inside *world, model vfs.Model, chance int) string {
	for i, c := range t.cuts {
		if ctx.Err() != nil {
			return ""
		}
		step(hunt)
		by := t.w
		if i < opened-1 {
			by = inside
		}
		what := states(c.disk, model, chance, func(disk *vfs.Mem, name string) string {
			if what := by.judge(disk, c.lo, c.hi); what != "" {
				return fmt.Sprintf("crash in %s, behind I/O %d (%s %s), %s: %s", c.where, i, c.op.Call, c.op.Name, name, what)
			}
			return ""
		})
		if what != "" {
			return what
		}
	}
	return ""
}

// again kills the process at a cut, opens, and cuts the power: what the open showed
// is there, and what it acted on was durable.
func (t *tape) again(c cut) string {
	disk := c.disk.Snapshot()
	db, err := forebay.Open(t.w.dir, t.w.options(disk))
	if err != nil {
		return "" // it was looked at already
	}
	n := db.LastLSN()
	shown := disk.PowerCut(func(int, vfs.Unit) vfs.Fate { return vfs.Lost })
	acted := disk.PowerCut(names)
	_ = db.Close()
	closed := disk.PowerCut(func(int, vfs.Unit) vfs.Fate { return vfs.Lost })
	for _, d := range []*vfs.Mem{shown, acted, closed} {
		if what := t.w.judge(d, n, max(n, c.hi)); what != "" {
			return fmt.Sprintf("killed in %s, behind an I/O (%s %s), then an open and a power cut: %s", c.where, c.op.Call, c.op.Name, what)
		}
	}
	return ""
}

// names keeps what was done to directories, and loses all else.
func names(_ int, u vfs.Unit) vfs.Fate {
	if u.Kind == vfs.EntryUnit {
		return vfs.Kept
	}
	return vfs.Lost
}

func (t *tape) checkpoint() {
	t.say("checkpoint")
	must(t.w.db.Checkpoint(background))
	t.synced()
}

// backup makes a backup, which from then on must open as what it holds, and until
// then may refuse.
func (t *tape) backup(dir string) {
	t.say("backup")
	info, err := t.w.db.Backup(background, dir)
	must(err)
	t.synced()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.copies = append(slices.Clip(t.copies), made{dir, info.At.LSN})
	t.cuts[len(t.cuts)-1].copies = t.copies
}

// made is a backup that was done.
type made struct {
	dir string
	at  uint64
}

// copied checks the backups of a state.
func (t *tape) copied(disk *vfs.Mem, c cut) string {
	for _, b := range c.copies {
		w := &world{dir: b.dir, opts: t.w.opts, ops: t.w.ops, seed: t.w.seed + 5}
		if what := w.judge(disk.Snapshot(), b.at, b.at); what != "" {
			return "backup " + b.dir + ": " + what
		}
	}
	// One that is being made refuses, or is empty, or whole.
	for _, dir := range []string{"copy", "deep/in/copies"} {
		if slices.ContainsFunc(c.copies, func(b made) bool { return b.dir == dir }) || !strings.Contains(c.where, "backup") {
			continue
		}
		if _, err := disk.Stat(dir); err != nil {
			continue
		}
		d := disk.Snapshot()
		db, err := forebay.Open(dir, t.w.options(d))
		if err != nil {
			continue
		}
		n := db.LastLSN()
		w := &world{dir: dir, opts: t.w.opts, ops: t.w.ops}
		what, err := w.reads(db, n)
		_ = db.Close()
		if n != 0 && n < c.lo {
			what = fmt.Sprintf("it opens at LSN %d", n)
		}
		if err != nil {
			what = err.Error()
		}
		if what != "" {
			return "backup that is not done: " + what
		}
	}
	return ""
}

func (t *tape) reopen() {
	t.close()
	t.say("open")
	must(t.w.open())
}

// kill goes on in another process, on the same disk.
func (t *tape) kill() {
	w, old := t.w, t.w.db
	w.mem.OnIO(nil)
	w.mem = w.mem.Snapshot()
	w.fsys = w.mem
	_ = old.Close()
	t.say("open")
	t.start()
	must(w.open())
	t.synced()
	t.say("commits behind a kill")
}

// close closes the store: behind it the log is closed in order, whatever happens.
func (t *tape) close() {
	t.say("close")
	must(t.w.db.Close())
	t.synced()
	db, err := forebay.Open(t.w.dir, t.w.options(t.w.mem.PowerCut(func(int, vfs.Unit) vfs.Fate { return vfs.Lost })))
	must(err)
	closed := db.Recovery().Closed
	must(db.Close())
	if !closed {
		must(errors.New("after Close and a power cut the log is not closed in order"))
	}
}
