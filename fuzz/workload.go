package fuzz

import (
	"fmt"
	"strings"
	"time"

	"github.com/forebaydb/forebay/vfs"
)

// Workload is what is done to a store. It has a text that says all of it
// (String, ParseWorkload); one that was drawn is also decided by its seed, the
// model, whether writers are concurrent, and what the engine can do.
type Workload struct {
	// Seed of ids, salts and values.
	Seed       uint64
	Model      vfs.Model
	Concurrent bool
	Settings   Settings
	lives      []life
	drawn      bool // by its seed
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

// fill gives values their bytes: no value is another, unless it is very short.
func (w *Workload) fill() {
	serial := uint64(0)
	for _, l := range w.lives {
		for _, s := range l.steps {
			for _, cs := range s.commits {
				for _, c := range cs {
					for _, op := range c.ops {
						if op.Kind == Put {
							serial++
							fillValue(op.Value, mix(w.Seed, serial), serial%2 == 0)
						}
					}
				}
			}
		}
	}
}

func fillValue(v []byte, x uint64, compressible bool) {
	period := len(v)
	if compressible {
		period = 24
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

var (
	policyNames      = [...]string{"group", "each", "never", "bytes", "interval"}
	compressionNames = [...]string{"default", "none", "s2", "zstd"}
	mechanismNames   = [...]string{"fdatasync", "dsync", "direct", "fsync", "direct-fdatasync"}
)

// String is the text of the workload, on one line: what it is and its settings,
// then each life after a bar, a word a step.
func (w *Workload) String() string {
	s := w.Settings
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s seed=%x align=%d file=%d table=%d mark=%v policy=%s compression=%s mechanism=%s logdir=%v level=%v",
		modelNames[w.Model], w.mode(), w.Seed, s.Align, s.FileSize, s.TableSize, s.MarkDelay,
		policyNames[s.Policy], compressionNames[s.Compression], mechanismNames[s.Mechanism], s.LogDir, s.Level)
	for _, l := range w.lives {
		b.WriteString(" |")
		for _, s := range l.steps {
			b.WriteString(" " + s.String())
		}
		if l.at > 0 || l.kill || l.seed != 0 || l.redo {
			fmt.Fprintf(&b, " ; at=%v kill=%v seed=%x redo=%v", l.at, l.kill, l.seed, l.redo)
		}
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

var howNames = [...]string{"", "*", "&"}

// String describes a commit: its level, how it is made, and each operation.
func (c commit) String() string {
	s := c.level.String() + howNames[c.how] + "{"
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
