package compaction

import (
	"bytes"
	"slices"

	"github.com/forebaydb/forebay/manifest"
)

// Pick returns the compaction that is worth most now, nil when none is worth
// its cost or what is running is in its way. It is a pure function and may be
// called at any time; the plan holds while nobody but the caller removes
// segments. segs are all that are live, in any order.
func Pick(segs []manifest.Segment, o Options, running []*Plan) *Plan {
	t := newTree(segs, o, running)
	if p := t.drop(nil, nil); p != nil {
		return p
	}
	if p := t.moveUp(); p != nil {
		return p
	}
	zero, press := t.level0()
	if zero != nil && press >= 2 {
		return zero
	}
	sized, score := t.sized()
	switch {
	case zero != nil && press >= score:
		return zero
	case sized != nil:
		return sized
	case zero != nil:
		return zero
	}
	if p := t.tombstones(nil, nil, false); p != nil {
		return p
	}
	return t.files()
}

// Debt is about how many bytes are above where they should be, beyond what
// waits for its turn in good order: the levels' part of a backlog.
func Debt(segs []manifest.Segment, o Options) int64 {
	t := newTree(segs, o, nil)
	var n int64
	for l := 1; l < t.o.last(); l++ {
		n += max(0, t.sizes[l]-2*max(t.target[l], t.full()))
	}
	return n
}

// drop finds segments of which a range delete above hides everything.
func (t *tree) drop(lo, hi []byte) *Plan {
	if t.o.RangeDeletes == nil {
		return nil
	}
	var out []manifest.Segment
	taken := map[uint64]bool{}
	for l, level := range t.levels {
		for i := range level {
			s := &level[i]
			if s.RangeDeletes == 0 || taken[s.Number] || !overlap(lo, hi, s.Lo, s.Hi) {
				continue
			}
			dels := t.o.RangeDeletes(s.Number)
			if dels.Len() == 0 {
				continue
			}
			from, end := dels.Bounds()
			// Older ones of level 0, and all below.
			for m := l; m < t.o.Levels; m++ {
				for _, g := range t.over(m, from, end) {
					if g.Number == s.Number || m == l && (l > 0 || newestFirst(*s, g) > 0) || t.busy[g.Number] || taken[g.Number] {
						continue
					}
					if t.hides(dels, &g) {
						taken[g.Number] = true
						out = append(out, g)
					}
				}
			}
		}
	}
	if len(out) == 0 {
		return nil
	}
	p := t.plan(WhyDrop, 0, out)
	p.Drop, p.Below = true, nil
	return p
}

// moveUp finds a segment of level 0 that can leave it as it is: nothing older in
// level 0 overlaps it, nor anything at the base level. What is small stays, to
// be merged with others of its kind.
func (t *tree) moveUp() *Plan {
	zero := t.levels[0]
	for i := len(zero) - 1; i >= 0; i-- {
		s := zero[i]
		if int64(s.Size) < t.segment/4 || t.busy[s.Number] || !t.free(t.base, s.Lo, s.Hi) {
			continue
		}
		older := slices.ContainsFunc(zero[i+1:], func(g manifest.Segment) bool { return overlap(s.Lo, s.Hi, g.Lo, g.Hi) })
		if older || len(t.over(t.base, s.Lo, s.Hi)) > 0 {
			continue
		}
		if p := t.move(WhyLevel0, t.base, zero[i:i+1]); p.Move {
			return p
		}
	}
	return nil
}

// components splits level 0 into sets that do not overlap each other, each
// newest first.
func (t *tree) components() [][]manifest.Segment {
	byKey := slices.Clone(t.levels[0])
	slices.SortFunc(byKey, func(a, b manifest.Segment) int { return bytes.Compare(a.Lo, b.Lo) })
	var out [][]manifest.Segment
	var hi []byte
	for _, s := range byKey {
		if len(out) == 0 || bytes.Compare(s.Lo, hi) >= 0 {
			out = append(out, nil)
			hi = s.Hi
		}
		out[len(out)-1] = append(out[len(out)-1], s)
		if bytes.Compare(s.Hi, hi) > 0 {
			hi = s.Hi
		}
	}
	for _, c := range out {
		slices.SortFunc(c, newestFirst)
	}
	return out
}

// level0 finds what to do about level 0 and how urgent it is; 1 is worth while.
func (t *tree) level0() (*Plan, float64) {
	zero := t.levels[0]
	if len(zero) == 0 {
		return nil, 0
	}
	press := float64(len(zero)) / float64(t.o.Trigger)
	var best *Plan
	var most int64
	for _, c := range t.components() {
		if p := t.leave(c, len(zero) >= t.o.Trigger); p != nil && p.Level0Bytes() > most {
			best, most = p, p.Level0Bytes()
		}
	}
	if best != nil {
		return best, max(press, 1)
	}
	return t.gather(), press
}

// leave returns a plan that brings the oldest segments of a component of level 0
// to the base level, nil if that is not worth while now.
func (t *tree) leave(c []manifest.Segment, many bool) *Plan {
	from := len(c)
	for from > 0 && !t.busy[c[from-1].Number] {
		from--
	}
	in := c[from:]
	if len(in) == 0 {
		return nil
	}
	lo, hi := hull(in)
	below := t.over(t.base, lo, hi)
	if t.anyBusy(below) || !t.free(t.base, lo, hi) {
		return nil
	}
	size, cost := sizeOf(in), sizeOf(below)
	dels, count := tombstones(in)
	_, hidden := tombstones(below)
	for l := t.base + 1; l < t.o.Levels; l++ {
		_, n := tombstones(t.over(l, lo, hi))
		hidden += n
	}
	worth := size >= fullTriggers*t.full() ||
		many && (len(in) >= manyTriggers*t.o.Trigger || size >= cost && size >= t.segment/4)
	if !worth {
		worth = dels > t.o.FewTombstones && 8*dels >= count+hidden || dels > t.o.FrontTombstones
	}
	if !worth {
		return nil
	}
	return t.plan(WhyLevel0, t.base, slices.Concat(in, below))
}

// What level 0 is merged with is not larger than what it brings, unless that is
// fullTriggers times what is worth a compaction, or manyTriggers times as many segments.
// The more there is in level 0, the less is written for each byte of it, and the more
// segments a read has to ask.
const (
	fullTriggers = 4
	manyTriggers = 6
)

// gather merges neighbours of level 0, in age, into one of level 0: small ones,
// or those that come while the base level is being merged.
func (t *tree) gather() *Plan {
	zero := t.levels[0]
	var best []manifest.Segment
	for i := 0; i < len(zero); i++ {
		var sum int64
		j := i
		for j < len(zero) && !t.busy[zero[j].Number] {
			size := int64(zero[j].Size)
			if j > i && size > max(2*sum, t.o.MemtableSize/64) {
				break
			}
			sum += size
			j++
		}
		need := t.o.Trigger
		if sum > t.o.MemtableSize {
			need *= manyTriggers // written twice, they should save more
		}
		if run := zero[i:j]; len(run) >= need && len(run) > len(best) {
			best = run
		}
	}
	if best == nil {
		return nil
	}
	return t.plan(WhyGather, 0, best)
}

// sized finds the level that is most above its size, and of its segments those
// that cost least to merge into the next. The score is size by target.
func (t *tree) sized() (*Plan, float64) {
	type over struct {
		level int
		score float64
	}
	var levels []over
	for l := 1; l < t.o.last(); l++ {
		var leaving int64
		for _, s := range t.levels[l] {
			if t.busy[s.Number] && !t.entering(s.Number, l) {
				leaving += int64(s.Size)
			}
		}
		have := float64(t.sizes[l] - leaving)
		if score := have / float64(max(t.target[l], 1)); have > 0 && score > 1 {
			levels = append(levels, over{l, min(score, 100)})
		}
	}
	slices.SortStableFunc(levels, func(a, b over) int {
		if a.score > b.score {
			return -1
		}
		return 1
	})
	for _, l := range levels {
		if p := t.cheapest(l.level); p != nil {
			return p, l.score
		}
	}
	return nil, 0
}

// entering says whether a busy segment of level l will be replaced by outputs
// in the same level.
func (t *tree) entering(number uint64, l int) bool {
	for _, p := range t.running {
		if p.To == l && slices.ContainsFunc(p.Inputs, func(s manifest.Segment) bool { return s.Number == number }) {
			return true
		}
	}
	return false
}

// cheapest plans the merge of level l into the next that rewrites least of it
// for what it brings.
func (t *tree) cheapest(l int) *Plan {
	level := t.levels[l]
	best, least := -1, 0.0
	for i := range level {
		s := &level[i]
		if t.busy[s.Number] || !t.free(l+1, s.Lo, s.Hi) {
			continue
		}
		below := t.over(l+1, s.Lo, s.Hi)
		if t.anyBusy(below) {
			continue
		}
		cost := float64(sizeOf(below)) / float64(s.Size+s.Tombstones*64+1)
		if best < 0 || cost < least {
			best, least = i, cost
		}
	}
	if best < 0 {
		return nil
	}
	return t.widen(WhySize, l, best, t.sizes[l]-t.target[l])
}

// widen plans the merge of segment i of level l, and of neighbours that cost
// little beside it, into the next level.
func (t *tree) widen(why Why, l, i int, excess int64) *Plan {
	level := t.levels[l]
	in := level[i : i+1]
	below := t.over(l+1, in[0].Lo, in[0].Hi)
	ratio := float64(sizeOf(below)) / float64(sizeOf(in))
	for from, to := i, i+1; ; {
		type side struct{ from, to int }
		grown := false
		for _, s := range []side{{from, to + 1}, {from - 1, to}} {
			if s.from < 0 || s.to > len(level) {
				continue
			}
			more := level[s.from:s.to]
			lo, hi := hull(more)
			b := t.over(l+1, lo, hi)
			size, cost := sizeOf(more), sizeOf(b)
			// Free: it is merged into what is read anyway.
			free := len(b) == len(below) && len(b) > 0
			cheap := float64(cost)/float64(size) <= ratio && sizeOf(in) < excess && (len(b) > 0 || len(below) == 0)
			if (free || cheap) && size+cost <= t.o.MaxInput && !t.anyBusy(more) && !t.anyBusy(b) && t.free(l+1, lo, hi) {
				from, to, in, below, grown = s.from, s.to, more, b, true
				ratio = min(ratio, float64(cost)/float64(size))
				break
			}
		}
		if !grown {
			break
		}
	}
	if len(below) == 0 {
		return t.move(why, l+1, in)
	}
	return t.plan(why, l+1, slices.Concat(in, below))
}

// tombstones finds a segment that holds many tombstones or range deletes beside
// what they may hide. With all, any tombstone is enough.
func (t *tree) tombstones(lo, hi []byte, all bool) *Plan {
	best, most := [2]int{-1, -1}, 0.0
	for l := 1; l < t.o.Levels; l++ {
		for i := range t.levels[l] {
			s := &t.levels[l][i]
			dels, count := tombstones(t.levels[l][i : i+1])
			if dels == 0 || t.busy[s.Number] || !overlap(lo, hi, s.Lo, s.Hi) {
				continue
			}
			var below []manifest.Segment
			if l < t.o.last() {
				below = t.over(l+1, s.Lo, s.Hi)
				if t.anyBusy(below) || !t.free(l+1, s.Lo, s.Hi) {
					continue
				}
			} else if s.MaxLSN > t.o.oldest() || !t.free(l, s.Lo, s.Hi) {
				continue // they could not go
			}
			_, hidden := tombstones(below)
			score := 8 * float64(dels) / float64(count+hidden+1)
			if s.RangeDeletes > 0 && sizeOf(below) <= 4*t.segment {
				score = max(score, 1) // they hide something unknown, and cost little
			}
			if !all && (score < 1 || s.RangeDeletes == 0 && dels <= t.o.FewTombstones) {
				continue
			}
			if score > most || best[0] < 0 {
				best, most = [2]int{l, i}, score
			}
		}
	}
	l, i := best[0], best[1]
	switch {
	case l < 0:
		return nil
	case l == t.o.last():
		return t.plan(WhyTombstones, l, t.levels[l][i:i+1])
	}
	return t.widen(WhyTombstones, l, i, 0)
}

// files merges neighbours of the last level that are all much smaller than
// segments aim at, once there are very many segments.
func (t *tree) files() *Plan {
	last := t.o.last()
	level := t.levels[last]
	if len(level) < manyFiles {
		return nil
	}
	var best []manifest.Segment
	for i := 0; i < len(level); {
		var sum int64
		j := i
		for j < len(level) && !t.busy[level[j].Number] && int64(level[j].Size) <= t.segment/4 && sum < t.segment {
			sum += int64(level[j].Size)
			j++
		}
		if run := level[i:j]; len(run) > len(best) {
			if lo, hi := hull(run); t.free(last, lo, hi) {
				best = run
			}
		}
		i = max(j, i+1)
	}
	if len(best) < 4 {
		return nil
	}
	return t.plan(WhyFiles, last, best)
}

// manyFiles is how many segments of a level are many.
const manyFiles = 1024

// PlanRange returns the next compaction that brings everything of the keys in
// [lo, hi), nil bounds being open, towards the last level and drops what can be
// dropped. It is called again after each; done says that nothing is left to do.
// A nil plan that is not done waits for something that is running.
func PlanRange(segs []manifest.Segment, o Options, running []*Plan, lo, hi []byte) (p *Plan, done bool) {
	t := newTree(segs, o, running)
	if p := t.drop(lo, hi); p != nil {
		return p, false
	}
	left := false
	for _, c := range t.components() {
		if l, h := hull(c); !overlap(lo, hi, l, h) {
			continue
		}
		left = true
		if t.anyBusy(c) {
			continue
		}
		l, h := hull(c)
		below := t.over(t.base, l, h)
		if t.anyBusy(below) || !t.free(t.base, l, h) {
			continue
		}
		if len(c) == 1 && len(below) == 0 {
			return t.move(WhyManual, t.base, c), false
		}
		return t.plan(WhyManual, t.base, slices.Concat(c, below)), false
	}
	for l := 1; l < t.o.last(); l++ {
		for i := range t.levels[l] {
			s := &t.levels[l][i]
			if !overlap(lo, hi, s.Lo, s.Hi) {
				continue
			}
			left = true
			if below := t.over(l+1, s.Lo, s.Hi); !t.busy[s.Number] && !t.anyBusy(below) && t.free(l+1, s.Lo, s.Hi) {
				return t.widen(WhyManual, l, i, t.sizes[l]), false
			}
		}
	}
	if p := t.tombstones(lo, hi, true); p != nil {
		return p, false
	}
	for i := range t.levels[t.o.last()] {
		s := &t.levels[t.o.last()][i]
		left = left || t.busy[s.Number] && overlap(lo, hi, s.Lo, s.Hi)
	}
	return nil, !left
}
