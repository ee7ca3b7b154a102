package main

import (
	"context"
	"fmt"
	"slices"
	"syscall"
	"time"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/vfs"
)

// A fault is one way in which a call fails.
type fault struct {
	name string
	rule vfs.Rule
}

var faults = []fault{
	{"EIO once", vfs.Rule{Err: syscall.EIO}},
	{"EIO for ever", vfs.Rule{Err: syscall.EIO, Forever: true}},
	{"EIO once, behind its effect", vfs.Rule{Err: syscall.EIO, After: true}},
	{"ENOSPC once", vfs.Rule{Err: syscall.ENOSPC}},
	{"short", vfs.Rule{Err: syscall.EIO, Part: 100}},
}

// changing are the calls that fail: those that change something.
var changing = []vfs.Call{vfs.CallSyncData, vfs.CallSync, vfs.CallSyncDir, vfs.CallWrite, vfs.CallRemove, vfs.CallCreate, vfs.CallZero, vfs.CallRename, vfs.CallMkdir, vfs.CallOpen, vfs.CallClose}

// failScripts go on whatever fails.
var failScripts = []struct {
	name string
	opts func(*forebay.Options)
	run  func(w *world) // errors are the engine's business
}{
	{"durable commits", nil, func(w *world) {
		for i := range 4 {
			w.try(forebay.Durable, "a", value(i, 20), fmt.Sprint("k", i), value(i, 500))
		}
	}},
	{"checkpoints", nil, func(w *world) {
		for i := range 3 {
			w.try(forebay.Durable, "a", value(i, 20), fmt.Sprint("k", i), value(i, 500))
			w.settle(w.db.Checkpoint)
		}
		w.try(forebay.Durable, "z", "1")
	}},
	{"files that fill up", nil, func(w *world) {
		for i := range 9 {
			w.try(forebay.Durable, "a", value(i, 5000))
			if i%4 == 3 {
				w.settle(w.db.Checkpoint)
			}
		}
		w.try(forebay.Durable, "z", "1")
	}},
	{"written commits", func(o *forebay.Options) { o.Sync = forebay.SyncNever }, func(w *world) {
		for i := range 6 {
			w.try(forebay.Written, "a", value(i, 5000))
		}
		w.settle(w.db.Sync)
		w.try(forebay.Written, "b", "1")
		w.try(forebay.Durable, "z", "1")
	}},
	{"sync by bytes", func(o *forebay.Options) { o.Sync = forebay.SyncBytes(1000) }, func(w *world) {
		for i := range 3 {
			w.try(forebay.Written, "a", value(i, 1200))
		}
		w.try(forebay.Durable, "z", "1")
	}},
	{"sync by interval", func(o *forebay.Options) { o.Sync = forebay.SyncInterval(time.Millisecond) }, func(w *world) {
		for i := range 2 {
			w.try(forebay.Written, "a", value(i, 100))
			time.Sleep(4 * time.Millisecond)
		}
		w.try(forebay.Durable, "z", "1")
	}},
	{"idle marks", func(o *forebay.Options) { o.MarkDelay = time.Millisecond }, func(w *world) {
		w.try(forebay.Durable, "a", "1")
		time.Sleep(4 * time.Millisecond)
		w.try(forebay.Durable, "b", "1")
	}},
	{"compactions", nil, func(w *world) {
		for i := range 2 {
			w.try(forebay.Durable, "a", value(i, 20), fmt.Sprint("k", i), value(i, 500))
			w.settle(w.db.Checkpoint)
		}
		w.settle(w.db.Compact)
		w.try(forebay.Durable, "z", "1")
		w.settle(w.db.Checkpoint)
		w.try(forebay.Durable, "z", "2")
	}},
	{"close and open", nil, func(w *world) {
		w.try(forebay.Written, "a", "1")
		w.again()
		w.try(forebay.Durable, "b", "2")
		w.try(forebay.Durable, "b", "3")
		w.again()
		w.try(forebay.Durable, "c", "3")
	}},
}

// try commits, whatever comes of it.
func (w *world) try(level forebay.Level, kv ...string) {
	if w.db != nil {
		_ = w.commit(level, kv...)
	}
}

// settle is a call after which all is durable that was committed before.
func (w *world) settle(call func(context.Context) error) {
	if w.db == nil {
		return
	}
	ctx, cancel := context.WithTimeout(background, 300*time.Millisecond)
	defer cancel()
	if n := uint64(len(w.ops)); call(ctx) == nil {
		w.acked = n
	}
}

// again closes and opens. What an open shows is durable.
func (w *world) again() {
	if w.db == nil {
		return
	}
	n := uint64(len(w.ops))
	if w.db.Close() == nil {
		w.acked = n
	}
	w.db = nil
	if w.open() != nil {
		w.db = nil
		return
	}
	w.shown()
}

// shown takes down what an open store shows, as the history.
func (w *world) shown() {
	n := w.db.LastLSN()
	if n > uint64(len(w.ops)) && w.unknown != nil {
		w.ops = append(w.ops, w.unknown)
	}
	w.unknown = nil
	w.ops = w.ops[:min(n, uint64(len(w.ops)))]
	w.acked = max(w.acked, n)
}

// failing lets every call that changes something fail, in every way; failingAll
// makes more states of the crash behind.
func failing(ctx context.Context) string    { return failAll(ctx, quickly) }
func failingAll(ctx context.Context) string { return failAll(ctx, 1) }

func failAll(ctx context.Context, chance int) string {
	for _, s := range failScripts {
		for _, call := range changing {
			for _, f := range faults {
				if f.rule.Part > 0 && call != vfs.CallWrite && call != vfs.CallZero {
					continue
				}
				for k := 1; ctx.Err() == nil; k++ {
					step("failing")
					var hit bool
					what := attempt(func() (what string) {
						hit, what = fail(s.opts, s.run, call, f, k, chance)
						return what
					})
					if what != "" {
						return fmt.Sprintf("%s: %s %d fails (%s): %s", s.name, call, k, f.name, what)
					}
					if !hit {
						break
					}
				}
			}
		}
	}
	return ""
}

// fail runs a script in which one call fails, and looks at what can be read then,
// and at what is there after a crash, and after another open.
func fail(opts func(*forebay.Options), run func(*world), call vfs.Call, f fault, k, chance int) (hit bool, what string) {
	o := small()
	if opts != nil {
		opts(&o)
	}
	w := newWorld(11, o)
	in := vfs.NewInjector(w.mem)
	w.fsys = in
	rule := f.rule
	rule.Call, rule.K = call, k
	armed := in.Add(rule)
	if err := w.open(); err != nil {
		w.db = nil
	}
	run(w)
	hit = armed.Hits() > 0
	if w.db != nil {
		if what := w.stands(); what != "" {
			return hit, what
		}
	}
	crash := w.mem.Snapshot()
	if w.db != nil {
		_ = w.db.Close()
	}
	if !hit {
		return false, ""
	}
	lo, hi := w.acked, w.last()
	if what := states(crash, vfs.SectorAtomic, chance, func(disk *vfs.Mem, name string) string {
		if what := w.judge(disk, lo, hi); what != "" {
			return "then a crash, " + name + ": " + what
		}
		return ""
	}); what != "" {
		return hit, what
	}
	// The next process of the same boot, and then a power cut.
	armed.Remove()
	next := &world{mem: w.mem, fsys: w.mem, dir: w.dir, opts: w.opts, seed: w.seed + 500, ops: slices.Clone(w.ops), unknown: w.unknown, acked: w.acked}
	if err := next.open(); err != nil {
		return hit, "the next open fails: " + err.Error()
	}
	if n := next.db.LastLSN(); n < lo || n > hi {
		return hit, fmt.Sprintf("the next open is at LSN %d, and not within %d to %d", n, lo, hi)
	}
	next.shown()
	after := next.mem.Snapshot()
	next.try(forebay.Durable, "after", "1")
	if err := next.db.Checkpoint(background); err != nil {
		return hit, "a checkpoint of the next process fails: " + err.Error()
	}
	end := next.mem.Snapshot()
	_ = next.db.Close()
	n := uint64(len(next.ops))
	for i, c := range []struct {
		disk   *vfs.Mem
		lo, hi uint64
	}{{after, n - 1, n}, {end, n, n}} {
		for _, fate := range []vfs.Fate{vfs.Lost, vfs.Kept} {
			disk := c.disk.PowerCut(func(int, vfs.Unit) vfs.Fate { return fate })
			if what := next.judge(disk, c.lo, c.hi); what != "" {
				return hit, fmt.Sprintf("then an open, and a power cut (%d, fate %d): %s", i, fate, what)
			}
		}
	}
	return hit, ""
}

// stands checks that what can be read is S(n), and is durable where all commits
// are.
func (w *world) stands() string {
	snap, err := w.db.Snapshot()
	if err != nil {
		return ""
	}
	n := snap.LSN()
	_ = snap.Close()
	if n < w.acked {
		return fmt.Sprintf("reads see S(%d), %d was acknowledged", n, w.acked)
	}
	if n > w.last() {
		return fmt.Sprintf("reads see S(%d), there are %d commits", n, w.last())
	}
	what, err := w.reads(w.db, n)
	if err != nil || what != "" {
		return what
	}
	if !w.below {
		w.acked = max(w.acked, n)
	}
	return ""
}
