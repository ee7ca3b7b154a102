package engines

import (
	"context"
	"errors"
	"path/filepath"
	"time"

	bolt "go.etcd.io/bbolt"
)

var bucket = []byte("b")

func init() {
	register(&Engine{
		Name: "bbolt", Module: "go.etcd.io/bbolt",
		Notes: "no memtable and no cache of its own: it works in the page cache; FreelistType map (the default array gets slow); InitialMmapSize 16 GiB of addresses, so that a commit that makes the file grow does not wait for readers; with more than one writer, DB.Batch with MaxBatchSize = the number of writers and MaxBatchDelay 1 ms (default 10 ms, 1000), so that writers share a sync",
		Promise: [3]string{
			Durable: "default: survives a power cut (two fdatasyncs a commit)",
			Written: "NoSync: survives a crash of the process; a power cut may destroy the file",
		},
		Settled: "a sync; there is nothing else to do",
		NoLog:   "what was written is in its tree at once",
		Syncs:   "not known: bbolt syncs by itself, without a seam",
		open:    openBolt,
	})
}

type boltStore struct {
	db      *bolt.DB
	writers int
}

func openBolt(dir string, cfg Config) (Store, error) {
	db, err := bolt.Open(filepath.Join(dir, "bolt.db"), 0o600, &bolt.Options{
		Timeout: time.Second, FreelistType: bolt.FreelistMapType, NoSync: cfg.Level == Written,
		InitialMmapSize: 16 << 30,
	})
	if err != nil {
		return nil, err
	}
	db.MaxBatchSize, db.MaxBatchDelay = cfg.Goroutines, time.Millisecond
	err = db.View(func(tx *bolt.Tx) error {
		if tx.Bucket(bucket) == nil {
			return errors.New("empty")
		}
		return nil
	})
	if err != nil {
		err = db.Update(func(tx *bolt.Tx) error {
			_, err := tx.CreateBucketIfNotExists(bucket)
			return err
		})
	}
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return &boltStore{db, cfg.Goroutines}, nil
}

func (s *boltStore) Writer(Level) (Writer, error) {
	w := &boltWriter{commit: s.db.Update}
	if s.writers > 1 {
		w.commit = s.db.Batch
	}
	w.put = func(tx *bolt.Tx) error { return tx.Bucket(bucket).Put(w.key, w.value) }
	w.del = func(tx *bolt.Tx) error { return tx.Bucket(bucket).Delete(w.key) }
	w.batch = func(tx *bolt.Tx) error {
		b := tx.Bucket(bucket)
		for i := range w.n {
			k, v := w.at(i)
			// A value is kept until the commit, a key is copied.
			if err := b.Put(k, append([]byte(nil), v...)); err != nil {
				return err
			}
		}
		return nil
	}
	return w, nil
}

func (s *boltStore) Reader() (Reader, error) {
	return newBoltReader(s.db.View, nil), nil
}

// newBoltReader returns a reader of what view shows. It makes no memory for a Get.
func newBoltReader(view func(func(*bolt.Tx) error) error, closer func() error) *boltReader {
	r := &boltReader{view: view, close: closer}
	r.get = func(tx *bolt.Tx) error {
		v := tx.Bucket(bucket).Get(r.key)
		if r.found = v != nil; r.found {
			r.visit(v)
		}
		return nil
	}
	return r
}

func (s *boltStore) Settle(context.Context) error { return s.db.Sync() }
func (s *boltStore) Stats() Stats                 { return Stats{Syncs: -1} }
func (s *boltStore) Close() error                 { return s.db.Close() }

func (s *boltStore) Snapshot() (Reader, error) {
	tx, err := s.db.Begin(false)
	if err != nil {
		return nil, err
	}
	return newBoltReader(func(fn func(*bolt.Tx) error) error { return fn(tx) }, tx.Rollback), nil
}

func (s *boltStore) Transform(_ Level, key []byte, fn func(old []byte) []byte) (int, error) {
	// Each fn sees what those before it in the same batch wrote.
	commit := s.db.Update
	if s.writers > 1 {
		commit = s.db.Batch
	}
	return 0, commit(func(tx *bolt.Tx) error {
		b := tx.Bucket(bucket)
		return b.Put(key, fn(b.Get(key)))
	})
}

// boltWriter keeps what a commit needs in fields, so that its functions are made once.
type boltWriter struct {
	commit          func(func(*bolt.Tx) error) error
	put, del, batch func(*bolt.Tx) error
	key, value      []byte
	n               int
	at              func(int) ([]byte, []byte)
}

func (w *boltWriter) Put(key, value []byte) error {
	w.key, w.value = key, value
	return w.commit(w.put)
}

func (w *boltWriter) Delete(key []byte) error {
	w.key = key
	return w.commit(w.del)
}

func (w *boltWriter) Batch(n int, at func(i int) (key, value []byte)) error {
	w.n, w.at = n, at
	return w.commit(w.batch)
}

func (w *boltWriter) Close() error { return nil }

type boltReader struct {
	view  func(func(*bolt.Tx) error) error
	get   func(*bolt.Tx) error
	key   []byte
	visit func([]byte)
	found bool
	close func() error
}

func (r *boltReader) Get(key []byte, visit func([]byte)) (bool, error) {
	r.key, r.visit = key, visit
	err := r.view(r.get)
	return r.found && err == nil, err
}

func (r *boltReader) Scan(from []byte, limit int, reverse bool, visit func(key, value []byte)) (int, error) {
	n := 0
	err := r.view(func(tx *bolt.Tx) error {
		c := tx.Bucket(bucket).Cursor()
		var k, v []byte
		switch {
		case reverse:
			k, v = c.Last()
		case from == nil:
			k, v = c.First()
		default:
			k, v = c.Seek(from)
		}
		for k != nil && n < limit {
			visit(k, v)
			if n++; n == limit {
				break
			}
			if reverse {
				k, v = c.Prev()
			} else {
				k, v = c.Next()
			}
		}
		return nil
	})
	return n, err
}

func (r *boltReader) Close() error {
	if r.close != nil {
		return r.close()
	}
	return nil
}
