package rangedel

import (
	"bytes"
	"slices"
	"sort"

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
	return build(spans, s.piles)
}
