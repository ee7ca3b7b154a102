// Package rangedel holds sets of range deletes: what of a key range is hidden
// from a reader at some LSN.
//
// Range deletes come in any order and overlap. A Set holds them cut at all
// their ends, so that in each piece, a Span, the same ones apply everywhere:
//
//	  [a ........ m)@7
//	        [f ............. t)@9
//	→ [a  f)@7 [f  m)@9,7 [m  t)@9
//
// A question about a key is then one binary search for its span. Which range
// deletes apply there is not written out, since n of them that cross each other
// make 2n spans with n² LSNs: a span knows its highest and its lowest one, and
// asks a structure that all spans share for any other (see pile). The opposite,
// Ranges, joins the pieces again: it is what a file should hold.
package rangedel

import (
	"bytes"
	"cmp"
	"slices"
	"unsafe"

	"github.com/forebaydb/forebay/internal/base"
)

// Set is a set of range deletes. It never changes, and any number of
// goroutines may use it at the same time. nil is the empty set.
type Set struct {
	spans []Span // sorted, disjoint; two that touch differ in their LSNs
	runs  []run
	min   base.LSN
	max   base.LSN
	keys  int // bytes of keys
	piles int // bytes of piles
}

// run is a stretch of at least two spans, of which each touches the next.
type run struct {
	from, to int      // indexes of spans, half-open
	min, max base.LSN // of the oldest range delete of each of its spans
}

// New returns the set of dels, which may come in any order and overlap. A
// range delete whose range is empty, or whose LSN is 0, hides nothing and is
// left out. The keys are kept and must not change; dels itself is not.
func New(dels []base.RangeDelete) *Set {
	dels = disjoint(dels)
	if len(dels) == 0 {
		return nil
	}
	begin := make([]uint32, len(dels))
	for i := range begin {
		begin[i] = uint32(i)
	}
	slices.SortFunc(begin, func(a, b uint32) int {
		return cmp.Or(bytes.Compare(dels[a].Lo, dels[b].Lo), cmp.Compare(dels[b].LSN, dels[a].LSN))
	})
	if touchless(dels, begin) {
		return single(dels, begin)
	}
	end := slices.Clone(begin)
	slices.SortFunc(end, func(a, b uint32) int { return bytes.Compare(dels[a].Hi, dels[b].Hi) })
	lsns := make([]base.LSN, len(dels))
	for i := range dels {
		lsns[i] = dels[i].LSN
	}
	in := newPile(lsns, begin, end)
	return build(cut(dels, in), in.memory())
}

// cut returns the spans of dels.
func cut(dels []base.RangeDelete, in *pile) []Span {
	spans := make([]Span, 0, len(dels)+len(dels)/2)
	active := newRanks(len(dels))
	var at []byte
	for begun, ended := 0, 0; ended < len(dels); {
		next := dels[in.end[ended]].Hi
		if begun < len(dels) && bytes.Compare(dels[in.begin[begun]].Lo, next) < 0 {
			next = dels[in.begin[begun]].Lo
		}
		if begun > ended {
			spans = append(spans, Span{
				Lo: at, Hi: next, newest: in.lsns[active.highest()], oldest: in.lsns[active.lowest()],
				in: in, begun: uint32(begun), ended: uint32(ended),
			})
		}
		for ; ended < len(dels) && bytes.Equal(dels[in.end[ended]].Hi, next); ended++ {
			active.remove(in.end[ended])
		}
		for ; begun < len(dels) && bytes.Equal(dels[in.begin[begun]].Lo, next); begun++ {
			active.add(in.begin[begun])
		}
		at = next
	}
	return spans
}

// disjoint copies dels without empty ones and with those of one LSN joined
// where they overlap or touch, sorted by LSN.
func disjoint(dels []base.RangeDelete) []base.RangeDelete {
	out := make([]base.RangeDelete, 0, len(dels))
	for _, d := range dels {
		if d.LSN > 0 && bytes.Compare(d.Lo, d.Hi) < 0 {
			out = append(out, d)
		}
	}
	slices.SortFunc(out, func(a, b base.RangeDelete) int {
		if a.LSN != b.LSN {
			if a.LSN < b.LSN {
				return -1
			}
			return 1
		}
		return bytes.Compare(a.Lo, b.Lo)
	})
	n := 0
	for i, d := range out {
		if i > 0 && out[n-1].LSN == d.LSN && bytes.Compare(out[n-1].Hi, d.Lo) >= 0 {
			if bytes.Compare(out[n-1].Hi, d.Hi) < 0 {
				out[n-1].Hi = d.Hi
			}
			continue
		}
		out[n] = d
		n++
	}
	return out[:n]
}

// touchless says whether dels, in the order by begin, are spans already.
func touchless(dels []base.RangeDelete, begin []uint32) bool {
	for i := 1; i < len(begin); i++ {
		if bytes.Compare(dels[begin[i-1]].Hi, dels[begin[i]].Lo) > 0 {
			return false
		}
	}
	return true
}

func single(dels []base.RangeDelete, begin []uint32) *Set {
	spans := make([]Span, len(dels))
	for i, rank := range begin {
		d := &dels[rank]
		spans[i] = Span{Lo: d.Lo, Hi: d.Hi, newest: d.LSN, oldest: d.LSN, begun: 1}
	}
	return build(spans, 0)
}

// build completes a set of spans, whose piles take up so many bytes.
func build(spans []Span, piles int) *Set {
	if len(spans) == 0 {
		return nil
	}
	s := &Set{spans: spans, min: base.MaxLSN, piles: piles}
	for i := range spans {
		p := &spans[i]
		s.min, s.max = min(s.min, p.oldest), max(s.max, p.newest)
		s.keys += len(p.Lo)
		switch touches := i > 0 && bytes.Equal(spans[i-1].Hi, p.Lo); {
		case !touches && i > 0:
			s.keys += len(spans[i-1].Hi)
		case touches && len(s.runs) > 0 && s.runs[len(s.runs)-1].to == i:
			r := &s.runs[len(s.runs)-1]
			r.to, r.min, r.max = i+1, min(r.min, p.oldest), max(r.max, p.oldest)
		case touches:
			before := spans[i-1].oldest
			s.runs = append(s.runs, run{i - 1, i + 1, min(before, p.oldest), max(before, p.oldest)})
		}
	}
	s.keys += len(spans[len(spans)-1].Hi)
	return s
}

// Merge returns the set of all range deletes of sets. Sets that do not overlap,
// as those of the segments of one level, are only put behind each other.
func Merge(sets ...*Set) *Set {
	var some []*Set
	for _, s := range sets {
		if s.Len() > 0 {
			some = append(some, s)
		}
	}
	switch len(some) {
	case 0:
		return nil
	case 1:
		return some[0]
	}
	slices.SortStableFunc(some, func(a, b *Set) int { return bytes.Compare(a.spans[0].Lo, b.spans[0].Lo) })
	apart := true
	for i := 1; i < len(some); i++ {
		_, hi := some[i-1].Bounds()
		apart = apart && bytes.Compare(hi, some[i].spans[0].Lo) <= 0
	}
	if !apart {
		var dels []base.RangeDelete
		for _, s := range some {
			dels = append(dels, s.Ranges()...)
		}
		return New(dels)
	}
	var spans []Span
	piles := 0
	for _, s := range some {
		rest := s.spans
		if n := len(spans); n > 0 && joins(&spans[n-1], &rest[0]) {
			spans[n-1].Hi = rest[0].Hi
			rest = rest[1:]
		}
		spans = append(spans, rest...)
		piles += s.piles
	}
	return build(spans, piles)
}

// Len returns the number of spans.
func (s *Set) Len() int {
	if s == nil {
		return 0
	}
	return len(s.spans)
}

// Spans returns the spans, sorted and disjoint. They must not be changed.
func (s *Set) Spans() []Span {
	if s == nil {
		return nil
	}
	return s.spans
}

// MinLSN returns the lowest LSN in the set, 0 if it is empty.
func (s *Set) MinLSN() base.LSN {
	if s == nil {
		return 0
	}
	return s.min
}

// MaxLSN returns the highest LSN in the set, 0 if it is empty.
func (s *Set) MaxLSN() base.LSN {
	if s == nil {
		return 0
	}
	return s.max
}

// Bounds returns the narrowest [lo, hi) that has all range deletes within it,
// nil and nil if there is none.
func (s *Set) Bounds() (lo, hi []byte) {
	if s.Len() == 0 {
		return nil, nil
	}
	return s.spans[0].Lo, s.spans[len(s.spans)-1].Hi
}

// Memory returns how many bytes the set holds, about, its keys included.
func (s *Set) Memory() int {
	if s == nil {
		return 0
	}
	return int(unsafe.Sizeof(*s)) + len(s.spans)*int(unsafe.Sizeof(Span{})) +
		len(s.runs)*int(unsafe.Sizeof(run{})) + s.keys + s.piles
}
