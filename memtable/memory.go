package memtable

import (
	"runtime"
	"sync/atomic"
	"unsafe"

	"github.com/forebaydb/forebay/internal/huge"
)

const (
	// outsideFirst is for how many bytes at once memory is first taken outside of Go's
	// heap: a table of a few keys has all of its own there. From then on all that
	// takes outsideMin is.
	outsideFirst = 512 << 10
	outsideMin   = 64 << 10
	// pieceMax is how much is taken at a time. Smaller tables take less: a huge page
	// is taken as a whole.
	pieceMax = 8 << 20
	// align is that of what is cut from a piece: a line of the processor's cache.
	align = 64
)

// memory is where the large pieces of a table come from. Versions that wait to be
// settled are most of what a store under load has in memory; in Go's heap each byte
// of them would let the heap grow by one more before the collector begins.
type memory struct {
	// outside, nil if all is Go's heap, has what was taken elsewhere. It is an object
	// of its own, so that it is still there when the table is found to be forgotten.
	outside *outside
	refs    atomic.Int32
}

type outside struct {
	pool   *Pool
	pieces []huge.Memory
	// left is what of the last piece is not used, and before of the one before it.
	left, before []byte
}

func (o *outside) free() {
	for i := range o.pieces {
		o.pool.put(o.pieces[i])
	}
	*o = outside{pool: o.pool}
}

// cut returns n bytes, whatever is in them. What is cut lies side by side, whatever it is for, so that
// huge pages are filled.
func (o *outside) cut(n int) []byte {
	whole := (n + align - 1) &^ (align - 1)
	for _, from := range []*[]byte{&o.before, &o.left} {
		if b := *from; whole <= len(b) {
			*from = b[whole:]
			return b[:n:n]
		}
	}
	size := pieceMax
	if len(o.pieces) == 0 {
		size /= 4
	}
	if huge.Checked { // it is of the heap, where each takes what it needs
		size = 0
	}
	p := o.pool.take(max(size, whole))
	o.pieces = append(o.pieces, p)
	b := p.Bytes()
	o.before, o.left = o.left, b[whole:]
	return b[:n:n]
}

// room returns n elements, which hold no pointers, and are zero if they are not bytes.
func room[T any](m *memory, n int) []T {
	bytes := n * int(unsafe.Sizeof(*new(T)))
	if o := m.outside; o == nil || bytes < outsideMin || bytes < outsideFirst && len(o.pieces) == 0 {
		return huge.Make[T](n)
	}
	b := m.outside.cut(bytes)
	s := unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(b))), n)
	if unsafe.Sizeof(*new(T)) > 1 {
		clear(s)
	}
	return s
}

// blocks returns how many elements are taken at a time where next are wanted now and
// up to most soon: of Go's heap that many, so that huge pages are filled.
func (m *memory) blocks(next, most int) int {
	if m.outside != nil {
		return next
	}
	return most
}

// NewShared is New of a table whose memory is mostly outside of Go's heap, and from a
// pool, which may be nil: it is there as long as somebody has it. Nobody has it yet:
// see Retain. One that is forgotten gives its memory back, too.
func NewShared(capacity int, pool *Pool) *Table {
	t := New(capacity)
	t.arena.memory.outside = &outside{pool: pool}
	runtime.AddCleanup(t, (*outside).free, t.arena.memory.outside)
	return t
}

// Retain says that one more has the table.
func (t *Table) Retain() { t.arena.memory.refs.Add(1) }

// Release says that one who had the table does not look at it any more, nor at what
// it has shown. With the last of them its memory is given back.
func (t *Table) Release() {
	if t.arena.memory.refs.Add(-1) > 0 || t.arena.memory.outside == nil {
		return
	}
	t.arena.memory.outside.free()
	if huge.Checked {
		t.arena.spoil()
	}
}
