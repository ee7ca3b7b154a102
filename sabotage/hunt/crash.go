package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/vfs"
)

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
	return t.judge(ctx, "reopens", opened, inside, model, chance)
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
		if what := next.judge(ctx, "crash", opened, inside, model, 2); what != "" {
			return what
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
