package memtable

import (
	"runtime"
	"sync/atomic"
	"unsafe"

	"github.com/forebaydb/forebay/internal/huge"
)

// outsideMin is from how many bytes on memory is taken outside of Go's heap: a table
// of a few keys has all of its own there.
const outsideMin = 1 << 20

// memory is where the large pieces of a table come from. Versions that wait to be
// settled are most of what a store under load has in memory; in Go's heap each byte
// of them would let the heap grow by one more before the collector begins.
type memory struct {
	// outside, nil if all is Go's heap, has what was taken elsewhere. It is an object
	// of its own, so that it is still there when the table is found to be forgotten.
	outside *outside
	refs    atomic.Int32
}

type outside struct{ pieces []huge.Memory }

func (o *outside) free() {
	for i := range o.pieces {
		o.pieces[i].Free()
	}
	o.pieces = nil
}

// room returns n zero elements, which hold no pointers.
func room[T any](m *memory, n int) []T {
	bytes := n * int(unsafe.Sizeof(*new(T)))
	if m.outside == nil || bytes < outsideMin {
		return huge.Make[T](n)
	}
	p := huge.Map(bytes)
	m.outside.pieces = append(m.outside.pieces, p)
	return huge.Of[T](&p)
}

// NewShared is New of a table whose memory is mostly outside of Go's heap: it is
// there as long as somebody has it. Nobody has it yet: see Retain. One that is
// forgotten gives its memory back, too.
func NewShared(capacity int) *Table {
	t := New(capacity)
	t.share()
	return t
}

func (t *Table) share() {
	t.arena.memory.outside = new(outside)
	runtime.AddCleanup(t, (*outside).free, t.arena.memory.outside)
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
