package forebay

import (
	"iter"

	"github.com/forebaydb/forebay/internal/base"
	"github.com/forebaydb/forebay/internal/merge"
)

// Get returns a copy of the value of key, or ErrNotFound. It sees every commit
// that returned before the call.
func (db *DB) Get(key []byte) ([]byte, error) {
	shard, ok := db.readers.enter()
	if !ok {
		return nil, ErrClosed
	}
	defer db.readers.exit(shard)
	value, found, err := db.find(key)
	if err != nil {
		return nil, err
	}
	if !found {
		return nil, ErrNotFound
	}
	return append(make([]byte, 0, len(value)), value...), nil
}

// Has says whether the key is in the store.
func (db *DB) Has(key []byte) (bool, error) {
	shard, ok := db.readers.enter()
	if !ok {
		return false, ErrClosed
	}
	defer db.readers.exit(shard)
	_, found, err := db.find(key)
	return found, err
}

// find looks a key up at the visible mark; the value is not the caller's own.
func (db *DB) find(key []byte) (value []byte, found bool, err error) {
	if len(key) == 0 {
		return nil, false, ErrEmptyKey
	}
	// The view first: it then holds at least what was visible when the call
	// began, and, with tables and marks taken in this order, exactly S(n) for
	// one n.
	v := db.view.Load()
	lsn := db.pipe.Visible()
	if value, kind, _, ok := v.active.Get(key, lsn); ok {
		return value, kind == base.KindPut, nil
	}
	for _, f := range v.frozen {
		if value, kind, _, ok := f.table.Get(key, lsn); ok {
			return value, kind == base.KindPut, nil
		}
	}
	for _, s := range v.segs {
		value, kind, _, ok, err := s.Get(key, lsn)
		if err != nil {
			return nil, false, err
		}
		if ok {
			return value, kind == base.KindPut, nil
		}
	}
	return nil, false, nil
}

// Entry is one key and its value. Its bytes live for one step of an iteration
// and must not be changed.
type Entry struct {
	Key, Value []byte
	// LSN of the commit that wrote it.
	LSN uint64
}

// Range iterates over the keys in [lo, hi), ascending, as they are when the
// iteration begins. nil bounds are open. An error ends the iteration and comes
// as the last pair.
func (db *DB) Range(lo, hi []byte) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		db.scan(lo, hi, (*merge.Visible).First, (*merge.Visible).Next, yield)
	}
}

// RangeReverse is Range, descending.
func (db *DB) RangeReverse(lo, hi []byte) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		db.scan(lo, hi, (*merge.Visible).Last, (*merge.Visible).Prev, yield)
	}
}

// Prefix iterates over the keys that begin with prefix, ascending.
func (db *DB) Prefix(prefix []byte) iter.Seq2[Entry, error] {
	return db.Range(prefix, after(prefix))
}

// after returns the first key behind all that begin with prefix, nil if none.
func after(prefix []byte) []byte {
	for i := len(prefix) - 1; i >= 0; i-- {
		if prefix[i] != 0xff {
			hi := append([]byte(nil), prefix[:i+1]...)
			hi[i]++
			return hi
		}
	}
	return nil
}

func (db *DB) scan(lo, hi []byte, first, next func(*merge.Visible) bool, yield func(Entry, error) bool) {
	shard, ok := db.readers.enter()
	if !ok {
		yield(Entry{}, ErrClosed)
		return
	}
	defer db.readers.exit(shard)
	v := db.view.Load()
	lsn := db.pipe.Visible()
	iters := []base.Iterator{v.active.NewIter()}
	for _, f := range v.frozen {
		iters = append(iters, f.table.NewIter())
	}
	for _, s := range v.segs {
		iters = append(iters, s.NewIter())
	}
	it := merge.NewVisible(merge.New(iters...), lsn, lo, hi)
	defer it.Close()
	for ok := first(it); ok; ok = next(it) {
		if !yield(Entry{Key: it.Key(), Value: it.Value(), LSN: it.LSN()}, nil) {
			return
		}
		if db.readers.closed.Load() {
			yield(Entry{}, ErrClosed)
			return
		}
	}
	if err := it.Err(); err != nil {
		yield(Entry{}, err)
	}
}
