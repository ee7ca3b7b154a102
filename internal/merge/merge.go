// Package merge joins sorted sources of versions into one.
//
// Iterators build on each other:
//
//	Concat   the segments of a level → one source
//	New      many sources → all versions, in the order of base.Compare
//	mask     the same, without the versions that range deletes hide
//	Visible  all versions → what a reader at one LSN sees: one version a key
//	Compact  all versions → what readers at some LSNs may still see
//
// A read is NewReader, which is Visible over a mask over the memtable, the
// frozen memtables and the segments, or over New where there are no range
// deletes. A checkpoint or a compaction is Compact over NewUncovered, which is
// a mask or New, over its inputs.
//
// An error of any source ends the walk at once and is told by Err: what lies
// behind a source that failed is unknown, and to go on without it would show
// a key that it deletes. The next positioning call (First, Last, SeekGE,
// SeekLT) tries again.
package merge

import (
	"errors"
	"sort"

	"github.com/forebaydb/forebay/internal/base"
)

// New returns an iterator over all versions of iters, in the order of
// base.Compare. If one (key, LSN) is in several sources, the first source in
// the order of the arguments shows it and the others are passed over. The
// result owns iters: Close closes each of them, and one alone is returned as
// it is. Like each of them it is used by one goroutine at a time.
func New(iters ...base.Iterator) base.Iterator { return newOf(iters, noHeads) }

func newOf(iters []base.Iterator, skip int) base.Iterator {
	if len(iters) == 1 {
		return iters[0]
	}
	return newMerger(iters, skip)
}

func newMerger(iters []base.Iterator, skip int) *merger {
	m := &merger{sources: make([]source, len(iters)), skip: skip}
	for i, it := range iters {
		m.sources[i] = source{it: it, rank: i}
	}
	m.heap = make([]*source, 0, len(iters))
	return m
}

// source is one child. key and lsn are those of the version it stands on,
// kept because asking the child costs a call through the interface.
type source struct {
	it   base.Iterator
	key  []byte
	lsn  base.LSN
	head uint64 // of the key, behind merger.skip; all the same without
	rank int
}

// noHeads is the skip of a merger that knows nothing of its keys.
const noHeads = -1

// merger keeps the sources that stand on a version in a binary heap. When it
// walks forward each of them stands at or behind the current version, when it
// walks backward at or before it; the top is the current version, and no
// other stands on the same (key, LSN).
type merger struct {
	sources []source
	heap    []*source
	reverse bool
	err     error
	saved   []byte // see save
	// skip is the length of a prefix that all keys share, or noHeads. Behind it most
	// keys are told apart by eight bytes.
	skip int
}

func (m *merger) First() bool {
	return m.place(false, func(s *source) bool { return s.it.First() })
}

func (m *merger) Last() bool {
	return m.place(true, func(s *source) bool { return s.it.Last() })
}

func (m *merger) SeekGE(key []byte, lsn base.LSN) bool {
	key = m.save(key)
	return m.place(false, func(s *source) bool { return s.it.SeekGE(key, lsn) })
}

func (m *merger) SeekLT(key []byte, lsn base.LSN) bool {
	key = m.save(key)
	return m.place(true, func(s *source) bool { return s.it.SeekLT(key, lsn) })
}

// save copies key: it may be the key of a source, which dies when that moves.
func (m *merger) save(key []byte) []byte {
	m.saved = append(m.saved[:0], key...)
	return m.saved
}

// place moves every source by move and builds the heap anew.
func (m *merger) place(reverse bool, move func(*source) bool) bool {
	m.reverse, m.err, m.heap = reverse, nil, m.heap[:0]
	for i := range m.sources {
		s := &m.sources[i]
		if m.load(s, move(s)) {
			m.heap = append(m.heap, s)
		}
		if m.err != nil {
			return false
		}
	}
	for i := len(m.heap)/2 - 1; i >= 0; i-- {
		m.down(i)
	}
	return m.settle()
}

// load takes over where s stands after a move that returned ok. It returns
// false at the end of s and on its failure.
func (m *merger) load(s *source, ok bool) bool {
	if !ok {
		s.key = nil
		if err := s.it.Err(); err != nil {
			m.fail(err)
		}
		return false
	}
	m.stand(s)
	return true
}

// stand takes over the version on which s stands.
func (m *merger) stand(s *source) {
	s.key, s.lsn = s.it.Key(), s.it.LSN()
	s.head = 0
	if m.skip >= 0 && m.skip <= len(s.key) { // it is, but for a damage that no checksum found
		s.head = base.HeadBehind(s.key, m.skip)
	}
}

func (m *merger) fail(err error) {
	m.err, m.heap = err, m.heap[:0]
}

func (m *merger) Next() bool {
	switch {
	case !m.Valid():
		return false
	case m.reverse:
		return m.turn(false)
	}
	return m.advance(0) && m.settle()
}

func (m *merger) Prev() bool {
	switch {
	case !m.Valid():
		return false
	case !m.reverse:
		return m.turn(true)
	}
	return m.advance(0) && m.settle()
}

// turn changes the direction and moves one version: every source is placed
// anew beside the current version.
func (m *merger) turn(reverse bool) bool {
	key, lsn := m.heap[0].key, m.heap[0].lsn
	switch {
	case reverse:
		return m.SeekLT(key, lsn)
	case lsn > 0:
		return m.SeekGE(key, lsn-1)
	}
	// Behind (key, 0) comes the next key: key with a zero byte added is the
	// first that can follow.
	return m.SeekGE(append(m.save(key), 0), base.MaxLSN)
}

// advance moves the source at position i of the heap one version on and
// restores the heap below it. It returns false if the source failed.
func (m *merger) advance(i int) bool {
	s := m.heap[i]
	var ok bool
	if m.reverse {
		ok = s.it.Prev()
	} else {
		ok = s.it.Next()
	}
	return m.moved(i, ok)
}

// moved restores the heap after the source at position i was moved in the
// direction of the walk, with the result ok. It returns false if the source
// failed.
func (m *merger) moved(i int, ok bool) bool {
	if !m.load(m.heap[i], ok) {
		if m.err != nil {
			return false
		}
		last := len(m.heap) - 1
		m.heap[i] = m.heap[last]
		m.heap = m.heap[:last]
		if i == last {
			return true
		}
	}
	m.down(i)
	return true
}

// settle passes over further sources that stand on the same version as the
// top. They can only be children of the top or, after one of those moved on,
// take its place.
func (m *merger) settle() bool {
	for i := 1; i < len(m.heap) && i <= 2; {
		top, s := m.heap[0], m.heap[i]
		if s.lsn != top.lsn || s.head != top.head || string(s.key) != string(top.key) {
			i++
			continue
		}
		if !m.advance(i) {
			return false
		}
	}
	return len(m.heap) > 0
}

// down restores the heap's order below position i.
func (m *merger) down(i int) {
	h := m.heap
	for {
		least := 2*i + 1
		if least >= len(h) {
			return
		}
		if r := least + 1; r < len(h) && m.before(h[r], h[least]) {
			least = r
		}
		if !m.before(h[least], h[i]) {
			return
		}
		h[i], h[least] = h[least], h[i]
		i = least
	}
}

// before says whether a comes before b in the direction of the walk.
func (m *merger) before(a, b *source) bool {
	if a.head != b.head {
		return (a.head < b.head) != m.reverse
	}
	c := base.Compare(a.key, a.lsn, b.key, b.lsn)
	if c == 0 {
		return a.rank < b.rank
	}
	return (c < 0) != m.reverse
}

// Run implements base.Runner: the versions of the source on the top that come
// before all others.
func (m *merger) Run(dst []base.Version, most int, back bool) []base.Version {
	dst = dst[:0]
	if !m.Valid() || back != m.reverse {
		return dst
	}
	r, ok := m.heap[0].it.(base.Runner)
	if !ok {
		return dst
	}
	dst = r.Run(dst, most, back)
	if len(m.heap) == 1 {
		return dst
	}
	next := m.heap[1]
	if len(m.heap) > 2 && m.before(m.heap[2], next) {
		next = m.heap[2]
	}
	return dst[:sort.Search(len(dst), func(i int) bool {
		c := base.Compare(dst[i].Key, dst[i].LSN, next.key, next.lsn)
		return c == 0 || (c < 0) == back
	})]
}

// Advance implements base.Runner.
func (m *merger) Advance(n int) {
	s := m.heap[0]
	s.it.(base.Runner).Advance(n)
	m.stand(s)
}

func (m *merger) Valid() bool     { return len(m.heap) > 0 }
func (m *merger) Key() []byte     { return m.heap[0].key }
func (m *merger) LSN() base.LSN   { return m.heap[0].lsn }
func (m *merger) Kind() base.Kind { return m.heap[0].it.Kind() }
func (m *merger) Value() []byte   { return m.heap[0].it.Value() }
func (m *merger) Err() error      { return m.err }

// Rest leaves it, and all that can be of what is below, nowhere, ready to be placed.
func (m *merger) Rest() {
	m.err, m.heap = nil, m.heap[:0]
	for i := range m.sources {
		m.sources[i].key = nil
		if r, ok := m.sources[i].it.(rester); ok {
			r.Rest()
		}
	}
}

func (m *merger) bound(lo, hi []byte) {
	for i := range m.sources {
		if b, ok := m.sources[i].it.(bounded); ok {
			b.bound(lo, hi)
		}
	}
}

// Close closes every source, and returns all their errors joined.
func (m *merger) Close() error {
	var errs []error
	for i := range m.sources {
		errs = append(errs, m.sources[i].it.Close())
	}
	m.sources, m.heap = nil, nil
	return errors.Join(errs...)
}
