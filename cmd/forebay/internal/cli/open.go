package cli

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"

	"github.com/spf13/pflag"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/manifest"
	"github.com/forebaydb/forebay/vfs"
)

// OpenExisting opens the store in dir for writing and makes none. opts may be nil.
func OpenExisting(dir string, opts *forebay.Options) (*forebay.DB, error) {
	if err := mustExist(dir); err != nil {
		return nil, err
	}
	return forebay.Open(dir, opts)
}

// OpenReading opens the store in dir for reading alone: nothing is written, not
// even the lock's file, so that it works where nobody may write.
func OpenReading(dir string) (*forebay.DB, error) {
	if err := mustExist(dir); err != nil {
		return nil, err
	}
	return forebay.Open(dir, &forebay.Options{ReadOnly: true, FS: readFS{vfs.OS()}})
}

// readFS lets a store be read that has no file to lock: a copy, or a backup, that
// nobody has opened yet. Who opens it for writing makes the file first.
type readFS struct{ vfs.FS }

// LockShared implements vfs.FS.
func (r readFS) LockShared(name string) (io.Closer, error) {
	l, err := r.FS.LockShared(name)
	if errors.Is(err, fs.ErrNotExist) {
		return noLock{}, nil
	}
	return l, err
}

type noLock struct{}

func (noLock) Close() error { return nil }

// mustExist returns an error that says what to do where there is no store.
func mustExist(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("there is no directory %s; `forebay put` and `forebay import` make a store", dir)
	}
	if err != nil {
		return err
	}
	isManifest := func(e fs.DirEntry) bool { _, ok := manifest.ParseFileName(e.Name()); return ok }
	if slices.ContainsFunc(entries, isManifest) {
		return nil
	}
	// A store that lost its manifest is damaged; that is for the engine to say.
	if _, err := forebay.Explain(dir, nil); err != nil {
		return err
	}
	return fmt.Errorf("no store in %s (it has no MANIFEST file); `forebay put` and `forebay import` make one", dir)
}

// Levels are the durability levels by name.
var levels = map[string]forebay.Level{"durable": forebay.Durable, "written": forebay.Written, "buffered": forebay.Buffered}

type levelValue struct{ level *forebay.Level }

func (v levelValue) String() string {
	for name, l := range levels {
		if v.level != nil && l == *v.level {
			return name
		}
	}
	return "durable"
}

func (v levelValue) Set(s string) error {
	l, err := ParseLevel(s)
	if err == nil {
		*v.level = l
	}
	return err
}

// ParseLevel returns the level with a name.
func ParseLevel(s string) (forebay.Level, error) {
	l, ok := levels[s]
	if !ok {
		return 0, errors.New("it is durable, written or buffered")
	}
	return l, nil
}

func (levelValue) Type() string { return "level" }

// LevelFlag adds --level.
func LevelFlag(flags *pflag.FlagSet, level *forebay.Level) {
	flags.Var(levelValue{level}, "level", "what a write survives once acknowledged: durable (a power cut), written (a crash of the process) or buffered (nothing)")
}

// LevelName names a level.
func LevelName(l forebay.Level) string { return levelValue{&l}.String() }
