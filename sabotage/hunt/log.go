package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/forebaydb/forebay/vfs"
	"github.com/forebaydb/forebay/wal"
)

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
