package memtable

import (
	"bytes"
	"fmt"
	"sync/atomic"
	"unsafe"

	"github.com/forebaydb/forebay/internal/base"
	"github.com/forebaydb/forebay/internal/rangedel"
)

// ranges holds the range deletes of a table. They are added to a list; who
// reads them makes what sets of it he lacks and leaves them for others. So a
// log is replayed without making any, and reads between adds cost little: the
// list is cut into parts, each more than twice as long as the next, and a new
// range delete only joins the short ones at the end. Each is so put into at
// most log₂ n sets while there come to be n.
type ranges struct {
	// list is replaced as a whole by each add. Readers of an older one have a
	// shorter slice of the same array.
	list     atomic.Pointer[[]base.RangeDelete]
	view     atomic.Pointer[rangeView]
	min, max atomic.Uint64 // LSNs
}

// rangeView is the sets of the first range deletes of the list. It never
// changes.
type rangeView struct {
	parts  []*rangedel.Set
	ends   []int // where in the list each part ends
	memory int64
}

func (v *rangeView) end() int {
	if v == nil {
		return 0
	}
	return v.ends[len(v.ends)-1]
}

// AddRangeDelete enters a range delete of the keys from lo, inclusive, to hi,
// exclusive. It copies both. LSNs may come in any order, also that of versions
// and of other range deletes. On an error, which is ErrInvalid (also for an
// empty range) or ErrFull, the table holds what it held before.
func (t *Table) AddRangeDelete(lsn base.LSN, lo, hi []byte) error {
	switch {
	case len(lo) == 0 || len(lo) > base.MaxKeySize || len(hi) > base.MaxKeySize:
		return fmt.Errorf("%w: range with keys of %d and %d bytes", ErrInvalid, len(lo), len(hi))
	case bytes.Compare(lo, hi) >= 0:
		return fmt.Errorf("%w: empty range", ErrInvalid)
	case lsn == 0:
		return fmt.Errorf("%w: range delete at LSN 0", ErrInvalid)
	}
	n := len(lo) + len(hi)
	_, b, err := t.arena.alloc((n + unit - 1) &^ (unit - 1))
	if err != nil {
		return err
	}
	copy(b, lo)
	copy(b[len(lo):], hi)
	var list []base.RangeDelete
	if p := t.ranges.list.Load(); p != nil {
		list = *p
	}
	if len(list) == 0 || lsn < t.ranges.min.Load() {
		t.ranges.min.Store(lsn)
	}
	if lsn > t.ranges.max.Load() {
		t.ranges.max.Store(lsn)
	}
	list = append(list, base.RangeDelete{Lo: b[:len(lo):len(lo)], Hi: b[len(lo):n:n], LSN: lsn})
	t.ranges.list.Store(&list)
	t.sum()
	return nil
}

// size returns the bytes of the list. For the adding goroutine.
func (r *ranges) size() int {
	p := r.list.Load()
	if p == nil {
		return 0
	}
	return cap(*p) * int(unsafe.Sizeof(base.RangeDelete{}))
}

// memory returns the bytes of the sets.
func (r *ranges) memory() int64 {
	if v := r.view.Load(); v != nil {
		return v.memory
	}
	return 0
}

// RangeLen returns the number of range deletes.
func (t *Table) RangeLen() int {
	if p := t.ranges.list.Load(); p != nil {
		return len(*p)
	}
	return 0
}

// RangeDeletes returns all range deletes in one set, nil if there are none. It
// costs nothing while none is added; after an add it makes the set anew, in the
// time that it takes to sort all of them. For a table that is still written to
// RangeDeleteParts and Cover do less.
func (t *Table) RangeDeletes() *rangedel.Set {
	v := t.ranges.load(true)
	if v == nil {
		return nil
	}
	return v.parts[0]
}

// HasRangeDeletes says whether there is any.
func (t *Table) HasRangeDeletes() bool { return t.ranges.list.Load() != nil }

// RangeDeleteParts returns sets that together are all range deletes: of n at
// most log₂ n, none if there are none. Added one by one and read after each,
// they cost n·log n to n·log² n altogether. The slice must not be changed.
func (t *Table) RangeDeleteParts() []*rangedel.Set {
	v := t.ranges.load(false)
	if v == nil {
		return nil
	}
	return v.parts
}

// Cover returns the highest LSN of a range delete that covers key and that a
// reader at lsn sees, 0 if there is none: see rangedel.Set.Cover. It costs what
// RangeDeleteParts does, and then a search in each part. It allocates nothing
// while no range delete is added.
func (t *Table) Cover(key []byte, lsn base.LSN) base.LSN {
	var newest base.LSN
	if t.ranges.list.Load() == nil {
		return 0
	}
	for _, p := range t.ranges.load(false).parts {
		newest = max(newest, p.Cover(key, lsn))
	}
	return newest
}

// load returns the sets of all that is in the list, in one if so asked; nil for
// an empty list. Readers that meet here may do the same work; none waits.
func (r *ranges) load(whole bool) *rangeView {
	p := r.list.Load()
	if p == nil {
		return nil
	}
	list, old := *p, r.view.Load()
	if old.end() >= len(list) && (!whole || len(old.parts) == 1) {
		return old
	}
	if old.end() > len(list) { // Somebody saw a longer one meanwhile.
		list = *r.list.Load()
	}
	v := new(rangeView)
	from := 0
	if !whole && old != nil {
		keep := len(old.ends)
		for ; keep > 0; keep-- {
			start := 0
			if keep > 1 {
				start = old.ends[keep-2]
			}
			from = old.ends[keep-1]
			if from-start > 2*(len(list)-from) {
				break
			}
			from = start
		}
		v.parts = append(v.parts, old.parts[:keep]...)
		v.ends = append(v.ends, old.ends[:keep]...)
	}
	if from < len(list) {
		v.parts = append(v.parts, rangedel.New(list[from:]))
		v.ends = append(v.ends, len(list))
	}
	for _, p := range v.parts {
		v.memory += int64(p.Memory())
	}
	r.view.CompareAndSwap(old, v)
	return v
}
