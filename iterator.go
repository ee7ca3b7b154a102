package forebay

import (
	"bytes"
	"runtime"

	"github.com/forebaydb/forebay/internal/base"
)

// IterOptions bound an iterator. A nil pointer and nil fields mean no bound.
type IterOptions struct {
	// Lower is the first key, inclusive; Upper ends before it.
	Lower, Upper []byte
	// Prefix, in place of the two, is what all keys begin with.
	Prefix []byte
}

// Iterator walks the keys of one keyspace, as they are when it is made, in
// either direction. It begins nowhere: First, Last, SeekGE or SeekLT place it.
// One goroutine at a time uses it. It must be closed; until then it keeps files
// of the store, and memory. One that is forgotten is closed, and reported, when the
// garbage collector finds it: Key and Value that it has returned are gone then, and to
// look at them may end the process.
type Iterator struct {
	l      *lease // nil: it was not opened, or is closed
	c      *cursor
	prefix int // bytes of the keyspace's prefix
	lo, hi []byte
	err    error
	shut   bool
}

// NewIterator returns an iterator. An error is told by Err, after the first move.
func (r Reader) NewIterator(opts *IterOptions) *Iterator {
	var lo, hi []byte
	if opts != nil {
		lo, hi = opts.Lower, opts.Upper
		if opts.Prefix != nil {
			lo, hi = opts.Prefix, after(opts.Prefix)
		}
	}
	return r.newIterator(lo, hi)
}

// newIterator returns an iterator over [lo, hi), of keys as the user has them.
func (r Reader) newIterator(lo, hi []byte) *Iterator {
	it := &Iterator{prefix: len(r.prefix)}
	if r.check != nil {
		if it.err = r.check(); it.err != nil {
			return it
		}
	}
	// One piece of memory for both bounds.
	room := make([]byte, 0, 2*len(r.prefix)+len(lo)+max(len(hi), 1))
	room = append(append(room, r.prefix...), lo...)
	it.lo = room[:len(room):len(room)]
	if hi == nil {
		room = appendAfter(room, r.prefix) // no prefix has 255 everywhere
	} else {
		room = append(append(room, r.prefix...), hi...)
	}
	it.hi = room[len(it.lo):]
	if it.l, it.err = r.from.open(it.lo, it.hi); it.l != nil {
		it.c = it.l.c
	}
	return it
}

// ready says whether the iterator can move.
func (it *Iterator) ready() bool {
	switch {
	case it.shut:
		it.err = ErrClosed
		return false
	case it.c == nil: // it was not opened
		return false
	case it.c.shut || it.c.db.shut.Load():
		it.err = ErrClosed
		return false
	}
	it.err = nil
	it.c.db.yield(yieldRuns)
	return true
}

// First moves to the first key and says whether there is one. After a false
// result of this and of the other moves Err says whether it is the end.
func (it *Iterator) First() bool {
	if !it.ready() {
		return false
	}
	it.c.look(it.lo)
	return it.forward(it.c.seekGE(it.lo, it.hi))
}

// Last moves to the last key.
func (it *Iterator) Last() bool {
	if !it.ready() {
		return false
	}
	it.c.look(it.hi)
	return it.backward(it.c.Last())
}

// SeekGE moves to the first key at or behind key, which it does not keep.
func (it *Iterator) SeekGE(key []byte) bool {
	if !it.ready() {
		return false
	}
	stored := it.stored(key)
	it.c.look(stored)
	return it.forward(it.c.seekGE(stored, it.hi))
}

// SeekLT moves to the last key before key, which it does not keep.
func (it *Iterator) SeekLT(key []byte) bool {
	if !it.ready() {
		return false
	}
	stored := it.stored(key)
	it.c.look(stored)
	return it.backward(it.c.SeekLT(stored))
}

// Next moves to the next key. An iterator that stands nowhere stays there.
func (it *Iterator) Next() bool {
	// Most moves are these, within a run.
	if c := it.c; c != nil && c.seen == nil && !c.db.shut.Load() && c.Step(false) {
		runtime.KeepAlive(it)
		return true
	}
	if !it.Valid() || !it.ready() {
		return false
	}
	return it.forward(it.c.Next())
}

// Prev moves to the key before.
func (it *Iterator) Prev() bool {
	if c := it.c; c != nil && c.seen == nil && !c.db.shut.Load() && c.Step(true) {
		runtime.KeepAlive(it)
		return true
	}
	if !it.Valid() || !it.ready() {
		return false
	}
	return it.backward(it.c.Prev())
}

// stored puts a stored key together, within the bounds.
func (it *Iterator) stored(key []byte) []byte {
	c := it.c
	c.sought = append(append(c.sought[:0], it.lo[:it.prefix]...), key...)
	switch {
	case bytes.Compare(c.sought, it.lo) < 0:
		return it.lo
	case bytes.Compare(c.sought, it.hi) > 0:
		return it.hi
	}
	return c.sought
}

// forward ends a move towards higher keys.
func (it *Iterator) forward(ok bool) bool {
	if c := it.c; c.looking {
		if !ok {
			c.to = append(c.to[:0], it.hi...)
		} else if key := c.Key(); bytes.Compare(key, c.to) >= 0 {
			c.to = append(append(c.to[:0], key...), 0)
		}
	}
	return it.end(ok)
}

// backward ends a move towards lower keys.
func (it *Iterator) backward(ok bool) bool {
	if c := it.c; c.looking {
		if !ok {
			c.from = append(c.from[:0], it.lo...)
		} else if key := c.Key(); bytes.Compare(key, c.from) < 0 {
			c.from = append(c.from[:0], key...)
		}
	}
	return it.end(ok)
}

func (it *Iterator) end(ok bool) bool {
	// One that nobody will ask again is not found to be forgotten while it moves.
	defer runtime.KeepAlive(it)
	if !ok {
		it.err = it.c.db.seen(it.c.Err())
	}
	return ok
}

// Valid says whether the iterator stands on a key.
func (it *Iterator) Valid() bool { return it.c != nil && !it.c.shut && it.c.Valid() }

// Key returns the key. Key and Value are valid until the next move and no longer
// than Close, and must not be changed. They are called only while Valid.
func (it *Iterator) Key() []byte { return it.c.Key()[it.prefix:] }

// Value returns the value; see Key.
func (it *Iterator) Value() []byte { return it.c.Value() }

// LSN returns the LSN of the commit that wrote the value; 0 for what the
// iterator's own transaction wrote.
func (it *Iterator) LSN() uint64 {
	if lsn := it.c.LSN(); lsn < base.OwnLSN {
		return lsn
	}
	return 0
}

// Err returns the error that ended the walk, nil if it ended at a bound. A
// placing call clears it.
func (it *Iterator) Err() error { return it.err }

// Close gives back what the iterator holds. It may be called again.
func (it *Iterator) Close() error {
	if it.shut = true; it.l == nil {
		return nil
	}
	l := it.l
	it.l, it.c = nil, nil // it may be another's soon
	return l.close()
}
