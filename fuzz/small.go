package fuzz

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/forebaydb/forebay/vfs"
)

// Bound says which workloads Exhaust explores, and how far: all of them of so
// many operations. Most crash bugs that were ever reported need no more than
// three (CrashMonkey, OSDI 2018).
type Bound struct {
	// Ops is the most operations of a workload.
	Ops int `json:"ops"`
	// Units is how many unsynced units (sectors, sizes, names) a cut may have so
	// that every subset of them is kept and lost; of cuts with more come every
	// prefix, every one and every two lost, and every one kept. 0: 8.
	Units int `json:"units"`
	// Depth2 is the most operations of the workloads of which every recovery, of
	// every different disk, is cut after each of its I/Os.
	Depth2 int `json:"depth2"`
}

// Covered is what Exhaust did of a Bound.
type Covered struct {
	Bound
	// Alphabet is the operations.
	Alphabet []string `json:"alphabet"`
	// Settings under which each workload was explored.
	Settings []string `json:"settings"`
	// Workloads of the bound, under all settings, and how many were explored.
	Workloads int `json:"workloads"`
	Explored  int `json:"explored"`
	// Whole cuts had every subset of their units; Wide ones had more than Units.
	Whole int64 `json:"whole"`
	Wide  int64 `json:"wide"`
	// Restarted workloads did not begin as those that they extend did, so that
	// all their cuts were explored.
	Restarted int64 `json:"restarted"`
}

// Done says whether the whole bound was covered.
func (c *Covered) Done() bool { return c.Explored == c.Workloads }

// String is the bound as a formula, and the count.
func (c *Covered) String() string {
	state := "covered"
	if !c.Done() {
		state = fmt.Sprintf("NOT covered, %d of them explored", c.Explored)
	}
	depth := ""
	if c.Depth2 > 0 {
		depth = fmt.Sprintf("; of those of up to %d operations each recovery of each different disk is cut after each of its I/Os, too, with all subsets of up to %d units, or every prefix, one lost and one kept", c.Depth2, innerUnits)
	}
	return fmt.Sprintf("all workloads of up to %d of %d operations, and those of up to %d with a backup behind: %d under each of %d settings, %d, %s; "+
		"each cut after each I/O and killed; of %d cuts with u <= %d unsynced units all 2^u subsets, of %d with more every prefix, single and double; each unit alone with each other fate%s",
		c.Ops, len(c.Alphabet), max(c.Ops-1, 0), c.Workloads/max(1, len(c.Settings)), len(c.Settings), c.Workloads, state, c.Whole, c.Units, c.Wide, depth)
}

const (
	// basePart makes the store that every small workload finds: two keyspaces,
	// keys in a segment and in the log, closed and opened again.
	basePart = "d{+s1/} d{k0=40 k1=40 s1/k0=40} checkpoint d{k1=50 k2=40} reopen"
	// lastOp may end a workload, and no more than that.
	lastOp = "backup"
	// maxOps and maxUnits are beyond what anybody has the time for.
	maxOps, maxUnits = 8, 30
)

// smallSettings are those under which small workloads are explored.
var smallSettings = []string{
	"sector-atomic align=0 level=d",
	"nothing-assumed align=4096 level=w",
}

// alphabet lists the operations of small workloads, each as a text in which %d
// is the place of the operation, for keys that are new. batch is the operation that
// is a batch.
func alphabet(batch string) (ops []string) {
	for _, level := range levelNames {
		for _, op := range []string{"n%d=40", "k0=600", "-k1", "-[k0,k2)", batch} {
			ops = append(ops, level+"{"+op+"}")
		}
	}
	return append(ops, "sync", "checkpoint", "compact", "reopen")
}

// base is a store in which workloads begin, and how it was made.
type base struct {
	steps int // of the life that made it; the last is to open it
	cuts  int // I/Os that it took
	disk  *vfs.Mem
	hist  *history
	did   features
}

// small is the run of Exhaust.
type small struct {
	cfg   *Config
	bound Bound
	ops   []string
	base  *base
	head  string // the settings in use

	mu  sync.Mutex // guards the rest
	sig map[string]begun
	cov *Covered
	rep Report
}

// Exhaust explores every small workload within a bound, and every state of each
// within it. cfg.Models, Modes, Workloads, States and PerWorkload are not looked
// at; when the budget or ctx ends before the bound is covered, Covered says so.
func Exhaust(ctx context.Context, cfg Config, bound Bound) (Report, Covered, error) {
	if err := prepare(&cfg); err != nil {
		return Report{}, Covered{}, err
	}
	if cfg.Budget > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, cfg.Budget)
		defer cancel()
	}
	if bound.Units == 0 {
		bound.Units = exhaustive
	}
	if bound.Ops < 0 || bound.Ops > maxOps || bound.Units < 0 || bound.Units > maxUnits {
		return Report{}, Covered{}, fmt.Errorf("fuzz: the bound is from 0 to %d operations, and to %d units", maxOps, maxUnits)
	}
	cfg.PerWorkload, cfg.units = 0, bound.Units
	start := time.Now()
	cov := Covered{Bound: bound, Settings: smallSettings}
	if !cfg.powers.Settings {
		cov.Settings = smallSettings[:1]
	}
	s := &small{cfg: &cfg, bound: bound, cov: &cov, ops: cfg.powers.alphabet()}
	cov.Alphabet = s.ops
	perLength := 0
	for n := range bound.Ops + 1 {
		perLength += s.count(n)
		if n < bound.Ops && cfg.powers.backup {
			perLength += s.count(n)
		}
	}
	cov.Workloads = perLength * len(cov.Settings)
	sh := &shared{most: cfg.MaxViolations}
	stop := sync.OnceFunc(reporter(&cfg, func() Report {
		s.mu.Lock()
		defer s.mu.Unlock()
		r := s.rep
		r.Rows, r.Violations = slices.Clone(r.Rows), slices.Clone(r.Violations)
		r.Seconds, r.Planned = time.Since(start).Seconds(), cov.Workloads
		return r
	}))
	defer stop()
	for _, s.head = range cov.Settings {
		if err := s.prepareBase(ctx); err != nil {
			return Report{}, cov, err
		}
		for n := range bound.Ops + 1 {
			s.length(ctx, sh, n)
			if n < bound.Ops && cfg.powers.backup {
				s.length(ctx, sh, n, lastOp)
			}
		}
	}
	stop() // what was reported is changed from here on
	s.rep.Seconds = time.Since(start).Seconds()
	shrinkAll(context.WithoutCancel(ctx), &cfg, s.rep.Violations)
	return s.rep, cov, nil
}

// alphabet is that of an engine with these powers.
func (p powers) alphabet() (ops []string) {
	seen := map[string]bool{}
	batch := "m%d=300 s1/k0=300"
	switch {
	case !p.Batches:
		batch = "m%d=300"
	case !p.spaces:
		batch = "m%d=300 k0=300"
	}
	for _, text := range alphabet(batch) {
		w, err := ParseWorkload("| " + strings.ReplaceAll(text, "%d", "0"))
		if err != nil {
			continue // a test parses them all
		}
		p.limit(w)
		if len(w.lives[0].steps) == 1 && !seen[w.lives[0].steps[0].String()] {
			seen[w.lives[0].steps[0].String()] = true
			ops = append(ops, text)
		}
	}
	return ops
}

// count is how many workloads have n operations.
func (s *small) count(n int) int { return int(math.Pow(float64(len(s.ops)), float64(n))) }

// words are the operations of a workload: the digits of its number.
func (s *small) words(n, length int) []string {
	out := make([]string, length, length+1)
	for i := range out {
		digit := n / s.count(length-1-i) % len(s.ops)
		out[i] = strings.ReplaceAll(s.ops[digit], "%d", fmt.Sprint(i))
	}
	return out
}

// make makes a workload of its operations.
func (s *small) make(words []string) (*Workload, error) {
	w, err := ParseWorkload(s.head + " | " + basePart + " " + strings.Join(words, " "))
	if err == nil {
		s.cfg.powers.limit(w)
	}
	return w, err
}

// prepareBase makes the store in which the workloads begin, and explores its
// making, as the workload without operations.
func (s *small) prepareBase(ctx context.Context) error {
	w, err := s.make(nil)
	if err != nil {
		return err
	}
	steps := w.lives[0].steps
	w.lives[0].steps = steps[:len(steps)-1]
	x := newExplorer(ctx, s.cfg, &shared{})
	x.w = w
	rec := x.run(w)
	if len(rec.broken) > 0 {
		return fmt.Errorf("fuzz: the store in which small workloads begin cannot be made: %s", rec.broken[0])
	}
	s.base = &base{steps: len(steps), cuts: len(rec.cuts), disk: rec.disk, hist: rec.hist, did: rec.did}
	s.sig = map[string]begun{}
	return nil
}

// length explores all workloads of a length.
func (s *small) length(ctx context.Context, sh *shared, n int, last ...string) {
	sh.next.Store(0)
	var wg sync.WaitGroup
	for range s.cfg.Workers {
		wg.Go(func() {
			x := newExplorer(ctx, s.cfg, sh)
			for ctx.Err() == nil && !sh.full() {
				k := int(sh.next.Add(1) - 1)
				if k >= s.count(n) {
					return
				}
				s.explore(x, append(s.words(k, n), last...))
			}
		})
	}
	wg.Wait()
}

// explore explores one workload, from where it goes on beyond the one that has
// all its operations but the last.
func (s *small) explore(x *explorer, words []string) {
	w, err := s.make(words)
	if err != nil {
		return // a test makes them all
	}
	begin := time.Now()
	x.stats = Row{Model: w.Model, Align: w.Settings.Align}
	x.base, x.deep = s.base, len(words) > 0 && len(words) <= s.bound.Depth2
	if len(words) == 0 {
		x.base = nil // the making of the base, too
	}
	restarted := int64(0)
	x.explore(w, func(rec *recording) int {
		from, all := 0, rec.cuts[:rec.end]
		if len(words) == 0 {
			all = all[s.base.cuts:]
		} else {
			from = rec.begin[len(rec.begin)-1]
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.sig[strings.Join(words, " ")] = begunBy(all)
		if from == 0 {
			return 0
		}
		before, now := s.sig[strings.Join(words[:len(words)-1], " ")], begunBy(rec.cuts[:from])
		switch {
		case before.signature != now.signature:
			from, restarted = 0, 1
		case !before.edge.promise(now.edge):
			from--
		}
		return from
	})
	x.stats.Seconds = time.Since(begin).Seconds()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rep.add(x.stats, x.out)
	s.cov.Whole += x.stats.Whole
	s.cov.Wide += x.stats.Cuts - x.stats.Whole
	s.cov.Restarted += restarted
	if !x.done() {
		s.cov.Explored++
	}
}

// begun is how a workload went until its last step, or its end.
type begun struct {
	// signature is a hash of what was done to the disk, and of what was promised
	// after each I/O but the last.
	signature uint64
	// edge is what was promised after the last, until the next. What follows can
	// raise it without any I/O: a sync that finds nothing to do, say.
	edge bounds
}

func begunBy(cuts []*cut) (b begun) {
	for i, c := range cuts {
		if b.edge = c.bounds; i == len(cuts)-1 {
			b.signature = mix(b.signature, xxhash.Sum64String(fmt.Sprint(c.op)))
		} else {
			b.signature = mix(b.signature, xxhash.Sum64String(fmt.Sprint(c.op, c.bounds)))
		}
	}
	return b
}

// promise says whether whoever keeps to b keeps to c.
func (b bounds) promise(c bounds) bool { return b.lo >= c.lo && b.kill >= c.kill && b.hi <= c.hi }
