package fuzz

import (
	"context"
	"fmt"
	"hash/maphash"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/forebaydb/forebay/vfs"
)

// Config says what to explore and how far. The first bound that is met ends a
// run; without any it ends with ctx.
type Config struct {
	// Engine under test; nil: Forebay.
	Engine Engine
	// Budget bounds the time, States the crash states, Workloads the workloads
	// of the whole run; 0: no bound.
	Budget    time.Duration
	States    int64
	Workloads int
	// PerWorkload bounds the states of one workload; 0: all that there are.
	PerWorkload int64
	// MaxViolations ends a run when so many were found; 0: no bound.
	MaxViolations int64
	// Seed decides everything but the timing of concurrent workloads.
	Seed uint64
	// Workers is how many workloads are explored at once; 0: one a processor.
	Workers int
	// Models, in turn; nil: SectorAtomic, NothingAssumed and, one in eight,
	// Ordered.
	Models []vfs.Model
	// Modes, in turn: whether writers are concurrent; nil: both.
	Modes []bool
	// Disk wraps the disk that the engine sees: a disk that lies, say.
	Disk func(vfs.FS) vfs.FS
	// Bubble runs f so that Settle, called inside, returns once every goroutine
	// that f started waits, and makes time stand still while one runs: with
	// testing/synctest a sequential workload repeats, but for what an engine does
	// in the background at the same moment. Both or neither.
	Bubble func(f func())
	Settle func()
	// ShrinkFor bounds the time in which the first violation of each kind is made
	// smaller, and the property is looked for that would have prevented it; 0: 10
	// s, negative: neither is done.
	ShrinkFor time.Duration
	// Progress, if not nil, is called about once in Every.
	Progress func(Report)
	Every    time.Duration

	powers powers
	units  int // see Bound.Units; 0: those of a run that samples
}

// Row counts what was done under one model, alignment and mode.
type Row struct {
	Model      vfs.Model
	Align      int64
	Concurrent bool
	Workloads  int
	Cuts       int64
	States     int64
	// Same counts the states that look as one that was opened before.
	Same int64
	// Whole counts the cuts of which every subset of what was unsynced was made.
	Whole int64
	// Distinct counts, for each workload, the different S(n) that were
	// recovered.
	Distinct   int64
	Violations int64
	// With counts the states of stores that had gone through something: see
	// Report.Features.
	With [len(featureNames)]int64
	// Seconds of one worker.
	Seconds float64
}

// Violation is a state that the engine did not keep its promise for.
type Violation struct {
	// Kind says what was broken, Clause which promise that is, Detail how.
	Kind, Clause, Detail string
	// Replay makes the state again: see Replay.
	Replay string
	// Workload describes it.
	Workload string
	// Disk is the state, before anything opened it; nil where a live store was
	// wrong.
	Disk *vfs.Mem
	// Small is the same violation by a workload that Shrink has made smaller, and
	// Property the weakest property of a file system that would have prevented it;
	// see Shrink.
	Small    *Violation
	Property string
}

// Smallest is Small, or the violation itself where there is none.
func (v *Violation) Smallest() *Violation {
	if v.Small != nil {
		return v.Small
	}
	return v
}

// String is the violation in a few lines, the first of which replays it.
func (v *Violation) String() string {
	s := fmt.Sprintf("replay '%s': %s\n  %s\n  %s\n  %s", v.Replay, v.Kind, v.Clause, v.Detail, v.Workload)
	if v.Property != "" {
		s += "\n  it could not happen on a file system with this property: " + v.Property
	}
	if v.Small != nil {
		s += "\nmade smaller: " + v.Small.String()
	}
	return s
}

// Report is what a run did.
type Report struct {
	Workloads    int
	Cuts, States int64
	// Same states were not opened: they look as one of their workload that was.
	Same              int64
	DistinctRecovered int64
	Violations        []*Violation
	Seconds           float64
	Rows              []Row
	// Planned is how many workloads there are to be, 0 where nobody knows.
	Planned int
	// With is the sum of that of all rows.
	With [len(featureNames)]int64
}

// shared is what the workers of a run share.
type shared struct {
	states, violations atomic.Int64
	limit, most        int64 // of them; 0: none
	next               atomic.Int64
}

func (s *shared) full() bool {
	return s.limit > 0 && s.states.Load() >= s.limit || s.most > 0 && s.violations.Load() >= s.most
}

// Run explores.
func Run(ctx context.Context, cfg Config) (Report, error) {
	if err := prepare(&cfg); err != nil {
		return Report{}, err
	}
	if cfg.Models == nil {
		cfg.Models = []vfs.Model{vfs.SectorAtomic, vfs.NothingAssumed, vfs.SectorAtomic, vfs.NothingAssumed, vfs.SectorAtomic, vfs.NothingAssumed, vfs.SectorAtomic, vfs.Ordered}
	}
	if cfg.Modes == nil {
		cfg.Modes = []bool{false, true}
	}
	if cfg.Budget > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, cfg.Budget)
		defer cancel()
	}
	return run(ctx, &cfg), nil
}

// prepare fills in what cfg leaves open, asks the engine what it can do, and
// makes what an engine makes once for all, outside of any bubble.
func prepare(cfg *Config) (err error) {
	if cfg.Engine == nil {
		cfg.Engine = Forebay{}
	}
	if (cfg.Bubble == nil) != (cfg.Settle == nil) {
		return fmt.Errorf("fuzz: Config.Bubble and Settle come together")
	}
	if cfg.Workers == 0 {
		cfg.Workers = runtime.GOMAXPROCS(0)
	}
	if cfg.powers, err = powersOf(cfg.Engine); err != nil {
		return err
	}
	x := newExplorer(context.Background(), cfg, &shared{})
	for c := range uint8(4) {
		w := &Workload{Settings: Settings{FileSize: 16 << 10, TableSize: 4 << 10, MarkDelay: -1, Compression: c}}
		for range 2 {
			steps := []step{{commits: [][]commit{{{ops: []Op{{Key: []byte("k"), Value: make([]byte, 2000)}}}}}}}
			steps = append(steps, step{commits: [][]commit{{{how: byUpdate, ops: []Op{{Space: 1, Key: []byte("k"), Value: []byte("v")}}}}}})
			steps = append(steps, step{kind: stepCompact}, step{kind: stepReopen})
			w.lives = append(w.lives, life{steps: append(steps, steps...)})
		}
		cfg.powers.limit(w)
		if rec := x.record(w); len(rec.broken) > 0 {
			return fmt.Errorf("fuzz: a simple workload fails: %s", rec.broken[0])
		}
	}
	return nil
}

// plan returns the n-th workload of a run.
func (cfg *Config) plan(n int64) *Workload {
	concurrent := cfg.Modes[n%int64(len(cfg.Modes))]
	model := cfg.Models[n/int64(len(cfg.Modes))%int64(len(cfg.Models))]
	return newWorkload(mix(cfg.Seed, uint64(n)), model, concurrent, cfg.powers)
}

func run(ctx context.Context, cfg *Config) Report {
	start := time.Now()
	sh := &shared{limit: cfg.States, most: cfg.MaxViolations}
	var mu sync.Mutex // guards rep
	rep := Report{}
	var wg sync.WaitGroup
	for range cfg.Workers {
		wg.Go(func() {
			x := newExplorer(ctx, cfg, sh)
			for ctx.Err() == nil && !sh.full() {
				n := sh.next.Add(1) - 1
				if cfg.Workloads > 0 && n >= int64(cfg.Workloads) {
					return
				}
				begin := time.Now()
				w := cfg.plan(n)
				x.stats = Row{Model: w.Model, Align: w.Settings.Align, Concurrent: w.Concurrent}
				x.explore(w, nil)
				x.stats.Seconds = time.Since(begin).Seconds()
				mu.Lock()
				rep.add(x.stats, x.out)
				mu.Unlock()
			}
		})
	}
	report := func() Report {
		mu.Lock()
		defer mu.Unlock()
		out := rep
		out.Rows = slices.Clone(rep.Rows)
		out.Violations = slices.Clone(rep.Violations)
		out.Seconds = time.Since(start).Seconds()
		return out
	}
	stop := reporter(cfg, report)
	wg.Wait()
	stop()
	out := report()
	shrinkAll(context.WithoutCancel(ctx), cfg, out.Violations)
	return out
}

// reporter calls cfg.Progress now and then until stop is called.
func reporter(cfg *Config, report func() Report) (stop func()) {
	if cfg.Progress == nil {
		return func() {}
	}
	every := cfg.Every
	if every == 0 {
		every = time.Minute
	}
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				cfg.Progress(report())
			}
		}
	}()
	return func() { close(done); <-ended }
}

func newExplorer(ctx context.Context, cfg *Config, sh *shared) *explorer {
	return &explorer{cfg: cfg, ctx: ctx, shared: sh, seen: map[uint64]struct{}{}, alike: map[uint64]struct{}{}, found: map[uint64]struct{}{}, same: map[uint64]struct{}{}, recut: map[uint64]struct{}{}, disks: maphash.MakeSeed()}
}

// add takes in the figures of one workload.
func (r *Report) add(row Row, vs []*Violation) {
	r.Workloads += row.Workloads
	r.Cuts += row.Cuts
	r.States += row.States
	r.Same += row.Same
	r.DistinctRecovered += row.Distinct
	for i, n := range row.With {
		r.With[i] += n
	}
	r.Violations = append(r.Violations, vs...)
	i := slices.IndexFunc(r.Rows, func(o Row) bool {
		return o.Model == row.Model && o.Align == row.Align && o.Concurrent == row.Concurrent
	})
	if i < 0 {
		r.Rows = append(r.Rows, row)
		return
	}
	o := &r.Rows[i]
	o.Workloads += row.Workloads
	o.Cuts += row.Cuts
	o.States += row.States
	o.Same += row.Same
	o.Whole += row.Whole
	o.Distinct += row.Distinct
	o.Violations += row.Violations
	for i, n := range row.With {
		o.With[i] += n
	}
	o.Seconds += row.Seconds
}

// Table is the report as a table.
func (r *Report) Table() string {
	rows := slices.Clone(r.Rows)
	slices.SortFunc(rows, func(a, b Row) int {
		return strings.Compare(rowKey(a), rowKey(b))
	})
	var b strings.Builder
	fmt.Fprintf(&b, "%-16s %5s %-10s %9s %9s %10s %9s %10s %9s\n", "model", "align", "writers", "workloads", "cuts", "states", "distinct", "violations", "seconds")
	for _, o := range rows {
		mode := "one"
		if o.Concurrent {
			mode = "concurrent"
		}
		fmt.Fprintf(&b, "%-16s %5d %-10s %9d %9d %10d %9d %10d %9.1f\n", modelNames[o.Model], o.Align, mode, o.Workloads, o.Cuts, o.States, o.Distinct, o.Violations, o.Seconds)
	}
	fmt.Fprintf(&b, "%-16s %5s %-10s %9d %9d %10d %9d %10d %9.1f\n", "all", "", "", r.Workloads, r.Cuts, r.States, r.DistinctRecovered, len(r.Violations), r.Seconds)
	fmt.Fprintf(&b, "%d more states look as one of their workload that was opened\n", r.Same)
	b.WriteString(r.Features() + "\n")
	return b.String()
}

// Features says how many of the states were of stores that had gone through what.
func (r *Report) Features() string {
	out := make([]string, len(featureNames))
	for i, name := range featureNames {
		out[i] = fmt.Sprintf("%s %d", name, r.With[i])
	}
	return "states of stores with " + strings.Join(out, ", ")
}

func rowKey(r Row) string { return fmt.Sprint(r.Model, r.Align, r.Concurrent) }
