// Package engine has other embedded stores behind one small interface, and Forebay
// beside them: for the tables of package crash, and whatever else compares them.
// There is a file for each engine.
package engine

import (
	"errors"
	"runtime/debug"

	"github.com/forebaydb/forebay/vfs"
)

// Engine is a store with certain settings.
type Engine struct {
	// Name of the engine, and of its settings: "default" or "strict".
	Name, Settings string
	// Sets says in words what differs from the engine's own defaults.
	Sets string
	// Module is the path of its Go module.
	Module string
	// Seam is true for an engine whose files may lie in any vfs.FS; the others take
	// vfs.OS() alone.
	Seam bool
	// Kind says what a file is for: "log" is what recovery reads in order, "data"
	// what it does not; "meta" the list of them; "" is left alone; Gone does not
	// outlive a power cut.
	Kind func(file string) string
	// Torn narrows what a batch has changed in a file to what a crash can tear: the
	// rest of it was synced before. nil: all of it.
	Torn func(from, to int64) (int64, int64)
	// Twice is true where a store is opened and closed once before it is filled.
	Twice bool
	// Reason says why the engine is silent about the damage of a column of package
	// crash, where it is meant to be; "".
	Reason func(column string) string
	// Open opens the store in dir, or makes one. With Verify settings it also checks
	// what the engine can check.
	Open func(fsys vfs.FS, dir string) (Store, error)
}

// Store is an open store. It is used by one goroutine.
type Store interface {
	// Apply writes one atomic batch of pairs, and returns when it is synced.
	Apply(pairs ...[2]string) error
	// Settle moves all that is in the log to where data lies in the end.
	Settle() error
	// Scan calls each for every pair; keys ascend, or descend.
	Scan(reverse bool, each func(key, value []byte)) error
	// Get returns the value of a key.
	Get(key string) (value []byte, ok bool, err error)
	Close() error
}

// oneFile is why removing a file is silent.
const oneFile = "it is the only file: a new store is made"

// Gone is the Kind of a file that is made anew by each open.
const Gone = "gone"

// All returns every engine with both settings.
func All() []*Engine {
	return []*Engine{
		forebayDefault(), forebayStrict(), pebbleDefault(), pebbleStrict(), goleveldbDefault(), goleveldbStrict(),
		bboltDefault(), bboltStrict(), badgerDefault(), badgerStrict(), sqliteDefault(), sqliteStrict(),
	}
}

// Fatal is the error of an engine that would have ended the process.
type Fatal struct{ Text string }

func (f *Fatal) Error() string { return Ends + f.Text }

// Ends is how the text of a Fatal begins.
const Ends = "the engine ends the process: "

// ID is the name with the settings.
func (e *Engine) ID() string { return e.Name + "-" + e.Settings }

// Version returns the version of the engine's module that this program was built
// with.
func (e *Engine) Version() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range info.Deps {
			if m.Path == e.Module {
				if m.Replace != nil || m.Version == "(devel)" {
					return "this tree"
				}
				return m.Version
			}
		}
		if info.Main.Path == e.Module {
			return "this tree"
		}
	}
	return "unknown"
}

// needOS refuses a file system that an engine cannot use.
func needOS(fsys vfs.FS) error {
	if fsys != vfs.OS() {
		return errors.New("engine: it reads and writes real files only")
	}
	return nil
}
