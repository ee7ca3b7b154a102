//go:build lmdb && cgo

package engines

import (
	"context"
	"errors"

	"github.com/PowerDNS/lmdb-go/lmdb"
)

func init() {
	register(&Engine{
		Name: "lmdb", Module: "github.com/PowerDNS/lmdb-go",
		Notes: "LMDB in C through cgo; no memtable and no cache of its own: it works in the page cache; RawRead lends values; a reader renews one transaction for each call",
		Promise: [3]string{
			Durable: "default: survives a power cut",
			Written: "NoSync: survives a crash of the process; a power cut may destroy the file",
		},
		Settled: "a sync; there is nothing else to do",
		MaxKey:  511,
		NoLog:   "what was written is in its tree at once",
		Syncs:   "not known: LMDB syncs by itself, without a seam",
		open:    openLMDB,
	})
}

type lmdbStore struct {
	env *lmdb.Env
	dbi lmdb.DBI
}

func openLMDB(dir string, cfg Config) (Store, error) {
	env, err := lmdb.NewEnv()
	if err != nil {
		return nil, err
	}
	const (
		mapSize = 64 << 30 // of addresses, not of anything else
		readers = 1024
		noTLS   = lmdb.NoTLS // goroutines are not threads
	)
	flags := uint(noTLS)
	if cfg.Level == Written {
		flags |= lmdb.NoSync
	}
	s := &lmdbStore{env: env}
	err = errors.Join(env.SetMapSize(mapSize), env.SetMaxReaders(readers))
	if err == nil {
		err = env.Open(dir, flags, 0o600)
	}
	if err == nil {
		err = env.Update(func(tx *lmdb.Txn) (err error) {
			s.dbi, err = tx.OpenRoot(0)
			return err
		})
	}
	if err != nil {
		return nil, errors.Join(err, env.Close())
	}
	return s, nil
}

func (s *lmdbStore) Writer(Level) (Writer, error) { return &lmdbWriter{s}, nil }

func (s *lmdbStore) Reader() (Reader, error) { return s.reader(false) }

func (s *lmdbStore) reader(keep bool) (Reader, error) {
	tx, err := s.env.BeginTxn(nil, lmdb.Readonly)
	if err != nil {
		return nil, err
	}
	tx.RawRead = true
	c, err := tx.OpenCursor(s.dbi)
	if err != nil {
		tx.Abort()
		return nil, err
	}
	if !keep {
		tx.Reset()
	}
	return &lmdbReader{s.dbi, tx, c, keep}, nil
}

func (s *lmdbStore) Snapshot() (Reader, error)    { return s.reader(true) }
func (s *lmdbStore) Settle(context.Context) error { return s.env.Sync(true) }
func (s *lmdbStore) Stats() Stats                 { return Stats{Syncs: -1} }
func (s *lmdbStore) Close() error                 { return s.env.Close() }

func (s *lmdbStore) Transform(_ Level, key []byte, fn func(old []byte) []byte) (int, error) {
	return 0, s.env.Update(func(tx *lmdb.Txn) error {
		tx.RawRead = true
		old, err := tx.Get(s.dbi, key)
		if err != nil && !lmdb.IsNotFound(err) {
			return err
		}
		return tx.Put(s.dbi, key, fn(old), 0)
	})
}

type lmdbWriter struct{ s *lmdbStore }

func (w *lmdbWriter) Put(key, value []byte) error {
	return w.s.env.Update(func(tx *lmdb.Txn) error { return tx.Put(w.s.dbi, key, value, 0) })
}

func (w *lmdbWriter) Delete(key []byte) error {
	return w.s.env.Update(func(tx *lmdb.Txn) error { return tx.Del(w.s.dbi, key, nil) })
}

func (w *lmdbWriter) Batch(n int, at func(i int) (key, value []byte)) error {
	return w.s.env.Update(func(tx *lmdb.Txn) error {
		for i := range n {
			k, v := at(i)
			if err := tx.Put(w.s.dbi, k, v, 0); err != nil {
				return err
			}
		}
		return nil
	})
}

func (w *lmdbWriter) Close() error { return nil }

type lmdbReader struct {
	dbi    lmdb.DBI
	tx     *lmdb.Txn
	cursor *lmdb.Cursor
	keep   bool // a snapshot
}

func (r *lmdbReader) begin() error {
	if r.keep {
		return nil
	}
	return r.tx.Renew()
}

func (r *lmdbReader) end() {
	if !r.keep {
		r.tx.Reset()
	}
}

func (r *lmdbReader) Get(key []byte, visit func([]byte)) (bool, error) {
	if err := r.begin(); err != nil {
		return false, err
	}
	defer r.end()
	v, err := r.tx.Get(r.dbi, key)
	if err != nil {
		if lmdb.IsNotFound(err) {
			err = nil
		}
		return false, err
	}
	visit(v)
	return true, nil
}

func (r *lmdbReader) Scan(from []byte, limit int, reverse bool, visit func(key, value []byte)) (int, error) {
	if err := r.begin(); err != nil {
		return 0, err
	}
	defer r.end()
	if err := r.cursor.Renew(r.tx); err != nil {
		return 0, err
	}
	op, step := uint(lmdb.First), uint(lmdb.Next)
	switch {
	case reverse:
		op, step = lmdb.Last, lmdb.Prev
	case from != nil:
		op = lmdb.SetRange
	}
	n := 0
	for n < limit {
		k, v, err := r.cursor.Get(from, nil, op)
		if lmdb.IsNotFound(err) {
			break
		}
		if err != nil {
			return n, err
		}
		visit(k, v)
		n++
		from, op = nil, step
	}
	return n, nil
}

func (r *lmdbReader) Close() error {
	r.cursor.Close()
	r.tx.Abort()
	return nil
}
