package forebay

import (
	"iter"

	"github.com/forebaydb/forebay/internal/base"
	"github.com/forebaydb/forebay/internal/merge"
	"github.com/forebaydb/forebay/segment"
)

// Reader reads the keys of one keyspace of a store, of a snapshot or of a
// transaction: Keyspace, Snapshot, Tx and Space are Readers too. Those of a store
// and of a snapshot may be used by many goroutines at once, those of a transaction
// by one.
type Reader struct {
	from   source
	prefix []byte
	check  func() error // nil: the keyspace cannot go away
}

// source is what a Reader reads from. Keys are stored keys.
type source interface {
	// get returns the value of a key. What it found is to be released.
	get(key []byte) (value held, found bool, err error)
	// open opens a cursor over [lo, hi), which are kept.
	open(lo, hi []byte) (*lease, error)
}

// held is a value that is lent: it must not be changed, and lies in memory that is
// used for something else when it was released. One that was not found holds nothing.
type held struct {
	b     []byte
	block *segment.Block // nil: it lies in none
	v     *view          // which was entered by shard; nil: none need be left
	shard int
}

func (h *held) release() {
	h.block.Release()
	if h.v != nil {
		h.v.gate.exit(h.shard)
	}
}

// cursor is an open iterator over stored keys.
type cursor struct {
	*merge.Visible
	db *DB
	// v was entered by shard, and is left when the iterator is closed.
	v     *view
	shard int
	lsn   base.LSN
	own   bool // a transaction's own writes are in it
	shut  bool
	plain bool // it may be used again: see view.idle
	// seen, if not nil, is told of each [lo, hi), a stretch of stored keys all
	// of which has been looked at. It does not keep them. The stretch of the
	// last moves is [from, to).
	seen     func(lo, hi []byte)
	looking  bool
	from, to []byte

	sought []byte // the stored key of a seek
	uses   uint
	askers [6]uintptr // of the one whom it is lent to, if they were noted
}

// look begins a new stretch of keys that a transaction looks at.
func (c *cursor) look(at []byte) {
	if c.seen != nil {
		c.tell()
		c.looking = true
		c.from, c.to = append(c.from[:0], at...), append(c.to[:0], at...)
	}
}

// seekGE moves to the first key at or behind key, over what is known to be empty,
// and remembers what it had to pass.
func (c *cursor) seekGE(key, hi []byte) bool {
	if c.own {
		return c.SeekGE(key)
	}
	g := &c.db.gap
	ok := c.SeekGE(g.from(key, c.lsn))
	if c.Skipped() >= gapVersions && c.Err() == nil {
		if ok {
			hi = c.Key()
		}
		g.note(key, hi, c.lsn, c.db.LastLSN)
	}
	return ok
}

// tell notes the stretch as read.
func (c *cursor) tell() {
	if c.looking {
		c.looking = false
		c.seen(c.from, c.to)
	}
}

// close may be called again.
func (c *cursor) close() error {
	if c.shut {
		return nil
	}
	c.shut = true
	c.tell()
	err := c.Visible.Close()
	c.v.gate.exit(c.shard)
	return err
}

// checkKey says whether a user may give a key.
func checkKey(key []byte) error {
	switch {
	case len(key) == 0:
		return ErrEmptyKey
	case len(key) > base.MaxUserKey:
		return &LimitError{What: "key", Size: len(key), Limit: base.MaxUserKey}
	}
	return nil
}

// stackKey is the length up to which a stored key is put together on the stack.
const stackKey = 256

func (r Reader) get(key []byte) (value held, found bool, err error) {
	if err := checkKey(key); err != nil {
		return held{}, false, err
	}
	if r.check != nil {
		if err := r.check(); err != nil {
			return held{}, false, err
		}
	}
	// The room stays on the stack where the callee is known.
	switch from := r.from.(type) {
	case *DB:
		var room [stackKey]byte
		return from.get(append(append(room[:0], r.prefix...), key...))
	case *snapshot:
		var room [stackKey]byte
		return from.get(append(append(room[:0], r.prefix...), key...))
	}
	return r.from.get(append(append(make([]byte, 0, len(r.prefix)+len(key)), r.prefix...), key...))
}

// Get returns a copy of the value of key, or ErrNotFound. Of a store it sees
// every commit that returned before the call.
func (r Reader) Get(key []byte) ([]byte, error) {
	value, found, err := r.get(key)
	switch {
	case err != nil:
		return nil, err
	case !found:
		return nil, ErrNotFound
	}
	b := append(make([]byte, 0, len(value.b)), value.b...)
	value.release()
	return b, nil
}

// GetFunc calls fn with the value of key, which is lent until fn returns: it must
// not be changed, nor kept. It returns fn's error, or ErrNotFound without
// calling it. To close the store inside of fn is an error of the caller's that
// may never return.
func (r Reader) GetFunc(key []byte, fn func(value []byte) error) error {
	value, found, err := r.get(key)
	switch {
	case err != nil:
		return err
	case !found:
		return ErrNotFound
	}
	defer value.release()
	return fn(value.b)
}

// Has says whether the key is there.
func (r Reader) Has(key []byte) (bool, error) {
	value, found, err := r.get(key)
	if found {
		value.release()
	}
	return found, err
}

// Entry is one key and its value. Its bytes live for one step of an iteration
// and must not be changed.
type Entry struct {
	Key, Value []byte
	// LSN of the commit that wrote it; 0 for what a transaction wrote itself.
	LSN uint64
}

// Range iterates over the keys in [lo, hi), ascending, as they are when the
// iteration begins. nil bounds are open. An error ends the iteration and comes
// as the last pair.
func (r Reader) Range(lo, hi []byte) iter.Seq2[Entry, error] {
	return r.walk(lo, hi, (*Iterator).First, (*Iterator).Next)
}

// RangeReverse is Range, descending.
func (r Reader) RangeReverse(lo, hi []byte) iter.Seq2[Entry, error] {
	return r.walk(lo, hi, (*Iterator).Last, (*Iterator).Prev)
}

// Prefix iterates over the keys that begin with prefix, ascending.
func (r Reader) Prefix(prefix []byte) iter.Seq2[Entry, error] {
	return r.Range(prefix, after(prefix))
}

// PrefixReverse is Prefix, descending.
func (r Reader) PrefixReverse(prefix []byte) iter.Seq2[Entry, error] {
	return r.RangeReverse(prefix, after(prefix))
}

// after returns the first key behind all that begin with prefix, nil if none.
func after(prefix []byte) []byte { return appendAfter(nil, prefix) }

// appendAfter appends it.
func appendAfter(dst, prefix []byte) []byte {
	for i := len(prefix) - 1; i >= 0; i-- {
		if prefix[i] != 0xff {
			dst = append(dst, prefix[:i+1]...)
			dst[len(dst)-1]++
			return dst
		}
	}
	return dst
}

func (r Reader) walk(lo, hi []byte, first, next func(*Iterator) bool) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		it := r.newIterator(lo, hi)
		defer it.Close()
		for ok := first(it); ok; ok = next(it) {
			if !yield(Entry{Key: it.Key(), Value: it.Value(), LSN: it.LSN()}, nil) {
				return
			}
		}
		if err := it.Err(); err != nil {
			yield(Entry{}, err)
		}
	}
}

// get is source.get at the visible mark.
func (db *DB) get(key []byte) (held, bool, error) {
	v, shard, lsn, err := db.enterAt(db.pipe.Visible)
	if err != nil {
		return held{}, false, err
	}
	return db.lendValue(v, shard, key, lsn)
}

// lendValue looks a key up in a view that was entered.
func (db *DB) lendValue(v *view, shard int, key []byte, lsn base.LSN) (held, bool, error) {
	value, found, err := v.get(key, lsn)
	db.yield(yieldGets)
	if !found {
		v.gate.exit(shard)
		return held{}, false, db.seen(err)
	}
	value.v, value.shard = v, shard
	return value, true, nil
}

// open is source.open at the visible mark.
func (db *DB) open(lo, hi []byte) (*lease, error) {
	v, shard, lsn, err := db.enterAt(db.pipe.Visible)
	if err != nil {
		return nil, err
	}
	return db.lend(v, shard, lsn, lo, hi)
}

// Get is Reader.Get of the default keyspace.
func (db *DB) Get(key []byte) ([]byte, error) { return db.space.Get(key) }

// GetFunc is Reader.GetFunc of the default keyspace.
func (db *DB) GetFunc(key []byte, fn func(value []byte) error) error {
	return db.space.GetFunc(key, fn)
}

// Has is Reader.Has of the default keyspace.
func (db *DB) Has(key []byte) (bool, error) { return db.space.Has(key) }

// Range is Reader.Range of the default keyspace.
func (db *DB) Range(lo, hi []byte) iter.Seq2[Entry, error] { return db.space.Range(lo, hi) }

// RangeReverse is Reader.RangeReverse of the default keyspace.
func (db *DB) RangeReverse(lo, hi []byte) iter.Seq2[Entry, error] {
	return db.space.RangeReverse(lo, hi)
}

// Prefix is Reader.Prefix of the default keyspace.
func (db *DB) Prefix(prefix []byte) iter.Seq2[Entry, error] { return db.space.Prefix(prefix) }

// PrefixReverse is Reader.PrefixReverse of the default keyspace.
func (db *DB) PrefixReverse(prefix []byte) iter.Seq2[Entry, error] {
	return db.space.PrefixReverse(prefix)
}

// NewIterator is Reader.NewIterator of the default keyspace.
func (db *DB) NewIterator(opts *IterOptions) *Iterator { return db.space.NewIterator(opts) }

var _ source = (*DB)(nil)
