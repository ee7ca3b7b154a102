package merge

import (
	"cmp"
	"slices"
	"sort"

	"github.com/forebaydb/forebay/internal/base"
	"github.com/forebaydb/forebay/internal/rangedel"
)

// Keep says who may still read what is merged, and so what must be kept. There
// are readers at the LSN of each snapshot and at every LSN from Above on, and
// nowhere else. The zero Keep has readers at every LSN: it keeps all.
type Keep struct {
	// Snapshots are the LSNs of snapshots, ascending.
	Snapshots []base.LSN
	// Above is the lowest LSN from which on there are readers everywhere.
	Above base.LSN
	// Elide says whether nothing older of key exists outside of what is
	// merged, so that a delete of it that every reader sees may go itself.
	// It is called with ascending keys. nil says no.
	Elide func(key []byte) bool
	// ElideSpan is Elide for all keys in [lo, hi), and for range deletes.
	ElideSpan func(lo, hi []byte) bool
}

// Oldest returns the lowest LSN at which there is a reader. Range deletes at
// or below it hide from every reader what they hide.
func (k Keep) Oldest() base.LSN {
	if len(k.Snapshots) > 0 {
		return min(k.Snapshots[0], k.Above)
	}
	return k.Above
}

// reader returns the lowest LSN of a reader that sees lsn.
func (k Keep) reader(lsn base.LSN) base.LSN {
	top := max(lsn, k.Above)
	if i := sort.Search(len(k.Snapshots), func(i int) bool { return k.Snapshots[i] >= lsn }); i < len(k.Snapshots) {
		return min(k.Snapshots[i], top)
	}
	return top
}

// below returns the highest LSN below lsn that a reader may ask for, and
// whether there is one, where none from Above on is below lsn.
func (k Keep) below(lsn base.LSN) (base.LSN, bool) {
	i := sort.Search(len(k.Snapshots), func(i int) bool { return k.Snapshots[i] >= lsn })
	if i == 0 {
		return 0, false
	}
	return k.Snapshots[i-1], true
}

// Dels returns what must remain of dels: wherever several range deletes are seen
// by the same readers only the newest, and none that every reader sees and that
// hides nothing outside of what is merged.
func (k Keep) Dels(dels *rangedel.Set) *rangedel.Set {
	oldest := k.Oldest()
	var left []base.RangeDelete
	spans := dels.Spans()
	for i := range spans {
		s := &spans[i]
		if lsn := s.UpTo(oldest); lsn > 0 && (k.ElideSpan == nil || !k.ElideSpan(s.Lo, s.Hi)) {
			left = append(left, base.RangeDelete{Lo: s.Lo, Hi: s.Hi, LSN: lsn})
		}
	}
	if dels.MaxLSN() > oldest {
		left = k.newer(left, dels.Ranges())
	}
	return rangedel.New(left)
}

// newer appends to left what must remain of the dels above k.Oldest.
func (k Keep) newer(left, dels []base.RangeDelete) []base.RangeDelete {
	slices.SortFunc(dels, func(a, b base.RangeDelete) int { return cmp.Compare(a.LSN, b.LSN) })
	upTo := func(lsn base.LSN) int {
		return sort.Search(len(dels), func(i int) bool { return dels[i].LSN > lsn })
	}
	// Those up to one snapshot, or to Above, have the same readers.
	i := upTo(k.Oldest())
	for all := upTo(k.Above); i < all; {
		r := k.reader(dels[i].LSN)
		j := upTo(r)
		spans := rangedel.New(dels[i:j]).Spans()
		for n := range spans {
			left = append(left, base.RangeDelete{Lo: spans[n].Lo, Hi: spans[n].Hi, LSN: spans[n].UpTo(r)})
		}
		i = j
	}
	return append(left, dels[i:]...)
}
