package engines

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/vfs"
)

func init() {
	register(&Engine{
		Name: "pebble", Module: "github.com/cockroachdb/pebble/v2",
		Notes: "bloom filters of 10 bits on every level (none by default); MemTableStopWritesThreshold 3, so that as many memtables as Forebay's may be in memory (default 2); the newest format (default: the oldest)",
		Promise: [3]string{
			Durable:  "pebble.Sync: survives a power cut",
			Buffered: "pebble.NoSync: survives nothing; the log waits in memory of the process until its block is full",
		},
		Settled: "Flush, and Compact over all keys",
		Mixed:   true,
		Syncs:   "syncs of all files and directories, counted at Pebble's vfs",
		open:    openPebble,
	})
}

// silent is a logger that says nothing. Pebble ends the process by Fatalf.
type silent struct{}

func (silent) Infof(string, ...any)           {}
func (silent) Errorf(string, ...any)          {}
func (silent) Fatalf(format string, a ...any) { panic(fmt.Sprintf(format, a...)) }

type pebbleStore struct {
	db    *pebble.DB
	cache *pebble.Cache
	fs    *countingFS
}

func openPebble(dir string, cfg Config) (Store, error) {
	s := &pebbleStore{cache: pebble.NewCache(cfg.Cache), fs: &countingFS{FS: vfs.Default}}
	o := &pebble.Options{
		FS: s.fs, Cache: s.cache, Logger: silent{},
		MemTableSize: uint64(cfg.Memtable), MemTableStopWritesThreshold: 3,
		FormatMajorVersion: pebble.FormatNewest,
	}
	for i := range o.Levels {
		o.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
	}
	var err error
	if s.db, err = pebble.Open(dir, o); err != nil {
		s.cache.Unref()
		return nil, err
	}
	return s, nil
}

func (s *pebbleStore) Writer(l Level) (Writer, error) {
	opts := pebble.Sync
	if l == Buffered {
		opts = pebble.NoSync
	}
	return &pebbleWriter{s.db, opts}, nil
}

func (s *pebbleStore) Reader() (Reader, error) { return &pebbleReader{s.db, nil}, nil }

func (s *pebbleStore) Settle(ctx context.Context) error {
	if err := s.db.Flush(); err != nil {
		return err
	}
	return s.db.Compact(ctx, []byte{0}, []byte{0xff, 0xff}, true)
}

func (s *pebbleStore) Stats() Stats { return Stats{Syncs: s.fs.syncs.Load()} }

func (s *pebbleStore) Close() error {
	err := s.db.Close()
	s.cache.Unref()
	return err
}

func (s *pebbleStore) Snapshot() (Reader, error) {
	snap := s.db.NewSnapshot()
	return &pebbleReader{snap, snap.Close}, nil
}

type pebbleWriter struct {
	db   *pebble.DB
	opts *pebble.WriteOptions
}

func (w *pebbleWriter) Put(key, value []byte) error { return w.db.Set(key, value, w.opts) }
func (w *pebbleWriter) Delete(key []byte) error     { return w.db.Delete(key, w.opts) }
func (w *pebbleWriter) Close() error                { return nil }

func (w *pebbleWriter) Batch(n int, at func(i int) (key, value []byte)) error {
	b := w.db.NewBatch()
	for i := range n {
		k, v := at(i)
		if err := b.Set(k, v, nil); err != nil {
			return errors.Join(err, b.Close())
		}
	}
	return errors.Join(b.Commit(w.opts), b.Close())
}

type pebbleReader struct {
	db    pebble.Reader
	close func() error
}

func (r *pebbleReader) Get(key []byte, visit func([]byte)) (bool, error) {
	v, c, err := r.db.Get(key)
	if err != nil {
		if errors.Is(err, pebble.ErrNotFound) {
			err = nil
		}
		return false, err
	}
	visit(v)
	return true, c.Close()
}

func (r *pebbleReader) Scan(from []byte, limit int, reverse bool, visit func(key, value []byte)) (int, error) {
	it, err := r.db.NewIter(nil)
	if err != nil {
		return 0, err
	}
	n, ok := 0, false
	switch {
	case reverse:
		ok = it.Last()
	case from == nil:
		ok = it.First()
	default:
		ok = it.SeekGE(from)
	}
	for ok && n < limit {
		v, err := it.ValueAndErr()
		if err != nil {
			return n, errors.Join(err, it.Close())
		}
		visit(it.Key(), v)
		if n++; n == limit {
			break
		}
		if reverse {
			ok = it.Prev()
		} else {
			ok = it.Next()
		}
	}
	return n, errors.Join(it.Error(), it.Close())
}

func (r *pebbleReader) Close() error {
	if r.close != nil {
		return r.close()
	}
	return nil
}

// countingFS counts syncs.
type countingFS struct {
	vfs.FS
	syncs atomic.Int64
}

func (c *countingFS) file(f vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	return &countingFile{f, c}, nil
}

func (c *countingFS) Create(name string, d vfs.DiskWriteCategory) (vfs.File, error) {
	return c.file(c.FS.Create(name, d))
}

func (c *countingFS) OpenReadWrite(name string, d vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	return c.file(c.FS.OpenReadWrite(name, d, opts...))
}

func (c *countingFS) OpenDir(name string) (vfs.File, error) { return c.file(c.FS.OpenDir(name)) }

func (c *countingFS) ReuseForWrite(old, name string, d vfs.DiskWriteCategory) (vfs.File, error) {
	return c.file(c.FS.ReuseForWrite(old, name, d))
}

func (c *countingFS) Unwrap() vfs.FS { return c.FS }

type countingFile struct {
	vfs.File
	fs *countingFS
}

func (f *countingFile) Sync() error     { f.fs.syncs.Add(1); return f.File.Sync() }
func (f *countingFile) SyncData() error { f.fs.syncs.Add(1); return f.File.SyncData() }

func (f *countingFile) SyncTo(length int64) (bool, error) {
	full, err := f.File.SyncTo(length)
	if full {
		f.fs.syncs.Add(1)
	}
	return full, err
}
