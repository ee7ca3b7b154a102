package cache

import (
	"math/bits"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/forebaydb/forebay/internal/huge"
)

const (
	// unit is what memory is dealt out in, in bytes.
	unit = 512
	// outsideMin is the least block that lies outside of Go's heap, in bytes.
	outsideMin = 2 * unit
	// regionMin and regionMax bound how much is asked of the operating system at once.
	regionMin = 64 << 10
	regionMax = 32 << 20
	// bins: an extent of fewer units is in the bin of its length, a longer one in the
	// last.
	bins = 256
	// idleShare: one in so many bytes of the budget is for memory that no block has.
	// With less, blocks whose sizes differ by a tenth lead to pages that go and come
	// back all the time.
	idleShare = 8
	// discardMin is the least extent whose pages are given back, in units: a shorter
	// one seldom has a whole page.
	discardMin = 8 << 10 / unit
)

// memory is where blocks lie: outside of Go's heap, which would grow by as much again
// before the collector finds what was evicted. It consists of extents, which have no
// gap between them and of which no two that are idle lie side by side; a block takes
// the smallest idle one into which it goes, and leaves the rest. What is idle beyond
// the limit is given back to the operating system, a page at a time, whatever lies
// beside it: so blocks of all sizes may follow each other, and what the cache takes
// stays near its budget.
//
// All of its methods may be called at once.
type memory struct {
	mu    sync.Mutex
	limit int64 // of used and idle
	// used is in blocks. idle is in extents that no block has, in memory all the same.
	used, idle int64
	// over is by how much they are above the limit, where that could not be helped:
	// then more is evicted, until what lies idle is in longer pieces.
	over      atomic.Int64
	idles     binned
	discarded binned
	taken     *taken
}

// taken is what the operating system has given. It is an object of its own, so that
// it is still there when the memory is found to be forgotten.
type taken struct{ list []huge.Memory }

func (t *taken) free() {
	for i := range t.list {
		t.list[i].Free()
	}
	t.list = nil
}

// region is a piece of memory, and for the first and the last unit of each extent in
// it that extent.
type region struct {
	i  int // of taken.list
	b  []byte
	at []*extent
}

type state uint8

const (
	inUse state = iota
	isIdle
	isDiscarded
)

// extent is n units of a region from one on.
type extent struct {
	region     *region
	from, n    int
	state      state
	kept       int64   // bytes of one that was discarded that are in memory all the same
	prev, next *extent // in its bin
}

func (e *extent) bytes() []byte { return e.region.b[e.from*unit : (e.from+e.n)*unit] }
func (e *extent) size() int64   { return int64(e.n) * unit }

// mark makes the extent known at its ends.
func (e *extent) mark() { e.region.at[e.from], e.region.at[e.from+e.n-1] = e, e }

// binned is a set of extents, by length.
type binned struct {
	heads [bins]*extent
	has   [bins / 64]uint64
}

func binOf(n int) int { return min(n, bins-1) }

func (b *binned) add(e *extent) {
	i := binOf(e.n)
	e.prev, e.next = nil, b.heads[i]
	if e.next != nil {
		e.next.prev = e
	}
	b.heads[i] = e
	b.has[i/64] |= 1 << (i % 64)
}

func (b *binned) remove(e *extent) {
	i := binOf(e.n)
	if e.next != nil {
		e.next.prev = e.prev
	}
	if e.prev != nil {
		e.prev.next = e.next
	} else if b.heads[i] = e.next; e.next == nil {
		b.has[i/64] &^= 1 << (i % 64)
	}
	e.prev, e.next = nil, nil
}

// fit returns one of at least n units, of the shortest there are; nil if there is
// none.
func (b *binned) fit(n int) *extent {
	i := binOf(n)
	for w := i / 64; w < len(b.has); w++ {
		set := b.has[w]
		if w == i/64 {
			set &= ^uint64(0) << (i % 64)
		}
		for ; set != 0; set &= set - 1 {
			for e := b.heads[w*64+bits.TrailingZeros64(set)]; e != nil; e = e.next {
				if e.n >= n {
					return e
				}
			}
		}
	}
	return nil
}

// longest returns one of the longest bin, nil if there is none.
func (b *binned) longest() *extent {
	for w := len(b.has) - 1; w >= 0; w-- {
		if b.has[w] != 0 {
			return b.heads[w*64+bits.Len64(b.has[w])-1]
		}
	}
	return nil
}

func newMemory(budget int64) *memory {
	m := &memory{limit: budget, taken: new(taken)}
	runtime.AddCleanup(m, (*taken).free, m.taken)
	return m
}

// units returns how many units n bytes take.
func units(n int) int { return (n + unit - 1) / unit }

// alloc returns an extent of n bytes or a little more, whatever is in it.
func (m *memory) alloc(n int) *extent {
	n = units(n)
	m.mu.Lock()
	defer m.mu.Unlock()
	e, from := m.idles.fit(n), &m.idles
	if e == nil {
		e, from = m.discarded.fit(n), &m.discarded
	}
	if e == nil {
		e = m.grow(n)
	} else {
		from.remove(e)
	}
	switch e.state {
	case isIdle:
		m.idle -= int64(n) * unit
	case isDiscarded:
		m.idle -= e.kept
		e.kept = 0
	}
	if e.n > n {
		rest := &extent{region: e.region, from: e.from + n, n: e.n - n, state: e.state}
		rest.mark()
		from.add(rest)
		e.n = n
	}
	e.state = inUse
	e.mark()
	m.used += e.size()
	m.trim()
	return e
}

// grow returns a new region as one extent that no bin has. mu is held.
func (m *memory) grow(n int) *extent {
	size := min(max(m.limit, regionMin), regionMax)
	if huge.Checked { // it is of the heap, and zeroed each time
		size = regionMin
	}
	n = max(n, units(int(size)))
	p := huge.Map(n * unit)
	r := &region{i: len(m.taken.list), b: p.Bytes(), at: make([]*extent, n)}
	m.taken.list = append(m.taken.list, p)
	return &extent{region: r, n: n, state: isDiscarded}
}

// free takes an extent back. Nobody looks at it any more.
func (m *memory) free(e *extent) {
	huge.Spoil(e.bytes())
	m.mu.Lock()
	defer m.mu.Unlock()
	m.used -= e.size()
	if m.used == 0 {
		m.taken.free()
		m.idle, m.idles, m.discarded = 0, binned{}, binned{}
		m.over.Store(0)
		return
	}
	m.idle += e.size()
	m.put(e, isIdle, &m.idles)
	m.trim()
}

// put adds an extent to a bin, together with those beside it that are there.
func (m *memory) put(e *extent, s state, to *binned) {
	r := e.region
	if e.from > 0 {
		if p := r.at[e.from-1]; p.state == s {
			to.remove(p)
			e.from, e.n, e.kept = p.from, p.n+e.n, p.kept+e.kept
		}
	}
	if end := e.from + e.n; end < len(r.at) {
		if p := r.at[end]; p.state == s {
			to.remove(p)
			e.n, e.kept = e.n+p.n, e.kept+p.kept
		}
	}
	e.state = s
	e.mark()
	to.add(e)
}

// trim gives back what is idle above the limit. mu is held.
func (m *memory) trim() {
	for m.used+m.idle > m.limit {
		e := m.idles.longest()
		if e == nil || e.n < discardMin {
			break
		}
		given := int64(m.taken.list[e.region.i].Discard(e.from*unit, (e.from+e.n)*unit))
		if given == 0 {
			break
		}
		m.idles.remove(e)
		m.idle -= given
		e.kept = e.size() - given
		m.put(e, isDiscarded, &m.discarded)
	}
	m.over.Store(max(0, m.used+m.idle-m.limit))
}

func (m *memory) resize(budget int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.limit = budget
	m.trim()
}
