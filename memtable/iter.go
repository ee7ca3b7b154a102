package memtable

import (
	"github.com/forebaydb/forebay/internal/base"
	"github.com/forebaydb/forebay/internal/prefetch"
)

// NewIter returns an iterator over all versions. What it stands on and returns
// is the table's own memory, which never changes and must not be changed; it
// stays valid beyond the next move, as long as the caller holds it. The walk
// sees at least what was in the table at the last positioning call. Err is
// always nil, and Close need not be called.
func (t *Table) NewIter() base.Iterator { return &iter{t: t} }

// iter stands on a position of a leaf, in the order that the leaf had when it
// came there. If the leaf is split meanwhile, it walks on in the old one.
type iter struct {
	t     *Table
	leaf  *leaf // nil: it stands nowhere
	order uint64
	pos   int
	entry entry
}

// enter goes to a leaf; nil is allowed.
func (i *iter) enter(l *leaf) {
	i.leaf = l
	if l != nil {
		i.order = l.order.Load()
	}
}

// load takes the entry at pos, which may be one beyond either end of the leaf:
// then it is in the next leaf.
func (i *iter) load() bool {
	switch {
	case i.leaf == nil:
	case i.pos < 0:
		i.turn(i.leaf.prev.Load())
		if i.pos = count(i.order) - 1; i.leaf != nil {
			i.ask(i.leaf.prev.Load())
		}
	case i.pos >= count(i.order):
		i.turn(i.leaf.next.Load())
		if i.pos = 0; i.leaf != nil {
			i.ask(i.leaf.next.Load())
		}
	}
	if i.leaf == nil {
		i.entry = nil
		return false
	}
	i.entry = i.t.arena.at(i.leaf.addrs[place(i.order, i.pos)])
	return true
}

func (i *iter) turn(ref uint32) {
	if ref == 0 {
		i.leaf = nil
		return
	}
	i.enter(i.t.index.leaves.at(ref))
}

// entryAhead is how many bytes of an entry are asked for ahead: what a larger one has
// beyond lies in a row, which the processor sees.
const entryAhead = 3 * prefetch.Line

// ask asks for the memory of the entries of the leaf, which lie about as they were
// inserted, and of the leaf behind it. Else a walk would wait for each of them, for
// longer than it takes to do something with an entry.
func (i *iter) ask(next uint32) {
	for pos := range count(i.order) {
		e := i.t.arena.at(i.leaf.addrs[pos])
		prefetch.Bytes(e[:min(len(e), entryAhead)])
	}
	if next != 0 {
		prefetch.Value(i.t.index.leaves.at(next))
	}
}

func (i *iter) First() bool {
	i.enter(i.t.index.edge(false))
	i.pos = 0
	return i.load()
}

func (i *iter) Last() bool {
	i.enter(i.t.index.edge(true))
	i.pos = count(i.order) - 1
	return i.load()
}

func (i *iter) SeekGE(key []byte, lsn base.LSN) bool {
	i.seek(key, lsn)
	if i.leaf == nil || i.pos < count(i.order) {
		return i.load()
	}
	// The leaf may have been split since it was found, and have kept one half:
	// then its neighbour has the other, on the wrong side of what is sought.
	ok := i.load()
	for ok && base.Compare(i.Key(), i.LSN(), key, lsn) < 0 {
		ok = i.Next()
	}
	return ok
}

func (i *iter) SeekLT(key []byte, lsn base.LSN) bool {
	i.seek(key, lsn)
	i.pos--
	if i.leaf == nil || i.pos >= 0 {
		return i.load()
	}
	ok := i.load() // see SeekGE
	for ok && base.Compare(i.Key(), i.LSN(), key, lsn) >= 0 {
		ok = i.Prev()
	}
	return ok
}

func (i *iter) seek(key []byte, lsn base.LSN) {
	i.enter(i.t.index.find(&i.t.arena, key, lsn))
	if i.leaf != nil {
		i.pos, _ = i.leaf.search(&i.t.arena, i.order, key, lsn)
	}
}

func (i *iter) Next() bool {
	i.pos++
	return i.load()
}

func (i *iter) Prev() bool {
	i.pos--
	return i.load()
}

func (i *iter) Valid() bool     { return i.leaf != nil }
func (i *iter) Key() []byte     { return i.entry.key() }
func (i *iter) LSN() base.LSN   { return i.entry.lsn() }
func (i *iter) Kind() base.Kind { return i.entry.kind() }
func (i *iter) Value() []byte   { return i.entry.value() }
func (i *iter) Err() error      { return nil }
func (i *iter) Close() error    { return nil }
