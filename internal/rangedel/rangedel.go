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
// A question about a key is then one binary search for its span and one for
// the LSN in it. The opposite, Ranges, joins the pieces again: it is what a
// file should hold, since n nested range deletes make n spans with n²/2 LSNs.
// In memory such spans share their lists where one is a part of another.
package rangedel

import (
	"bytes"
	"slices"
	"sort"
	"unsafe"

	"github.com/forebaydb/forebay/internal/base"
)

// Span is a piece of the key space, [Lo, Hi), in which the same range deletes
// apply: those with LSNs, which are descending and at least one. Spans of a
// Set share their slices; nothing of them must be changed.
type Span struct {
	Lo, Hi []byte
	LSNs   []base.LSN
}

// Newest returns the highest LSN of the span's range deletes that a reader at
// lsn sees, which are those at or below lsn and its own, from base.OwnLSN on.
// It is 0 if there is none.
func (s Span) Newest(lsn base.LSN) base.LSN {
	if newest := s.LSNs[0]; newest <= lsn || newest >= base.OwnLSN {
		return newest
	}
	// Few have many.
	if i := sort.Search(len(s.LSNs), func(i int) bool { return s.LSNs[i] <= lsn }); i < len(s.LSNs) {
		return s.LSNs[i]
	}
	return 0
}

// Set is a set of range deletes. It never changes, and any number of
// goroutines may use it at the same time. nil is the empty set.
type Set struct {
	spans []Span // sorted, disjoint; two that touch differ in their LSNs
	runs  []run
	min   base.LSN
	max   base.LSN
	keys  int // bytes of keys
	lsns  int // bytes of LSNs
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
	slices.SortFunc(dels, func(a, b base.RangeDelete) int { return base.Compare(a.Lo, b.LSN, b.Lo, a.LSN) })
	if touchless(dels) {
		return single(dels)
	}
	ends := slices.Clone(dels)
	slices.SortFunc(ends, func(a, b base.RangeDelete) int { return base.Compare(a.Hi, b.LSN, b.Hi, a.LSN) })
	spans := make([]Span, 0, len(dels)+len(dels)/2)
	var active list
	var at []byte
	for len(ends) > 0 {
		next := ends[0].Hi
		if len(dels) > 0 && bytes.Compare(dels[0].Lo, next) < 0 {
			next = dels[0].Lo
		}
		if lsns := active.publish(); len(lsns) > 0 {
			spans = append(spans, Span{Lo: at, Hi: next, LSNs: lsns})
		}
		for len(ends) > 0 && bytes.Equal(ends[0].Hi, next) {
			active.remove(ends[0].LSN)
			ends = ends[1:]
		}
		for len(dels) > 0 && bytes.Equal(dels[0].Lo, next) {
			active.add(dels[0].LSN)
			dels = dels[1:]
		}
		at = next
	}
	return build(spans, active.allocated*int(unsafe.Sizeof(base.LSN(0))))
}

// disjoint copies dels without empty ones and with those of one LSN joined
// where they overlap or touch.
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

// touchless says whether dels, sorted, are spans already.
func touchless(dels []base.RangeDelete) bool {
	for i := 1; i < len(dels); i++ {
		if bytes.Compare(dels[i-1].Hi, dels[i].Lo) > 0 {
			return false
		}
	}
	return true
}

func single(dels []base.RangeDelete) *Set {
	spans := make([]Span, len(dels))
	lsns := make([]base.LSN, len(dels))
	for i, d := range dels {
		lsns[i] = d.LSN
		spans[i] = Span{Lo: d.Lo, Hi: d.Hi, LSNs: lsns[i : i+1 : i+1]}
	}
	return build(spans, len(lsns)*int(unsafe.Sizeof(lsns[0])))
}

// build completes a set of spans, whose LSNs take up so many bytes.
func build(spans []Span, lsns int) *Set {
	if len(spans) == 0 {
		return nil
	}
	s := &Set{spans: spans, min: base.MaxLSN, lsns: lsns}
	for i, p := range spans {
		oldest := p.LSNs[len(p.LSNs)-1]
		s.min, s.max = min(s.min, oldest), max(s.max, p.LSNs[0])
		s.keys += len(p.Lo)
		switch touches := i > 0 && bytes.Equal(spans[i-1].Hi, p.Lo); {
		case !touches && i > 0:
			s.keys += len(spans[i-1].Hi)
		case touches && len(s.runs) > 0 && s.runs[len(s.runs)-1].to == i:
			r := &s.runs[len(s.runs)-1]
			r.to, r.min, r.max = i+1, min(r.min, oldest), max(r.max, oldest)
		case touches:
			before := spans[i-1].LSNs[len(spans[i-1].LSNs)-1]
			s.runs = append(s.runs, run{i - 1, i + 1, min(before, oldest), max(before, oldest)})
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
	lsns := 0
	for _, s := range some {
		rest := s.spans
		if n := len(spans); n > 0 && joins(spans[n-1], rest[0]) {
			spans[n-1].Hi = rest[0].Hi
			rest = rest[1:]
		}
		spans = append(spans, rest...)
		lsns += s.lsns
	}
	return build(spans, lsns)
}

// joins says whether a and b are one span that was cut.
func joins(a, b Span) bool {
	return bytes.Equal(a.Hi, b.Lo) && slices.Equal(a.LSNs, b.LSNs)
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
		len(s.runs)*int(unsafe.Sizeof(run{})) + s.keys + s.lsns
}
