package batch

import (
	"bytes"
	"slices"
	"sort"

	"github.com/forebaydb/forebay/internal/base"
)

// DeleteRange removes the keys from lo, inclusive, to hi, exclusive, also what
// this batch did to them so far; later operations on them stand. It copies lo
// and hi. If lo is not below hi it adds nothing. It returns ErrEmptyKey for an
// empty lo, or a *LimitError, and then leaves the batch as it was. Whether
// there is room for a range delete is asked before what it covers goes.
//
// It only notes the range: what the range covers goes when Bytes is called, or
// when the batch would become too large.
func (b *Batch) DeleteRange(lo, hi []byte) error {
	if err := checkRange(lo, hi); err != nil || bytes.Compare(lo, hi) >= 0 {
		return err
	}
	b.room()
	size := opSize(base.KindRangeDelete, lo, hi)
	total := func() int { return fixedSize + uvarintLen(b.Len()+1) + b.liveSize() + size }
	if b.pending > 0 && total() > base.MaxRecordSize {
		b.resolve()
	}
	if n := total(); n > base.MaxRecordSize {
		return &LimitError{"batch", n, base.MaxRecordSize}
	}
	off := len(b.buf)
	b.buf = appendOp(b.buf, base.KindRangeDelete, lo, hi)
	b.ops = append(b.ops, op{
		off: uint32(off), end: uint32(len(b.buf)),
		keyOff: uint32(off + 1 + uvarintLen(len(lo))), keyLen: uint32(len(lo)), span: true,
	})
	b.pending++
	return nil
}

// hi returns the upper bound of a range delete: it ends the operation.
func (b *Batch) hi(o *op) []byte {
	off := o.keyOff + o.keyLen
	n, at, _ := uvarint(b.buf, int(off))
	return b.buf[at : at+n]
}

// resolve applies the pending range deletes to the operations before them, and
// then puts all range deletes to the front, joined. For n of them and m other
// operations it takes the time of sorting n keys and of m binary searches.
func (b *Batch) resolve() {
	if b.pending == 0 {
		return
	}
	if b.pending == 1 && b.spans == 0 && b.ops[0].span {
		b.spans, b.pending = 1, 0 // The common case: it is first already.
		return
	}
	c := b.cover()
	for i := range c.last { // The operations behind it are covered by none.
		o := &b.ops[i]
		if !o.span && !o.dead && c.at(b.key(o)) > i {
			b.kill(i)
		}
	}
	front := c.join() // It refers to buf no more.
	for i := range b.ops {
		if b.ops[i].span {
			b.kill(i)
		}
	}
	b.pending, b.spans = 0, len(front.ops)
	indexed := len(b.table) > 0
	b.table = b.table[:0] // Once is enough.
	b.compact()
	b.prepend(front)
	if indexed {
		b.rebuild()
	}
}

// prepend puts range deletes, which are sorted and apart, before all other
// operations.
func (b *Batch) prepend(front *Batch) {
	size, n := uint32(len(front.buf)-headRoom), len(front.ops)
	b.buf = slices.Insert(b.buf, headRoom, front.buf[headRoom:]...)
	b.ops = slices.Insert(b.ops, 0, front.ops...)
	for i := n; i < len(b.ops); i++ {
		o := &b.ops[i]
		o.off, o.end, o.keyOff = o.off+size, o.end+size, o.keyOff+size
	}
}

// cover says how far back the range deletes of a batch reach at each key. The
// keys are cut at all bounds; from keys[i] to keys[i+1] reach[i] holds, the
// index of the last range delete there. It covers all operations before that
// index. none is no range delete; one that has been applied already covers no
// operation, and counts as 0.
type cover struct {
	keys  [][]byte
	reach []int
	last  int // the highest in reach
}

const none = -1

func (b *Batch) cover() cover {
	var c cover
	for i := range b.ops {
		if o := &b.ops[i]; o.span {
			c.keys = append(c.keys, b.key(o), b.hi(o))
			c.last = i
		}
	}
	slices.SortFunc(c.keys, bytes.Compare)
	c.keys = slices.CompactFunc(c.keys, bytes.Equal)
	c.reach = make([]int, len(c.keys))
	// next[i] is the first piece from i on that has no reach yet, or leads
	// there: from the last range delete to the first, each piece is set once.
	next := make([]int, len(c.keys))
	for i := range next {
		next[i], c.reach[i] = i, none
	}
	free := func(i int) int {
		for next[i] != i {
			next[i] = next[next[i]]
			i = next[i]
		}
		return i
	}
	for i := c.last; i >= 0; i-- {
		o := &b.ops[i]
		if !o.span {
			continue
		}
		to, _ := slices.BinarySearchFunc(c.keys, b.hi(o), bytes.Compare)
		from, _ := slices.BinarySearchFunc(c.keys, b.key(o), bytes.Compare)
		for at := free(from); at < to; at = free(at) {
			c.reach[at], next[at] = i, at+1
			if i < b.spans {
				c.reach[at] = 0
			}
		}
	}
	return c
}

// at returns the reach at a key.
func (c *cover) at(key []byte) int {
	i := sort.Search(len(c.keys), func(i int) bool { return bytes.Compare(c.keys[i], key) > 0 })
	if i == 0 {
		return none
	}
	return c.reach[i-1]
}

// join returns a batch of what is covered, in as few range deletes as can be.
func (c *cover) join() *Batch {
	front := new(Batch)
	for i := 0; i < len(c.keys); i++ {
		if c.reach[i] == none {
			continue
		}
		lo := c.keys[i]
		for c.reach[i] != none {
			i++ // The last key bounds all, and has no reach.
		}
		_ = front.DeleteRange(lo, c.keys[i]) // The bounds have been checked.
	}
	return front
}
