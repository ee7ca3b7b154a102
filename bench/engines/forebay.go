package engines

import (
	"context"
	"errors"

	"github.com/forebaydb/forebay"
)

func init() {
	register(&Engine{
		Name: "forebay", Module: "github.com/forebaydb/forebay",
		Notes: "MemoryLimit is the sum of memtable and cache: in Forebay one limit holds for both, so that under writes up to three memtables and the indexes of segments come out of the peers' cache size, and a memtable that is hardly filled leaves its room to the cache",
		Promise: [3]string{
			Durable:  "level Durable: survives a power cut",
			Written:  "level Written: survives a crash of the process",
			Buffered: "level Buffered: survives nothing",
		},
		Settled: "Compact: everything in segments, merged towards the last level",
		Mixed:   true,
		Syncs:   "syncs of the log (Stats.Log.Syncs)",
		open:    openForebay,
	})
}

type forebayStore struct {
	db    *forebay.DB
	level forebay.Level
}

func forebayLevel(l Level) forebay.Level {
	return [...]forebay.Level{forebay.Durable, forebay.Written, forebay.Buffered}[l]
}

func openForebay(dir string, cfg Config) (Store, error) {
	opts := forebay.Options{
		DefaultLevel: forebayLevel(cfg.Level),
		MemoryLimit:  cfg.Memtable + cfg.Cache,
		MemtableSize: cfg.Memtable,
	}
	switch cfg.Sync {
	case Direct:
		opts.Mechanism, opts.LogAlign = forebay.Direct, 4096
	case DirectDSync:
		opts.Mechanism, opts.LogAlign = forebay.DirectDSync, 4096
	}
	if cfg.Compressed {
		opts.Compression = forebay.S2
	}
	db, err := forebay.Open(dir, &opts)
	if err != nil {
		return nil, err
	}
	return &forebayStore{db, forebayLevel(cfg.Level)}, nil
}

func (s *forebayStore) Writer(l Level) (Writer, error) {
	return &forebayWriter{db: s.db, level: forebayLevel(l), isDefault: forebayLevel(l) == s.level, b: s.db.NewBatch()}, nil
}

func (s *forebayStore) Reader() (Reader, error) {
	return newForebayReader(s.db), nil
}

func (s *forebayStore) Settle(ctx context.Context) error { return s.db.Compact(ctx) }
func (s *forebayStore) Stats() Stats                     { return Stats{Syncs: s.db.Stats().Log.Syncs} }
func (s *forebayStore) Close() error                     { return s.db.Close() }

func (s *forebayStore) Snapshot() (Reader, error) {
	snap, err := s.db.Snapshot()
	if err != nil {
		return nil, err
	}
	r := newForebayReader(snap.Reader)
	r.close = snap.Close
	return r, nil
}

func (s *forebayStore) Transform(l Level, key []byte, fn func(old []byte) []byte) (int, error) {
	calls := 0
	err := s.db.UpdateLevel(context.Background(), forebayLevel(l), func(tx *forebay.Tx) error {
		calls++
		old, err := tx.Get(key)
		if err != nil && !errors.Is(err, forebay.ErrNotFound) {
			return err
		}
		return tx.Put(key, fn(old))
	})
	return calls - 1, err
}

type forebayWriter struct {
	db        *forebay.DB
	level     forebay.Level
	isDefault bool
	b         *forebay.Batch
}

func (w *forebayWriter) Put(key, value []byte) error {
	if w.isDefault {
		return w.db.Put(key, value)
	}
	w.b.Reset()
	if err := w.b.Put(key, value); err != nil {
		return err
	}
	return w.db.Apply(w.b, w.level)
}

func (w *forebayWriter) Delete(key []byte) error {
	if w.isDefault {
		return w.db.Delete(key)
	}
	w.b.Reset()
	if err := w.b.Delete(key); err != nil {
		return err
	}
	return w.db.Apply(w.b, w.level)
}

func (w *forebayWriter) Batch(n int, at func(i int) (key, value []byte)) error {
	w.b.Reset()
	for i := range n {
		k, v := at(i)
		if err := w.b.Put(k, v); err != nil {
			return err
		}
	}
	return w.db.Apply(w.b, w.level)
}

func (w *forebayWriter) Close() error { return nil }

// forebayReads is a store or a snapshot.
type forebayReads interface {
	GetFunc(key []byte, fn func(value []byte) error) error
	NewIterator(opts *forebay.IterOptions) *forebay.Iterator
}

type forebayReader struct {
	r     forebayReads
	visit func([]byte)
	lend  func([]byte) error // made once: calls visit
	close func() error
}

func newForebayReader(r forebayReads) *forebayReader {
	f := &forebayReader{r: r}
	f.lend = func(v []byte) error { f.visit(v); return nil }
	return f
}

func (r *forebayReader) Get(key []byte, visit func([]byte)) (bool, error) {
	r.visit = visit
	err := r.r.GetFunc(key, r.lend)
	if errors.Is(err, forebay.ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

func (r *forebayReader) Scan(from []byte, limit int, reverse bool, visit func(key, value []byte)) (int, error) {
	it := r.r.NewIterator(nil)
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
	return n, errors.Join(it.Err(), it.Close())
}

func (r *forebayReader) Close() error {
	if r.close != nil {
		return r.close()
	}
	return nil
}
