package cache

import (
	"math/bits"
	"runtime"
	"sync"
	"sync/atomic"
	"unsafe"

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
	// numberSize is how many bytes a region has for each unit beside it.
	numberSize = 4
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
	// extents are all there are, by number; 0 is none. unused are numbers that no extent
	// has any more.
	extents []*extent
	unused  []uint32
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
// it the number of that extent; for the others any. The numbers lie behind the units,
// outside of the heap as these do.
type region struct {
	i  int // of taken.list
	b  []byte
	at []uint32
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
	number     uint32
	state      state
	prev, next *extent // in its bin
}

func (e *extent) bytes() []byte { return e.region.b[e.from*unit : (e.from+e.n)*unit] }
func (e *extent) size() int64   { return int64(e.n) * unit }

// pageUnits is how many units a page has.
var pageUnits = max(1, huge.PageSize()/unit)

// resident returns how many bytes of an extent that no block has are in memory: of one
// that was discarded what lies in a page with others.
func (e *extent) resident() int64 {
	if e.state != isDiscarded {
		return e.size()
	}
	from := (e.from + pageUnits - 1) / pageUnits
	to := (e.from + e.n) / pageUnits
	return e.size() - int64(max(0, to-from)*pageUnits)*unit
}

// mark makes the extent known at its ends.
func (e *extent) mark() {
	e.region.at[e.from], e.region.at[e.from+e.n-1] = e.number, e.number
}

// known returns the extent of which a unit is the first or the last.
func (m *memory) known(r *region, at int) *extent { return m.extents[r.at[at]] }

// number makes an extent known. mu is held.
func (m *memory) number(e *extent) *extent {
	if n := len(m.unused); n > 0 {
		e.number, m.unused = m.unused[n-1], m.unused[:n-1]
		m.extents[e.number] = e
		return e
	}
	if len(m.extents) == 0 {
		m.extents = append(m.extents, nil)
	}
	e.number = uint32(len(m.extents))
	m.extents = append(m.extents, e)
	return e
}

// absorbed forgets an extent of which another has all units. mu is held.
func (m *memory) absorbed(e *extent) {
	m.extents[e.number] = nil
	m.unused = append(m.unused, e.number)
}

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
	m := &memory{limit: limitOf(budget), taken: new(taken)}
	runtime.AddCleanup(m, (*taken).free, m.taken)
	return m
}

// limitOf returns what is for units.
func limitOf(budget int64) int64 { return budget - budget/(unit/numberSize) }

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
		m.idle -= e.resident()
	}
	if e.n > n {
		rest := m.number(&extent{region: e.region, from: e.from + n, n: e.n - n, state: e.state})
		m.idle += rest.resident()
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
	p := huge.Map(n * (unit + numberSize))
	b := p.Bytes()
	at := unsafe.Slice((*uint32)(unsafe.Pointer(&b[n*unit])), n)
	r := &region{i: len(m.taken.list), b: b[: n*unit : n*unit], at: at}
	m.taken.list = append(m.taken.list, p)
	return m.number(&extent{region: r, n: n, state: isDiscarded})
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
		m.extents, m.unused = nil, nil
		m.over.Store(0)
		return
	}
	m.put(e, isIdle, &m.idles)
	m.trim()
}

// put adds an extent to a bin, together with those beside it that are there. mu is
// held.
func (m *memory) put(e *extent, s state, to *binned) {
	r := e.region
	if e.from > 0 {
		if p := m.known(r, e.from-1); p.state == s {
			to.remove(p)
			m.idle -= p.resident()
			m.absorbed(p)
			e.from, e.n = p.from, p.n+e.n
		}
	}
	if end := e.from + e.n; end < len(r.at) {
		if p := m.known(r, end); p.state == s {
			to.remove(p)
			m.idle -= p.resident()
			m.absorbed(p)
			e.n += p.n
		}
	}
	e.state = s
	m.idle += e.resident()
	e.mark()
	to.add(e)
}

// trim gives back what is idle above the limit. mu is held.
func (m *memory) trim() {
	for m.used+m.idle > m.limit {
		e := m.idles.longest()
		if e == nil || e.n < discardMin || !m.discard(e) {
			break
		}
		m.idles.remove(e)
		m.idle -= e.resident()
		m.put(e, isDiscarded, &m.discarded)
	}
	m.over.Store(max(0, m.used+m.idle-m.limit))
}

// discard gives the pages of an idle extent back, and those that it has together with
// what was given back before. mu is held.
func (m *memory) discard(e *extent) bool {
	r, from, to := e.region, e.from, e.from+e.n
	if from > 0 {
		if p := m.known(r, from-1); p.state == isDiscarded {
			from = max(p.from, from/pageUnits*pageUnits)
		}
	}
	if to < len(r.at) {
		if p := m.known(r, to); p.state == isDiscarded {
			to = min(to+p.n, (to+pageUnits-1)/pageUnits*pageUnits)
		}
	}
	return m.taken.list[r.i].Discard(from*unit, to*unit) > 0
}

func (m *memory) resize(budget int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.limit = limitOf(budget)
	m.trim()
}
