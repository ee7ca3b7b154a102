package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

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

// scripts are small workloads, each aimed at something, with the states of every
// cut.
var scripts = []struct {
	name string
	opts func(*forebay.Options)
	dir  string
	run  func(t *tape)
}{
	{"durable commits", nil, "", func(t *tape) {
		for i := range 4 {
			t.commit(forebay.Durable, "a", value(i, 20), fmt.Sprint("k", i), value(10+i, 600))
		}
	}},
	{"a store deep in new directories", nil, "x/y/db", func(t *tape) {
		t.commit(forebay.Durable, "a", "1")
		t.commit(forebay.Durable, "b", "2")
	}},
	{"written commits over several files, and then a durable one", func(o *forebay.Options) { o.Sync = forebay.SyncNever }, "", func(t *tape) {
		for i := range 12 {
			t.commit(forebay.Written, "a", value(i, 3000))
		}
		t.commit(forebay.Durable, "b", "2")
		t.commit(forebay.Written, "c", "3")
	}},
	{"commits that are submitted together", nil, "", func(t *tape) {
		t.together(8)
		t.together(5)
	}},
	{"written commits over several files", func(o *forebay.Options) { o.MemtableSize = 256 << 10 }, "", func(t *tape) {
		for i := range 14 {
			t.commit(forebay.Written, "a", value(i, 3000))
		}
		if t.w.db.DurableLSN() == 0 {
			must(errors.New("SyncGroup syncs a file that is full, and nothing is durable after several"))
		}
	}},
	{"checkpoint", nil, "", func(t *tape) {
		t.commit(forebay.Durable, "a", "1", "b", "1")
		t.commit(forebay.Buffered, "a", "2")
		t.checkpoint()
		t.commit(forebay.Written, "b", "3")
		t.commit(forebay.Durable, "c", "4")
		t.checkpoint()
	}},
	{"compaction", nil, "", func(t *tape) {
		for i := range 3 {
			t.commit(forebay.Durable, "a", fmt.Sprint(i), "b", fmt.Sprint(i))
			t.checkpoint()
		}
		t.say("compaction")
		must(t.w.db.Compact(background))
		t.commit(forebay.Durable, "c", "4")
	}},
	{"checkpoint and recycling of log files", nil, "", func(t *tape) {
		for i := range 14 {
			t.commit(forebay.Durable, "a", value(i, 5000))
			if i%3 == 2 {
				t.checkpoint()
			}
		}
	}},
	{"keys that are long", nil, "", func(t *tape) {
		long := strings.Repeat("k", 900)
		for i := range 3 {
			t.commit(forebay.Durable, long+"a", value(i, 10), long+"z", value(i, 10))
			t.checkpoint()
		}
	}},
	{"sync and close", func(o *forebay.Options) { o.Sync = forebay.SyncNever }, "", func(t *tape) {
		t.commit(forebay.Buffered, "a", "1")
		t.commit(forebay.Written, "b", "1")
		must(t.w.db.Sync(background))
		t.synced()
		t.commit(forebay.Buffered, "c", "1")
		t.reopen()
		t.commit(forebay.Written, "d", "1")
		t.reopen()
	}},
	{"sync by bytes", func(o *forebay.Options) { o.Sync = forebay.SyncBytes(2000) }, "", func(t *tape) {
		for i := range 4 {
			t.commit(forebay.Written, "a", value(i, 1500))
		}
		if t.w.db.DurableLSN() < 2 {
			must(errors.New("SyncBytes(2000) has not synced after 6000 bytes"))
		}
	}},
	{"sync by interval", func(o *forebay.Options) { o.Sync = forebay.SyncInterval(time.Millisecond) }, "", func(t *tape) {
		t.commit(forebay.Written, "a", "1")
		for wait := time.Millisecond; t.w.db.DurableLSN() < 1; wait *= 2 {
			if wait > 2*time.Second {
				must(errors.New("SyncInterval(1 ms) has not synced after seconds"))
			}
			time.Sleep(wait)
		}
	}},
	{"sync with O_DSYNC", func(o *forebay.Options) { o.Mechanism = forebay.DSync }, "", func(t *tape) {
		t.commit(forebay.Durable, "a", "1")
		t.commit(forebay.Durable, "b", "2")
	}},
	{"sync with O_DIRECT and O_DSYNC", func(o *forebay.Options) { o.Mechanism, o.LogAlign = forebay.DirectDSync, 4096 }, "", func(t *tape) {
		t.commit(forebay.Durable, "a", "1")
		t.commit(forebay.Durable, "b", "2")
	}},
	{"sync with fsync", func(o *forebay.Options) { o.Mechanism = forebay.Fsync }, "", func(t *tape) {
		t.commit(forebay.Durable, "a", "1")
		t.commit(forebay.Durable, "b", "2")
	}},
	{"idle marks", func(o *forebay.Options) { o.MarkDelay = time.Millisecond }, "", func(t *tape) {
		t.commit(forebay.Durable, "a", "1")
		time.Sleep(5 * time.Millisecond)
		t.commit(forebay.Written, "b", "2")
		time.Sleep(5 * time.Millisecond)
	}},
	{"a spare that the next open finds", func(o *forebay.Options) { o.MarkDelay, o.MemtableSize = time.Millisecond, 256<<10 }, "", func(t *tape) {
		for i := range 3 {
			t.commit(forebay.Durable, "a", value(i, 4000))
		}
		time.Sleep(5 * time.Millisecond)
		t.kill()
		for i := range 9 {
			t.commit(forebay.Durable, "a", value(i, 4000))
		}
	}},
	{"backup", nil, "", func(t *tape) {
		t.commit(forebay.Durable, "a", "1")
		t.checkpoint()
		t.commit(forebay.Durable, "b", "2")
		t.backup("copy")
		t.commit(forebay.Durable, "c", "3")
		t.backup("deep/in/copies")
	}},
	{"a log in a directory of its own", func(o *forebay.Options) { o.LogDir = "logs/log" }, "", func(t *tape) {
		t.commit(forebay.Durable, "a", "1")
		t.checkpoint()
		t.commit(forebay.Durable, "b", "2")
	}},
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

// crashes runs the scripts, with a crash behind each I/O; crashesAll makes more
// states of each.
func crashes(ctx context.Context) string    { return runScripts(ctx, 0, quickly) }
func crashesAll(ctx context.Context) string { return runScripts(ctx, 0, 4) }

// secondLives runs each script again from what a crash in it has left, and once
// more.
func secondLives(ctx context.Context) string { return runScripts(ctx, 1, 2) }

func runScripts(ctx context.Context, pass, chance int) string {
	for _, model := range []vfs.Model{vfs.SectorAtomic, vfs.NothingAssumed} {
		for _, s := range scripts {
			if ctx.Err() != nil {
				return ""
			}
			what := attempt(func() string { return crash(ctx, s.name, s.opts, s.dir, s.run, model, pass, chance) })
			if what != "" {
				return s.name + ": " + what
			}
		}
	}
	return ""
}

// reopens looks at opens that have something to do: each begins with what a crash
// has left of a few commits, and is cut behind each of its own I/Os.
func reopens(ctx context.Context) string    { return reopenAll(ctx, quickly) }
func reopensAll(ctx context.Context) string { return reopenAll(ctx, 6) }

func reopenAll(ctx context.Context, chance int) string {
	for _, align := range []int64{0, 4096} {
		for _, levels := range []string{"d", "dd", "dD", "W", "ww", "dw", "dwd", "dwww", "wwwwwwww"} {
			for how := range 4 {
				if ctx.Err() != nil {
					return ""
				}
				what := attempt(func() string { return reopen(ctx, align, levels, how, chance) })
				if what != "" {
					return fmt.Sprintf("commits %s, align %d, crash %d: %s", levels, align, how, what)
				}
			}
		}
	}
	return ""
}

func reopen(ctx context.Context, align int64, levels string, how, chance int) string {
	o := small()
	o.LogAlign, o.Sync = align, forebay.SyncNever
	model := vfs.SectorAtomic
	if align > 0 {
		model = vfs.NothingAssumed
	}
	w := newWorld(uint64(300+10*len(levels)+how), o)
	must(w.open())
	for i, l := range levels {
		size := 30
		if len(levels) > 4 || l == 'D' || l == 'W' { // its copy may be lost where the link is not
			size = 3000
		}
		level := forebay.Durable
		if l == 'w' || l == 'W' {
			level = forebay.Written
		}
		must(w.commit(level, fmt.Sprint("k", i), value(i, size), "a", value(i, 10)))
	}
	old := w.db
	disk := w.mem.Snapshot() // killed
	if how > 0 {
		disk = w.mem.PowerCutSeed(uint64(how), model)
	}
	if how == 1 {
		disk = w.mem.PowerCut(func(int, vfs.Unit) vfs.Fate { return vfs.Kept })
	}
	_ = old.Close()
	lo, hi := w.acked, uint64(len(w.ops))
	next := &world{mem: disk, fsys: disk, dir: w.dir, opts: o, seed: w.seed + 100, ops: w.ops, acked: lo}
	t := &tape{w: next, where: "open", under: hi}
	t.start()
	must(next.open())
	n := next.db.LastLSN()
	inside := &world{dir: w.dir, opts: o, ops: slices.Clone(w.ops), seed: w.seed + 200}
	next.ops = slices.Clone(w.ops[:n])
	next.acked = n
	t.raise()
	opened := len(t.cuts)
	t.say("a commit behind the open")
	t.commit(forebay.Durable, "b", "again")
	t.commit(forebay.Written, "b", "and again")
	t.close()
	next.mem.OnIO(nil)
	for i, c := range t.cuts {
		if ctx.Err() != nil {
			return ""
		}
		step("reopens")
		by := next
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

func crash(ctx context.Context, name string, opts func(*forebay.Options), dir string, run func(*tape), model vfs.Model, pass, chance int) string {
	o := small()
	if opts != nil {
		opts(&o)
	}
	if model == vfs.NothingAssumed {
		o.LogAlign = 4096
	}
	w := newWorld(uint64(len(name)), o)
	if dir != "" {
		w.dir = dir
	}
	t := &tape{w: w, where: "open"}
	t.start()
	must(w.open())
	t.say("commits")
	run(t)
	t.close()
	if pass == 0 {
		return t.explore(ctx, model, chance)
	}
	w.mem.OnIO(nil)
	// Lives that begin with what a crash has left: three in a row.
	for i := 0; i < len(t.cuts) && ctx.Err() == nil; i += 1 + len(t.cuts)/6 {
		if what := lives(ctx, t, t.cuts[i], model, 2, run); what != "" {
			return fmt.Sprintf("second life behind I/O %d: %s", i, what)
		}
	}
	return ""
}

// lives goes on from what a power cut has left.
func lives(ctx context.Context, t *tape, c cut, model vfs.Model, more int, run func(*tape)) string {
	for seed := range uint64(2) {
		disk := c.disk.PowerCutSeed(seed+7, model)
		w := &world{mem: disk, fsys: disk, dir: t.w.dir, opts: t.w.opts, seed: t.w.seed + 1000*seed}
		next := &tape{w: w, where: "open"}
		w.ops = slices.Clone(t.w.ops)
		next.under = c.hi
		w.acked = c.lo
		next.start()
		if err := w.open(); err != nil {
			return "open fails: " + err.Error()
		}
		n := w.db.LastLSN()
		if n < c.lo || n > c.hi || n > uint64(len(w.ops)) {
			return fmt.Sprintf("opened at LSN %d, and not within %d to %d", n, c.lo, c.hi)
		}
		w.ops = slices.Clip(w.ops[:n])
		// What the open shows is durable. While it runs, the old commits may be there.
		hist := slices.Clone(t.w.ops)
		next.synced()
		opened := len(next.cuts)
		next.say("commits of the next life")
		run(next)
		must(w.db.Close())
		next.synced()
		w.mem.OnIO(nil)
		inside := &world{dir: w.dir, opts: w.opts, ops: hist, seed: w.seed + 77}
		for i, k := range next.cuts {
			if ctx.Err() != nil {
				return ""
			}
			step("crash")
			by := w
			if i < opened-1 {
				by = inside
			}
			what := states(k.disk, model, 2, func(disk *vfs.Mem, name string) string {
				if what := by.judge(disk, k.lo, k.hi); what != "" {
					return fmt.Sprintf("crash in %s, behind its I/O %d (%s %s), %s: %s", k.where, i, k.op.Call, k.op.Name, name, what)
				}
				return ""
			})
			if what != "" {
				return what
			}
		}
		if more > 0 && seed == 0 && len(next.cuts) > 0 && !strings.Contains(t.where, "again") {
			next.where = "again"
			if what := lives(ctx, next, next.cuts[len(next.cuts)*2/3], model, more-1, run); what != "" {
				return "third life: " + what
			}
		}
	}
	return ""
}
