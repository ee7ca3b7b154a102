package forebay

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/forebaydb/forebay/compaction"
	"github.com/forebaydb/forebay/internal/base"
	"github.com/forebaydb/forebay/internal/rangedel"
	"github.com/forebaydb/forebay/manifest"
	"github.com/forebaydb/forebay/segment"
)

// compactor is what the store knows of its compactions.
type compactor struct {
	mu      sync.Mutex // guards all below; DB.mu comes after it
	running []*compaction.Plan
	workers int
	// bad are segments that do not verify: no plan takes them.
	bad map[uint64]bool
	// unread are segments of which a read failed: they are left alone while
	// there is something else to do.
	unread map[uint64]bool
	// ended is closed, and replaced, when a compaction ends.
	ended chan struct{}
	// delay is how long to wait after the next error; waiting: it is not over.
	delay   time.Duration
	waiting bool

	count, read, written atomic.Int64
}

// maxCompactions run at the same time: level 0 need not wait for the merge of
// two large levels.
const maxCompactions = 2

// halveFrom is how large a compaction is, in bytes, that two goroutines share, where
// writers wait for it, or who asked for it. Where nobody does they would take the
// processors from those who write and read.
const halveFrom = 64 << 20

// shape is what picks compactions, but for the readers.
func (db *DB) shape() compaction.Options {
	return compaction.Options{MemtableSize: db.opts.MemtableSize, MinSegment: min(16<<20, max(db.opts.MemtableSize, 64<<10))}
}

// compactSoon starts a goroutine for each compaction that is worth while.
func (db *DB) compactSoon() {
	if v := db.view.Load(); db.opening.Load() || len(v.zero) == 0 && len(v.levels) == 0 {
		return
	}
	c := &db.compact
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.workers < maxCompactions && !c.waiting {
		p := db.pick()
		if p == nil {
			return
		}
		c.begin(db, p)
		c.workers++
		if !db.spawn(func() { db.compactOn(p) }) {
			c.end(db, p)
			c.workers--
			return
		}
	}
}

// pick returns the compaction that is worth most, nil if none is; compact.mu is
// held.
func (db *DB) pick() *compaction.Plan {
	v, shard, err := db.enter()
	if err != nil {
		return nil
	}
	defer v.gate.exit(shard)
	c, segs, opts := &db.compact, v.segments(), db.pickOptions(v)
	p := compaction.Pick(segs, opts, c.inTheWay(v, c.bad, c.unread))
	if p == nil && len(c.unread) > 0 {
		c.unread = nil
		p = compaction.Pick(segs, opts, c.inTheWay(v, c.bad))
	}
	return p
}

// pickOptions are those of a pick that looks at v.
func (db *DB) pickOptions(v *view) compaction.Options {
	o := db.shape()
	o.Snapshots, o.Above = db.readers.keep(db.pipe.Visible)
	o.RangeDeletes = func(number uint64) *rangedel.Set {
		if r := v.reader(number); r != nil {
			if dels, err := r.RangeDeletes(); err == nil {
				return dels
			}
		}
		return nil
	}
	return o
}

// reader returns the reader of a segment, nil if the view has none.
func (v *view) reader(number uint64) (r *segment.Reader) {
	v.tables(func(t *table) {
		if t.meta.Number == number {
			r = t.file.r
		}
	})
	return r
}

// inTheWay is what runs, and what cannot be read, as if that were running, in a
// slice of the caller's own; mu is held.
func (c *compactor) inTheWay(v *view, unreadable ...map[uint64]bool) []*compaction.Plan {
	plans := slices.Clone(c.running)
	for _, numbers := range unreadable {
		if len(numbers) == 0 {
			continue
		}
		v.tables(func(t *table) {
			if numbers[t.meta.Number] {
				plans = append(plans, &compaction.Plan{Inputs: []manifest.Segment{t.meta}, To: t.meta.Level, Lo: t.meta.Lo, Hi: t.meta.Hi, Drop: true})
			}
		})
	}
	return plans
}

func (c *compactor) begin(db *DB, p *compaction.Plan) {
	if len(c.running) == 0 {
		db.pacer.Begin(time.Now())
	}
	c.running = append(c.running, p)
}

// end takes a plan away; mu is held.
func (c *compactor) end(db *DB, p *compaction.Plan) {
	c.running = slices.DeleteFunc(c.running, func(q *compaction.Plan) bool { return p == q })
	if len(c.running) == 0 {
		db.pacer.End(time.Now())
	}
	close(c.ended)
	c.ended = make(chan struct{})
}

// compactOn does a compaction, and then what is worth while after it.
func (db *DB) compactOn(p *compaction.Plan) {
	c := &db.compact
	for p != nil {
		err := db.compactOne(db.ctx, p, true)
		var wait time.Duration
		c.mu.Lock()
		switch {
		case err == nil:
			c.delay = 0
			p = db.pick()
		case db.ctx.Err() != nil || db.stuck() != nil:
			p = nil
		default:
			wait = c.failed(db)
			p = nil
		}
		if p != nil {
			c.begin(db, p)
		} else {
			c.workers--
		}
		c.mu.Unlock()
		if wait > 0 {
			db.opts.Logger.Error("compaction failed; it will be tried again", "error", err, "in", wait)
		}
		if p != nil {
			db.compactSoon() // a second one may be possible now
		}
	}
}

// failed lets no compaction begin for a while, each time for longer, until one
// succeeds. It returns for how long. mu is held.
func (c *compactor) failed(db *DB) time.Duration {
	c.delay = min(max(2*c.delay, 50*time.Millisecond), 10*time.Second)
	delay := c.delay
	if c.waiting {
		return delay
	}
	c.waiting = true
	db.spawn(func() {
		select {
		case <-db.ctx.Done():
			return
		case <-time.After(delay):
		}
		c.mu.Lock()
		c.waiting = false
		c.mu.Unlock()
		db.compactSoon()
	})
	return delay
}

// compactOne does a plan that is among the running ones, which it then leaves.
// With rest it makes way for the foreground.
func (db *DB) compactOne(ctx context.Context, p *compaction.Plan, rest bool) error {
	start := time.Now()
	cfg := &compaction.Config{Files: db.files(), Quiet: db.quiet, Pace: func() func(context.Context, int64) error { return db.pace(p, rest) }}
	if runtime.GOMAXPROCS(0) > 1 && (db.pacer.Slows() || !rest) {
		cfg.Halve = halveFrom
	}
	cfg.Snapshots, cfg.Above = db.readers.keep(db.pipe.Visible)
	// Nobody but this plan takes its inputs away: they stay open in every view.
	v := db.view.Load()
	res, err := compaction.Run(ctx, cfg, p, v.reader)
	if err == nil {
		if err = db.man.Apply(&res.Edit); err != nil && db.man.Err() == nil {
			res.Abort() // refused: nothing has changed
		} else if err != nil {
			for _, r := range res.Readers { // whether the edit counts the next open will tell
				r.Close()
			}
			db.log.Poison(err)
		}
	}
	c := &db.compact
	c.mu.Lock()
	if err == nil {
		db.mu.Lock()
		db.installResult(p, res)
		db.backlog()
		db.mu.Unlock()
		c.count.Add(1)
		c.read.Add(res.Read)
		c.written.Add(res.Written)
	} else {
		c.blame(p, err)
	}
	c.end(db, p)
	c.mu.Unlock()
	e := Event{Kind: EventCompaction, Err: err, Reason: string(p.Why), Level: p.To, Duration: time.Since(start)}
	if err == nil {
		e.Bytes, e.BytesRead = res.Written, res.Read
	}
	if !errors.Is(err, context.Canceled) {
		db.event(e)
	}
	return db.seen(err)
}

// installResult puts what a compaction made into the view. mu is held.
func (db *DB) installResult(p *compaction.Plan, res *compaction.Result) {
	db.install(func(v *view) {
		remove := res.Edit.Remove
		if p.Move {
			for _, s := range res.Edit.Add {
				remove = append(remove, s.Number)
			}
		}
		taken := v.without(remove)
		if p.Move {
			for _, t := range taken {
				moved := t.meta
				moved.Level = p.To
				v.place(&table{meta: moved, file: t.file})
			}
			return
		}
		for _, t := range taken {
			t.file.gone.Store(true)
		}
		for i, s := range res.Edit.Add {
			v.place(&table{meta: s, file: &segmentFile{r: res.Readers[i]}})
		}
	})
}

// blame remembers an input that does not verify, or that the disk does not let be
// read, so that it is not tried again and again. mu is held.
func (c *compactor) blame(p *compaction.Plan, err error) {
	input := func(name string) (uint64, bool) { // an output is gone
		number, ok := segment.ParseFileName(filepath.Base(name))
		return number, ok && slices.ContainsFunc(p.Inputs, func(s manifest.Segment) bool { return s.Number == number })
	}
	note := func(set *map[uint64]bool, name string) {
		if number, ok := input(name); ok {
			if *set == nil {
				*set = map[uint64]bool{}
			}
			(*set)[number] = true
		}
	}
	var damage *CorruptionError
	var read *fs.PathError
	switch {
	case errors.As(err, &damage):
		note(&c.bad, damage.File)
	case errors.As(err, &read):
		note(&c.unread, read.Path)
	}
}

// pace tells the pacer what a compaction has done, and lets it rest.
func (db *DB) pace(p *compaction.Plan, rest bool) func(context.Context, int64) error {
	share := float64(p.Level0Bytes()) / float64(max(p.Bytes(), 1))
	last := time.Now()
	return func(ctx context.Context, done int64) error {
		db.yield(1)
		now := time.Now()
		db.pacer.Done(int64(float64(done)*share), now)
		if !rest {
			return nil
		}
		sleep := db.pacer.Rest(now.Sub(last))
		if sleep < time.Millisecond {
			last = now
			return nil
		}
		timer := time.NewTimer(sleep)
		defer timer.Stop()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
		}
		last = time.Now()
		return nil
	}
}

const (
	// quietFor is the time over which readers are looked at, and quietReads how many
	// blocks they may ask of the files in it and still count as none.
	quietFor   = 100 * time.Millisecond
	quietReads = 8
)

// quiet returns what says whether nearly nobody reads but from memory and from the
// block cache. One goroutine asks it.
func (db *DB) quiet() func() bool {
	var last time.Time
	var misses uint64
	quiet := false
	return func() bool {
		if now := time.Now(); now.Sub(last) >= quietFor {
			before := misses
			misses = db.cache.Stats().Misses
			quiet = !last.IsZero() && misses-before <= quietReads*uint64(now.Sub(last)/quietFor)
			last = now
		}
		return quiet
	}
}

// Compact settles everything, and merges what there is by then towards the last
// level, so that what was overwritten or deleted gives its space back, as far as
// snapshots allow; and, unless somebody writes meanwhile, takes the log's files off
// the disk. It works as fast as it can, beside readers and writers. When
// ctx ends it returns ctx's error; what is done by then stays done.
func (db *DB) Compact(ctx context.Context) error {
	ctx, end, err := db.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	if err := db.compactAll(ctx); err != nil {
		return db.ended(err)
	}
	return db.ended(db.log.Trim(db.view.Load().settled))
}

func (db *DB) compactAll(ctx context.Context) error {
	if err := db.Checkpoint(ctx); err != nil {
		return err
	}
	limit := db.view.Load().settled
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		p, done, wait, err := db.planAll(limit)
		if err != nil || done {
			return err
		}
		if p != nil {
			if err := db.compactOne(ctx, p, false); err != nil {
				return public(err)
			}
			continue
		}
		select {
		case <-wait:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// planAll begins the next compaction on the way of what is at or below limit to
// the last level. What is younger goes along, but is nothing to stay for: else
// writers could keep a Compact from ever ending. done also when what is left
// cannot be read.
func (db *DB) planAll(limit base.LSN) (p *compaction.Plan, done bool, wait chan struct{}, err error) {
	c := &db.compact
	c.mu.Lock()
	defer c.mu.Unlock()
	v, shard, err := db.enter()
	if err != nil {
		return nil, false, nil, err
	}
	defer v.gate.exit(shard)
	segs, opts, running := v.segments(), db.pickOptions(v), c.inTheWay(v, c.bad)
	for {
		if p, done = compaction.PlanRange(segs, opts, running, nil, nil); p == nil || brings(p, limit) {
			break
		}
		running = append(running, &compaction.Plan{Inputs: above(p), To: p.To, Lo: p.Lo, Hi: p.Hi, Drop: true})
	}
	if p != nil {
		c.begin(db, p)
		return p, false, nil, nil
	}
	busy := slices.ContainsFunc(c.running, func(p *compaction.Plan) bool { return brings(p, limit) })
	return nil, done || !busy, c.ended, nil
}

// above returns those of a plan's inputs that come from above its outputs, all of
// them when none does.
func above(p *compaction.Plan) []manifest.Segment {
	i := slices.IndexFunc(p.Inputs, func(s manifest.Segment) bool { return s.Level == p.To })
	if i <= 0 {
		return p.Inputs
	}
	return p.Inputs[:i]
}

// brings says whether a plan brings down anything that is at or below limit.
func brings(p *compaction.Plan, limit base.LSN) bool {
	return slices.ContainsFunc(above(p), func(s manifest.Segment) bool { return s.MinLSN <= limit })
}
