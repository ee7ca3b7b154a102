package engine

import (
	"errors"
	"strings"

	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/opt"
	"github.com/syndtr/goleveldb/leveldb/util"

	"github.com/forebaydb/forebay/vfs"
)

func goleveldbEngine(settings, sets string, opts opt.Options) *Engine {
	return &Engine{
		Name: "goleveldb", Settings: settings, Sets: sets, Module: "github.com/syndtr/goleveldb", Seam: true,
		Kind: func(file string) string {
			switch {
			case strings.HasSuffix(file, ".log"):
				return "log"
			case strings.HasSuffix(file, ".ldb"):
				return "data"
			case strings.HasPrefix(file, "MANIFEST"), file == "CURRENT":
				return "meta"
			}
			return ""
		},
		Reason: func(column string) string {
			switch {
			case opts.Strict != 0:
				return ""
			case strings.HasPrefix(column, "log"):
				return "without StrictJournal the rest of a damaged block of the log is left out, and what follows is replayed"
			case column == "metabit":
				return "without StrictManifest a damaged part of the manifest is left out"
			}
			return ""
		},
		Open: func(fsys vfs.FS, dir string) (Store, error) {
			if err := fsys.MkdirAll(dir); err != nil {
				return nil, err
			}
			o := opts
			db, err := leveldb.Open(&ldbStorage{fsys, dir}, &o)
			if err != nil {
				return nil, err
			}
			return &ldbStore{db}, nil
		},
	}
}

func goleveldbDefault() *Engine { return goleveldbEngine("default", "Sync writes", opt.Options{}) }
func goleveldbStrict() *Engine {
	return goleveldbEngine("strict", "Sync writes; StrictAll", opt.Options{Strict: opt.StrictAll})
}

type ldbStore struct{ db *leveldb.DB }

func (s *ldbStore) Apply(pairs ...[2]string) error {
	b := new(leveldb.Batch)
	for _, p := range pairs {
		b.Put([]byte(p[0]), []byte(p[1]))
	}
	return s.db.Write(b, &opt.WriteOptions{Sync: true})
}

func (s *ldbStore) Settle() error { return s.db.CompactRange(util.Range{}) }

func (s *ldbStore) Scan(reverse bool, each func(key, value []byte)) error {
	it := s.db.NewIterator(nil, nil)
	defer it.Release()
	start, step := it.First, it.Next
	if reverse {
		start, step = it.Last, it.Prev
	}
	for ok := start(); ok; ok = step() {
		each(it.Key(), it.Value())
	}
	return it.Error()
}

func (s *ldbStore) Get(key string) ([]byte, bool, error) {
	v, err := s.db.Get([]byte(key), nil)
	if errors.Is(err, leveldb.ErrNotFound) {
		return nil, false, nil
	}
	return v, err == nil, err
}

func (s *ldbStore) Close() error { return s.db.Close() }
