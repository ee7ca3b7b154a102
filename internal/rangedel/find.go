package rangedel

import (
	"bytes"
	"slices"
	"sort"
	"unsafe"

	"github.com/forebaydb/forebay/internal/base"
)

// Cover returns the highest LSN of a range delete that covers key and that a
// reader at lsn sees (see Span.Newest), 0 if there is none. Of the versions of
// key that reader sees none with an LSN below the result.
func (s *Set) Cover(key []byte, lsn base.LSN) base.LSN {
	if s == nil {
		return 0
	}
	i := s.search(0, len(s.spans), key)
	if i == len(s.spans) || bytes.Compare(s.spans[i].Lo, key) > 0 {
		return 0
	}
	return s.spans[i].Newest(lsn)
}

// search returns the first span in [from, to) that ends behind key, to if none.
func (s *Set) search(from, to int, key []byte) int {
	for from < to {
		mid := int(uint(from+to) / 2)
		if bytes.Compare(s.spans[mid].Hi, key) > 0 {
			to = mid
		} else {
			from = mid + 1
		}
	}
	return from
}

// findSteps is how many spans Find goes on one by one before it searches.
const findSteps = 2

// Find returns the index of the first span that ends behind key, Len if there
// is none. It is quick where that is at near or a few spans away from it.
func (s *Set) Find(key []byte, near int) int {
	n := s.Len()
	near = min(max(near, 0), n)
	if near < n && bytes.Compare(s.spans[near].Hi, key) <= 0 {
		for range findSteps {
			if near++; near == n || bytes.Compare(s.spans[near].Hi, key) > 0 {
				return near
			}
		}
		return s.search(near+1, n, key)
	}
	for range findSteps {
		if near == 0 || bytes.Compare(s.spans[near-1].Hi, key) <= 0 {
			return near
		}
		near--
	}
	return s.search(0, near, key)
}

// HiddenTo returns how far from the span at index i on, at most, a reader at
// lsn sees no version with an LSN up to old: the end of that span, or of the
// last of several that touch, nil if the span itself does not hide them all.
// It does little work, and may say less than would be true.
func (s *Set) HiddenTo(i int, old, lsn base.LSN) []byte {
	if s.spans[i].Newest(lsn) <= old {
		return nil
	}
	if r := s.run(i); r != nil && r.min > old && r.max <= lsn {
		return s.spans[r.to-1].Hi
	}
	return s.spans[i].Hi
}

// HiddenFrom is HiddenTo in the other direction: it returns the start.
func (s *Set) HiddenFrom(i int, old, lsn base.LSN) []byte {
	if s.spans[i].Newest(lsn) <= old {
		return nil
	}
	if r := s.run(i); r != nil && r.min > old && r.max <= lsn {
		return s.spans[r.from].Lo
	}
	return s.spans[i].Lo
}

// run returns the run with the span at index i, nil if it touches no other.
func (s *Set) run(i int) *run {
	n := sort.Search(len(s.runs), func(n int) bool { return s.runs[n].to > i })
	if n == len(s.runs) || s.runs[n].from > i {
		return nil
	}
	return &s.runs[n]
}

// Overlaps says whether a range delete covers a key in [lo, hi); nil bounds
// are open.
func (s *Set) Overlaps(lo, hi []byte) bool {
	from, to := s.within(lo, hi)
	return from < to
}

// within returns which spans have a part in [lo, hi).
func (s *Set) within(lo, hi []byte) (from, to int) {
	to = s.Len()
	if lo != nil && hi != nil && bytes.Compare(lo, hi) >= 0 {
		return 0, 0
	}
	if lo != nil {
		from = s.search(0, to, lo)
	}
	if hi != nil {
		to = from + sort.Search(to-from, func(i int) bool { return bytes.Compare(s.spans[from+i].Lo, hi) >= 0 })
	}
	return from, to
}

// Clip returns the parts of the range deletes that are in [lo, hi); nil bounds
// are open. lo and hi are kept, and must not change.
func (s *Set) Clip(lo, hi []byte) *Set {
	from, to := s.within(lo, hi)
	if from >= to {
		return nil
	}
	cutLo := lo != nil && bytes.Compare(s.spans[from].Lo, lo) < 0
	cutHi := hi != nil && bytes.Compare(s.spans[to-1].Hi, hi) > 0
	if from == 0 && to == len(s.spans) && !cutLo && !cutHi {
		return s
	}
	spans := slices.Clone(s.spans[from:to])
	if cutLo {
		spans[0].Lo = lo
	}
	if cutHi {
		spans[len(spans)-1].Hi = hi
	}
	return build(spans, s.lsnBytes(spans))
}

// lsnBytes returns how much memory the LSNs of spans take up, at most: spans
// may share theirs with each other, and all together with those of s.
func (s *Set) lsnBytes(spans []Span) int {
	n := 0
	for _, p := range spans {
		n += len(p.LSNs) * int(unsafe.Sizeof(p.LSNs[0]))
	}
	return min(n, s.lsns)
}

// Filter returns the set in which each span has only those LSNs that keep
// returns: descending, a part of the span's own, none to leave it out.
func (s *Set) Filter(keep func(Span) []base.LSN) *Set {
	if s == nil {
		return nil
	}
	var spans []Span
	lsns := 0
	for _, p := range s.spans {
		if p.LSNs = keep(p); len(p.LSNs) == 0 {
			continue
		}
		if n := len(spans); n > 0 && joins(spans[n-1], p) {
			spans[n-1].Hi = p.Hi
			continue
		}
		spans = append(spans, p)
		lsns += len(p.LSNs) * int(unsafe.Sizeof(p.LSNs[0]))
	}
	return build(spans, lsns)
}

// Ranges returns the range deletes of the set, each as long as it can be: of
// one LSN no two overlap or touch. They are sorted by Lo, then by LSN
// descending. New of them is the same set.
func (s *Set) Ranges() []base.RangeDelete {
	var out []base.RangeDelete
	open := map[base.LSN]int{} // where in out the LSN's last range is
	for _, p := range s.Spans() {
		for _, lsn := range p.LSNs {
			if i, ok := open[lsn]; ok && bytes.Equal(out[i].Hi, p.Lo) {
				out[i].Hi = p.Hi
				continue
			}
			open[lsn] = len(out)
			out = append(out, base.RangeDelete{Lo: p.Lo, Hi: p.Hi, LSN: lsn})
		}
	}
	return out
}
