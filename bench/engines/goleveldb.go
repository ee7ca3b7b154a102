package engines

import (
	"context"
	"errors"
	"sync/atomic"

	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/filter"
	"github.com/syndtr/goleveldb/leveldb/iterator"
	"github.com/syndtr/goleveldb/leveldb/opt"
	"github.com/syndtr/goleveldb/leveldb/storage"
	"github.com/syndtr/goleveldb/leveldb/util"
)

func init() {
	register(&Engine{
		Name: "goleveldb", Module: "github.com/syndtr/goleveldb",
		Notes: "bloom filters of 10 bits (none by default); OpenFilesCacheCapacity 4096 (default 500), since its tables have 2 MiB",
		Promise: [3]string{
			Durable: "Sync: survives a power cut",
			Written: "no Sync: survives a crash of the process; each commit is written to the operating system",
		},
		Settled: "CompactRange over all keys",
		Mixed:   true,
		Syncs:   "syncs of files, counted at goleveldb's storage; those of its directory, few, are not seen",
		open:    openLevelDB,
	})
}

type ldbStore struct {
	db      *leveldb.DB
	storage *countingStorage
}

func openLevelDB(dir string, cfg Config) (Store, error) {
	files, err := storage.OpenFile(dir, false)
	if err != nil {
		return nil, err
	}
	s := &ldbStore{storage: &countingStorage{Storage: files}}
	s.db, err = leveldb.Open(s.storage, &opt.Options{
		WriteBuffer: int(cfg.Memtable), BlockCacheCapacity: int(cfg.Cache),
		Filter: filter.NewBloomFilter(10), OpenFilesCacheCapacity: 4096,
	})
	if err != nil {
		return nil, errors.Join(err, files.Close())
	}
	return s, nil
}

func (s *ldbStore) Writer(l Level) (Writer, error) {
	return &ldbWriter{s.db, &opt.WriteOptions{Sync: l == Durable}, new(leveldb.Batch)}, nil
}

func (s *ldbStore) Reader() (Reader, error) { return &ldbReader{s.db, nil}, nil }

func (s *ldbStore) Settle(context.Context) error { return s.db.CompactRange(util.Range{}) }
func (s *ldbStore) Stats() Stats                 { return Stats{Syncs: s.storage.syncs.Load()} }
func (s *ldbStore) Close() error                 { return errors.Join(s.db.Close(), s.storage.Close()) }

func (s *ldbStore) Snapshot() (Reader, error) {
	snap, err := s.db.GetSnapshot()
	if err != nil {
		return nil, err
	}
	return &ldbReader{snap, snap.Release}, nil
}

type ldbWriter struct {
	db   *leveldb.DB
	opts *opt.WriteOptions
	b    *leveldb.Batch
}

func (w *ldbWriter) Put(key, value []byte) error { return w.db.Put(key, value, w.opts) }
func (w *ldbWriter) Delete(key []byte) error     { return w.db.Delete(key, w.opts) }
func (w *ldbWriter) Close() error                { return nil }

func (w *ldbWriter) Batch(n int, at func(i int) (key, value []byte)) error {
	w.b.Reset()
	for i := range n {
		w.b.Put(at(i))
	}
	return w.db.Write(w.b, w.opts)
}

// ldbReads is a store or a snapshot.
type ldbReads interface {
	Get(key []byte, ro *opt.ReadOptions) ([]byte, error)
	NewIterator(slice *util.Range, ro *opt.ReadOptions) iterator.Iterator
}

type ldbReader struct {
	db    ldbReads
	close func()
}

// Get copies: goleveldb has no other.
func (r *ldbReader) Get(key []byte, visit func([]byte)) (bool, error) {
	v, err := r.db.Get(key, nil)
	if err != nil {
		if errors.Is(err, leveldb.ErrNotFound) {
			err = nil
		}
		return false, err
	}
	visit(v)
	return true, nil
}

func (r *ldbReader) Scan(from []byte, limit int, reverse bool, visit func(key, value []byte)) (int, error) {
	it := r.db.NewIterator(nil, nil)
	defer it.Release()
	n, ok := 0, false
	switch {
	case reverse:
		ok = it.Last()
	case from == nil:
		ok = it.First()
	default:
		ok = it.Seek(from)
	}
	for ok && n < limit {
		visit(it.Key(), it.Value())
		if n++; n == limit {
			break
		}
		if reverse {
			ok = it.Prev()
		} else {
			ok = it.Next()
		}
	}
	return n, it.Error()
}

func (r *ldbReader) Close() error {
	if r.close != nil {
		r.close()
	}
	return nil
}

// countingStorage counts syncs of files.
type countingStorage struct {
	storage.Storage
	syncs atomic.Int64
}

func (c *countingStorage) Create(fd storage.FileDesc) (storage.Writer, error) {
	w, err := c.Storage.Create(fd)
	if err != nil {
		return nil, err
	}
	return &countingWriter{w, c}, nil
}

type countingWriter struct {
	storage.Writer
	s *countingStorage
}

func (w *countingWriter) Sync() error { w.s.syncs.Add(1); return w.Writer.Sync() }
