package compaction

import (
	"bytes"
	"sort"

	"github.com/forebaydb/forebay/internal/merge"
	"github.com/forebaydb/forebay/manifest"
)

// Below answers where older versions may be than those that are merged. It is
// used by one goroutine at a time.
type Below struct {
	zero   []manifest.Segment   // may overlap each other
	levels [][]manifest.Segment // each sorted and disjoint
	at     []int                // of each level, where the last key was asked for
}

// NewBelow returns the Below of these segments, which may be of several levels.
func NewBelow(segs []manifest.Segment) *Below {
	b := &Below{}
	byLevel := map[int]int{}
	for _, s := range segs {
		if s.Level == 0 {
			b.zero = append(b.zero, s)
			continue
		}
		i, ok := byLevel[s.Level]
		if !ok {
			i = len(b.levels)
			byLevel[s.Level] = i
			b.levels = append(b.levels, nil)
		}
		b.levels[i] = append(b.levels[i], s)
	}
	for _, level := range b.levels {
		sort.Slice(level, func(i, j int) bool { return bytes.Compare(level[i].Lo, level[j].Lo) < 0 })
	}
	b.at = make([]int, len(b.levels))
	return b
}

// Key says whether some segment may hold the key. Ascending keys cost least.
func (b *Below) Key(key []byte) bool {
	for i := range b.zero {
		if bytes.Compare(b.zero[i].Lo, key) <= 0 && bytes.Compare(key, b.zero[i].Hi) < 0 {
			return true
		}
	}
	for i, level := range b.levels {
		at := b.at[i]
		if at > 0 && bytes.Compare(key, level[at-1].Hi) < 0 {
			at = 0
		}
		for steps := 0; at < len(level) && bytes.Compare(level[at].Hi, key) <= 0; steps++ {
			if at++; steps == 4 {
				rest := level[at:]
				at += sort.Search(len(rest), func(i int) bool { return bytes.Compare(rest[i].Hi, key) > 0 })
				break
			}
		}
		b.at[i] = at
		if at < len(level) && bytes.Compare(level[at].Lo, key) <= 0 {
			return true
		}
	}
	return false
}

// Span says whether some segment may hold a key in [lo, hi).
func (b *Below) Span(lo, hi []byte) bool {
	for i := range b.zero {
		if overlap(lo, hi, b.zero[i].Lo, b.zero[i].Hi) {
			return true
		}
	}
	for _, level := range b.levels {
		i := sort.Search(len(level), func(i int) bool { return bytes.Compare(level[i].Hi, lo) > 0 })
		if i < len(level) && bytes.Compare(level[i].Lo, hi) < 0 {
			return true
		}
	}
	return false
}

// Keep completes a merge.Keep: what hides nothing in the segments may go.
func (b *Below) Keep(k merge.Keep) merge.Keep {
	k.Elide = func(key []byte) bool { return !b.Key(key) }
	k.ElideSpan = func(lo, hi []byte) bool { return !b.Span(lo, hi) }
	return k
}
