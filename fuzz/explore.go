package fuzz

import (
	"context"
	"hash/maphash"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"

	"github.com/forebaydb/forebay/vfs"
)

const (
	// exhaustive is up to how many units every subset is made.
	exhaustive = 8
	// innerUnits is the same inside a recovery.
	innerUnits = 6
	// maxPairs bounds, by a draw, how many pairs of lost units are made.
	maxPairs = 100
	// samples is how many states are made with fates by chance.
	samples = 32
	// The first state of a workload that recovers an S(n) and one in fullEvery go
	// through the whole oracle, one in againEvery has its own recovery cut.
	fullEvery, againEvery = 200, 96
	// maxInner is about how many cuts of one recovery are made.
	maxInner = 10
	// One state in deeperEvery that a crash inside a recovery has left has its own
	// recovery cut, up to maxDepth crashes in a row.
	deeperEvery, maxDepth = 64, 3
	// restTurns is how often others are given a turn before the engine is thought
	// to be at rest.
	restTurns = 100
)

// explorer explores workloads, one at a time.
type explorer struct {
	cfg    *Config
	base   *base // in which workloads begin, or nil
	deep   bool  // cut every recovery
	full   bool  // the whole oracle for every state
	ctx    context.Context
	rng    *rand.Rand // of the enumeration alone, so that it repeats whatever a check does
	dice   *rand.Rand // of the check of one state
	stats  Row
	quiet  bool // inside a bubble
	shared *shared

	// filter, if not nil, says which fates a file system is still allowed.
	filter allows

	want string // the only kind of violation that is looked for; "": any

	w     *Workload
	did   features            // before the cut
	seen  map[uint64]struct{} // fates
	alike map[uint64]struct{} // fates that come to the same
	found map[uint64]struct{} // LSNs recovered, by line of time
	same  map[uint64]struct{} // disks opened
	recut map[uint64]struct{} // of these, those whose recovery was cut everywhere
	disks maphash.Seed        // of same and recut
	out   []*Violation
	count int64 // states of this workload
	limit int64
	rnd   uint64
}

// under returns the file system that the engine sees.
func (x *explorer) under(m *vfs.Mem) vfs.FS {
	fsys := vfs.FS(syncedWrites{m})
	if x.cfg.Disk != nil {
		fsys = x.cfg.Disk(fsys)
	}
	return fsys
}

// quiesce waits until the engine is at rest: in a bubble that is known; else it
// has had many turns and done nothing to the disk.
func (x *explorer) quiesce(disk *vfs.Mem) {
	if x.quiet {
		x.cfg.Settle()
		return
	}
	_, last := disk.OrderedCuts()
	for same := 0; same < restTurns; same++ {
		runtime.Gosched()
		if _, seq := disk.OrderedCuts(); seq != last {
			last, same = seq, 0
		}
	}
}

// explore runs a workload and explores its cuts, from the one that from says,
// nil: all.
func (x *explorer) explore(w *Workload, from func(*recording) int) {
	x.w, x.count, x.limit = w, 0, x.cfg.PerWorkload
	x.out = nil
	x.rng = rand.New(rand.NewPCG(w.Seed, 0xc07))
	clear(x.found)
	clear(x.same)
	clear(x.recut)
	rec := x.run(w)
	x.out = append(x.out, rec.broken...)
	x.shared.violations.Add(int64(len(rec.broken)))
	x.stats.Workloads++
	first := 0
	if from != nil && len(rec.broken) == 0 {
		first = from(rec)
	}
	// In any order, so that a limit leaves out no kind of cut.
	for _, i := range x.rng.Perm(len(rec.cuts)) {
		if x.done() {
			break
		}
		c := rec.cuts[i]
		if i < first {
			continue
		}
		if c.life == 0 && c.hi == 0 && w.Seed%8 != 0 {
			continue // the making of an empty store is always the same
		}
		x.stats.Cuts++
		x.explore1(i+rec.offset, c)
	}
	x.stats.Distinct += int64(len(x.found))
	x.stats.Violations += int64(len(x.out))
}

// run records a workload, where it can be repeated in a bubble.
func (x *explorer) run(w *Workload) (rec *recording) {
	if w.Concurrent || x.cfg.Bubble == nil {
		return x.record(w)
	}
	x.quiet = true
	x.cfg.Bubble(func() { rec = x.record(w) })
	x.quiet = false
	return rec
}

func (x *explorer) done() bool {
	return x.limit > 0 && x.count >= x.limit || x.ctx.Err() != nil || x.shared.full() || len(x.out) >= maxViolations
}

// maxViolations of one workload are enough.
const maxViolations = 4

// explore1 makes the states of one cut and checks them.
func (x *explorer) explore1(i int, c *cut) {
	x.did = c.did
	x.rng = rand.New(rand.NewPCG(x.w.Seed, uint64(i)))
	x.killed(i, c)
	whole := x.enumerate(c.disk, false, func(f []vfs.Fate) bool {
		x.power(i, f, c)
		return !x.done()
	})
	if whole {
		x.stats.Whole++
	}
}

// enumerate calls try with the fates of each state that a disk may be left in
// until it returns false, once for those that come to the same; inner says that it
// is left by a recovery. It returns
// whether every subset of the units that are not synced was among them.
func (x *explorer) enumerate(disk *vfs.Mem, inner bool, try func([]vfs.Fate) bool) (whole bool) {
	clear(x.seen)
	clear(x.alike)
	units := disk.Unsynced()
	a := newAlikeness(disk, units, x.w.Model)
	e := enumeration{units: units, model: x.w.Model, most: x.cfg.units, rng: x.rng, thorough: x.cfg.units > 0 && !inner, inner: inner}
	if inner {
		e.most = innerUnits
	}
	e.try = func(f []vfs.Fate) bool {
		h := hashFates(f)
		if _, ok := x.seen[h]; ok || !x.allowed(disk, units, f) {
			return true
		}
		x.seen[h] = struct{}{}
		same := a.hash(f)
		if _, ok := x.alike[same]; ok {
			x.stats.Same++
			return true
		}
		x.alike[same] = struct{}{}
		return try(f)
	}
	return e.run(disk)
}

// killed checks what the next process finds when this one is killed.
func (x *explorer) killed(i int, c *cut) {
	f := []vfs.Fate{killed}
	if again := x.rng.IntN(8) == 0; x.judge(c.state(i, f)) && (again || x.deep) {
		x.again(c.state(i, f))
	}
}

// state returns the state that fates make of cut i.
func (c *cut) state(i int, f []vfs.Fate) *state {
	s := &state{hist: c.hist, backups: c.backups, busy: c.did&inBackup != 0}
	return s.after(i, f, c.disk, bounds{c.lo, c.kill, c.hi})
}

// after returns the state that fates make of cut i of what was done to s; the
// disk was then disk.
func (s *state) after(i int, f []vfs.Fate, disk *vfs.Mem, b bounds) *state {
	t := &state{hist: s.hist, backups: s.backups, busy: s.busy, lo: b.lo, power: b.lo, hi: b.hi}
	t.crashes = append(slices.Clip(s.crashes), crash{i, f})
	if isKill(f) {
		t.lo, t.disk = b.kill, disk.Snapshot()
		return t
	}
	t.disk = disk.PowerCut(func(i int, _ vfs.Unit) vfs.Fate { return f[i] })
	return t
}

// killed stands for fates where the process was killed and the power stayed.
const killed vfs.Fate = 255

func isKill(f []vfs.Fate) bool { return len(f) == 1 && f[0] == killed }

// power checks one state of a power cut.
func (x *explorer) power(i int, f []vfs.Fate, c *cut) {
	s := c.state(i, f)
	again := x.rng.IntN(againEvery) == 0 || x.deep
	t := *s
	if again {
		t.disk = s.disk.Snapshot()
	}
	sum, broken := uint64(0), len(x.out)
	if x.deep {
		sum = x.sum(s)
	}
	good := x.judge(s)
	if x.deep {
		// One that a crash inside a recovery has left before was judged, and no more.
		_, cut := x.recut[sum]
		good = len(x.out) == broken && (good || !cut)
		x.recut[sum] = struct{}{}
	}
	if good && again {
		x.again(&t)
	}
}

// sum is the same for states that look the same and of which the same is promised.
func (x *explorer) sum(s *state) uint64 {
	sum := mix(s.disk.Sum(x.disks), mix(s.lo, s.hi))
	for _, h := range s.hist.hashes[s.lo : s.hi+1] {
		sum = mix(sum, h)
	}
	return sum
}

// again opens a state, cuts the power or kills the process after each I/O of
// that open, and checks what comes of it; and once more after the open. What the
// open begins in the background may be among its I/Os or not, and so draws of its
// own are made. Now and then what it leaves is opened in the same way.
func (x *explorer) again(s *state) {
	x.rnd = s.key(x)
	defer func(rng *rand.Rand, seen, alike map[uint64]struct{}) { x.rng, x.seen, x.alike = rng, seen, alike }(x.rng, x.seen, x.alike)
	x.rng = rand.New(rand.NewPCG(x.rnd, 1))
	x.seen, x.alike = map[uint64]struct{}{}, map[uint64]struct{}{}
	snaps, n, err := x.recovery(s)
	if err != nil {
		return // judge has reported it
	}
	last := len(snaps) - 1
	for i, snap := range snaps {
		b := bounds{s.power, s.lo, s.hi}
		if i == last {
			b = bounds{n, n, n}
		}
		if x.deep || i == last || x.rng.IntN(last) < maxInner {
			x.second(s, i, snap, b)
		}
	}
}

// recovery opens a state and returns the disk after each I/O of that, and at the
// end. It leaves the state's own disk as it is.
func (x *explorer) recovery(s *state) (snaps []*vfs.Mem, n uint64, err error) {
	disk := s.disk.Snapshot()
	var mu sync.Mutex // guards snaps: the engine may be at work when the open returns
	ended := false
	disk.OnIO(func(vfs.Op) {
		snap := disk.Snapshot()
		mu.Lock()
		defer mu.Unlock()
		if !ended {
			snaps = append(snaps, snap)
		}
	})
	st, n, err := x.open(x.under(disk), x.settings(s, false), s.hist, s.lo, s.hi)
	disk.OnIO(nil)
	mu.Lock()
	ended = true
	mu.Unlock()
	if err != nil {
		return nil, 0, err
	}
	snaps = append(snaps, disk.Snapshot())
	st.Close()
	return snaps, n, nil
}

// second checks states of a cut inside a recovery.
func (x *explorer) second(s *state, i int, snap *vfs.Mem, b bounds) {
	try := func(f []vfs.Fate) bool {
		t := s.after(i, f, snap, b)
		deeper := len(s.crashes) < maxDepth && x.rng.IntN(deeperEvery) == 0
		var own *vfs.Mem
		if deeper {
			own = t.disk.Snapshot()
		}
		if x.judge(t) && deeper {
			t.disk = own
			x.deep, deeper = false, x.deep
			x.again(t)
			x.deep = deeper
		}
		return !x.done()
	}
	if !try([]vfs.Fate{killed}) {
		return
	}
	if x.deep {
		x.enumerate(snap, true, try)
		return
	}
	units := snap.Unsynced()
	f := legal(units, x.w.Model, make([]vfs.Fate, len(units)))
	for range 4 {
		if x.allowed(snap, units, f) {
			try(f)
		}
		f = draw(units, x.w.Model, x.rng)
		if x.w.Model == vfs.Ordered {
			first, last := snap.OrderedCuts()
			f = through(units, first+x.rng.Uint64N(last-first+1))
		}
	}
}

// allowed says whether the filter lets units of a disk have fates.
func (x *explorer) allowed(disk *vfs.Mem, units []vfs.Unit, f []vfs.Fate) bool {
	if x.filter == nil {
		return true
	}
	synced, _ := disk.OrderedCuts()
	return x.filter(units, f, synced)
}

// legal replaces Lost by Kept where the model has no Lost.
func legal(units []vfs.Unit, m vfs.Model, f []vfs.Fate) []vfs.Fate {
	for i, u := range units {
		if f[i] == vfs.Lost && !losable(u, m) {
			f[i] = vfs.Kept
		}
	}
	return f
}

func losable(u vfs.Unit, m vfs.Model) bool {
	l := vfs.LegalFates(u, m)
	return len(l) > 1 && l[1] == vfs.Lost
}

// through returns the fates of an ordered cut at operation seq.
func through(units []vfs.Unit, seq uint64) []vfs.Fate {
	f := make([]vfs.Fate, len(units))
	choose := vfs.KeepThrough(seq)
	for i, u := range units {
		f[i] = choose(i, u)
	}
	return f
}

// draw returns fates by chance: mostly kept, mostly lost, or free.
func draw(units []vfs.Unit, m vfs.Model, rng *rand.Rand) []vfs.Fate {
	f := make([]vfs.Fate, len(units))
	temper := rng.IntN(5)
	for i, u := range units {
		l := vfs.LegalFates(u, m)
		switch {
		case temper == 0 && rng.IntN(8) != 0:
			f[i] = vfs.Kept
		case temper == 1 && rng.IntN(8) != 0 && losable(u, m):
			f[i] = vfs.Lost
		case temper == 2 && u.Kind != vfs.SectorUnit:
			f[i] = vfs.Kept // names and sizes there, contents free
		default:
			f[i] = l[rng.IntN(len(l))]
		}
	}
	return f
}

func hashFates(f []vfs.Fate) uint64 {
	h := uint64(len(f))
	for _, v := range f {
		h = (h ^ uint64(v)) * 0x9e3779b97f4a7c15
		h ^= h >> 29
	}
	return h
}
