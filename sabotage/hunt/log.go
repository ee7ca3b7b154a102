package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

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

// logScripts end at the first error.
var logScripts = []struct {
	name  string
	never bool
	run   func(g *ledger) error
}{
	{"appends and truncations", false, func(g *ledger) error {
		return all(
			func() error { return g.append(wal.Durable, 100, 0) },
			func() error { return g.append(wal.Written, 100, 0) },
			func() error { return g.append(wal.Durable, 100, 0) },
			func() error { return g.append(wal.Durable, 100, 0) },
			func() error { return g.append(wal.Written, 100, 0) },
			func() error { return g.cut(2) },
			func() error { return g.append(wal.Durable, 100, 0) },
			func() error { return g.append(wal.Durable, 120, 0) },
			func() error { return g.cut(3) },
			func() error { return g.again() },
			func() error { return g.append(wal.Durable, 90, 0) },
			func() error { return g.cut(1) },
			func() error { return g.again() },
			func() error { return g.append(wal.Durable, 80, 0) },
		)
	}},
	{"a truncation, and nothing behind it", false, func(g *ledger) error {
		return all(
			func() error { return g.append(wal.Durable, 100, 0) },
			func() error { return g.append(wal.Durable, 100, 0) },
			func() error { return g.append(wal.Durable, 100, 0) },
			func() error { return g.cut(2) },
		)
	}},
	{"a truncation, and another edit behind it", false, func(g *ledger) error {
		return all(
			func() error { return g.append(wal.Durable, 100, 0) },
			func() error { return g.append(wal.Durable, 100, 0) },
			func() error { return g.append(wal.Durable, 100, 0) },
			func() error { return g.cut(2) },
			func() error { return g.l.Pin("p", 1) },
		)
	}},
	{"a truncation of what is not synced", false, func(g *ledger) error {
		return all(
			func() error { return g.append(wal.Durable, 700, 0) },
			func() error { return g.append(wal.Written, 700, 0) },
			func() error { return g.append(wal.Written, 700, 0) },
			func() error { return g.append(wal.Written, 700, 0) },
			func() error { return g.cut(3) },
			func() error { return g.append(wal.Durable, 80, 0) },
		)
	}},
	{"a floor above what is durable", true, func(g *ledger) error {
		for range 5 {
			if err := g.append(wal.Written, 5000, 0); err != nil {
				return err
			}
		}
		if err := g.front(4); !errors.Is(err, wal.ErrRange) {
			return fmt.Errorf("the floor goes to 4 of which %d are durable (%v)", g.l.DurableLSN(), err)
		}
		return nil
	}},
	{"truncations over several files", false, func(g *ledger) error {
		for range 9 {
			if err := g.append(wal.Durable, 5000, 0); err != nil {
				return err
			}
		}
		return all(
			func() error { return g.front(3) },
			func() error { return g.cut(5) },
			func() error { return g.append(wal.Durable, 5000, 0) },
			func() error { return g.append(wal.Durable, 5000, 0) },
			func() error { return g.append(wal.Durable, 5000, 0) },
			func() error { return g.front(6) },
			func() error { return g.again() },
			func() error { return g.append(wal.Durable, 50, 0) },
		)
	}},
	{"pins and keep-counts", false, func(g *ledger) error {
		for i := range 10 {
			keep := uint64(0)
			if i == 1 {
				keep = 10
			}
			if err := g.append(wal.Durable, 5000, keep); err != nil {
				return err
			}
		}
		return all(
			func() error { return g.l.Pin("p", 4) },
			func() error { g.pin, g.keeps = 4, 2; return g.front(9) },
			func() error { return g.again() },
			func() error { return g.append(wal.Durable, 50, 0) },
			func() error { g.pin = 0; return g.l.Unpin("p") },
			func() error { g.keeps = 0; return g.l.Unkeep(2, 10) },
			func() error { return g.append(wal.Durable, 9000, 0) },
			func() error { return g.append(wal.Durable, 9000, 0) },
			func() error { return g.again() },
		)
	}},
	{"a pin before the first record of an open", false, func(g *ledger) error {
		return all(
			func() error { return g.append(wal.Durable, 100, 0) },
			func() error { return g.again() },
			func() error { return g.l.Pin("p", 1) },
			func() error { return g.append(wal.Durable, 100, 0) },
			func() error { return g.again() },
		)
	}},
	{"released files", false, func(g *ledger) error {
		for range 8 {
			if err := g.append(wal.Durable, 5000, 3); err != nil {
				return err
			}
		}
		return all(
			func() error { return g.front(7) },
			func() error { return g.l.Release(g.l.Files()[0].Number) },
			func() error { return g.append(wal.Durable, 9000, 0) },
			func() error { return g.append(wal.Durable, 9000, 0) },
			func() error { return g.again() },
		)
	}},
	{"records that need larger files", true, func(g *ledger) error {
		return all(
			func() error { return g.append(wal.Written, 9000, 0) },
			func() error { return g.append(wal.Written, 3000, 0) },
			func() error { return g.append(wal.Written, 60000, 0) },
			func() error { return g.append(wal.Durable, 100, 0) },
			func() error { return g.append(wal.Written, 90000, 0) },
			func() error { return g.append(wal.Written, 100, 0) },
			func() error { return g.l.Sync(background) },
			func() error { g.do(func() { g.lo = len(g.now) }); return g.again() },
		)
	}},
	{"a spare that must make room", false, func(g *ledger) error {
		for range 3 {
			if err := g.append(wal.Durable, 3000, 0); err != nil {
				return err
			}
		}
		for i := 0; g.l.Stats().SpareBytes == 0 && i < 30; i++ {
			time.Sleep(time.Millisecond) // it is made in the background
		}
		return all(
			func() error { return g.append(wal.Durable, 40000, 0) },
			func() error { return g.append(wal.Durable, 100, 0) },
		)
	}},
	{"an archive that has not come", false, func(g *ledger) error {
		for range 8 {
			if err := g.append(wal.Durable, 5000, 0); err != nil {
				return err
			}
		}
		g.keeps = 1
		return g.front(7)
	}},
}

func all(steps ...func() error) error {
	for _, s := range steps {
		if err := s(); err != nil {
			return err
		}
	}
	return nil
}

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

// logAlone runs the scripts with a crash behind each I/O, and with each call
// failing.
func logAlone(ctx context.Context) string    { return logScriptsAll(ctx, quickly) }
func logAloneAll(ctx context.Context) string { return logScriptsAll(ctx, 3) }

func logScriptsAll(ctx context.Context, chance int) string {
	for _, f := range []func() string{cutPosition} {
		if what := attempt(f); what != "" {
			return what
		}
	}
	for _, s := range logScripts {
		for _, align := range []int64{0, 4096} {
			if ctx.Err() != nil {
				return ""
			}
			g := newLedger(70, align)
			if s.never {
				g.opts.Policy = wal.SyncNever
			}
			if s.name == "a spare that must make room" {
				if align > 0 {
					continue // files are larger
				}
				g.opts.MaxBytes = 64 << 10
			}
			g.opts.NoSpares = s.name == "released files" // they are removed, not used again
			if s.name == "an archive that has not come" {
				g.opts.Archive = func(context.Context, wal.ArchiveFile) error { return fmt.Errorf("not now") }
			}
			model := vfs.SectorAtomic
			if align > 0 {
				model = vfs.NothingAssumed
			}
			if what := attempt(func() string { return g.crashes(ctx, s.run, model, chance) }); what != "" {
				return s.name + ": " + what
			}
		}
	}
	for _, s := range logScripts {
		for _, call := range changing {
			for _, f := range faults {
				for k := 1; ctx.Err() == nil; k++ {
					step("log")
					g := newLedger(71, 0)
					if s.name == "a spare that must make room" {
						g.opts.MaxBytes = 64 << 10
					}
					if s.never {
						g.opts.Policy = wal.SyncNever
					}
					hit, what := g.fails(s.run, call, f, k, chance)
					if what != "" {
						return fmt.Sprintf("%s: %s %d fails (%s): %s", s.name, call, k, f.name, what)
					}
					if !hit {
						break
					}
				}
			}
		}
	}
	return ""
}

// forgedCut changes the record at which a log was cut, and makes its hashes right:
// the catalog knows another.
func forgedCut() string {
	g := newLedger(75, 0)
	var err error
	g.l, _, err = g.open(g.mem)
	must(err)
	for range 4 {
		must(g.append(wal.Durable, 100, 0))
	}
	must(g.cut(2))
	must(g.l.Close())
	b := g.mem.Bytes("log/000001.log")
	ps := places(b)
	for i, p := range ps[1:3] {
		c := slices.Clone(b)
		c[p.off+60] ^= 1
		reseal(c, ps, i+1)
		disk := g.mem.Snapshot()
		must(disk.SetBytes("log/000001.log", c))
		if l, _, err := g.open(disk); err == nil {
			_ = l.Close()
			return fmt.Sprintf("record %d below a cut was forged, and open takes it", i+1)
		}
	}
	return ""
}

// cutPosition: a follower of what was cut off is told so, when other records have
// come under the same numbers.
func cutPosition() string {
	g := newLedger(78, 0)
	var err error
	g.l, _, err = g.open(g.mem)
	must(err)
	for range 4 {
		must(g.append(wal.Durable, 100, 0))
	}
	pos := g.l.DurablePosition()
	must(g.cut(2))
	for range 3 {
		must(g.append(wal.Durable, 90, 0))
	}
	if _, err := g.l.NewTail(pos); !errors.Is(err, wal.ErrDiverged) {
		return fmt.Sprintf("a follower of records that were cut off goes on (%v)", err)
	}
	must(g.l.Close())
	return ""
}

// damagedCut truncates a log whose file was damaged since it was opened.
func damagedCut() string {
	g := newLedger(77, 0)
	var err error
	g.l, _, err = g.open(g.mem)
	must(err)
	for range 4 {
		must(g.append(wal.Durable, 100, 0))
	}
	must(g.mem.Corrupt("log/000001.log", 700, 1, func(b []byte) { b[0] ^= 1 }))
	if g.cut(3) == nil {
		return "a log is cut behind a record that is damaged"
	}
	_ = g.l.Close()
	return ""
}

// damagedLogs flips bits of a log that is used alone and was closed in order, and
// of its catalog: an open is an error, or shows all.
func damagedLogs(ctx context.Context) string {
	for _, f := range []func() string{damagedCut, brokenLink} {
		if what := attempt(f); what != "" {
			return what
		}
	}
	for _, s := range logScripts[:7] {
		g := newLedger(76, 0)
		g.opts.NoSpares = true
		what := attempt(func() string {
			var err error
			g.l, _, err = g.open(g.mem)
			must(err)
			must(s.run(g))
			must(g.l.Close())
			names, err := g.mem.List("log")
			must(err)
			for _, name := range names {
				disk := g.mem.Snapshot()
				must(disk.Remove("log/" + name))
				if l, _, err := g.open(disk); name != "LOCK" && err == nil {
					_ = l.Close()
					return name + " is gone, and nobody is told"
				}
			}
			for _, name := range names {
				b := g.mem.Bytes("log/" + name)
				n := used(b)
				stride := 29
				if strings.HasSuffix(name, ".log") && n > 8<<10 {
					stride *= 7
				}
				for i := 0; i < n*8 && ctx.Err() == nil; i += stride {
					if at := i / 8 / 512 * 512; used(b[at:min(at+512, len(b))]) == 0 {
						i = (at+512)*8 - stride // nothing is there
						continue
					}
					step("log damage")
					disk := g.mem.Snapshot()
					must(disk.Corrupt("log/"+name, int64(i/8), 1, func(b []byte) { b[0] ^= 1 << (i % 8) }))
					l, recs, err := g.open(disk)
					if err != nil {
						continue
					}
					what := match(recs, int(l.LastLSN()), int(l.Floor()), g.now, len(g.now))
					if what == "" && g.pin > 0 && len(l.Pins()) == 0 {
						what = "the pin is gone"
					}
					_ = l.Close()
					if what != "" {
						return fmt.Sprintf("%s, bit %d of byte %d: silent: %s", name, i%8, i/8, what)
					}
				}
			}
			return ""
		})
		if what != "" {
			return s.name + ": " + what
		}
	}
	return ""
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
