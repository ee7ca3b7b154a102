package compaction

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/internal/base"
	"github.com/forebaydb/forebay/internal/merge"
	"github.com/forebaydb/forebay/internal/rangedel"
	"github.com/forebaydb/forebay/manifest"
	"github.com/forebaydb/forebay/segment"
	"github.com/forebaydb/forebay/vfs"
)

var seedFlag = flag.Uint64("seed", 0, "seed of the random tests; 0 takes one from the clock")

func newRand(t testing.TB) *rand.Rand {
	s := *seedFlag
	if s == 0 {
		s = uint64(time.Now().UnixNano())
	}
	t.Logf("replay with -seed=%d", s)
	return rand.New(rand.NewPCG(s, 0))
}

// shop is a list of live segments without a manifest: what a store does with
// plans, in small.
type shop struct {
	t       testing.TB
	mem     *vfs.Mem
	files   Files
	o       Options
	next    uint64
	lsn     base.LSN
	segs    []manifest.Segment
	readers map[uint64]*segment.Reader
	history []change
	noDels  bool
	halve   bool // merges are divided
	divided int  // how many were
}

// change is one commit of the model; a hi makes it a range delete.
type change struct {
	lsn    base.LSN
	lo, hi string
	kind   base.Kind
}

func newShop(t testing.TB) *shop {
	mem := vfs.NewMem()
	require.NoError(t, vfs.MkdirDurable(mem, "db"))
	s := &shop{t: t, mem: mem, readers: map[uint64]*segment.Reader{}}
	var mu sync.Mutex
	s.files = Files{FS: mem, Dir: "db", Store: [16]byte{1, 2, 3}, Writer: segment.WriterOptions{BlockSize: 256},
		Next: func() (uint64, error) {
			mu.Lock()
			defer mu.Unlock()
			s.next++
			return s.next, nil
		}}
	s.o = Options{MemtableSize: 2 << 10, MinSegment: 1 << 10, MaxSegment: 4 << 10, FewTombstones: 4, FrontTombstones: 1 << 20,
		RangeDeletes: func(n uint64) *rangedel.Set {
			d, err := s.readers[n].RangeDeletes()
			require.NoError(t, err)
			return d
		}}
	return s
}

type entry struct {
	key  string
	lsn  base.LSN
	kind base.Kind
}

// settle makes a level-0 segment of n random commits on some keys.
func (s *shop) settle(rng *rand.Rand, n, keys int, within func() string) {
	var points []entry
	var dels []base.RangeDelete
	for range n {
		s.lsn++
		c := change{lsn: s.lsn, lo: within(), kind: base.KindPut}
		switch rng.IntN(12) {
		case 0, 1, 2:
			c.kind = base.KindDelete
		case 3:
			if c.hi = within(); c.hi > c.lo && !s.noDels && rng.IntN(3) == 0 {
				c.kind = base.KindRangeDelete
			}
		}
		s.history = append(s.history, c)
		if c.kind == base.KindRangeDelete {
			dels = append(dels, base.RangeDelete{Lo: []byte(c.lo), Hi: []byte(c.hi), LSN: c.lsn})
		} else {
			points = append(points, entry{c.lo, c.lsn, c.kind})
		}
	}
	slices.SortFunc(points, func(a, b entry) int { return base.Compare([]byte(a.key), a.lsn, []byte(b.key), b.lsn) })
	out := NewOutput(s.files, 0)
	for _, p := range points {
		var value []byte
		if p.kind == base.KindPut {
			value = s.value(p.key, p.lsn)
		}
		require.NoError(s.t, out.Add([]byte(p.key), p.lsn, p.kind, value))
	}
	require.NoError(s.t, out.Cut(rangedel.New(dels)))
	segs, readers, err := out.Finish()
	require.NoError(s.t, err)
	require.Len(s.t, segs, 1)
	s.enter(segs, readers)
}

func (s *shop) value(key string, lsn base.LSN) []byte {
	return fmt.Appendf(nil, "%s at %d %s", key, lsn, strings.Repeat("x", int(lsn%40)))
}

func (s *shop) enter(segs []manifest.Segment, readers []*segment.Reader) {
	for i := range segs {
		s.segs = append(s.segs, segs[i])
		s.readers[segs[i].Number] = readers[i]
	}
}

func (s *shop) config() *Config {
	c := &Config{Files: s.files, Snapshots: s.o.Snapshots, Above: s.o.Above}
	if s.halve {
		c.Halve = 1
	}
	return c
}

func (s *shop) reader(n uint64) *segment.Reader { return s.readers[n] }

// apply does what a root does with a result.
func (s *shop) apply(p *Plan, r *Result) {
	if len(r.outs) > 1 {
		s.divided++
	}
	removed := r.Edit.Remove
	for _, g := range r.Edit.Add {
		if p.Move {
			removed = append(removed, g.Number)
		}
	}
	s.segs = slices.DeleteFunc(s.segs, func(g manifest.Segment) bool { return slices.Contains(removed, g.Number) })
	if p.Move {
		s.segs = append(s.segs, r.Edit.Add...)
		return
	}
	s.enter(r.Edit.Add, r.Readers)
	for _, n := range removed {
		require.NoError(s.t, s.readers[n].Close())
		delete(s.readers, n)
		require.NoError(s.t, s.mem.Remove(filepath.Join("db", segment.FileName(n))))
	}
}

// state is what a reader at lsn sees of the history.
func (s *shop) state(lsn base.LSN) map[string]string {
	out := map[string]string{}
	for _, c := range s.history {
		if c.lsn > lsn {
			break
		}
		switch c.kind {
		case base.KindPut:
			out[c.lo] = string(s.value(c.lo, c.lsn))
		case base.KindDelete:
			delete(out, c.lo)
		default:
			for k := range out {
				if c.lo <= k && k < c.hi {
					delete(out, k)
				}
			}
		}
	}
	return out
}

// seen is what a reader at lsn sees of the segments.
func (s *shop) seen(lsn base.LSN) map[string]string {
	t := newTree(s.segs, s.o, nil)
	var sources []merge.Source
	for _, level := range t.levels {
		for _, g := range level {
			d, err := s.readers[g.Number].RangeDeletes()
			require.NoError(s.t, err)
			sources = append(sources, merge.Source{Iter: s.readers[g.Number].NewIter(), Dels: []*rangedel.Set{d}, MaxLSN: g.MaxLSN})
		}
	}
	out := map[string]string{}
	it := merge.NewReader(sources, lsn, nil, nil)
	defer it.Close()
	for ok := it.First(); ok; ok = it.Next() {
		out[string(it.Key())] = string(it.Value())
	}
	require.NoError(s.t, it.Err())
	return out
}

// check compares all readers that there may be, and the shape of the levels.
func (s *shop) check() {
	for _, lsn := range append(slices.Clone(s.o.Snapshots), s.o.Above, (s.o.Above+s.lsn)/2, s.lsn) {
		require.Equal(s.t, s.state(lsn), s.seen(lsn), "reader at %d", lsn)
	}
	t := newTree(s.segs, s.o, nil)
	for l := 1; l < t.o.Levels; l++ {
		for i := 1; i < len(t.levels[l]); i++ {
			require.LessOrEqual(s.t, string(t.levels[l][i-1].Hi), string(t.levels[l][i].Lo), "level %d", l)
		}
	}
	for i := range s.segs {
		g := &s.segs[i]
		require.NoError(s.t, s.readers[g.Number].Verify(context.Background()))
		require.Negative(s.t, bytes.Compare(g.Lo, g.Hi))
	}
	names, err := s.mem.List("db")
	require.NoError(s.t, err)
	require.Len(s.t, names, len(s.segs), "files that nothing lists")
}

func (s *shop) run(p *Plan) {
	r, err := Run(context.Background(), s.config(), p, s.reader)
	require.NoError(s.t, err)
	s.apply(p, r)
}

// gatherSome plans to merge the newest segments of level 0 beside p.
func (s *shop) gatherSome(p *Plan) *Plan {
	t := newTree(s.segs, s.o, []*Plan{p})
	n := 0
	for n < len(t.levels[0]) && !t.busy[t.levels[0][n].Number] {
		n++
	}
	if n < 2 {
		return nil
	}
	return t.plan(WhyGather, 0, t.levels[0][:n])
}

// TestEveryReaderSeesTheSame settles random tables and compacts them as Pick
// says, with readers coming and going: nobody ever sees a difference.
func TestEveryReaderSeesTheSame(t *testing.T) {
	rng := newRand(t)
	rounds := 60
	if testing.Short() {
		rounds = 15
	}
	why := map[Why]int{}
	moved, both, divided := 0, 0, 0
	for i := range rounds {
		s := newShop(t)
		if s.halve = i%2 == 1; i%4 > 1 {
			syncAllBeside(t)
		}
		keys := 20 + rng.IntN(200)
		moving := rng.IntN(3) == 0
		at := 0
		for i := range 12 {
			if at += keys / 4; !moving {
				at = 0
			}
			s.settle(rng, 1+rng.IntN(80), keys, func() string { return fmt.Sprintf("key %05d", at+rng.IntN(keys)) })
			switch rng.IntN(3) {
			case 0:
				s.o.Above = s.lsn
			case 1:
				s.o.Above = max(s.o.Above, s.lsn-min(s.lsn, base.LSN(rng.IntN(20))))
			}
			if rng.IntN(3) == 0 {
				s.o.Snapshots = append(s.o.Snapshots, s.o.Above)
			}
			if n := len(s.o.Snapshots); n > 0 && rng.IntN(4) == 0 {
				s.o.Snapshots = slices.Delete(s.o.Snapshots, n/2, n/2+1)
			}
			s.check()
			for range 40 {
				p := Pick(s.segs, s.o, nil)
				if i%5 == 4 && p == nil {
					p, _ = PlanRange(s.segs, s.o, nil, nil, nil)
				}
				if p == nil {
					break
				}
				why[p.Why]++
				if p.Move {
					moved++
				}
				// Another at the same time, and a checkpoint in between.
				q := Pick(s.segs, s.o, []*Plan{p})
				if q == nil && rng.IntN(3) == 0 {
					q = s.gatherSome(p)
				}
				if q == nil || rng.IntN(2) == 0 {
					s.run(p)
					s.check()
					continue
				}
				both++
				a, err := Run(context.Background(), s.config(), p, s.reader)
				require.NoError(t, err)
				b, err := Run(context.Background(), s.config(), q, s.reader)
				require.NoError(t, err)
				s.settle(rng, 1+rng.IntN(20), keys, func() string { return fmt.Sprintf("key %05d", at+rng.IntN(keys)) })
				s.apply(q, b)
				s.apply(p, a)
				s.check()
			}
		}
		// Everything to the last level; then nothing is hidden there any more.
		s.o.Snapshots, s.o.Above = nil, s.lsn
		for {
			p, done := PlanRange(s.segs, s.o, nil, nil, nil)
			if require.Equal(t, p == nil, done); done {
				break
			}
			s.run(p)
		}
		s.check()
		for _, g := range s.segs {
			require.Equal(t, 6, g.Level)
			require.Zero(t, g.Tombstones+g.RangeDeletes)
		}
		divided += s.divided
	}
	t.Log(why, "moves", moved, "two at once", both, "divided", divided)
	require.NotZero(t, both)
	require.NotZero(t, divided)
	for _, w := range []Why{WhyDrop, WhyLevel0, WhyManual, WhyTombstones} {
		require.NotZero(t, why[w], w)
	}
}

// filled is a shop and a plan that merges two levels of it.
func filled(t testing.TB, dels bool) (*shop, *Plan) { return filledFor(t, dels, false) }

func filledFor(t testing.TB, dels, halve bool) (*shop, *Plan) {
	rng := rand.New(rand.NewPCG(5, 6))
	s := newShop(t)
	s.noDels = !dels
	for range 6 {
		s.settle(rng, 60, 100, func() string { return fmt.Sprintf("key %05d", rng.IntN(100)) })
	}
	s.o.Above = s.lsn - 100
	p, _ := PlanRange(s.segs, s.o, nil, nil, nil)
	s.run(p)
	for range 2 {
		s.settle(rng, 60, 100, func() string { return fmt.Sprintf("key %05d", rng.IntN(100)) })
	}
	s.o.Above = s.lsn
	s.check()
	p, _ = PlanRange(s.segs, s.o, nil, nil, nil)
	require.Greater(t, len(p.Inputs), 4)
	s.halve = halve
	return s, p
}

// syncAllBeside has also small segments synced beside what follows.
func syncAllBeside(t testing.TB) {
	old := syncBeside
	syncBeside = 0
	t.Cleanup(func() { syncBeside = old })
}

// eachWay runs a test with merges and syncs one after the other, and with each in
// goroutines of their own.
func eachWay(t *testing.T, test func(t *testing.T, beside bool)) {
	t.Run("in turn", func(t *testing.T) { test(t, false) })
	t.Run("beside", func(t *testing.T) {
		syncAllBeside(t)
		test(t, true)
	})
}

// reopen makes the readers of a shop read through fsys.
func (s *shop) reopen(fsys vfs.FS) func(uint64) *segment.Reader {
	readers := map[uint64]*segment.Reader{}
	for i := range s.segs {
		g := &s.segs[i]
		r, err := Open(fsys, filepath.Join("db", segment.FileName(g.Number)), s.files.Store, g, segment.Options{})
		require.NoError(s.t, err)
		readers[g.Number] = r
		s.t.Cleanup(func() { r.Close() })
	}
	return func(n uint64) *segment.Reader { return readers[n] }
}

// TestRunFailsAtEveryCall fails each call once, for good or for a moment: the
// outputs are gone, the inputs are as they were, and another try succeeds.
func TestRunFailsAtEveryCall(t *testing.T) { eachWay(t, testRunFailsAtEveryCall) }

func testRunFailsAtEveryCall(t *testing.T, beside bool) {
	for _, e := range []error{syscall.EIO, syscall.ENOSPC} {
		failed := 0
		for k := 1; ; k++ {
			s, p := filledFor(t, true, beside)
			in := vfs.NewInjector(s.mem)
			readers := s.reopen(in)
			before, err := s.mem.List("db")
			require.NoError(t, err)
			cfg := s.config()
			cfg.FS = in
			rule := in.Add(vfs.Rule{K: k, Err: e})
			r, err := Run(context.Background(), cfg, p, readers)
			if rule.Hits() == 0 {
				require.NoError(t, err)
				require.Greater(t, failed, 20)
				break
			}
			if err != nil {
				failed++
				require.ErrorIs(t, err, e)
				names, err := s.mem.List("db")
				require.NoError(t, err)
				require.Equal(t, before, names, "call %d", k)
				s.check()
				r, err = Run(context.Background(), cfg, p, readers)
				require.NoError(t, err)
			}
			s.apply(p, r)
			s.check()
		}
	}
}

// samePace is a Config.Pace by which all goroutines call the same.
func samePace(pace func(context.Context, int64) error) func() func(context.Context, int64) error {
	return func() func(context.Context, int64) error { return pace }
}

func watchEvery(t *testing.T, n int64) {
	old := watchVersions
	watchVersions = n
	t.Cleanup(func() { watchVersions = old })
}

// TestRunIsCancelledAtEveryStep ends the context at each leave to go on.
func TestRunIsCancelledAtEveryStep(t *testing.T) { eachWay(t, testRunIsCancelledAtEveryStep) }

func testRunIsCancelledAtEveryStep(t *testing.T, beside bool) {
	for k := 0; ; k++ {
		s, p := filledFor(t, true, beside)
		before, err := s.mem.List("db")
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(context.Background())
		cfg := s.config()
		var steps atomic.Int64
		cfg.Pace = samePace(func(context.Context, int64) error {
			if steps.Add(1) == int64(k) {
				cancel()
			}
			return nil
		})
		if k == 0 {
			cancel()
		}
		watchEvery(t, 8)
		r, err := Run(ctx, cfg, p, s.reader)
		cancel()
		if err == nil {
			require.Greater(t, k, 5)
			s.apply(p, r)
			s.check()
			return
		}
		require.ErrorIs(t, err, context.Canceled)
		names, err := s.mem.List("db")
		require.NoError(t, err)
		require.Equal(t, before, names)
		s.check()
	}
}

func TestRunEndsWithTheErrorOfItsPace(t *testing.T) { eachWay(t, testRunEndsWithTheErrorOfItsPace) }

func testRunEndsWithTheErrorOfItsPace(t *testing.T, beside bool) {
	s, p := filledFor(t, true, beside)
	cfg, stop := s.config(), errors.New("stop")
	cfg.Pace = samePace(func(context.Context, int64) error { return stop })
	watchEvery(t, 8)
	_, err := Run(context.Background(), cfg, p, s.reader)
	require.ErrorIs(t, err, stop)
	s.check()
}

// TestRunEndsWithTheErrorOfItsContext, not with its cause.
func TestRunEndsWithTheErrorOfItsContext(t *testing.T) {
	eachWay(t, func(t *testing.T, beside bool) {
		s, p := filledFor(t, true, beside)
		watchEvery(t, 8)
		ctx, cancel := context.WithCancelCause(context.Background())
		cfg := s.config()
		cfg.Pace = samePace(func(context.Context, int64) error { cancel(errors.New("why")); return nil })
		_, err := Run(ctx, cfg, p, s.reader)
		require.ErrorIs(t, err, context.Canceled)
		s.check()
	})
}

// TestDamagedInput: any byte of the data that is wrong ends the compaction, which
// names file and place. (What a range delete hides from everybody is not read.)
func TestDamagedInput(t *testing.T) {
	s, p := filled(t, false)
	for _, g := range p.Inputs {
		name := "db/" + segment.FileName(g.Number)
		f, err := s.mem.Open(name, vfs.ReadWrite)
		require.NoError(t, err)
		good := s.mem.Bytes(name)
		for off := int64(10); off < int64(len(good))/2; off += 200 {
			bad := []byte{good[off] ^ 1}
			_, err = f.WriteAt(bad, off)
			require.NoError(t, err)
			_, err = Run(context.Background(), s.config(), p, s.reopen(s.mem))
			var ce *base.CorruptionError
			require.ErrorAs(t, err, &ce, "%s at %d of %d", name, off, len(good))
			require.Equal(t, name, filepath.ToSlash(ce.File))
			_, err = f.WriteAt(good[off:off+1], off)
			require.NoError(t, err)
		}
		require.NoError(t, f.Close())
	}
	s.check()
}

// TestWhatIsNotTouchedStays: a segment of the output level into which nothing is
// merged is no input of the result, and no output reaches over it.
func TestWhatIsNotTouchedStays(t *testing.T) {
	s := newShop(t)
	rng := rand.New(rand.NewPCG(7, 8))
	n := 0
	s.settle(rng, 400, 0, func() string { n++; return fmt.Sprintf("key %05d", n) })
	s.o.Above = s.lsn
	p, _ := PlanRange(s.segs, s.o, nil, nil, nil)
	p.Move = false
	s.run(p)
	last := newTree(s.segs, s.o, nil).levels[6]
	require.Greater(t, len(last), 6)
	// New keys at both ends.
	out := NewOutput(s.files, 0)
	for _, k := range []string{"key 00001", "key 99999"} {
		s.lsn++
		s.history = append(s.history, change{lsn: s.lsn, lo: k, kind: base.KindPut})
		require.NoError(t, out.Add([]byte(k), s.lsn, base.KindPut, s.value(k, s.lsn)))
	}
	require.NoError(t, out.Cut(nil))
	segs, readers, err := out.Finish()
	require.NoError(t, err)
	s.enter(segs, readers)
	s.o.Above = s.lsn
	p, _ = PlanRange(s.segs, s.o, nil, nil, nil)
	require.Len(t, p.Inputs, len(last)+1)
	r, err := Run(context.Background(), s.config(), p, s.reader)
	require.NoError(t, err)
	require.LessOrEqual(t, len(r.Edit.Remove), 2)
	require.Equal(t, sizeOf(r.Edit.Add), r.Written)
	s.apply(p, r)
	s.check()
}

// TestAbortTakesAllBack: a result that is not wanted leaves no file.
func TestAbortTakesAllBack(t *testing.T) { eachWay(t, testAbortTakesAllBack) }

func testAbortTakesAllBack(t *testing.T, beside bool) {
	s, p := filledFor(t, true, beside)
	r, err := Run(context.Background(), s.config(), p, s.reader)
	require.NoError(t, err)
	require.NotEmpty(t, r.Edit.Add)
	r.Abort()
	s.check()
}
