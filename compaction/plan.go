package compaction

import (
	"bytes"
	"cmp"
	"slices"

	"github.com/forebaydb/forebay/internal/rangedel"
	"github.com/forebaydb/forebay/manifest"
)

// Why says for what reason a plan was made.
type Why string

// Reasons for a plan.
const (
	WhyDrop       Why = "range delete hides all"
	WhyLevel0     Why = "level 0 is full"
	WhyGather     Why = "level 0 has many segments"
	WhySize       Why = "level is over its size"
	WhyTombstones Why = "tombstones"
	WhyFiles      Why = "many small segments"
	WhyManual     Why = "asked for"
)

// Plan is one compaction: what it takes away, and where what remains of it
// goes. It is never changed once it was made.
type Plan struct {
	Why Why
	// Inputs go away (or, with Move, to another level): newest first, which is
	// level 0 by descending MaxLSN, then each level by ascending keys.
	Inputs []manifest.Segment
	// To is the level of the outputs.
	To int
	// Move: the inputs go to level To as they are.
	Move bool
	// Drop: the inputs go away unread; no reader can see anything of them.
	Drop bool
	// Lo and Hi bound all inputs, half-open.
	Lo, Hi []byte
	// Below are the segments that may hold older versions of keys in [Lo, Hi)
	// and are no inputs.
	Below []manifest.Segment
	// Cuts, ascending, are keys at which outputs end if they are half full: the
	// bounds of the segments into which they will be merged one day.
	Cuts [][]byte
	// SegmentSize is what the outputs aim at, in bytes.
	SegmentSize int64
}

// Bytes is the size of all inputs.
func (p *Plan) Bytes() int64 { return sizeOf(p.Inputs) }

// Level0Bytes is the size of the inputs that are in level 0 and leave it.
func (p *Plan) Level0Bytes() (n int64) {
	if p.To > 0 {
		for i := range p.Inputs {
			if p.Inputs[i].Level == 0 {
				n += int64(p.Inputs[i].Size)
			}
		}
	}
	return n
}

func sizeOf(segs []manifest.Segment) (n int64) {
	for i := range segs {
		n += int64(segs[i].Size)
	}
	return n
}

// tombstones counts what the segments hold only to hide something.
func tombstones(segs []manifest.Segment) (dels, count uint64) {
	for i := range segs {
		dels += segs[i].Tombstones + rangeDeleteWeight*segs[i].RangeDeletes
		count += segs[i].Count
	}
	return dels, count
}

// rangeDeleteWeight is how many tombstones a range delete counts for.
const rangeDeleteWeight = 64

// hull returns the bounds of all segments.
func hull(segs []manifest.Segment) (lo, hi []byte) {
	for i := range segs {
		if i == 0 || bytes.Compare(segs[i].Lo, lo) < 0 {
			lo = segs[i].Lo
		}
		if i == 0 || bytes.Compare(segs[i].Hi, hi) > 0 {
			hi = segs[i].Hi
		}
	}
	return lo, hi
}

// overlap says whether [aLo, aHi) and [bLo, bHi) meet; nil bounds of a are
// open.
func overlap(aLo, aHi, bLo, bHi []byte) bool {
	return (aHi == nil || bytes.Compare(bLo, aHi) < 0) && (aLo == nil || bytes.Compare(aLo, bHi) < 0)
}

// tree is the levels as one call of Pick sees them.
type tree struct {
	o       Options
	levels  [][]manifest.Segment // level 0 newest first, the others by key
	sizes   []int64
	busy    map[uint64]bool
	running []*Plan
	base    int // where level 0 goes
	target  []int64
	segment int64 // what segments aim at
}

func newTree(segs []manifest.Segment, o Options, running []*Plan) *tree {
	t := &tree{o: o.withDefaults(), running: running, busy: map[uint64]bool{}}
	for i := range segs {
		t.o.Levels = max(t.o.Levels, segs[i].Level+1)
	}
	t.levels, t.sizes, t.target = make([][]manifest.Segment, t.o.Levels), make([]int64, t.o.Levels), make([]int64, t.o.Levels)
	for i := range segs {
		l := segs[i].Level
		t.levels[l] = append(t.levels[l], segs[i])
		t.sizes[l] += int64(segs[i].Size)
	}
	slices.SortFunc(t.levels[0], newestFirst)
	for _, level := range t.levels[1:] {
		slices.SortFunc(level, func(a, b manifest.Segment) int { return bytes.Compare(a.Lo, b.Lo) })
	}
	for _, p := range running {
		for i := range p.Inputs {
			t.busy[p.Inputs[i].Number] = true
		}
	}
	t.segment = t.o.segmentSize(sizeOf(segs))
	if t.o.MaxInput <= 0 {
		t.o.MaxInput = 24 * t.segment
	}
	t.shape()
	return t
}

func newestFirst(a, b manifest.Segment) int {
	return cmp.Or(cmp.Compare(b.MaxLSN, a.MaxLSN), cmp.Compare(b.Number, a.Number))
}

// shape sets base and targets. The last level holds nearly all; each level above
// is to hold a Ratio-th of the one below. Level 0 goes to the lowest level
// that is not much larger than what level 0 brings at a time: a merge with a
// level up to baseRatio times as large costs less than another level would.
func (t *tree) shape() {
	last := t.o.last()
	size := t.sizes[last]
	t.base = last
	t.target[last] = size
	for size > baseRatio*t.full() && t.base > 1 {
		size /= int64(t.o.Ratio)
		t.base--
		t.target[t.base] = size
	}
	// What is in higher levels, left from when the store was larger, is older
	// than level 0 and goes first.
	for l := 1; l < t.base; l++ {
		if len(t.levels[l]) > 0 {
			t.base = l
		}
	}
	for _, p := range t.running {
		if !p.Move && !p.Drop && p.To > 0 {
			t.base = min(t.base, p.To)
		}
	}
}

// baseRatio: see shape. A level between costs about 1 + Ratio/2 writes.
const baseRatio = 6

// full is how many bytes of level 0 are worth a compaction whatever it costs.
func (t *tree) full() int64 { return int64(t.o.Trigger) * t.o.MemtableSize }

// over returns the segments of level l that overlap [lo, hi); nil is open.
func (t *tree) over(l int, lo, hi []byte) []manifest.Segment {
	level := t.levels[l]
	if l == 0 {
		var out []manifest.Segment
		for i := range level {
			if overlap(lo, hi, level[i].Lo, level[i].Hi) {
				out = append(out, level[i])
			}
		}
		return out
	}
	i, j := 0, len(level)
	if lo != nil {
		i, _ = slices.BinarySearchFunc(level, lo, func(s manifest.Segment, k []byte) int {
			if bytes.Compare(s.Hi, k) <= 0 {
				return -1
			}
			return 1
		})
	}
	if hi != nil {
		j, _ = slices.BinarySearchFunc(level, hi, func(s manifest.Segment, k []byte) int {
			if bytes.Compare(s.Lo, k) < 0 {
				return -1
			}
			return 1
		})
	}
	return level[i:max(i, j):max(i, j)]
}

func (t *tree) anyBusy(segs []manifest.Segment) bool {
	return slices.ContainsFunc(segs, func(s manifest.Segment) bool { return t.busy[s.Number] })
}

// free says whether a plan for [lo, hi) may put its outputs into level l: no
// running one does, so that segments of a level stay disjoint.
func (t *tree) free(l int, lo, hi []byte) bool {
	for _, p := range t.running {
		if p.To == l && l > 0 && !p.Drop && overlap(lo, hi, p.Lo, p.Hi) {
			return false
		}
	}
	return true
}

// plan completes a plan of these inputs.
func (t *tree) plan(why Why, to int, inputs []manifest.Segment) *Plan {
	p := &Plan{Why: why, To: to, Inputs: slices.Clone(inputs), SegmentSize: t.segment}
	slices.SortFunc(p.Inputs, func(a, b manifest.Segment) int {
		if c := cmp.Compare(a.Level, b.Level); c != 0 || a.Level == 0 {
			return cmp.Or(c, newestFirst(a, b))
		}
		return bytes.Compare(a.Lo, b.Lo)
	})
	p.Lo, p.Hi = hull(p.Inputs)
	in := func(s manifest.Segment) bool {
		return slices.ContainsFunc(p.Inputs, func(q manifest.Segment) bool { return q.Number == s.Number })
	}
	if to == 0 {
		// What is older in level 0, and all that is below.
		oldest := p.Inputs[len(p.Inputs)-1]
		for _, s := range t.over(0, p.Lo, p.Hi) {
			if newestFirst(oldest, s) < 0 && !in(s) {
				p.Below = append(p.Below, s)
			}
		}
	}
	for l := to + 1; l < t.o.Levels; l++ {
		p.Below = append(p.Below, t.over(l, p.Lo, p.Hi)...)
	}
	if to > 0 && to+1 < t.o.Levels {
		for _, s := range t.over(to+1, p.Lo, p.Hi) {
			p.Cuts = append(p.Cuts, s.Lo)
		}
	}
	return p
}

// move returns a plan that moves the segments, which nothing at level to
// overlaps, or rewrites them when that rids them of their tombstones.
func (t *tree) move(why Why, to int, inputs []manifest.Segment) *Plan {
	p := t.plan(why, to, inputs)
	dels, count := tombstones(inputs)
	p.Move = dels == 0 || len(p.Below) > 0 && dels*8 < count
	if len(p.Below) == 0 && dels > 0 {
		p.Move = dels*8 < count && !slices.ContainsFunc(inputs, func(s manifest.Segment) bool { return s.RangeDeletes > 0 })
	}
	return p
}

// hides says whether dels hide all of s from every reader.
func (t *tree) hides(dels *rangedel.Set, s *manifest.Segment) bool {
	at := s.Lo
	spans := dels.Spans()
	for i := dels.Find(at, 0); i < len(spans); i++ {
		sp := &spans[i]
		if bytes.Compare(sp.Lo, at) > 0 || !t.hiding(sp, s) {
			return false
		}
		if at = sp.Hi; bytes.Compare(at, s.Hi) >= 0 {
			return true
		}
	}
	return false
}

// hiding says whether a range delete of sp is above all of s, seen by every
// reader that sees any of s.
func (t *tree) hiding(sp *rangedel.Span, s *manifest.Segment) bool {
	r := sp.Above(s.MaxLSN) // the lowest lets the most readers be
	if r == 0 || r > t.o.Above {
		return false
	}
	i, _ := slices.BinarySearch(t.o.Snapshots, s.MinLSN)
	return i == len(t.o.Snapshots) || t.o.Snapshots[i] >= r
}
