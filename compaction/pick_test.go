package compaction

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/internal/base"
	"github.com/forebaydb/forebay/internal/rangedel"
	"github.com/forebaydb/forebay/manifest"
)

// seg is a segment of a level with keys in [lo, hi) and so many KiB.
func seg(number uint64, level int, lo, hi string, kib uint64) manifest.Segment {
	return manifest.Segment{Number: number, Level: level, Lo: []byte(lo), Hi: []byte(hi), Size: kib << 10, Count: 10 * kib, MinLSN: number * 10, MaxLSN: number*10 + 9}
}

func withTombstones(s manifest.Segment, n, ranges uint64) manifest.Segment {
	s.Tombstones, s.RangeDeletes = n, ranges
	return s
}

func inputs(p *Plan) (out []uint64) {
	for _, s := range p.Inputs {
		out = append(out, s.Number)
	}
	return out
}

func small() Options {
	return Options{MemtableSize: 64 << 10, MinSegment: 16 << 10, MaxSegment: 1 << 20, FewTombstones: 8, FrontTombstones: 1 << 10, Above: 1 << 40}
}

func TestPick(t *testing.T) {
	a := seg(1, 6, "a", "h", 100)
	b := seg(2, 6, "h", "p", 100)
	c := seg(3, 6, "p", "z", 100)
	last := []manifest.Segment{a, b, c}
	zero := func(lo, hi string, kib uint64, numbers ...uint64) (out []manifest.Segment) {
		for _, n := range numbers {
			out = append(out, seg(n, 0, lo, hi, kib))
		}
		return out
	}
	join := func(s ...[]manifest.Segment) (out []manifest.Segment) {
		for _, x := range s {
			out = append(out, x...)
		}
		return out
	}
	for _, c := range []struct {
		name   string
		segs   []manifest.Segment
		opts   func(*Options)
		inputs []uint64
		to     int
		why    Why
		move   bool
	}{
		{name: "nothing"},
		{name: "in order", segs: last},
		{name: "level 0 below its trigger", segs: join(last, zero("b", "y", 60, 10, 11, 12))},
		{name: "level 0 at its trigger takes what it overlaps", segs: join(last, zero("b", "i", 60, 10, 11, 12, 13)), inputs: []uint64{13, 12, 11, 10, 1, 2}, to: 6, why: WhyLevel0},
		{name: "two of level 0 that are large are enough", segs: join(last, zero("b", "y", 520, 10, 11)), inputs: []uint64{11, 10, 1, 2, 3}, to: 6, why: WhyLevel0},
		{name: "small ones are gathered", segs: join(last, zero("b", "y", 1, 10, 11, 12, 13)), inputs: []uint64{13, 12, 11, 10}, to: 0, why: WhyGather},
		{name: "what nothing overlaps moves", segs: join(last, zero("zz", "zzz", 60, 10)), inputs: []uint64{10}, to: 6, why: WhyLevel0, move: true},
		{name: "small ones do not move", segs: join(last, zero("zz", "zzz", 1, 10))},
		{name: "the newer one of two that overlap does not move before the older", segs: join(last, zero("zz", "zzz", 60, 11), zero("y", "zzz", 60, 10))},
		{name: "many tombstones leave level 0 early", segs: join(last, []manifest.Segment{withTombstones(seg(10, 0, "a", "c", 40), 300, 0)}), inputs: []uint64{10, 1}, to: 6, why: WhyLevel0},
		{name: "tombstones in the last level go", segs: []manifest.Segment{a, withTombstones(b, 300, 0)}, inputs: []uint64{2}, to: 6, why: WhyTombstones},
		{name: "but not while a snapshot is below them", segs: []manifest.Segment{a, withTombstones(b, 300, 0)}, opts: func(o *Options) { o.Snapshots = []base.LSN{25} }},
		{name: "range deletes in the last level go", segs: []manifest.Segment{a, withTombstones(b, 0, 1)}, inputs: []uint64{2}, to: 6, why: WhyTombstones},
		{name: "a level that is left over goes down", segs: join(last, []manifest.Segment{seg(4, 3, "b", "c", 20)}), inputs: []uint64{4}, to: 4, why: WhySize, move: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := small()
			if c.opts != nil {
				c.opts(&o)
			}
			p := Pick(c.segs, o, nil)
			if c.inputs == nil {
				require.Nil(t, p)
				return
			}
			require.NotNil(t, p)
			require.Equal(t, c.inputs, inputs(p))
			require.Equal(t, c.to, p.To)
			require.Equal(t, c.why, p.Why)
			require.Equal(t, c.move, p.Move)
			// With it running the same is not picked again.
			if q := Pick(c.segs, o, []*Plan{p}); q != nil {
				for _, n := range inputs(q) {
					require.NotContains(t, inputs(p), n)
				}
			}
		})
	}
}

// TestPickDropsWhatARangeDeleteHides: not what is partly hidden, not under a
// snapshot, and not what is newer.
func TestPickDropsWhatARangeDeleteHides(t *testing.T) {
	segs := []manifest.Segment{seg(1, 6, "a", "c", 100), seg(2, 6, "c", "e", 100), seg(3, 6, "e", "g", 100), seg(30, 0, "d", "e", 1),
		withTombstones(seg(20, 0, "b", "f", 1), 0, 2)}
	o := small()
	o.RangeDeletes = func(n uint64) *rangedel.Set {
		require.Equal(t, uint64(20), n)
		return rangedel.New([]base.RangeDelete{{Lo: []byte("b"), Hi: []byte("d"), LSN: 205}, {Lo: []byte("d"), Hi: []byte("f"), LSN: 207}})
	}
	p := Pick(segs, o, nil)
	require.True(t, p.Drop)
	require.Equal(t, []uint64{2}, inputs(p))
	for _, snapshot := range []base.LSN{19, 20, 204, 206, 207} {
		o.Snapshots = []base.LSN{snapshot}
		p := Pick(segs, o, nil)
		hidden := snapshot < 20 || snapshot >= 207
		require.Equal(t, hidden, p != nil && p.Drop, "snapshot at %d", snapshot)
	}
	o.Snapshots, o.Above = nil, 206
	p = Pick(segs, o, nil)
	require.False(t, p != nil && p.Drop, "a reader at 206 does not see the range delete at 207")
}

// TestSegmentSizes: the number of segments stays bounded.
func TestSegmentSizes(t *testing.T) {
	o := Options{}.withDefaults()
	require.Equal(t, int64(16<<20), o.segmentSize(1<<30))
	require.Equal(t, int64(64<<20), o.segmentSize(32<<30))
	require.Equal(t, int64(1<<30), o.segmentSize(1<<50))
}

// TestBase: level 0 goes to the lowest level that it can afford to merge with.
func TestBase(t *testing.T) {
	for _, c := range []struct {
		gib  uint64
		base int
	}{{0, 6}, {1, 6}, {2, 5}, {14, 5}, {20, 4}, {1000, 3}} {
		o := Options{}
		s := seg(1, 6, "a", "b", c.gib<<20)
		require.Equal(t, c.base, newTree([]manifest.Segment{s}, o, nil).base, fmt.Sprint(c.gib, " GiB"))
	}
}
