// Package engines has the stores that are compared, behind one small interface,
// each with the same memory and with what its own documentation says makes it
// fast. An adapter copies nothing that its engine does not make it copy: a value
// is lent where the engine lends it, and a scan runs in the engine's own loop.
package engines

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sort"
	"strings"
)

// Level is what an acknowledged write survives; see Forebay's levels.
type Level uint8

// Levels, strongest first.
const (
	Durable  Level = iota // a power cut
	Written               // a crash of the process
	Buffered              // nothing
)

// Levels has all of them.
var Levels = []Level{Durable, Written, Buffered}

func (l Level) String() string {
	if int(l) < len(levelNames) {
		return levelNames[l]
	}
	return fmt.Sprintf("Level(%d)", l)
}

var levelNames = [...]string{"durable", "written", "buffered"}

// The budget that every engine gets, in bytes.
const (
	DefaultMemtable = 64 << 20
	DefaultCache    = 256 << 20
)

// Config says how a store is opened.
type Config struct {
	// Level at which its Writers write; the engine must have it. Some engines
	// fix it for the whole store.
	Level Level
	// Memtable and Cache in bytes; 0: the defaults.
	Memtable, Cache int64
	// Goroutines is how many will read or write at once; some engines gather their
	// commits and must know when all are there, or have a cache for each. 0 means 1.
	Goroutines int
	// Compressed: the log is compressed as well. Forebay alone is asked for it.
	Compressed bool
	// Sync is how durable commits reach the disk; "": as the engine does by default.
	// Forebay alone is asked for another.
	Sync string
}

// Values of Config.Sync.
const (
	Direct      = "O_DIRECT, fdatasync"
	DirectDSync = "O_DIRECT|O_DSYNC"
)

func (c Config) withDefaults() Config {
	if c.Memtable == 0 {
		c.Memtable = DefaultMemtable
	}
	if c.Cache == 0 {
		c.Cache = DefaultCache
	}
	c.Goroutines = max(c.Goroutines, 1)
	return c
}

// Engine is one kind of store.
type Engine struct {
	Name   string
	Module string // the Go module, for its version
	Notes  string // what is set beside the common budget, and why
	// Promise says, for each level, by which setting it is reached and what an
	// acknowledgement then promises; "" means that the engine has no such level
	// and is left out of its cells.
	Promise [3]string
	// Settled says what Settle can do, and what a settled load therefore is.
	Settled string
	// Mixed: Writers of several levels can be had of one open store.
	Mixed bool
	// NoLog says why an open has no long log to replay; "": it can have one.
	NoLog string
	// MaxKey is the longest key in bytes; 0: longer ones than any cell has.
	MaxKey int
	// Syncs says what Stats.Syncs counts, or why it counts nothing.
	Syncs string

	open func(dir string, cfg Config) (Store, error)
}

// Has says whether the engine has a level.
func (e *Engine) Has(l Level) bool { return e.Promise[l] != "" }

// Weakest returns the weakest level that the engine has.
func (e *Engine) Weakest() Level {
	for l := Buffered; l > Durable; l-- {
		if e.Has(l) {
			return l
		}
	}
	return Durable
}

// Open opens the store in dir, and makes it where there is none. dir exists.
func (e *Engine) Open(dir string, cfg Config) (Store, error) {
	if !e.Has(cfg.Level) {
		return nil, fmt.Errorf("%s has no level %s", e.Name, cfg.Level)
	}
	if cfg.Compressed && e.Name != "forebay" {
		return nil, fmt.Errorf("%s is not asked to compress its log", e.Name)
	}
	if cfg.Sync != "" && (e.Name != "forebay" || cfg.Sync != Direct && cfg.Sync != DirectDSync) {
		return nil, fmt.Errorf("%s has no way to sync %q", e.Name, cfg.Sync)
	}
	s, err := e.open(dir, cfg.withDefaults())
	if err != nil {
		return nil, fmt.Errorf("%s: open: %w", e.Name, err)
	}
	return s, nil
}

// Version of the engine's module, as this command was built with it.
func (e *Engine) Version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	for _, m := range append(info.Deps, &info.Main) {
		if m.Path == e.Module {
			if m.Replace != nil {
				return strings.TrimSpace(m.Version + " (this tree)")
			}
			return m.Version
		}
	}
	return ""
}

// Store is an open store. Writer and Reader may be called by many goroutines at
// once; what they return is for one goroutine, and closed before the store is.
type Store interface {
	Writer(l Level) (Writer, error)
	Reader() (Reader, error)
	// Settle brings what was written where the engine has it in the long run; see
	// Engine.Settled. Nobody writes meanwhile.
	Settle(ctx context.Context) error
	Stats() Stats
	Close() error
}

// Stats are figures since the open.
type Stats struct {
	Syncs int64 // syncs asked of the operating system; -1: not known
}

// Writer writes at one level. A call returns when the level is reached. Nothing
// that it is given is kept.
type Writer interface {
	// Put sets one key, in a commit of its own.
	Put(key, value []byte) error
	// Delete removes one key, in a commit of its own.
	Delete(key []byte) error
	// Batch sets n keys in one commit. at returns the i-th, in bytes that may be
	// used again after the next call of at.
	Batch(n int, at func(i int) (key, value []byte)) error
	Close() error
}

// Reader reads the latest state at each call.
type Reader interface {
	// Get calls visit with the value, lent for the call, and says whether the key
	// is there.
	Get(key []byte, visit func(value []byte)) (bool, error)
	// Scan visits up to limit records in order, from the first at or behind from
	// (nil: the first of all) or, in reverse, from the last of all. Keys and values
	// are lent for the call. It returns how many it visited. Each engine has a loop
	// of its own: in one for all, each step would be a call through an interface,
	// and count against the engine.
	Scan(from []byte, limit int, reverse bool, visit func(key, value []byte)) (int, error)
	Close() error
}

// Snapshotter is a Store that has snapshots. The Reader stays in the state in
// which it was made, until it is closed.
type Snapshotter interface {
	Snapshot() (Reader, error)
}

// Transactor is a Store that has transactions. Transform reads the value of key
// (nil: there is none) and sets what fn makes of it; no write comes between.
// fn may be called again. conflicts counts how often it was.
type Transactor interface {
	Transform(l Level, key []byte, fn func(old []byte) []byte) (conflicts int, err error)
}

var registry []*Engine

func register(e *Engine) { registry = append(registry, e) }

// order is that of tables: Forebay first, then by kind.
var order = []string{"forebay", "pebble", "rocksdb", "goleveldb", "badger", "bbolt", "lmdb", "sqlite"}

// All returns the engines of this build, in the order of tables.
func All() []*Engine {
	out := append([]*Engine{}, registry...)
	rank := func(e *Engine) int {
		for i, n := range order {
			if n == e.Name {
				return i
			}
		}
		return len(order)
	}
	sort.SliceStable(out, func(i, j int) bool { return rank(out[i]) < rank(out[j]) })
	return out
}

// ErrNotBuilt: an engine that this build does not have.
var ErrNotBuilt = errors.New("not in this build; cgo engines need a build tag: go build -tags lmdb,rocksdb")

// Find returns the engine with a name.
func Find(name string) (*Engine, error) {
	var names []string
	for _, e := range All() {
		if e.Name == name {
			return e, nil
		}
		names = append(names, e.Name)
	}
	for _, n := range order {
		if n == name {
			return nil, fmt.Errorf("engine %s: %w", name, ErrNotBuilt)
		}
	}
	return nil, fmt.Errorf("there is no engine %q; there are %s", name, strings.Join(names, ", "))
}
