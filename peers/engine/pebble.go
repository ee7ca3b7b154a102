package engine

import (
	"errors"
	"fmt"
	"strings"

	"github.com/cockroachdb/pebble/v2"
	pvfs "github.com/cockroachdb/pebble/v2/vfs"

	"github.com/forebaydb/forebay/vfs"
)

func pebbleEngine(settings, sets string, strict bool) *Engine {
	return &Engine{
		Name: "pebble", Settings: settings, Sets: sets, Module: "github.com/cockroachdb/pebble/v2", Seam: true,
		Kind: func(file string) string {
			switch {
			case strings.HasSuffix(file, ".log"):
				return "log"
			case strings.HasSuffix(file, ".sst"):
				return "data"
			case strings.HasPrefix(file, "MANIFEST"), strings.HasPrefix(file, "OPTIONS"), strings.HasPrefix(file, "marker."):
				return "meta"
			}
			return ""
		},
		Twice:  strict,
		Reason: func(string) string { return "" },
		Open: func(fsys vfs.FS, dir string) (Store, error) {
			o := &pebble.Options{Logger: quiet{}, FS: pvfs.Default}
			if fsys != vfs.OS() {
				o.FS = pebbleFS{fsys}
			}
			if strict {
				o.FormatMajorVersion = pebble.FormatNewest
			}
			db, err := pebble.Open(dir, o)
			if err != nil {
				return nil, err
			}
			if strict {
				if err := db.CheckLevels(nil); err != nil {
					return nil, errors.Join(err, db.Close())
				}
			}
			return &pebbleStore{db}, nil
		},
	}
}

func pebbleDefault() *Engine { return pebbleEngine("default", "Sync writes", false) }
func pebbleStrict() *Engine {
	return pebbleEngine("strict", "Sync writes; the newest format, in a store that was opened once before; CheckLevels after the open", true)
}

// quiet is a logger that says nothing. Where Pebble ends the process, as it does by
// itself when it meets damage, it panics with a *Fatal.
type quiet struct{}

func (quiet) Infof(string, ...any)           {}
func (quiet) Errorf(string, ...any)          {}
func (quiet) Fatalf(format string, a ...any) { panic(&Fatal{fmt.Sprintf(format, a...)}) }

type pebbleStore struct{ db *pebble.DB }

func (s *pebbleStore) Apply(pairs ...[2]string) error {
	b := s.db.NewBatch()
	for _, p := range pairs {
		if err := b.Set([]byte(p[0]), []byte(p[1]), nil); err != nil {
			return err
		}
	}
	return b.Commit(pebble.Sync)
}

func (s *pebbleStore) Settle() error { return s.db.Flush() }

func (s *pebbleStore) Scan(reverse bool, each func(key, value []byte)) error {
	it, err := s.db.NewIter(nil)
	if err != nil {
		return err
	}
	start, step := it.First, it.Next
	if reverse {
		start, step = it.Last, it.Prev
	}
	for ok := start(); ok; ok = step() {
		v, err := it.ValueAndErr()
		if err != nil {
			return errors.Join(err, it.Close())
		}
		each(it.Key(), v)
	}
	return errors.Join(it.Error(), it.Close())
}

func (s *pebbleStore) Get(key string) ([]byte, bool, error) {
	v, c, err := s.db.Get([]byte(key))
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	return append([]byte{}, v...), true, c.Close()
}

func (s *pebbleStore) Close() error { return s.db.Close() }
