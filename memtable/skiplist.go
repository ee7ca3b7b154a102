package memtable

import (
	"encoding/binary"
	"math/bits"
	"sync/atomic"

	"github.com/forebaydb/forebay/internal/base"
)

const (
	maxHeight = 16
	// A node is a run of words: the address of its entry, the first 8 bytes
	// of its key as two words, the node before it, and the next node of each
	// level.
	wordAddr  = 0
	wordHead  = 1
	wordPrev  = 3
	wordNext  = 4
	wordBits  = 18
	wordChunk = 1 << wordBits
)

// index is a skiplist. Node 0 is none, and stands for the list's head.
type index struct {
	words  atomic.Pointer[[][]atomic.Uint32]
	free   uint32 // next free word
	total  int    // words allocated
	head   [maxHeight]atomic.Uint32
	tail   atomic.Uint32
	height atomic.Int32
	rng    uint64

	// splice is where the last insert went, at each level; the next one
	// begins there if it belongs there.
	splice [maxHeight]uint32
}

func (x *index) size() int { return x.total * 4 }

func (x *index) node(n uint32) []atomic.Uint32 {
	return (*x.words.Load())[n>>wordBits][n&(wordChunk-1):]
}

func (x *index) next(n uint32, level int) uint32 {
	if n == 0 {
		return x.head[level].Load()
	}
	return x.node(n)[wordNext+level].Load()
}

func headOf(key []byte) uint64 {
	if len(key) >= 8 {
		return binary.BigEndian.Uint64(key)
	}
	var b [8]byte
	copy(b[:], key)
	return binary.BigEndian.Uint64(b[:])
}

// compare orders node n, not 0, against (key, lsn).
func (x *index) compare(a *arena, n uint32, head uint64, key []byte, lsn base.LSN) int {
	w := x.node(n)
	h := uint64(w[wordHead].Load())<<32 | uint64(w[wordHead+1].Load())
	if h != head {
		if h < head {
			return -1
		}
		return 1
	}
	e := a.at(w[wordAddr].Load())
	return base.Compare(e.key(), e.lsn(), key, lsn)
}

// find sets splice to the last node before (key, lsn) at each level, and
// returns the node at or after it.
func (x *index) find(a *arena, key []byte, lsn base.LSN, splice *[maxHeight]uint32) (at uint32, same bool) {
	head := headOf(key)
	var n, stop uint32
	c := 1
	for level := int(x.height.Load()) - 1; level >= 0; level-- {
		for {
			m := x.next(n, level)
			if m == 0 {
				at = 0
				break
			}
			if m == stop {
				at = m
				break
			}
			if c = x.compare(a, m, head, key, lsn); c >= 0 {
				stop, at = m, m
				same = c == 0
				break
			}
			n = m
		}
		splice[level] = n
	}
	return at, same
}

func (x *index) ceiling(a *arena, key []byte, lsn base.LSN) (uint32, bool) {
	var splice [maxHeight]uint32
	n, _ := x.find(a, key, lsn, &splice)
	if n == 0 {
		return 0, false
	}
	return x.node(n)[wordAddr].Load(), true
}

// fits says whether (key, lsn) goes right behind where the last insert went.
func (x *index) fits(a *arena, head uint64, key []byte, lsn base.LSN) bool {
	n := x.splice[0]
	if n == 0 || x.compare(a, n, head, key, lsn) >= 0 {
		return false
	}
	m := x.next(n, 0)
	return m == 0 || x.compare(a, m, head, key, lsn) > 0
}

func (x *index) insert(a *arena, lsn base.LSN, kind base.Kind, key, value []byte) error {
	head := headOf(key)
	if !x.fits(a, head, key, lsn) {
		if _, same := x.find(a, key, lsn, &x.splice); same {
			return ErrDuplicate
		}
	}
	addr, err := a.add(lsn, kind, key, value)
	if err != nil {
		return err
	}
	x.rng = x.rng*6364136223846793005 + 1442695040888963407
	height := min(1+bits.TrailingZeros64(x.rng>>20|1<<40)/2, maxHeight)
	n := x.alloc(wordNext + height)
	w := x.node(n)
	w[wordAddr].Store(addr)
	w[wordHead].Store(uint32(head >> 32))
	w[wordHead+1].Store(uint32(head))
	w[wordPrev].Store(x.splice[0])
	for level := int(x.height.Load()); level < height; level++ {
		x.splice[level] = 0
		x.height.Store(int32(level + 1))
	}
	after := x.next(x.splice[0], 0)
	for level := range height {
		w[wordNext+level].Store(x.next(x.splice[level], level))
	}
	for level := range height {
		if p := x.splice[level]; p == 0 {
			x.head[level].Store(n)
		} else {
			x.node(p)[wordNext+level].Store(n)
		}
		x.splice[level] = n
	}
	if after == 0 {
		x.tail.Store(n)
	} else {
		x.node(after)[wordPrev].Store(n)
	}
	return nil
}

func (x *index) alloc(n int) uint32 {
	var words [][]atomic.Uint32
	if p := x.words.Load(); p != nil {
		words = *p
	} else {
		x.free = 1
	}
	c := int(x.free >> wordBits)
	if c < len(words) && int(x.free&(wordChunk-1))+n <= len(words[c]) {
		at := x.free
		x.free += uint32(n)
		return at
	}
	size := min(max(x.total, 512), wordChunk)
	words = append(words, make([]atomic.Uint32, size))
	x.words.Store(&words)
	x.total += size
	at := uint32(len(words)-1) << wordBits
	if at == 0 {
		at = 1
	}
	x.free = at + uint32(n)
	return at
}
