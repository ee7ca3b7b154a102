package engines

import (
	"context"
	"errors"
	"slices"

	"github.com/dgraph-io/badger/v4"
)

func init() {
	register(&Engine{
		Name: "badger", Module: "github.com/dgraph-io/badger/v4",
		Notes: "NumMemtables 3, as Forebay's (default 5); MetricsEnabled off; iterators without prefetch, since values lie beside the keys; its filters are for 1 % of false positives, which is about 10 bits",
		Promise: [3]string{
			Durable: "SyncWrites: survives a power cut",
			Written: "SyncWrites off (the default): survives a crash of the process; the log is a mapped file",
		},
		Settled: "closed, which flushes the memtable, opened, and Flatten",
		Syncs:   "not known: Badger syncs its mapped files by itself, without a seam",
		open:    openBadger,
	})
}

type badgerStore struct {
	db   *badger.DB
	opts badger.Options
}

func openBadger(dir string, cfg Config) (Store, error) {
	o := badger.DefaultOptions(dir).WithLogger(nil).WithMetricsEnabled(false).
		WithSyncWrites(cfg.Level == Durable).
		WithMemTableSize(cfg.Memtable).WithBlockCacheSize(cfg.Cache).WithNumMemtables(3)
	if cfg.Memtable < 8<<20 { // a small store's value log must fit into its memtable's limits
		o = o.WithValueThreshold(cfg.Memtable / 16)
	}
	db, err := badger.Open(o)
	if err != nil {
		return nil, err
	}
	return &badgerStore{db, o}, nil
}

func (s *badgerStore) Writer(Level) (Writer, error) { return &badgerWriter{s}, nil }
func (s *badgerStore) Reader() (Reader, error)      { return &badgerReader{s: s}, nil }
func (s *badgerStore) Stats() Stats                 { return Stats{Syncs: -1} }
func (s *badgerStore) Close() error                 { return s.db.Close() }

func (s *badgerStore) Settle(context.Context) error {
	err := s.db.Close()
	if err != nil {
		return err
	}
	if s.db, err = badger.Open(s.opts); err != nil {
		return err
	}
	return s.db.Flatten(2)
}

func (s *badgerStore) Snapshot() (Reader, error) {
	return &badgerReader{s: s, tx: s.db.NewTransaction(false)}, nil
}

func (s *badgerStore) Transform(_ Level, key []byte, fn func(old []byte) []byte) (int, error) {
	for conflicts := 0; ; conflicts++ {
		err := s.db.Update(func(tx *badger.Txn) error {
			var old []byte
			item, err := tx.Get(key)
			switch {
			case err == nil:
				if old, err = item.ValueCopy(nil); err != nil {
					return err
				}
			case !errors.Is(err, badger.ErrKeyNotFound):
				return err
			}
			return tx.Set(key, fn(old))
		})
		if !errors.Is(err, badger.ErrConflict) {
			return conflicts, err
		}
	}
}

type badgerWriter struct{ s *badgerStore }

func (w *badgerWriter) Put(key, value []byte) error {
	return w.s.db.Update(func(tx *badger.Txn) error { return tx.Set(key, value) })
}

func (w *badgerWriter) Delete(key []byte) error {
	return w.s.db.Update(func(tx *badger.Txn) error { return tx.Delete(key) })
}

func (w *badgerWriter) Batch(n int, at func(i int) (key, value []byte)) error {
	return w.s.db.Update(func(tx *badger.Txn) error {
		for i := range n {
			k, v := at(i)
			// Both are kept until the commit.
			if err := tx.Set(slices.Clone(k), slices.Clone(v)); err != nil {
				return err
			}
		}
		return nil
	})
}

func (w *badgerWriter) Close() error { return nil }

type badgerReader struct {
	s  *badgerStore
	tx *badger.Txn // of a snapshot; else nil, and each call has its own
}

// begin returns a transaction for one call, and what ends it.
func (r *badgerReader) begin() (*badger.Txn, func()) {
	if r.tx != nil {
		return r.tx, func() {}
	}
	tx := r.s.db.NewTransaction(false)
	return tx, tx.Discard
}

func (r *badgerReader) Get(key []byte, visit func([]byte)) (bool, error) {
	tx, end := r.begin()
	defer end()
	item, err := tx.Get(key)
	if err != nil {
		if errors.Is(err, badger.ErrKeyNotFound) {
			err = nil
		}
		return false, err
	}
	return true, item.Value(func(v []byte) error { visit(v); return nil })
}

func (r *badgerReader) Scan(from []byte, limit int, reverse bool, visit func(key, value []byte)) (int, error) {
	tx, end := r.begin()
	defer end()
	o := badger.DefaultIteratorOptions
	o.PrefetchValues, o.Reverse = false, reverse
	it := tx.NewIterator(o)
	defer it.Close()
	if from == nil {
		it.Rewind()
	} else {
		it.Seek(from)
	}
	var key []byte
	lend := func(v []byte) error { visit(key, v); return nil }
	n := 0
	for ; n < limit && it.Valid(); it.Next() {
		item := it.Item()
		key = item.Key()
		if err := item.Value(lend); err != nil {
			return n, err
		}
		if n++; n == limit {
			break
		}
	}
	return n, nil
}

func (r *badgerReader) Close() error {
	if r.tx != nil {
		r.tx.Discard()
	}
	return nil
}
