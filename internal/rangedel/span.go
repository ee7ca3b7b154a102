package rangedel

import (
	"bytes"

	"github.com/forebaydb/forebay/internal/base"
)

// Span is a piece of the key space, [Lo, Hi), in which the same range deletes
// apply, at least one. Nothing of it must be changed.
type Span struct {
	Lo, Hi         []byte
	newest, oldest base.LSN
	// in is nil where no two of a set overlap.
	in           *pile
	begun, ended uint32
}

// Len returns how many range deletes apply.
func (s *Span) Len() int { return int(s.begun - s.ended) }

// Newest returns the highest LSN of the span's range deletes that a reader at
// lsn sees, which are those at or below lsn and its own, from base.OwnLSN on.
// It is 0 if there is none.
func (s *Span) Newest(lsn base.LSN) base.LSN {
	if s.newest >= base.OwnLSN {
		return s.newest
	}
	return s.UpTo(lsn)
}

// UpTo returns the highest LSN of the span's range deletes at or below lsn, 0 if
// there is none.
func (s *Span) UpTo(lsn base.LSN) base.LSN {
	switch {
	case s.newest <= lsn:
		return s.newest
	case s.oldest > lsn:
		return 0
	}
	return s.lsn(s.in.count(s.in.upTo(lsn), s.begun, s.ended) - 1)
}

// Above returns the lowest LSN of the span's range deletes that is above lsn, 0
// if there is none.
func (s *Span) Above(lsn base.LSN) base.LSN {
	switch {
	case s.oldest > lsn:
		return s.oldest
	case s.newest <= lsn:
		return 0
	}
	return s.lsn(s.in.count(s.in.upTo(lsn), s.begun, s.ended))
}

// LSNs returns the LSNs of all range deletes that apply, descending. There may
// be as many of them in each of n spans as there are spans.
func (s *Span) LSNs() []base.LSN {
	lsns := make([]base.LSN, s.Len())
	for i := range lsns {
		lsns[i] = s.lsn(uint32(len(lsns) - 1 - i))
	}
	return lsns
}

// lsn returns the i-th LSN, from the lowest one, 0.
func (s *Span) lsn(i uint32) base.LSN {
	if s.in == nil {
		return s.newest
	}
	return s.in.lsns[s.in.at(i, s.begun, s.ended)]
}

// joins says whether a and b are one span that was cut.
func joins(a, b *Span) bool {
	if a.newest != b.newest || a.oldest != b.oldest || a.Len() != b.Len() || !bytes.Equal(a.Hi, b.Lo) {
		return false
	}
	if a.in == b.in && a.begun == b.begun && a.ended == b.ended {
		return true
	}
	for i := range uint32(a.Len()) {
		if a.lsn(i) != b.lsn(i) {
			return false
		}
	}
	return true
}
