package fuzz

import (
	"fmt"
	"math/rand/v2"

	"github.com/forebaydb/forebay/vfs"
)

type generator struct {
	*rand.Rand
	w       *Workload
	profile int // of value sizes
	keys    int
	// What the workload has: how many keyspaces beside the first; range deletes;
	// transactions; many checkpoints, so that there are compactions; backups.
	spaces                          int
	ranges, updates, dense, backups bool
}

// newWorkload makes the workload of a seed, for an engine with powers p.
func newWorkload(seed uint64, model vfs.Model, concurrent bool, p powers) *Workload {
	w := &Workload{Seed: seed, Model: model, Concurrent: concurrent, drawn: true}
	g := &generator{Rand: rand.New(rand.NewPCG(seed, uint64(model))), w: w}
	g.settings()
	g.profile, g.keys = g.IntN(4), 2+g.IntN(8)
	g.spaces = max(0, g.IntN(6)-2)
	g.ranges, g.updates, g.dense, g.backups = g.IntN(2) == 0, g.IntN(3) == 0, g.IntN(3) == 0, g.IntN(4) == 0
	for n := 1 + g.IntN(3); n > 0; n-- {
		l := life{at: g.Float64(), kill: g.IntN(3) == 0, seed: g.Uint64(), redo: g.IntN(2) == 0}
		for n := 3 + g.IntN(10); n > 0; n-- {
			l.steps = append(l.steps, g.step())
			if g.dense && g.IntN(3) != 0 {
				l.steps = append(l.steps, step{kind: stepCheckpoint})
			}
		}
		w.lives = append(w.lives, l)
	}
	p.limit(w)
	w.fill()
	return w
}

// limit takes out of a workload what the engine cannot do.
func (p powers) limit(w *Workload) {
	if !p.Settings {
		w.Settings = Settings{FileSize: 16 << 10, TableSize: 4 << 10, MarkDelay: -1}
	}
	if !p.Levels {
		w.Settings.Level = Durable
	}
	for i := range w.lives {
		var steps []step
		for _, s := range w.lives[i].steps {
			if p.limitStep(&s) {
				steps = append(steps, s)
			}
		}
		w.lives[i].steps = steps
		w.lives[i].redo = w.lives[i].redo && p.Settings
	}
}

// allow returns an error where the engine cannot do a workload.
func (p powers) allow(w *Workload) error {
	can := w.clone()
	p.limit(can)
	for i := range w.lives {
		if a, b := fmt.Sprint(w.lives[i].steps), fmt.Sprint(can.lives[i].steps); a != b {
			return fmt.Errorf("the engine cannot do %s, only %s", a, b)
		}
	}
	return nil
}

func (p powers) limitStep(s *step) bool {
	can := func(k stepKind) bool {
		switch k {
		case stepSync:
			return p.sync
		case stepCheckpoint:
			return p.checkpoint
		case stepCompact:
			return p.compact
		case stepBackup:
			return p.backup
		case stepPipeline:
			return p.submit
		case stepBurst:
			return p.Writers
		}
		return true
	}
	if !can(s.kind) {
		return false
	}
	if !can(s.beside) {
		s.beside = stepBurst
	}
	if len(s.commits) == 0 {
		return true
	}
	var left [][]commit
	for _, cs := range s.commits {
		var out []commit
		for _, c := range cs {
			if p.limitCommit(&c) {
				out = append(out, c)
			}
		}
		if len(out) > 0 {
			left = append(left, out)
		}
	}
	s.commits = left
	return len(left) > 0
}

func (p powers) limitCommit(c *commit) bool {
	if !p.Levels {
		c.level = Durable
	}
	if c.how == bySubmit && !p.submit || c.how == byUpdate && !p.update {
		c.how = byApply
	}
	var ops []Op
	for _, op := range c.ops {
		if op.Space > 0 && !p.spaces || op.Kind == DeleteRange && !p.Ranges {
			continue
		}
		if ops = append(ops, op); !p.Batches {
			break
		}
	}
	c.ops = ops
	return len(ops) > 0
}

func (g *generator) settings() {
	s := &g.w.Settings
	if g.w.Model == vfs.NothingAssumed || g.IntN(2) == 0 {
		s.Align = 4096
	}
	s.FileSize = 16 << 10
	s.TableSize = int64(4+4*g.IntN(2)) << 10
	if g.IntN(3) == 0 {
		s.TableSize = 64 << 10
	}
	s.MarkDelay = -1
	if g.IntN(3) == 0 {
		s.MarkDelay = markDelay
	}
	s.Policy = [...]Policy{Group, Group, Group, Never, Never, Each, EveryBytes, EveryInterval}[g.IntN(8)]
	s.Compression = uint8(g.IntN(4))
	if k := g.IntN(8); k == 0 || k == 2 || (k == 1 || k == 3) && s.Align != 0 {
		s.Mechanism = uint8(k + 1)
	}
	s.LogDir = g.IntN(8) == 0
	s.Level = [...]Level{Durable, Durable, Written, Buffered}[g.IntN(4)]
}

func (g *generator) step() step {
	switch k := g.IntN(100); {
	case g.backups && k < 9:
		return step{kind: stepBackup}
	case k < 11 || g.dense && k < 17:
		return step{kind: stepCompact}
	case g.spaces > 0 && k < 24:
		return step{kind: stepCommit, commits: [][]commit{{g.space()}}}
	}
	k := g.IntN(100)
	switch {
	case g.w.Concurrent && k < 35:
		return g.burst()
	case g.w.Concurrent && k < 50:
		s := step{kind: stepPipeline, commits: [][]commit{nil}}
		for n := 2 + g.IntN(4); n > 0; n-- {
			c := g.commit(true)
			c.how = bySubmit
			s.commits[0] = append(s.commits[0], c)
		}
		return s
	case k < 75:
		return step{kind: stepCommit, commits: [][]commit{{g.commit(true)}}}
	case k < 82:
		return step{kind: stepSync}
	case k < 91:
		return step{kind: stepCheckpoint}
	case k < 96 || g.w.Settings.MarkDelay < 0 && g.w.Settings.Policy != EveryInterval:
		return step{kind: stepReopen}
	}
	return step{kind: stepIdle}
}

// burst returns concurrent writers; one of them may drop a keyspace of the
// others.
func (g *generator) burst() step {
	s := step{kind: stepBurst, beside: stepBurst}
	switch k := g.IntN(8); {
	case k == 0 && g.backups:
		s.beside = stepBackup
	case k == 1 || k == 2 && g.dense:
		s.beside = stepCompact
	case k == 3 || k == 4 && g.dense:
		s.beside = stepCheckpoint
	}
	for w := 2 + g.IntN(3); w > 0; w-- {
		var cs []commit
		for n := 1 + g.IntN(3); n > 0; n-- {
			c := g.commit(false)
			own := Op{Key: fmt.Appendf(nil, "w%d", w), Value: g.value()}
			c.ops = append([]Op{own}, c.ops...)
			cs = append(cs, c)
		}
		s.commits = append(s.commits, cs)
	}
	if g.spaces > 0 && g.IntN(3) == 0 {
		drop := commit{level: g.w.Settings.Level, ops: []Op{{Kind: Drop, Space: 1 + g.IntN(g.spaces)}}}
		s.commits[0] = append(s.commits[0], drop)
	}
	return s
}

// space makes or drops a keyspace.
func (g *generator) space() commit {
	op := Op{Kind: Create, Space: 1 + g.IntN(g.spaces)}
	if g.IntN(3) != 0 {
		op.Kind = Drop
	}
	return commit{level: g.w.Settings.Level, ops: []Op{op}}
}

// commit returns a batch. Without open it deletes nothing but keys of op.
func (g *generator) commit(open bool) commit {
	c := commit{level: [...]Level{Durable, Durable, Written, Written, Buffered}[g.IntN(5)]}
	switch k := g.IntN(3); {
	case k == 0:
		c.how = bySubmit
	case k == 1 && g.updates:
		c.how = byUpdate
	}
	n := 1
	if g.IntN(3) == 0 {
		n = 2 + g.IntN(4)
	}
	for range n {
		c.ops = append(c.ops, g.op(open))
	}
	return c
}

func (g *generator) op(open bool) Op {
	op := Op{Key: g.key(g.IntN(g.keys))}
	if g.spaces > 0 && g.IntN(2) == 0 {
		op.Space = 1 + g.IntN(g.spaces)
	}
	switch k := g.IntN(10); {
	case k < 2:
		op.Kind = Delete
	case k < 4 && g.ranges:
		op.Kind = DeleteRange
		lo := g.IntN(g.keys)
		op.Key, op.Value = g.key(lo), g.key(lo+1+g.IntN(g.keys-lo))
		if open && g.IntN(4) == 0 {
			op.Key = nil
		}
		if open && g.IntN(4) == 0 {
			op.Value = nil
		}
	default:
		op.Value = g.value()
	}
	return op
}

func (g *generator) key(n int) []byte { return fmt.Appendf(nil, "k%d", n) }

// value returns as many bytes as the workload's values have; fill says which.
func (g *generator) value() []byte {
	n := g.IntN(60)
	switch g.profile {
	case 1:
		n = g.IntN(700)
	case 2:
		n = g.IntN(3000)
	case 3:
		if g.IntN(3) == 0 {
			n = 1000 + g.IntN(5000)
		}
	}
	return make([]byte, n)
}
