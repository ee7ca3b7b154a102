package fuzz

import (
	"context"
	"math/rand/v2"

	"github.com/forebaydb/forebay/vfs"
)

const (
	// exhaustive is up to how many units every subset is made.
	exhaustive = 8
	// maxPairs bounds, by a draw, how many pairs of lost units are made.
	maxPairs = 100
	// samples is how many states are made with fates by chance.
	samples = 32
	// One state in fullEvery goes through the whole oracle, one in againEvery
	// has its own recovery cut.
	fullEvery, againEvery = 24, 96
	// maxInner is about how many cuts of one recovery are made.
	maxInner = 10
)

// explorer explores workloads, one at a time.
type explorer struct {
	cfg    *Config
	ctx    context.Context
	rng    *rand.Rand // of the enumeration alone, so that it repeats whatever a check does
	dice   *rand.Rand // of the check of one state
	stats  Row
	quiet  bool // inside a bubble
	shared *shared

	w     *Workload
	cut   int
	did   features // before the cut
	seen  map[uint64]struct{}
	found map[uint64]struct{} // LSNs recovered, by line of time
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

func (x *explorer) quiesce() {
	if x.quiet {
		x.cfg.Settle()
	}
}

// explore runs a workload and explores its cuts.
func (x *explorer) explore(w *Workload) {
	x.w, x.count, x.limit = w, 0, x.cfg.PerWorkload
	x.out = nil
	x.rng = rand.New(rand.NewPCG(w.Seed, 0xc07))
	clear(x.found)
	rec := x.run(w)
	x.out = append(x.out, rec.broken...)
	x.shared.violations.Add(int64(len(rec.broken)))
	x.stats.Workloads++
	// In any order, so that a limit leaves out no kind of cut.
	for _, i := range x.rng.Perm(len(rec.cuts)) {
		if x.done() {
			break
		}
		c := rec.cuts[i]
		if x.cfg.only != nil && *x.cfg.only != i {
			continue
		}
		if c.life == 0 && c.hi == 0 && w.Seed%8 != 0 {
			continue // the making of an empty store is always the same
		}
		x.stats.Cuts++
		x.explore1(i, c)
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
	x.cut, x.did = i, c.did
	x.rng = rand.New(rand.NewPCG(x.w.Seed, uint64(i)))
	clear(x.seen)
	x.killed(c)
	units := c.disk.Unsynced()
	enumerate(units, x.w.Model, c.disk, x.rng, func(f []vfs.Fate) bool {
		h := hashFates(f)
		if _, ok := x.seen[h]; ok {
			return true
		}
		x.seen[h] = struct{}{}
		x.power(c, f)
		return !x.done()
	})
}

// killed checks what the next process finds when this one is killed.
func (x *explorer) killed(c *cut) {
	s := c.state([]vfs.Fate{killed})
	s.disk, s.lo = c.disk.Snapshot(), c.kill
	x.judge(s)
	if x.rng.IntN(8) == 0 {
		x.again(c.state(s.fates))
	}
}

// state returns the state that fates make of a cut, but for its disk.
func (c *cut) state(f []vfs.Fate) *state {
	return &state{disk: c.disk, lo: c.lo, kill: c.kill, hi: c.hi, hist: c.hist, backups: c.backups, busy: c.did&inBackup != 0, fates: f}
}

// killed stands for fates where the process was killed and the power stayed.
const killed vfs.Fate = 255

// power checks one state of a power cut.
func (x *explorer) power(c *cut, f []vfs.Fate) {
	disk := c.disk.PowerCut(func(i int, _ vfs.Unit) vfs.Fate { return f[i] })
	again := x.rng.IntN(againEvery) == 0
	s := c.state(f)
	if s.disk, s.kill = disk, c.lo; again {
		s.disk = disk.Snapshot()
	}
	x.judge(s)
	if again {
		t := *s
		t.disk = disk
		x.again(&t)
	}
}

// again opens a state, cuts the power or kills the process after each I/O of
// that open, and checks what comes of it; and once more after the open. What the
// open begins in the background may be among its I/Os or not, and so draws of its
// own are made.
func (x *explorer) again(s *state) {
	x.rnd = s.key(x)
	defer func(rng *rand.Rand) { x.rng = rng }(x.rng)
	x.rng = rand.New(rand.NewPCG(x.rnd, 1))
	disk := s.disk.Snapshot()
	var snaps []*vfs.Mem
	disk.OnIO(func(vfs.Op) { snaps = append(snaps, disk.Snapshot()) })
	st, n, err := x.open(x.under(disk), x.settings(s, false), s.hist, s.lo, s.hi)
	disk.OnIO(nil)
	if err != nil {
		return // judge has reported it
	}
	after := disk.Snapshot()
	st.Close()
	for i, snap := range snaps {
		if x.rng.IntN(len(snaps)) < maxInner {
			x.second(s, i, snap, bounds{s.lo, s.kill, s.hi})
		}
	}
	x.second(s, len(snaps), after, bounds{n, n, n})
}

// second checks states of a cut inside a recovery.
func (x *explorer) second(s *state, i int, snap *vfs.Mem, b bounds) {
	base := &state{hist: s.hist, backups: s.backups, busy: s.busy, fates: s.fates, inner: i + 1, hi: b.hi}
	units := snap.Unsynced()
	try := func(f []vfs.Fate) {
		t := *base
		t.lo, t.fates2 = b.lo, f
		t.disk = snap.PowerCut(func(i int, _ vfs.Unit) vfs.Fate { return f[i] })
		x.judge(&t)
	}
	k := *base
	k.lo, k.fates2, k.disk = b.kill, []vfs.Fate{killed}, snap.Snapshot()
	x.judge(&k)
	lost := make([]vfs.Fate, len(units))
	try(legal(units, x.w.Model, lost))
	for range 3 {
		if x.w.Model == vfs.Ordered {
			first, last := snap.OrderedCuts()
			try(through(units, first+x.rng.Uint64N(last-first+1)))
		} else {
			try(draw(units, x.w.Model, x.rng))
		}
	}
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

// enumerate calls try with the fates of each state of a cut, until it returns
// false. Some come twice.
func enumerate(units []vfs.Unit, m vfs.Model, disk *vfs.Mem, rng *rand.Rand, try func([]vfs.Fate) bool) {
	var seqs []uint64
	seqs = append(seqs, 0)
	for _, u := range units {
		seqs = append(seqs, u.Seqs[:u.Versions]...)
	}
	if m == vfs.Ordered {
		first, last := disk.OrderedCuts()
		for _, s := range append(seqs, first) {
			if s >= first && s <= last && !try(through(units, s)) {
				return
			}
		}
		return
	}
	var two []int // units that are lost or kept
	for i, u := range units {
		if losable(u, m) {
			two = append(two, i)
		}
	}
	all := func(f vfs.Fate) []vfs.Fate {
		out := make([]vfs.Fate, len(units))
		for i := range out {
			out[i] = f
		}
		return legal(units, m, out)
	}
	if n := len(two); n <= exhaustive {
		for bits := range 1 << n {
			f := all(vfs.Kept)
			for k, i := range two {
				if bits>>k&1 != 0 {
					f[i] = vfs.Lost
				}
			}
			if !try(f) {
				return
			}
		}
	} else {
		for _, s := range seqs {
			if !try(through(units, s)) {
				return
			}
		}
		for k := range two {
			prefix, omit, only := all(vfs.Kept), all(vfs.Kept), all(vfs.Lost)
			for _, i := range two[k:] {
				prefix[i] = vfs.Lost
			}
			omit[two[k]], only[two[k]] = vfs.Lost, vfs.Kept
			if !try(prefix) || !try(omit) || !try(only) {
				return
			}
		}
		pairs := n * (n - 1) / 2
		for a := range two {
			for b := range a {
				if pairs > maxPairs && rng.IntN(pairs) >= maxPairs {
					continue
				}
				f := all(vfs.Kept)
				f[two[a]], f[two[b]] = vfs.Lost, vfs.Lost
				if !try(f) {
					return
				}
			}
		}
	}
	if len(units) == 0 {
		return
	}
	for range samples {
		if !try(draw(units, m, rng)) {
			return
		}
	}
}

func hashFates(f []vfs.Fate) uint64 {
	h := uint64(len(f))
	for _, v := range f {
		h = (h ^ uint64(v)) * 0x9e3779b97f4a7c15
		h ^= h >> 29
	}
	return h
}
