package compaction

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"sort"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/internal/base"
	"github.com/forebaydb/forebay/internal/rangedel"
	"github.com/forebaydb/forebay/manifest"
)

// The simulator keeps segments as sorted slices, a thousandth of the usual sizes,
// and obeys the plans of Pick. It counts what is written, and checks that every
// key is found as it was put.

type simVersion struct {
	key uint64
	lsn base.LSN
	del bool
}

const (
	simPut       = 116
	simTombstone = 24
)

func (v simVersion) size() int64 {
	if v.del {
		return simTombstone
	}
	return simPut
}

type simDel struct {
	lo, hi uint64
	lsn    base.LSN
}

type simSegment struct {
	versions []simVersion
	dels     []simDel
}

type sim struct {
	t    testing.TB
	o    Options
	lsn  base.LSN
	num  uint64
	segs []manifest.Segment
	data map[uint64]*simSegment

	mem     map[uint64]simVersion
	memDels []simDel
	memSize int64

	truth         map[uint64]base.LSN
	user, flushed int64
	written, read int64
	moves, drops  int
	peak0         int
	biggest       int64
	perWhy        map[Why]int64
}

func newSim(t testing.TB) *sim {
	s := &sim{t: t, o: Options{MemtableSize: 64 << 10, MinSegment: 16 << 10, MaxSegment: 1 << 20, FewTombstones: 8, FrontTombstones: 1 << 10},
		data: map[uint64]*simSegment{}, mem: map[uint64]simVersion{}, truth: map[uint64]base.LSN{}, perWhy: map[Why]int64{}}
	s.o.RangeDeletes = func(n uint64) *rangedel.Set {
		var d []base.RangeDelete
		for _, r := range s.data[n].dels {
			d = append(d, base.RangeDelete{Lo: simKey(r.lo), Hi: simKey(r.hi), LSN: r.lsn})
		}
		return rangedel.New(d)
	}
	return s
}

func simKey(k uint64) []byte { return binary.BigEndian.AppendUint64(nil, k) }

func (s *sim) put(k uint64) {
	s.lsn++
	s.enter(simVersion{k, s.lsn, false})
	s.truth[k] = s.lsn
}

func (s *sim) del(k uint64) {
	s.lsn++
	s.enter(simVersion{k, s.lsn, true})
	delete(s.truth, k)
}

func (s *sim) enter(v simVersion) {
	s.mem[v.key] = v
	s.memSize += v.size() + 20
	s.user += v.size()
	if s.memSize >= s.o.MemtableSize {
		s.flush()
	}
}

func (s *sim) delRange(lo, hi uint64) {
	s.lsn++
	s.memDels = append(s.memDels, simDel{lo, hi, s.lsn})
	for k := range s.truth {
		if lo <= k && k < hi {
			delete(s.truth, k)
		}
	}
}

// keep drops what is shadowed, and what need not hide anything any more. There
// are no snapshots.
func simKeep(vs []simVersion, dels []simDel, below func(lo, hi uint64) bool) ([]simVersion, []simDel) {
	sort.Slice(vs, func(i, j int) bool {
		if vs[i].key != vs[j].key {
			return vs[i].key < vs[j].key
		}
		return vs[i].lsn > vs[j].lsn
	})
	var out []simVersion
	for i, v := range vs {
		if i > 0 && vs[i-1].key == v.key {
			continue
		}
		if slices.ContainsFunc(dels, func(d simDel) bool { return d.lo <= v.key && v.key < d.hi && v.lsn < d.lsn }) {
			continue
		}
		if v.del && !below(v.key, v.key+1) {
			continue
		}
		out = append(out, v)
	}
	var left []simDel
	for _, d := range dels {
		if below(d.lo, d.hi) {
			left = append(left, d)
		}
	}
	return out, left
}

func simOverlaps(segs []manifest.Segment) func(lo, hi uint64) bool {
	return func(lo, hi uint64) bool {
		return slices.ContainsFunc(segs, func(g manifest.Segment) bool { return overlap(simKey(lo), simKey(hi), g.Lo, g.Hi) })
	}
}

func (s *sim) flush() {
	s.settle(s.mem, s.memDels)
	s.mem, s.memDels, s.memSize = map[uint64]simVersion{}, nil, 0
	s.compact()
	s.peak0 = max(s.peak0, len(newTree(s.segs, s.o, nil).levels[0]))
}

func (s *sim) settle(mem map[uint64]simVersion, dels []simDel) (size int64) {
	vs := make([]simVersion, 0, len(mem))
	for _, v := range mem {
		vs = append(vs, v)
	}
	vs, dels = simKeep(vs, dels, simOverlaps(s.segs))
	if len(vs)+len(dels) > 0 {
		g := s.add(0, vs, dels)
		size = int64(g.Size)
		s.flushed += size
	}
	s.o.Above = s.lsn
	return size
}

func (s *sim) add(level int, vs []simVersion, dels []simDel) manifest.Segment {
	s.num++
	g := manifest.Segment{Number: s.num, Level: level, MinLSN: base.MaxLSN, Count: uint64(len(vs)), RangeDeletes: uint64(len(dels)), Size: 64}
	lo, hi := uint64(1<<63), uint64(0)
	for _, v := range vs {
		lo, hi = min(lo, v.key), max(hi, v.key+1)
		g.MinLSN, g.MaxLSN = min(g.MinLSN, v.lsn), max(g.MaxLSN, v.lsn)
		g.Size += uint64(v.size())
		if v.del {
			g.Tombstones++
		}
	}
	for _, d := range dels {
		lo, hi = min(lo, d.lo), max(hi, d.hi)
		g.MinLSN, g.MaxLSN = min(g.MinLSN, d.lsn), max(g.MaxLSN, d.lsn)
		g.Size += simTombstone
	}
	g.Lo, g.Hi = simKey(lo), simKey(hi)
	s.segs = append(s.segs, g)
	s.data[g.Number] = &simSegment{vs, dels}
	return g
}

// compact does what Pick says until it says nothing more.
func (s *sim) compact() {
	for p := Pick(s.segs, s.o, nil); p != nil; p = Pick(s.segs, s.o, nil) {
		s.apply(p)
	}
}

func (s *sim) apply(p *Plan) {
	in := map[uint64]bool{}
	for _, g := range p.Inputs {
		in[g.Number] = true
		require.Contains(s.t, s.data, g.Number)
	}
	if p.Move {
		for i := range s.segs {
			if in[s.segs[i].Number] {
				s.segs[i].Level = p.To
			}
		}
		s.moves++
		s.check()
		return
	}
	s.segs = slices.DeleteFunc(s.segs, func(g manifest.Segment) bool { return in[g.Number] })
	var vs []simVersion
	var dels []simDel
	if p.Drop {
		s.drops += len(in)
	} else {
		s.biggest = max(s.biggest, p.Bytes())
		s.read += p.Bytes()
		// What no segment from above touches stays as it is.
		fences := []manifest.Segment{}
		for _, g := range p.Inputs {
			if g.Level == p.To && p.Inputs[0].Level != p.To && !s.touched(p, g) {
				fences = append(fences, g)
				s.read -= int64(g.Size)
				continue
			}
			vs = append(vs, s.data[g.Number].versions...)
			dels = append(dels, s.data[g.Number].dels...)
		}
		s.segs = append(s.segs, fences...)
		for _, f := range fences {
			delete(in, f.Number)
		}
		vs, dels = simKeep(vs, dels, simOverlaps(p.Below))
		s.output(p, vs, dels, fences)
	}
	for n := range in {
		delete(s.data, n)
	}
	s.check()
}

func (s *sim) touched(p *Plan, g manifest.Segment) bool {
	for _, u := range p.Inputs {
		if u.Level == p.To {
			continue
		}
		d := s.data[u.Number]
		lo, hi := binary.BigEndian.Uint64(g.Lo), binary.BigEndian.Uint64(g.Hi)
		i := sort.Search(len(d.versions), func(i int) bool { return d.versions[i].key >= lo })
		if i < len(d.versions) && d.versions[i].key < hi || slices.ContainsFunc(d.dels, func(d simDel) bool { return d.lo < hi && lo < d.hi }) {
			return true
		}
	}
	return false
}

func (s *sim) output(p *Plan, vs []simVersion, dels []simDel, fences []manifest.Segment) {
	var out []simVersion
	var size int64
	start := uint64(0)
	end := func(hi uint64) {
		var clipped []simDel
		for _, d := range dels {
			if lo, h := max(d.lo, start), min(d.hi, hi); lo < h {
				clipped = append(clipped, simDel{lo, h, d.lsn})
			}
		}
		if len(out)+len(clipped) > 0 {
			g := s.add(p.To, slices.Clone(out), clipped)
			s.written += int64(g.Size)
			s.perWhy[p.Why] += int64(g.Size)
		}
		out, size, start = out[:0], 0, hi
	}
	cuts := p.Cuts
	for _, v := range vs {
		cut := false
		for len(cuts) > 0 && string(cuts[0]) <= string(simKey(v.key)) {
			cut, cuts = true, cuts[1:]
		}
		fence := slices.ContainsFunc(fences, func(f manifest.Segment) bool {
			return len(out) > 0 && string(simKey(out[len(out)-1].key)) < string(f.Lo) && string(f.Lo) < string(simKey(v.key))
		})
		if p.To > 0 && (size >= p.SegmentSize || fence || cut && size >= p.SegmentSize/2) {
			end(v.key)
		}
		out = append(out, v)
		size += v.size()
	}
	end(1 << 63)
}

// check verifies that the levels are in order.
func (s *sim) check() {
	t := newTree(s.segs, s.o, nil)
	for l := 1; l < t.o.Levels; l++ {
		for i := 1; i < len(t.levels[l]); i++ {
			require.LessOrEqual(s.t, string(t.levels[l][i-1].Hi), string(t.levels[l][i].Lo), "level %d", l)
		}
	}
}

// verify reads everything as a reader does.
func (s *sim) verify() {
	t := newTree(s.segs, s.o, nil)
	seen := map[uint64]base.LSN{}
	hidden := map[uint64]bool{}
	var dels []simDel
	take := func(vs []simVersion) {
		for _, v := range vs {
			if hidden[v.key] {
				continue
			}
			hidden[v.key] = true
			if !v.del && !slices.ContainsFunc(dels, func(d simDel) bool { return d.lo <= v.key && v.key < d.hi && v.lsn < d.lsn }) {
				seen[v.key] = v.lsn
			}
		}
	}
	dels = append(dels, s.memDels...)
	for _, v := range s.mem {
		take([]simVersion{v})
	}
	for _, level := range t.levels {
		for _, g := range level {
			dels = append(dels, s.data[g.Number].dels...)
		}
		for _, g := range level {
			take(s.data[g.Number].versions)
		}
	}
	require.Equal(s.t, len(s.truth), len(seen))
	require.Equal(s.t, s.truth, seen)
}

func (s *sim) amp() (write, space float64) {
	live := int64(len(s.truth)) * simPut
	return float64(s.flushed+s.written) / float64(s.user), float64(sizeOf(s.segs)) / float64(max(live, 1))
}

func (s *sim) report(name string) {
	w, sp := s.amp()
	t := newTree(s.segs, s.o, nil)
	var shape string
	for l := range t.levels {
		if len(t.levels[l]) > 0 {
			shape += fmt.Sprintf(" L%d %d/%dK", l, len(t.levels[l]), t.sizes[l]>>10)
		}
	}
	s.t.Logf("%-34s write %.2f space %.2f; level 0 at most %d, largest merge %dK, moves %d, dropped %d; base L%d%s %v",
		name, w, sp, s.peak0, s.biggest>>10, s.moves, s.drops, t.base, shape, s.perWhy)
}

// TestSimulatedLoads prints write and space amplification of some loads, and
// fails where they become worse than they were. (Beside it: what is written
// counts checkpoints and compactions, and not the log.)
func TestSimulatedLoads(t *testing.T) {
	type load struct {
		name         string
		write, space float64 // bounds, for the small scale
		do           func(s *sim, rng *rand.Rand, n uint64)
	}
	queue := func(s *sim, n, depth uint64) {
		for i := range 2 * n {
			s.put(i)
			if i >= depth {
				s.del(i - depth)
			}
		}
	}
	loads := []load{
		{"unique random puts", 2.5, 1.05, func(s *sim, rng *rand.Rand, n uint64) {
			for range n {
				s.put(rng.Uint64() >> 1)
			}
		}},
		{"overwrites, 3 rounds", 5, 1.2, func(s *sim, rng *rand.Rand, n uint64) {
			for range 3 * n {
				s.put(rng.Uint64N(n))
			}
		}},
		{"sequential", 1.01, 1.01, func(s *sim, _ *rand.Rand, n uint64) {
			for i := range n {
				s.put(i)
			}
		}},
		{"two sequences", 2.2, 1.05, func(s *sim, _ *rand.Rand, n uint64) {
			for i := range n {
				s.put(i%2<<40 + i)
			}
		}},
		{"queue of 100", 0.6, 1.1, func(s *sim, _ *rand.Rand, n uint64) { queue(s, n, 100) }},
		{"queue of n/2", 2, 1.15, func(s *sim, _ *rand.Rand, n uint64) { queue(s, n, n/2) }},
		{"puts, deletes, range deletes", 5, 1.15, func(s *sim, rng *rand.Rand, n uint64) {
			for i := range n {
				s.put(rng.Uint64N(n))
				if i%3 == 0 {
					s.del(rng.Uint64N(n))
				}
				if i%(n/50) == 0 {
					at := rng.Uint64N(n)
					s.delRange(at, at+n/100)
				}
			}
		}},
	}
	scales := []uint64{20_000}
	if testing.Verbose() && !testing.Short() {
		scales = append(scales, 100_000)
	}
	for _, n := range scales {
		for _, l := range loads {
			s := newSim(t)
			l.do(s, rand.New(rand.NewPCG(1, 2)), n)
			s.report(fmt.Sprintf("%d: %s", n, l.name))
			s.verify()
			if n == scales[0] {
				write, space := s.amp()
				require.Less(t, write, l.write, l.name)
				require.Less(t, space, l.space, l.name)
			}
		}
	}
}

// TestDroppedKeyspace: one range delete over a tenth of the store gives its
// space back at the next checkpoint, nearly without reading or writing.
func TestDroppedKeyspace(t *testing.T) {
	s := newSim(t)
	rng := rand.New(rand.NewPCG(1, 2))
	for range 30_000 {
		s.put(rng.Uint64N(10)<<32 + rng.Uint64N(1<<30))
	}
	s.flush()
	before, written := sizeOf(s.segs), s.written
	s.delRange(3<<32, 4<<32)
	s.flush()
	s.verify()
	require.Less(t, sizeOf(s.segs), before*93/100)
	require.Less(t, s.written-written, before/20)
	require.NotZero(t, s.drops)
	// The range delete itself goes with what lies beside it in level 0.
	for range 10_000 {
		s.put(rng.Uint64N(10)<<32 + rng.Uint64N(1<<30))
	}
	s.flush()
	s.verify()
	for _, g := range s.segs {
		require.Zero(t, g.RangeDeletes)
	}
}

// TestFrontOfAQueueIsClean: behind a checkpoint there are few tombstones left
// that a scan from the front would have to pass.
func TestFrontOfAQueueIsClean(t *testing.T) {
	s := newSim(t)
	for i := range uint64(40_000) {
		s.put(i)
		if i >= 5000 {
			s.del(i - 5000)
		}
	}
	dead := 0
	for _, g := range s.segs {
		for _, v := range s.data[g.Number].versions {
			if _, live := s.truth[v.key]; !live {
				dead++
			}
		}
	}
	require.Less(t, dead, 1500)
}
