package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"github.com/spf13/pflag"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/manifest"
)

// OpenExisting opens the store in dir and makes none.
func OpenExisting(dir string) (*forebay.DB, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("there is no directory %s; `forebay put` and `forebay import` make a store", dir)
	}
	if err != nil {
		return nil, err
	}
	isManifest := func(e fs.DirEntry) bool { _, ok := manifest.ParseFileName(e.Name()); return ok }
	if !slices.ContainsFunc(entries, isManifest) {
		// A store that lost its manifest is damaged; that is for the engine to say.
		if _, err := forebay.Explain(dir, nil); err != nil {
			return nil, err
		}
		return nil, fmt.Errorf("no store in %s (it has no MANIFEST file); `forebay put` and `forebay import` make one", dir)
	}
	return forebay.Open(dir, nil)
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
	l, ok := levels[s]
	if !ok {
		return errors.New("it is durable, written or buffered")
	}
	*v.level = l
	return nil
}

func (levelValue) Type() string { return "level" }

// LevelFlag adds --level.
func LevelFlag(flags *pflag.FlagSet, level *forebay.Level) {
	flags.Var(levelValue{level}, "level", "what a write survives once acknowledged: durable (a power cut), written (a crash of the process) or buffered (nothing)")
}

// LevelName names a level.
func LevelName(l forebay.Level) string { return levelValue{&l}.String() }
