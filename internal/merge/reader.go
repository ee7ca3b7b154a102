package merge

import (
	"github.com/forebaydb/forebay/internal/base"
	"github.com/forebaydb/forebay/internal/rangedel"
)

// Source is one table of those that are merged: its versions and its range
// deletes.
type Source struct {
	Iter base.Iterator
	// Dels have, together, at least all range deletes up to the LSN at which is
	// read: of a table that still gets commits they are asked for when that LSN
	// is known. Few sets are best: a walk looks into each again and again.
	Dels []*rangedel.Set
	// MaxLSN is at or above every LSN of the versions of Iter. Where a range
	// delete above it hides keys, the source is not read. base.OwnLSN-1 is
	// right for a table that still gets commits, and base.MaxLSN for one that
	// holds a transaction's own writes, or may.
	MaxLSN base.LSN
}

// belowSkipper is what an iterator may have that passes versions below an LSN
// in larger steps than one.
type belowSkipper interface {
	// SkipBelow moves forward, from the version on which it stands, to the
	// first at or behind it that has a key at or behind until, or an LSN at
	// or above lsn; or, where its steps are too large, to one before that. It
	// may stay where it is, and says whether it stands on a version.
	SkipBelow(until []byte, lsn base.LSN) bool
}

// belowSkipperBack is belowSkipper in the other direction.
type belowSkipperBack interface {
	// SkipBelowBack moves backward, from the version on which it stands, to
	// the first at or before it that has a key before until, or an LSN at or
	// above lsn; or to one behind that.
	SkipBelowBack(until []byte, lsn base.LSN) bool
}

// NewReader returns an iterator over what a reader at lsn sees of all sources,
// within keys from lo, inclusive, to hi, exclusive; nil is no bound. It sees
// versions and range deletes at or below lsn, and its own, from base.OwnLSN on.
//
// The sources come newest first: if one (key, LSN) is in several, the first
// shows it. The result owns their iterators: Close closes them. lo and hi are
// kept, not copied, and must not change.
func NewReader(sources []Source, lsn base.LSN, lo, hi []byte) *Visible {
	v := newVisible(uncovered(sources, lsn, lo, hi, noHeads), lsn, lo, hi)
	for _, s := range sources {
		if s.MaxLSN >= base.OwnLSN {
			// Own versions stand before those at lsn.
			v.from = base.MaxLSN
		}
	}
	return v
}

// NewUncovered returns an iterator over all versions of sources, as New does,
// but for those that range deletes hide from every reader at or above lsn. It
// serves a merge of inputs with keep.Oldest as the LSN: Compact leaves out the
// same versions, but reads them. All keys are from lo, inclusive, to hi, exclusive.
func NewUncovered(sources []Source, lsn base.LSN, lo, hi []byte) base.Iterator {
	return uncovered(sources, lsn, nil, nil, base.CommonPrefix(lo, hi))
}

func uncovered(sources []Source, lsn base.LSN, lo, hi []byte, skip int) base.Iterator {
	iters := make([]base.Iterator, len(sources))
	some := false
	for i, s := range sources {
		iters[i] = s.Iter
		for _, d := range s.Dels {
			some = some || d.Overlaps(lo, hi)
		}
	}
	if !some {
		return newOf(iters, skip)
	}
	return newMask(sources, lsn, lo, hi, skip)
}
