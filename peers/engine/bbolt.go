package engine

import (
	"errors"
	"path/filepath"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/forebaydb/forebay/vfs"
)

var boltBucket = []byte("b")

func bboltEngine(settings, sets string, strict bool) *Engine {
	return &Engine{
		Name: "bbolt", Settings: settings, Sets: sets, Module: "go.etcd.io/bbolt",
		Kind: func(string) string { return "data" },
		// Pages are synced before one of the two meta pages, the first two, is written;
		// of that the first 80 bytes are used.
		Torn: func(from, to int64) (int64, int64) { return from, min(to, from/4096*4096+80) },
		Reason: func(column string) string {
			switch column {
			case "removed":
				return oneFile
			case "older":
				return ""
			}
			return "pages have no checksum, only the two meta pages have"
		},
		Open: func(fsys vfs.FS, dir string) (Store, error) {
			if err := errors.Join(needOS(fsys), fsys.MkdirAll(dir)); err != nil {
				return nil, err
			}
			db, err := bolt.Open(filepath.Join(dir, "bolt.db"), 0o600, &bolt.Options{Timeout: time.Second})
			if err != nil {
				return nil, err
			}
			db.StrictMode = strict
			s := &boltStore{db}
			if err = s.start(strict); err != nil {
				return nil, errors.Join(err, db.Close())
			}
			return s, nil
		},
	}
}

func bboltDefault() *Engine { return bboltEngine("default", "nothing", false) }
func bboltStrict() *Engine {
	return bboltEngine("strict", "StrictMode; Tx.Check after the open", true)
}

type boltStore struct{ db *bolt.DB }

// start makes the bucket where there is none yet.
func (s *boltStore) start(check bool) error {
	found := false
	err := s.db.View(func(tx *bolt.Tx) error {
		if found = tx.Bucket(boltBucket) != nil; !check {
			return nil
		}
		var errs []error
		for err := range tx.Check() {
			errs = append(errs, err)
		}
		return errors.Join(errs...)
	})
	if err != nil || found {
		return err
	}
	return s.db.Update(func(tx *bolt.Tx) error {
		_, err := tx.CreateBucket(boltBucket)
		return err
	})
}

func (s *boltStore) Apply(pairs ...[2]string) error {
	return s.db.Update(func(tx *bolt.Tx) error {
		for _, p := range pairs {
			if err := tx.Bucket(boltBucket).Put([]byte(p[0]), []byte(p[1])); err != nil {
				return err
			}
		}
		return nil
	})
}

func (s *boltStore) Settle() error { return nil } // there is no log

func (s *boltStore) Scan(reverse bool, each func(key, value []byte)) error {
	return s.db.View(func(tx *bolt.Tx) error {
		c := tx.Bucket(boltBucket).Cursor()
		k, v := c.First()
		if reverse {
			k, v = c.Last()
		}
		for k != nil {
			each(k, v)
			if reverse {
				k, v = c.Prev()
			} else {
				k, v = c.Next()
			}
		}
		return nil
	})
}

func (s *boltStore) Get(key string) (value []byte, ok bool, err error) {
	err = s.db.View(func(tx *bolt.Tx) error {
		v := tx.Bucket(boltBucket).Get([]byte(key))
		value, ok = append([]byte{}, v...), v != nil
		return nil
	})
	return value, ok, err
}

func (s *boltStore) Close() error { return s.db.Close() }
