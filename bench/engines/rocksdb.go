//go:build rocksdb && cgo

package engines

import (
	"context"

	"github.com/linxGnu/grocksdb"
)

func init() {
	register(&Engine{
		Name: "rocksdb", Module: "github.com/linxGnu/grocksdb",
		Notes: "RocksDB in C++ through cgo, several calls for each record of a scan; bloom filters of 10 bits (none by default); max_write_buffer_number 3, as Forebay's (default 2)",
		Promise: [3]string{
			Durable:  "WriteOptions.sync: survives a power cut",
			Written:  "no sync (the default): survives a crash of the process",
			Buffered: "manual_wal_flush: survives nothing; the log waits in memory of the process",
		},
		Settled: "Flush, and CompactRange over all keys",
		Syncs:   "not known: counting them takes RocksDB's statistics, which slow it",
		open:    openRocks,
	})
}

type rocksStore struct {
	db    *grocksdb.DB
	opts  *grocksdb.Options
	cache *grocksdb.Cache
	read  *grocksdb.ReadOptions
}

func openRocks(dir string, cfg Config) (Store, error) {
	table := grocksdb.NewDefaultBlockBasedTableOptions()
	cache := grocksdb.NewLRUCache(uint64(cfg.Cache))
	table.SetBlockCache(cache)
	table.SetFilterPolicy(grocksdb.NewBloomFilter(10))
	o := grocksdb.NewDefaultOptions()
	o.SetCreateIfMissing(true)
	o.SetBlockBasedTableFactory(table)
	o.SetWriteBufferSize(uint64(cfg.Memtable))
	o.SetMaxWriteBufferNumber(3)
	o.SetManualWALFlush(cfg.Level == Buffered)
	db, err := grocksdb.OpenDb(o, dir)
	if err != nil {
		o.Destroy()
		return nil, err
	}
	return &rocksStore{db, o, cache, grocksdb.NewDefaultReadOptions()}, nil
}

func (s *rocksStore) Writer(l Level) (Writer, error) {
	o := grocksdb.NewDefaultWriteOptions()
	o.SetSync(l == Durable)
	return &rocksWriter{s.db, o, grocksdb.NewWriteBatch()}, nil
}

func (s *rocksStore) Reader() (Reader, error) { return &rocksReader{s.db, s.read, nil}, nil }

func (s *rocksStore) Snapshot() (Reader, error) {
	snap, ro := s.db.NewSnapshot(), grocksdb.NewDefaultReadOptions()
	ro.SetSnapshot(snap)
	return &rocksReader{s.db, ro, func() { ro.Destroy(); s.db.ReleaseSnapshot(snap) }}, nil
}

func (s *rocksStore) Settle(context.Context) error {
	o := grocksdb.NewDefaultFlushOptions()
	defer o.Destroy()
	err := s.db.Flush(o)
	s.db.CompactRange(grocksdb.Range{})
	return err
}

func (s *rocksStore) Stats() Stats { return Stats{Syncs: -1} }

func (s *rocksStore) Close() error {
	s.db.Close()
	s.read.Destroy()
	s.opts.Destroy()
	s.cache.Destroy()
	return nil
}

type rocksWriter struct {
	db   *grocksdb.DB
	opts *grocksdb.WriteOptions
	b    *grocksdb.WriteBatch
}

func (w *rocksWriter) Put(key, value []byte) error { return w.db.Put(w.opts, key, value) }
func (w *rocksWriter) Delete(key []byte) error     { return w.db.Delete(w.opts, key) }

func (w *rocksWriter) Batch(n int, at func(i int) (key, value []byte)) error {
	w.b.Clear()
	for i := range n {
		w.b.Put(at(i))
	}
	return w.db.Write(w.opts, w.b)
}

func (w *rocksWriter) Close() error {
	w.b.Destroy()
	w.opts.Destroy()
	return nil
}

type rocksReader struct {
	db    *grocksdb.DB
	opts  *grocksdb.ReadOptions
	close func()
}

func (r *rocksReader) Get(key []byte, visit func([]byte)) (bool, error) {
	h, err := r.db.GetPinned(r.opts, key)
	if err != nil {
		return false, err
	}
	found := h.Exists()
	if found {
		visit(h.Data())
	}
	h.Destroy()
	return found, nil
}

func (r *rocksReader) Scan(from []byte, limit int, reverse bool, visit func(key, value []byte)) (int, error) {
	it := r.db.NewIterator(r.opts)
	defer it.Close()
	switch {
	case reverse:
		it.SeekToLast()
	case from == nil:
		it.SeekToFirst()
	default:
		it.Seek(from)
	}
	n := 0
	for n < limit && it.Valid() {
		// Both are lent by the iterator: there is nothing to free.
		visit(it.Key().Data(), it.Value().Data())
		if n++; n == limit {
			break
		}
		if reverse {
			it.Prev()
		} else {
			it.Next()
		}
	}
	return n, it.Err()
}

func (r *rocksReader) Close() error {
	if r.close != nil {
		r.close()
	}
	return nil
}
