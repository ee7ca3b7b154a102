package engine

import (
	"errors"
	"strings"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"

	"github.com/forebaydb/forebay/vfs"
)

func badgerEngine(settings, sets string, strict bool) *Engine {
	return &Engine{
		Name: "badger", Settings: settings, Sets: sets, Module: "github.com/dgraph-io/badger/v4",
		Kind: func(file string) string {
			switch {
			case strings.HasSuffix(file, ".mem"):
				return "log"
			case strings.HasSuffix(file, ".sst"):
				return "data"
			case file == "MANIFEST", file == "KEYREGISTRY":
				return "meta"
			}
			return "" // the value log and DISCARD: no value here is so long that it goes there
		},
		Reason: func(column string) string {
			if !strict && strings.HasPrefix(column, "data") {
				return "checksums of blocks are off unless asked for"
			}
			return ""
		},
		Open: func(fsys vfs.FS, dir string) (Store, error) {
			if err := errors.Join(needOS(fsys), fsys.MkdirAll(dir)); err != nil {
				return nil, err
			}
			o := badger.DefaultOptions(dir).WithLogger(nil).
				// Sizes alone: the files of the defaults are 128 MiB and 2 GiB of holes.
				WithMemTableSize(1 << 20).WithValueThreshold(64 << 10).WithValueLogFileSize(1 << 20).
				WithBlockCacheSize(1 << 20).WithNumCompactors(2)
			if strict {
				o = o.WithSyncWrites(true).WithVerifyValueChecksum(true).WithChecksumVerificationMode(options.OnTableAndBlockRead)
			}
			db, err := badger.Open(o)
			if err != nil {
				return nil, err
			}
			if strict {
				if err := db.VerifyChecksum(); err != nil {
					return nil, errors.Join(err, db.Close())
				}
			}
			return &badgerStore{db}, nil
		},
	}
}

func badgerDefault() *Engine {
	return badgerEngine("default", "small files; DB.Sync after each batch, since SyncWrites is off", false)
}

func badgerStrict() *Engine {
	return badgerEngine("strict", "small files; SyncWrites, VerifyValueChecksum, ChecksumVerificationMode OnTableAndBlockRead; VerifyChecksum after the open", true)
}

type badgerStore struct{ db *badger.DB }

func (s *badgerStore) Apply(pairs ...[2]string) error {
	err := s.db.Update(func(tx *badger.Txn) error {
		for _, p := range pairs {
			if err := tx.Set([]byte(p[0]), []byte(p[1])); err != nil {
				return err
			}
		}
		return nil
	})
	return errors.Join(err, s.db.Sync())
}

// Settle waits for Close, which flushes the memtable.
func (s *badgerStore) Settle() error { return nil }

func (s *badgerStore) Scan(reverse bool, each func(key, value []byte)) error {
	return s.db.View(func(tx *badger.Txn) error {
		o := badger.DefaultIteratorOptions
		o.Reverse = reverse
		it := tx.NewIterator(o)
		defer it.Close()
		for it.Rewind(); it.Valid(); it.Next() {
			err := it.Item().Value(func(v []byte) error {
				each(it.Item().Key(), v)
				return nil
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
}

func (s *badgerStore) Get(key string) (value []byte, ok bool, err error) {
	err = s.db.View(func(tx *badger.Txn) error {
		item, err := tx.Get([]byte(key))
		if errors.Is(err, badger.ErrKeyNotFound) {
			return nil
		}
		if err == nil {
			ok = true
			value, err = item.ValueCopy(nil)
		}
		return err
	})
	return value, ok, err
}

func (s *badgerStore) Close() error { return s.db.Close() }
