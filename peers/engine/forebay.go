package engine

import (
	"context"
	"errors"
	"strings"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/vfs"
)

func forebayEngine(settings, sets string, opts forebay.Options, verify bool) *Engine {
	return &Engine{
		Name: "forebay", Settings: settings, Sets: sets, Module: "github.com/forebaydb/forebay", Seam: true,
		Kind: func(file string) string {
			switch {
			case strings.HasSuffix(file, ".log"):
				return "log"
			case strings.HasSuffix(file, ".seg"):
				return "data"
			case strings.HasPrefix(file, "MANIFEST"):
				return "meta"
			}
			return ""
		},
		Reason: func(string) string { return "" },
		Open: func(fsys vfs.FS, dir string) (Store, error) {
			o := opts
			o.FS = fsys
			db, err := forebay.Open(dir, &o)
			if err != nil {
				return nil, err
			}
			if verify {
				if _, err := db.Verify(context.Background()); err != nil {
					return nil, errors.Join(err, db.Close())
				}
			}
			return &forebayStore{db}, nil
		},
	}
}

func forebayDefault() *Engine {
	return forebayEngine("default", "nothing", forebay.Options{}, false)
}

func forebayStrict() *Engine {
	return forebayEngine("strict", "LogAlign 4096; Verify after the open", forebay.Options{LogAlign: 4096}, true)
}

type forebayStore struct{ db *forebay.DB }

func (s *forebayStore) Apply(pairs ...[2]string) error {
	b := s.db.NewBatch()
	for _, p := range pairs {
		if err := b.Put([]byte(p[0]), []byte(p[1])); err != nil {
			return err
		}
	}
	return s.db.Apply(b, forebay.Durable)
}

func (s *forebayStore) Settle() error { return s.db.Compact(context.Background()) }

func (s *forebayStore) Scan(reverse bool, each func(key, value []byte)) error {
	scan := s.db.Range
	if reverse {
		scan = s.db.RangeReverse
	}
	for e, err := range scan(nil, nil) {
		if err != nil {
			return err
		}
		each(e.Key, e.Value)
	}
	return nil
}

func (s *forebayStore) Get(key string) ([]byte, bool, error) {
	v, err := s.db.Get([]byte(key))
	if errors.Is(err, forebay.ErrNotFound) {
		return nil, false, nil
	}
	return v, err == nil, err
}

func (s *forebayStore) Close() error { return s.db.Close() }
