package fuzz

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/forebaydb/forebay/vfs"
)

// Workload is what is done to a store, all of it decided by the seed, the model
// and whether writers are concurrent.
type Workload struct {
	Seed       uint64
	Model      vfs.Model
	Concurrent bool
	Settings   Settings
	lives      []life
}

// life is what one open of the store, or several with a Close in between, does
// before a crash.
type life struct {
	steps []step
	// The crash that ends it, for the next life to begin: after which of the
	// life's I/Os (a fraction), whether of the process alone, and the seed of
	// the fates.
	at   float64
	kill bool
	seed uint64
	// redo makes the next life begin with the commits that the crash took, byte
	// for byte.
	redo bool
}

type stepKind uint8

const (
	stepCommit     stepKind = iota
	stepPipeline            // commits submitted together, then awaited
	stepBurst               // concurrent writers
	stepSync                //
	stepCheckpoint          //
	stepReopen              // Close, Open
	stepIdle                // long enough for a mark
	stepCompact             //
	stepBackup              // into a directory of its own
)

type step struct {
	kind    stepKind
	commits [][]commit // of one writer each
	// beside is what is done while a burst goes on, stepBurst for nothing.
	beside stepKind
}

// commit is one batch.
type commit struct {
	ops   []Op
	level Level
	how   how
	// seen is what a transaction read: see Seen.
	seen map[string]string
}

// how says which call makes a commit. One whose only operation is a Create or a
// Drop has a call of its own.
type how uint8

const (
	byApply how = iota
	bySubmit
	byUpdate
)

// markDelay is Settings.MarkDelay where there is one.
const markDelay = time.Millisecond

type generator struct {
	*rand.Rand
	w       *Workload
	profile int // of value sizes
	keys    int
	serial  uint64
	// What the workload has: how many keyspaces beside the first; range deletes;
	// transactions; many checkpoints, so that there are compactions; backups.
	spaces                          int
	ranges, updates, dense, backups bool
}

// NewWorkload makes the workload of a seed.
func NewWorkload(seed uint64, model vfs.Model, concurrent bool) *Workload {
	w := &Workload{Seed: seed, Model: model, Concurrent: concurrent}
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
	return w
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
	if k := g.IntN(8); k == 0 || k == 1 && s.Align != 0 {
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

// value returns bytes that no other value has, unless it is very short.
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
	g.serial++
	v := make([]byte, n)
	x := mix(g.w.Seed, g.serial)
	period := n
	if g.serial%2 == 0 {
		period = 24 // compressible
	}
	for i := range v {
		if i >= period {
			v[i] = v[i-period]
			continue
		}
		if i%8 == 0 {
			x = mix(x, uint64(i))
		}
		v[i] = byte(x >> (i % 8 * 8))
	}
	return v
}

// mix is a hash of two numbers (splitmix64).
func mix(a, b uint64) uint64 {
	x := a*0x9e3779b97f4a7c15 + b + 0x632be59bd9b4e019
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// modelNames are words for models.
var modelNames = [...]string{vfs.SectorAtomic: "sector-atomic", vfs.NothingAssumed: "nothing-assumed", vfs.Ordered: "ordered"}

func (w *Workload) mode() string {
	if w.Concurrent {
		return "concurrent"
	}
	return "sequential"
}

// String describes the workload: settings, then each life, a word a step.
func (w *Workload) String() string {
	s := w.Settings
	var b strings.Builder
	fmt.Fprintf(&b, "seed %#x, %s, %s: align %d, file %d, table %d, mark %v, policy %d, compression %d, mechanism %d, log dir %v, level %v\n",
		w.Seed, modelNames[w.Model], w.mode(), s.Align, s.FileSize, s.TableSize, s.MarkDelay, s.Policy, s.Compression, s.Mechanism, s.LogDir, s.Level)
	for i, l := range w.lives {
		fmt.Fprintf(&b, "life %d:", i)
		for _, s := range l.steps {
			b.WriteString(" " + s.String())
		}
		fmt.Fprintf(&b, "; crash at %.2f, kill %v, redo %v\n", l.at, l.kill, l.redo)
	}
	return b.String()
}

var stepNames = [...]string{"", "pipeline", "burst", "sync", "checkpoint", "reopen", "idle", "compact", "backup"}

// String describes a step.
func (s step) String() string {
	name := stepNames[s.kind]
	if s.kind == stepBurst && s.beside != stepBurst {
		name += "+" + stepNames[s.beside]
	}
	for _, cs := range s.commits {
		if name != "" {
			name += "["
		}
		for _, c := range cs {
			name += c.String()
		}
		if s.kind != stepCommit {
			name += "]"
		}
	}
	return name
}

// String describes a commit: its level, how it is made, and each operation.
func (c commit) String() string {
	s := c.level.String() + [...]string{"", "*", "&"}[c.how] + "{"
	for i, op := range c.ops {
		if i > 0 {
			s += " "
		}
		s += op.String()
	}
	return s + "}"
}

// String describes an operation: key and length of a put, -key, a range, or a
// keyspace and + or - for its coming and going.
func (op Op) String() string {
	key := keyName(op.Space, op.Key)
	switch op.Kind {
	case Put:
		return fmt.Sprintf("%s=%d", key, len(op.Value))
	case DeleteRange:
		return fmt.Sprintf("-[%s,%s)", key, op.Value)
	case Create:
		return "+" + key
	}
	return "-" + key
}
