package memtable

import (
	"math"
	"math/bits"
	"sync/atomic"

	"github.com/forebaydb/forebay/internal/base"
	"github.com/forebaydb/forebay/internal/publish"
)

// fan is the number of entries of a leaf and of separators of an inner node:
// as many as one 64-bit word can order.
const fan = 14

// keys is the part that leaves and inner nodes share: up to fan places, each
// with the address of an entry, and the order of the places.
//
// A place is filled once, before the order that names it is stored, and does
// not change: who loads the order may read every place below its count. So an
// insert into a node is one atomic store, and a reader never sees half of it.
type keys struct {
	// order is the count, in its lowest 4 bits, and above it in ascending
	// order of their entries the numbers of the places, 4 bits each.
	order atomic.Uint64
	// heads are 8 bytes of each key, from skip on, as a big-endian number;
	// shorter keys are filled up with zeros. Different heads order as their
	// keys do; only for equal ones must the entries be looked at.
	heads [fan]uint64
	addrs [fan]uint32
	// skip is the length of a prefix that all keys share that may ever come
	// here: the common prefix of the two bounds of the node.
	skip uint32
	// max is at or above the stamp of every entry below the node. It is raised
	// before an entry can be met, so that who passes over a node because of it
	// misses nothing that was in the table when he came.
	max atomic.Uint32
}

// leaf is a node of entries: 192 bytes, three cache lines. next and prev are
// its neighbours, as they are now while the leaf is in the tree, and as they
// were when it was replaced afterwards; 0 is none.
type leaf struct {
	keys
	next, prev atomic.Uint32
}

// inner is a node of separators. Below separator p lies kids[place of p], with
// everything at or after its entry; first has what is before all of them.
//
// A node at an end of the table, as the root is at both, has a bound less, and anything may
// come there. Its skip is the length of a prefix that its keys had in common when it was
// made, and edge an entry with that prefix: keys without it have the least of all heads, or
// the greatest. So heads order as keys do there, too. edge is 0 where skip is as in leaves.
type inner struct {
	keys
	first atomic.Uint32
	kids  [fan]atomic.Uint32
	edge  uint32
}

// headOf returns the head of a key in the node.
func (n *inner) headOf(a *arena, key []byte) uint64 {
	if n.edge == 0 {
		return headOf(key, n.skip)
	}
	p := a.at(n.edge).key()[:n.skip]
	same := base.CommonPrefix(p, key)
	switch {
	case same == len(p):
		return headOf(key, n.skip)
	case same == len(key) || key[same] < p[same]:
		return 0
	}
	return math.MaxUint64
}

// search is keys.search.
func (n *inner) search(a *arena, order uint64, key []byte, lsn base.LSN) (pos int, same bool) {
	return n.searchHead(a, order, n.headOf(a, key), key, lsn)
}

func count(order uint64) int { return int(order & 15) }

// place returns the number of the place at a position.
func place(order uint64, pos int) int { return int(order >> (4 + 4*pos) & 15) }

// insertPlace returns order with a place inserted at a position.
func insertPlace(order uint64, pos, place int) uint64 {
	shift := 4 + 4*pos
	low := order & (1<<shift - 1)
	high := order >> shift << (shift + 4)
	return (low | uint64(place)<<shift | high) + 1
}

// headOf returns the head of a key in a node with that skip. A key within the
// bounds of the node has at least that length.
func headOf(key []byte, skip uint32) uint64 { return base.HeadBehind(key, int(skip)) }

// search returns the number of entries of the node before (key, lsn), counting
// by the given order, and whether the one behind them is (key, lsn).
func (k *keys) search(a *arena, order uint64, key []byte, lsn base.LSN) (pos int, same bool) {
	return k.searchHead(a, order, headOf(key, k.skip), key, lsn)
}

// searchHead is search for a key with that head.
func (k *keys) searchHead(a *arena, order, head uint64, key []byte, lsn base.LSN) (pos int, same bool) {
	var less, equal uint64
	n := count(order)
	for _, h := range k.heads[:n] {
		_, b := bits.Sub64(h, head, 0)
		less += b
		if h == head {
			equal++
		}
	}
	pos = int(less)
	if equal == 0 {
		return pos, false
	}
	// The first is tried first: among versions of one key the newest is wanted.
	for mid, end := pos, pos+int(equal); pos < end; mid = (pos + end) / 2 {
		switch c := a.compare(k.addrs[place(order, mid)], key, lsn); {
		case c < 0:
			pos = mid + 1
		case c > 0:
			end = mid
		default:
			return mid, true
		}
	}
	return pos, false
}

// put fills the next free place and names it at position pos. The caller saw
// to it that there is one.
func (k *keys) put(pos int, head uint64, addr uint32) {
	order := k.order.Load()
	n := count(order)
	k.heads[n], k.addrs[n] = head, addr
	publish.Uint64(&k.order, insertPlace(order, pos, n))
}

// raise sets max to at least a stamp. Only the inserting goroutine does.
func (k *keys) raise(stamp uint32) {
	if k.max.Load() < stamp {
		publish.Uint32(&k.max, stamp)
	}
}

// slab holds nodes of one type in slices that double up to a limit. A
// reference is a slice's number and a position; 0 is none.
type slab[T any] struct {
	slices atomic.Pointer[[][]T]
	used   int // of the last slice
	total  int
	block  []T // memory for the next slices
}

const (
	slabBits = 10
	slabMin  = 2
	slabMax  = 1 << slabBits
	// slabBlock is how many slices at most are cut from one block of memory: of
	// leaves it has 4 MiB.
	slabBlock = 21
)

func (s *slab[T]) at(ref uint32) *T {
	return &(*s.slices.Load())[ref>>slabBits][ref&(slabMax-1)]
}

func (s *slab[T]) add(m *memory) (uint32, *T) {
	p := s.slices.Load()
	if p == nil || s.used == len((*p)[len(*p)-1]) {
		p = s.grow(m, p)
	}
	last := len(*p) - 1
	ref := uint32(last)<<slabBits | uint32(s.used)
	s.used++
	return ref, &(*p)[last][ref&(slabMax-1)]
}

func (s *slab[T]) grow(m *memory, p *[][]T) *[][]T {
	var slices [][]T
	s.used = 0
	if p == nil {
		s.used = 1 // Reference 0 is none.
	} else {
		slices = *p
	}
	next := min(max(s.total, slabMin), slabMax)
	if len(s.block) >= slabMax { // reserved
		next = slabMax
	}
	if len(s.block) == 0 {
		s.block = room[T](m, m.blocks(next, min(max(s.total, slabMin)&^(next-1), slabBlock*slabMax)))
	}
	// As in the arena, readers do not reach the new element.
	slices = append(slices, s.block[:next:next])
	s.block = s.block[next:]
	s.slices.Store(&slices)
	s.total += next
	return &slices
}

// reserve takes memory for n nodes at once, if that is some slices of them. The slab
// is empty.
func (s *slab[T]) reserve(m *memory, n int) {
	if n >= slabMax {
		s.block = room[T](m, (n+slabMax)&^(slabMax-1)) // with reference 0
	}
}
