package fuzz

import (
	"context"
	"strings"
	"time"

	"github.com/forebaydb/forebay/vfs"
)

const (
	// shrinkFor is Config.ShrinkFor where that is 0.
	shrinkFor = 10 * time.Second
	// maxShrunk bounds how many violations of a run are made smaller.
	maxShrunk = 3
	// tryStates bounds the states in which a smaller workload has to show the
	// violation.
	tryStates = 2000
)

// shrinkAll makes the first violation of each kind smaller, as long as
// cfg.ShrinkFor allows for each.
func shrinkAll(ctx context.Context, cfg *Config, vs []*Violation) {
	if cfg.ShrinkFor < 0 {
		return
	}
	done := map[string]bool{}
	for _, v := range vs {
		if len(done) == maxShrunk || done[v.Kind] || ctx.Err() != nil {
			continue
		}
		done[v.Kind] = true
		shrink(ctx, cfg, v)
	}
}

// shrink looks for a smaller workload with the same kind of violation, and for
// the weakest property of a file system that would have prevented it.
func shrink(ctx context.Context, cfg *Config, v *Violation) {
	limit := cfg.ShrinkFor
	if limit == 0 {
		limit = shrinkFor
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	w, err := ParseWorkload(v.Workload)
	if err != nil {
		return // a test reads the text of every workload
	}
	s := &shrinker{cfg: *cfg, ctx: ctx, kind: v.Kind}
	s.cfg.PerWorkload, s.cfg.Progress = tryStates, nil
	for progress := true; progress; {
		progress = false
		for _, reduce := range reductions {
			for i := 0; ctx.Err() == nil; {
				c := w.clone()
				if !reduce(c, i) {
					break
				}
				if c, found := s.finds(c, nil); found != nil {
					w, v.Small, progress = c, found, true
				} else {
					i++
				}
			}
		}
	}
	last := v
	if v.Small != nil {
		last = v.Small
	}
	last.Property = s.property(w, last)
}

// shrinker tries workloads.
type shrinker struct {
	cfg  Config
	ctx  context.Context
	kind string
}

// finds explores a workload, as it is read from its text, for the violation.
func (s *shrinker) finds(w *Workload, filter allows) (*Workload, *Violation) {
	w, err := ParseWorkload(w.String())
	if err != nil || w.Operations() == 0 {
		return nil, nil
	}
	x := newExplorer(s.ctx, &s.cfg, &shared{most: 1})
	x.filter, x.full, x.want = filter, true, s.kind
	if x.explore(w, nil); len(x.out) > 0 && x.out[0].Kind == s.kind {
		return w, x.out[0]
	}
	return w, nil
}

// clone returns a workload that can be changed.
func (w *Workload) clone() *Workload {
	c, err := ParseWorkload(w.String())
	if err != nil {
		return &Workload{lives: []life{{}}}
	}
	return c
}

// Operations counts the steps of the workload, a batch for as many as it has.
func (w *Workload) Operations() (n int) {
	for _, l := range w.lives {
		for _, s := range l.steps {
			if len(s.commits) == 0 {
				n++
			}
			for _, cs := range s.commits {
				for _, c := range cs {
					n += len(c.ops)
				}
			}
		}
	}
	return n
}

// reductions make a workload smaller, each in its i-th way; they return false
// when there is none.
var reductions = []func(w *Workload, i int) bool{
	dropLife, dropHalf, dropStep, dropWriter, dropCommit, dropOp, plainCommit, plainSettings, shortValue,
}

func dropLife(w *Workload, i int) bool {
	if len(w.lives) < 2 || i >= len(w.lives) {
		return false
	}
	w.lives = append(w.lives[:i], w.lives[i+1:]...)
	return true
}

// dropHalf drops a half of a life's steps, or a quarter, where there are many.
func dropHalf(w *Workload, i int) bool {
	for k := range w.lives {
		steps := &w.lives[k].steps
		for _, parts := range []int{2, 4} {
			if len(*steps) < 2*parts {
				continue
			}
			if i < parts {
				from, to := len(*steps)*i/parts, len(*steps)*(i+1)/parts
				*steps = append((*steps)[:from], (*steps)[to:]...)
				return true
			}
			i -= parts
		}
	}
	return false
}

func dropStep(w *Workload, i int) bool {
	for k := range w.lives {
		steps := &w.lives[k].steps
		if i < len(*steps) {
			*steps = append((*steps)[:i], (*steps)[i+1:]...)
			return true
		}
		i -= len(*steps)
	}
	return false
}

// eachStep finds the i-th of something in the steps; take says how many a step
// has, and changes the i-th if it has that.
func (w *Workload) eachStep(i int, take func(s *step, i int) int) bool {
	for k := range w.lives {
		for j := range w.lives[k].steps {
			n := take(&w.lives[k].steps[j], i)
			if i < n {
				return true
			}
			i -= n
		}
	}
	return false
}

func dropWriter(w *Workload, i int) bool {
	return w.eachStep(i, func(s *step, i int) int {
		if s.kind != stepBurst {
			return 0
		}
		n := 0
		if s.beside != stepBurst {
			if n = 1; i == 0 {
				s.beside = stepBurst
				return n
			}
		}
		if len(s.commits) < 2 {
			return n
		}
		if k := i - n; k < len(s.commits) {
			s.commits = append(s.commits[:k], s.commits[k+1:]...)
			return i + 1
		}
		return n + len(s.commits)
	})
}

func dropCommit(w *Workload, i int) bool {
	return w.eachStep(i, func(s *step, i int) (n int) {
		for k, cs := range s.commits {
			if len(cs) < 2 {
				continue
			}
			if at := i - n; at < len(cs) {
				s.commits[k] = append(cs[:at], cs[at+1:]...)
				return i + 1
			}
			n += len(cs)
		}
		return n
	})
}

// eachCommit is eachStep for commits.
func (w *Workload) eachCommit(i int, take func(c *commit, i int) int) bool {
	return w.eachStep(i, func(s *step, i int) (n int) {
		for _, cs := range s.commits {
			for k := range cs {
				m := take(&cs[k], i-n)
				if n += m; i < n {
					return n
				}
			}
		}
		return n
	})
}

func dropOp(w *Workload, i int) bool {
	return w.eachCommit(i, func(c *commit, i int) int {
		if len(c.ops) < 2 {
			return 0
		}
		if i < len(c.ops) {
			c.ops = append(c.ops[:i], c.ops[i+1:]...)
			return i + 1
		}
		return len(c.ops)
	})
}

// plainCommit makes a commit by Apply.
func plainCommit(w *Workload, i int) bool {
	return w.eachCommit(i, func(c *commit, i int) int {
		if c.how == byApply {
			return 0
		}
		if i == 0 {
			c.how = byApply
		}
		return 1
	})
}

// shortValue makes a value one byte.
func shortValue(w *Workload, i int) bool {
	return w.eachCommit(i, func(c *commit, i int) (n int) {
		for k := range c.ops {
			if op := &c.ops[k]; op.Kind == Put && len(op.Value) > 8 {
				if n == i {
					op.Value = op.Value[:8]
				}
				n++
			}
		}
		return n
	})
}

// plainSettings sets one of the settings to its default.
func plainSettings(w *Workload, i int) bool {
	s := &w.Settings
	for _, plain := range []struct {
		is  bool
		set func()
	}{
		{s.LogDir, func() { s.LogDir = false }},
		{s.Mechanism != 0, func() { s.Mechanism = 0 }},
		{s.Compression != 0, func() { s.Compression = 0 }},
		{s.Policy != Group, func() { s.Policy = Group }},
		{s.MarkDelay > 0, func() { s.MarkDelay = -1 }},
		{s.Level != Durable, func() { s.Level = Durable }},
		{s.TableSize < 64<<10, func() { s.TableSize = 64 << 10 }},
		{s.Align != 0 && w.Model != vfs.NothingAssumed, func() { s.Align = 0 }},
	} {
		if !plain.is {
			continue
		}
		if i == 0 {
			plain.set()
			return true
		}
		i--
	}
	return false
}

// property is what a file system may promise beyond the model.
type property struct {
	name string
	// holds says whether the fates respect it.
	holds allows
}

// allows says whether what is not synced may have these fates; the last sync was
// operation synced.
type allows func(us []vfs.Unit, f []vfs.Fate, synced uint64) bool

// properties are those that ALICE (OSDI 2014) found applications to rely on, the
// weaker ones first.
var properties = []property{
	{"a sector holds what was written to it or what it held, nothing else", sectorsWhole},
	{"a sector that was never written holds no bytes of other files", func(us []vfs.Unit, f []vfs.Fate, _ uint64) bool {
		return each(us, f, func(_ vfs.Unit, v vfs.Fate) bool { return v != vfs.Stale }) && sectorsWhole(us, f, 0)
	}},
	{"a file does not grow before its data is there", func(us []vfs.Unit, f []vfs.Fate, _ uint64) bool {
		grown := map[int]bool{}
		for i, u := range us {
			grown[u.Ino] = grown[u.Ino] || u.Kind == vfs.SizeUnit && f[i] != vfs.Lost
		}
		return each(us, f, func(u vfs.Unit, v vfs.Fate) bool {
			return u.Kind != vfs.SectorUnit || !u.Fresh || v == vfs.Kept || !grown[u.Ino]
		})
	}},
	{"one write is there whole or not at all", writesWhole},
	{"changes of directories reach the disk in their order", func(us []vfs.Unit, f []vfs.Fate, _ uint64) bool {
		lost := false
		return each(us, f, func(u vfs.Unit, v vfs.Fate) bool {
			if u.Kind != vfs.EntryUnit {
				return true
			}
			lost = lost || v != vfs.Kept
			return lost == (v != vfs.Kept)
		})
	}},
	{"changes of directories are durable at once", func(us []vfs.Unit, f []vfs.Fate, _ uint64) bool {
		return each(us, f, func(u vfs.Unit, v vfs.Fate) bool { return u.Kind != vfs.EntryUnit || v == vfs.Kept })
	}},
	{"writes to one file reach the disk in their order", func(us []vfs.Unit, f []vfs.Fate, _ uint64) bool {
		return inOrder(us, f, 0, func(u vfs.Unit) int { return u.Ino })
	}},
	{"everything reaches the disk in its order", func(us []vfs.Unit, f []vfs.Fate, synced uint64) bool {
		return inOrder(us, f, synced, func(vfs.Unit) int { return 0 })
	}},
	{"what was written is durable at once, without any sync", func(us []vfs.Unit, f []vfs.Fate, _ uint64) bool {
		return each(us, f, func(_ vfs.Unit, v vfs.Fate) bool { return v == vfs.Kept })
	}},
}

func each(us []vfs.Unit, f []vfs.Fate, ok func(vfs.Unit, vfs.Fate) bool) bool {
	for i, u := range us {
		if !ok(u, f[i]) {
			return false
		}
	}
	return true
}

func sectorsWhole(us []vfs.Unit, f []vfs.Fate, _ uint64) bool {
	return each(us, f, func(u vfs.Unit, v vfs.Fate) bool {
		return v != vfs.Garbage && v != vfs.Torn && (v != vfs.Zeroed || u.Fresh)
	})
}

// writesWhole: the sectors that one write made the newest are all kept or all
// not.
func writesWhole(us []vfs.Unit, f []vfs.Fate, _ uint64) bool {
	kept := map[uint64]bool{}
	return each(us, f, func(u vfs.Unit, v vfs.Fate) bool {
		if u.Kind != vfs.SectorUnit {
			return true
		}
		k, seen := kept[u.Seqs[0]]
		kept[u.Seqs[0]] = v == vfs.Kept
		return !seen || k == (v == vfs.Kept)
	})
}

// inOrder: of each group, what is kept came before all that is lost, and so did
// what a sync has made durable at operation synced.
func inOrder(us []vfs.Unit, f []vfs.Fate, synced uint64, group func(vfs.Unit) int) bool {
	last, first := map[int]uint64{}, map[int]uint64{}
	for i, u := range us {
		g := group(u)
		kept, lost := versions(u, f[i])
		last[g] = max(last[g], kept, synced)
		if lost > 0 && (first[g] == 0 || lost < first[g]) {
			first[g] = lost
		}
	}
	for g, lost := range first {
		if last[g] > lost {
			return false
		}
	}
	return true
}

// versions returns which operation on a unit was the last whose result is there,
// and which the first whose result is not; 0: none.
func versions(u vfs.Unit, f vfs.Fate) (kept, lost uint64) {
	if f == vfs.Kept {
		return u.Seqs[0], 0
	}
	for k := 1; k < u.Versions; k++ {
		if f == vfs.Older(k) {
			return u.Seqs[k], u.Seqs[k-1]
		}
	}
	return 0, u.Seqs[max(u.Versions, 1)-1]
}

// property names the weakest property that prevents the violation.
func (s *shrinker) property(w *Workload, v *Violation) string {
	// A violation in a later life comes after the crash that ended the one before.
	if !strings.Contains(v.Replay, "@") && len(w.lives) < 2 {
		return "none: it needs no crash"
	}
	ctx := s.ctx
	s.ctx = context.WithoutCancel(ctx) // a few runs more
	defer func() { s.ctx = ctx }()
	for _, p := range properties {
		if _, found := s.finds(w, p.holds); found == nil {
			return p.name
		}
	}
	return "none: it is enough to kill the process"
}
