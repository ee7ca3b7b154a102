package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/forebaydb/forebay/vfs"
	"github.com/forebaydb/forebay/wal"
)

// A ledger is a log that is used alone, with its history. An open must show a
// history of those that are possible at the moment: one, or while a truncation
// or a failed append is under way two.
type ledger struct {
	mem  *vfs.Mem
	fsys vfs.FS
	opts wal.Options
	l    *wal.Log
	seed uint64

	mu sync.Mutex // guards all below
	// now are the records, the first lo of them durable. before is another
	// history that may be there instead, as long as or: that of before a
	// truncation.
	now    []string
	lo     int
	before []string
	or     bool
	floor  int
	pin    int // 0: none
	keeps  int // records whose bytes somebody needs, from 1; 0: none
	cuts   []logCut
}

type logCut struct {
	disk        *vfs.Mem
	now, before []string
	lo, floor   int
	or          bool
	op          vfs.Op
}

func newLedger(seed uint64, align int64) *ledger {
	g := &ledger{mem: vfs.NewMem(), seed: seed}
	g.fsys = g.mem
	g.opts = wal.Options{FileSize: 16 << 10, FirstFileSize: 16 << 10, MarkDelay: -1, Align: align}
	return g
}

func (g *ledger) open(fsys vfs.FS) (l *wal.Log, recs map[int]string, err error) {
	o := g.opts
	g.seed++
	recs = map[int]string{}
	o.FS, o.Rand = fsys, newRand(g.seed)
	o.OnRecord = func(lsn wal.LSN, _ uint64, rec []byte) error {
		recs[int(lsn)] = string(rec)
		return nil
	}
	l, err = wal.Open("log", &o)
	return l, recs, err
}

func (g *ledger) tape() {
	g.mem.OnIO(func(op vfs.Op) {
		snap := g.mem.Snapshot()
		g.mu.Lock()
		defer g.mu.Unlock()
		g.cuts = append(g.cuts, logCut{snap, slices.Clone(g.now), slices.Clone(g.before), g.lo, g.floor, g.or, op})
	})
}

func (g *ledger) do(f func()) {
	g.mu.Lock()
	f()
	if n := len(g.cuts); n > 0 {
		c := &g.cuts[n-1]
		if c.lo = max(c.lo, min(g.lo, len(c.now))); !g.or && c.or {
			c.or, c.now, c.lo = false, slices.Clone(g.now), g.lo
		}
	}
	g.mu.Unlock()
}

// append appends one record; an error leaves it in question.
func (g *ledger) append(level wal.Level, size int, keep uint64) error {
	rec := value(int(g.seed)*1000+len(g.now), size)
	g.do(func() { g.now = append(slices.Clip(g.now), rec) })
	err := g.l.Commit(&wal.Request{Records: []wal.Record{{Data: []byte(rec), Keep: keep}}, Level: level})
	switch {
	case err == nil && level == wal.Durable:
		g.do(func() { g.lo = len(g.now) })
	case err != nil && !errors.Is(err, wal.ErrUnknown): // it is certainly not there
		g.do(func() { g.now = g.now[:len(g.now)-1] })
	}
	return err
}

// cut truncates the back.
func (g *ledger) cut(lsn int) error {
	lo := g.lo
	g.do(func() { g.before, g.or = g.now, true; g.now, g.lo = slices.Clone(g.now[:lsn]), min(lo, lsn) })
	err := g.l.TruncateBack(wal.LSN(lsn))
	switch {
	case err == nil:
		g.do(func() { g.or, g.lo = false, lsn })
	case !errors.Is(err, wal.ErrUnknown):
		g.do(func() { g.now, g.or, g.lo = g.before, false, lo })
	}
	return err
}

func (g *ledger) front(lsn int) error { return g.l.TruncateFront(wal.LSN(lsn)) }

// again closes and opens the log.
func (g *ledger) again() error {
	if err := g.l.Close(); err != nil {
		return err
	}
	g.do(func() { g.lo = len(g.now) })
	var err error
	if g.l, _, err = g.open(g.fsys); err != nil {
		g.l = nil
	}
	return err
}

func (g *ledger) crashes(ctx context.Context, run func(*ledger) error, model vfs.Model, chance int) string {
	g.tape()
	var err error
	g.l, _, err = g.open(g.mem)
	must(err)
	must(run(g))
	if what := g.holds(g.l); what != "" {
		return what
	}
	must(g.l.Close())
	g.do(func() { g.lo = len(g.now) })
	g.mem.OnIO(nil)
	for i, c := range g.cuts {
		step("log")
		if ctx.Err() != nil {
			return ""
		}
		what := states(c.disk, model, chance, func(disk *vfs.Mem, name string) string {
			if what := g.judge(disk, c); what != "" {
				return fmt.Sprintf("crash behind I/O %d (%s %s), %s: %s", i, c.op.Call, c.op.Name, name, what)
			}
			return ""
		})
		if what != "" {
			return what
		}
	}
	return ""
}

// holds checks that what is pinned, or kept, can be read.
func (g *ledger) holds(l *wal.Log) string {
	least := 0
	if g.pin > 0 {
		least = g.pin
	}
	if g.keeps > 0 && (least == 0 || g.keeps < least) {
		least = g.keeps
	}
	if least == 0 {
		return ""
	}
	files := l.Files()
	for _, f := range files {
		if int(f.First) <= least && least <= int(f.Last) {
			return ""
		}
	}
	return fmt.Sprintf("record %d is held, and no file has it: %v", least, files)
}

// judge opens a disk, appends, and opens again.
func (g *ledger) judge(disk *vfs.Mem, c logCut) string {
	g.opts.MaxBytes = 0 // it is about what is there, not about room
	l, recs, err := g.open(disk)
	if err != nil {
		return "open fails: " + err.Error()
	}
	n := int(l.LastLSN())
	what := match(recs, n, int(l.Floor()), c.now, c.lo)
	if what != "" && c.or {
		if also := match(recs, n, int(l.Floor()), c.before, 0); also == "" {
			what = ""
		}
	}
	opened, acted := disk.PowerCut(func(int, vfs.Unit) vfs.Fate { return vfs.Lost }), disk.PowerCut(names)
	if what == "" {
		_, err = l.Append([]byte("one more"))
	}
	shown := disk.PowerCut(func(int, vfs.Unit) vfs.Fate { return vfs.Lost })
	if cerr := l.Close(); err == nil {
		err = cerr
	}
	if what != "" {
		return what
	}
	if err != nil {
		return "an append fails: " + err.Error()
	}
	for _, d := range []*vfs.Mem{opened, acted} {
		l, _, err := g.open(d)
		if err != nil {
			return "open fails after an open and a power cut: " + err.Error()
		}
		last := int(l.LastLSN())
		_ = l.Close()
		if last != n {
			return fmt.Sprintf("an open showed %d records; after a power cut there are %d", n, last)
		}
	}
	recs[n+1] = "one more"
	l, again, err := g.open(shown)
	if err != nil {
		return "open fails after one more record and a power cut: " + err.Error()
	}
	defer l.Close()
	if int(l.LastLSN()) != n+1 {
		return fmt.Sprintf("one more record was durable at %d, and the log ends at %d", n+1, l.LastLSN())
	}
	for lsn, rec := range again {
		if old, ok := recs[lsn]; ok && old != rec {
			return fmt.Sprintf("record %d has changed from one open to the next", lsn)
		}
	}
	return ""
}

// match compares what an open showed with a history of which the first lo must be
// there.
func match(recs map[int]string, n, floor int, hist []string, lo int) string {
	switch {
	case n < lo:
		return fmt.Sprintf("acknowledged records are lost: opened at %d, %d must be there", n, lo)
	case n > len(hist):
		return fmt.Sprintf("opened at %d, there are %d records", n, len(hist))
	}
	for lsn := floor + 1; lsn <= n; lsn++ {
		if recs[lsn] != hist[lsn-1] {
			return fmt.Sprintf("record %d is %q, not %q", lsn, brief(recs[lsn]), brief(hist[lsn-1]))
		}
	}
	return ""
}

func (g *ledger) fails(run func(*ledger) error, call vfs.Call, f fault, k, chance int) (hit bool, what string) {
	in := vfs.NewInjector(g.mem)
	g.fsys = in
	rule := f.rule
	rule.Call, rule.K = call, k
	armed := in.Add(rule)
	var err error
	if g.l, _, err = g.open(in); err == nil {
		_ = run(g)
		// Whoever goes on after an error is told so, or it counts.
		for range 2 {
			if g.l == nil || g.append(wal.Durable, 9000, 0) != nil {
				break
			}
		}
	} else {
		g.l = nil
	}
	hit = armed.Hits() > 0
	crash := g.mem.Snapshot()
	if g.l != nil {
		_ = g.l.Close()
	}
	if !hit {
		return false, ""
	}
	armed.Remove()
	c := logCut{now: g.now, before: g.before, lo: g.lo, or: g.or}
	what = states(crash, vfs.SectorAtomic, chance, func(disk *vfs.Mem, name string) string {
		if what := g.judge(disk, c); what != "" {
			return "then a crash, " + name + ": " + what
		}
		return ""
	})
	return hit, what
}
