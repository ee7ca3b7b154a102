package rangedel

import (
	"math/bits"
	"sort"

	"github.com/forebaydb/forebay/internal/base"
)

// pile answers which of n range deletes apply in a span. At a key those apply
// that began at or before it, less those that ended there or before: a prefix of
// all sorted by where they begin, less a prefix of all sorted by where they end.
// So a span only says how long the two are, and what n spans say takes up memory
// in proportion to n, however many range deletes apply in each.
//
// Range deletes are named by their rank: their place among all by LSN. How many
// in a prefix have a rank in some part of all ranks, halved again and again, is
// counted by a tree for each of the two orders; the lowest one above an LSN, or
// the highest up to it, is found by going down both at once, in log₂ n steps.
type pile struct {
	lsns         []base.LSN // of each rank, ascending; those of one LSN never apply together
	begin, end   []uint32   // ranks in the order in which they begin and end
	begun, ended tree       // the same as trees
}

func newPile(lsns []base.LSN, begin, end []uint32) *pile {
	return &pile{lsns: lsns, begin: begin, end: end, begun: newTree(begin), ended: newTree(end)}
}

// memory returns how many bytes the pile takes up.
func (p *pile) memory() int {
	const word, lsn, rank = 16, 8, 4
	return len(p.lsns)*(lsn+2*rank) + 2*len(p.begun)*word*(len(p.lsns)/64+1)
}

// upTo returns how many ranks have an LSN up to lsn.
func (p *pile) upTo(lsn base.LSN) uint32 {
	return uint32(sort.Search(len(p.lsns), func(i int) bool { return p.lsns[i] > lsn }))
}

// count returns how many of those that apply have a rank below rank, where so
// many have begun and ended.
func (p *pile) count(rank, begun, ended uint32) (n uint32) {
	if rank >= uint32(len(p.lsns)) {
		return begun - ended
	}
	from := uint32(0) // the ranks of the part that is looked at begin here
	for d := len(p.begun) - 1; d >= 0 && begun > ended; d-- {
		b, e := p.begun[d].upper(from, begun), p.ended[d].upper(from, ended)
		if rank>>d&1 == 0 {
			begun, ended = begun-b, ended-e
			continue
		}
		n += begun - b - (ended - e)
		from, begun, ended = from+1<<d, b, e
	}
	return n
}

// at returns the rank of the i-th of those that apply, from the lowest one, 0.
func (p *pile) at(i, begun, ended uint32) uint32 {
	from := uint32(0)
	for d := len(p.begun) - 1; d >= 0; d-- {
		b, e := p.begun[d].upper(from, begun), p.ended[d].upper(from, ended)
		if lower := begun - b - (ended - e); i < lower {
			begun, ended = begun-b, ended-e
		} else {
			i -= lower
			from, begun, ended = from+1<<d, b, e
		}
	}
	return from
}

// tree holds an order of the ranks from 0 to n-1 as one row for each bit of a
// rank, the lowest first. In the row of bit d the ranks stand sorted by what is
// above that bit, those alike in the order that is held; each is its bit d. (It
// is a wavelet tree.)
type tree []row

// row is bits; each word says how many ones stand before it.
type row []struct {
	bits   uint64
	before uint32
}

func newTree(order []uint32) tree {
	n := len(order)
	t := make(tree, bits.Len(uint(n-1)))
	if len(t) == 0 {
		return t
	}
	words := n/64 + 1
	all := make(row, len(t)*words)
	now, next := append([]uint32(nil), order...), make([]uint32, n)
	for d := len(t) - 1; d >= 0; d-- {
		r := all[d*words : (d+1)*words : (d+1)*words]
		for from := 0; from < n; from += 2 << d {
			// The next row has the lower half of this part before the upper.
			lower, upper := from, from+1<<d
			for i := from; i < min(n, from+2<<d); i++ {
				if rank := now[i]; rank>>d&1 == 0 {
					next[lower] = rank
					lower++
				} else {
					r[i/64].bits |= 1 << (i % 64)
					next[upper] = rank
					upper++
				}
			}
		}
		ones := uint32(0)
		for i := range r {
			r[i].before = ones
			ones += uint32(bits.OnesCount64(r[i].bits))
		}
		t[d] = r
		now, next = next, now
	}
	return t
}

// upper returns how many of the first n of the part that begins at from are in
// its upper half. All parts before it are whole, and half of each is upper.
func (r row) upper(from, n uint32) uint32 {
	i := from + n
	w := &r[i/64]
	return w.before + uint32(bits.OnesCount64(w.bits&(1<<(i%64)-1))) - from/2
}

// ranks is a set of numbers below a limit that knows its highest and its lowest
// one: bits, and for each word of them a bit that says that it is not 0, and so
// on up to one word.
type ranks [][]uint64

func newRanks(n int) ranks {
	var r ranks
	for {
		n = (n + 63) / 64
		r = append(r, make([]uint64, n))
		if n <= 1 {
			return r
		}
	}
}

func (r ranks) add(i uint32) {
	for _, words := range r {
		words[i/64] |= 1 << (i % 64)
		i /= 64
	}
}

func (r ranks) remove(i uint32) {
	for _, words := range r {
		words[i/64] &^= 1 << (i % 64)
		if words[i/64] != 0 {
			return
		}
		i /= 64
	}
}

// highest returns the highest number, of at least one.
func (r ranks) highest() (i uint32) {
	for d := len(r) - 1; d >= 0; d-- {
		i = i*64 + uint32(bits.Len64(r[d][i])-1)
	}
	return i
}

// lowest returns the lowest number, of at least one.
func (r ranks) lowest() (i uint32) {
	for d := len(r) - 1; d >= 0; d-- {
		i = i*64 + uint32(bits.TrailingZeros64(r[d][i]))
	}
	return i
}
