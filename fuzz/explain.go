package fuzz

import (
	"context"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/forebaydb/forebay/vfs"
)

// Explain makes the state of a replay id again, as Replay does, and tells how it
// came about: the workload, each I/O before the crash, what was not synced then
// and what became of it, what is promised, and what the engine shows. The id
// names at least one crash, of a workload with one writer.
func Explain(ctx context.Context, cfg Config, id string, w io.Writer) error {
	if err := prepare(&cfg); err != nil {
		return err
	}
	wl, crashes, err := parseID(id, cfg.powers)
	switch {
	case err != nil:
		return err
	case len(crashes) == 0:
		return fmt.Errorf("fuzz: replay id %q names no crash: it ends like @12:KKL", id)
	case wl.Concurrent:
		return fmt.Errorf("fuzz: a workload with concurrent writers never runs the same way twice, so that its states cannot be explained; replay it")
	}
	for try := 0; try < 300 && ctx.Err() == nil; try++ {
		x := newExplorer(ctx, &cfg, &shared{})
		x.full, x.w = true, wl
		rec := x.run(wl)
		if len(rec.broken) > 0 {
			_, err := fmt.Fprintf(w, "%s\n", rec.broken[0])
			return err
		}
		e := &explanation{x: x, rec: rec, crashes: crashes}
		if e.make() {
			_, err := io.WriteString(w, e.out.String())
			return err
		}
	}
	return fmt.Errorf("fuzz: replay id %q: no run of the workload came to this crash; the engine does not repeat here", id)
}

type explanation struct {
	x       *explorer
	rec     *recording
	crashes []crash
	out     strings.Builder
}

func (e *explanation) printf(format string, args ...any) { fmt.Fprintf(&e.out, format, args...) }

// make tells the story; false where the recording has no such state.
func (e *explanation) make() bool {
	s, c := e.x.at(e.rec, e.crashes)
	if s == nil {
		return false
	}
	e.printf("workload  %s\n", e.x.w)
	e.trace()
	e.printf("promised  after the %s: S(n) for an n from %d to %d\n", crashName(e.crashes[len(e.crashes)-1]), s.lo, s.hi)
	if len(e.crashes) == 1 {
		e.fates(c.disk.Unsynced(), e.crashes[0].fates)
	}
	e.printf("on disk   %s\n", list(s.disk))
	st, n, err := e.x.open(e.x.under(s.disk.Snapshot()), e.x.settings(s, false), s.hist, s.lo, s.hi)
	if err != nil {
		e.printf("an open   fails: %v\n", err)
	} else {
		e.printf("an open   shows LSN %d, %d pairs and keyspaces: %s\n", n, len(contents(st)), s.hist.diff(contents(st)))
		st.Close()
	}
	if e.x.judge(s); len(e.x.out) == 0 {
		e.printf("verdict   as promised\n")
	}
	for _, v := range e.x.out {
		e.printf("verdict   %s: %s\n          broken is: %s\n", v.Kind, v.Detail, v.Clause)
	}
	return true
}

// trace lists the I/Os up to the crash, and which step did them.
func (e *explanation) trace() {
	last := e.crashes[0].cut - e.rec.offset
	life, step := -1, 0
	for i, c := range e.rec.cuts[:last+1] {
		if c.life != life {
			life = c.life
			e.printf("life %d    open\n", life)
		}
		for life == 0 && step < len(e.rec.begin) && e.rec.begin[step] <= i {
			e.printf("step      %s\n", e.x.w.lives[0].steps[step])
			step++
		}
		e.printf("%6d    %s\n", i+e.rec.offset, opString(c.op))
	}
	for k, c := range e.crashes {
		if k > 0 {
			e.printf("          the recovery after that: %d I/Os\n", c.cut)
		}
		e.printf("          CRASH: the %s\n", crashName(c))
	}
}

func crashName(c crash) string {
	if isKill(c.fates) {
		return "process is killed"
	}
	return "power is cut"
}

func opString(op vfs.Op) string {
	s := fmt.Sprintf("%s %s", op.Call, op.Name)
	if op.To != "" {
		s += " to " + op.To
	}
	if op.Len > 0 {
		s += fmt.Sprintf(", %d bytes at %d", op.Len, op.Off)
	}
	return s
}

// fates lists what was not synced and what became of it.
func (e *explanation) fates(units []vfs.Unit, f []vfs.Fate) {
	if isKill(f) {
		e.printf("          nothing is lost but what was in the memory of the process\n")
		return
	}
	for i, u := range units {
		e.printf("          %-8s %s\n", fateNames[f[i]], unitString(u))
	}
}

var fateNames = [...]string{"lost", "kept", "zeroed", "garbage", "stale", "torn", "older 1", "older 2", "older 3"}

func unitString(u vfs.Unit) string {
	switch u.Kind {
	case vfs.EntryUnit:
		if u.From != "" {
			return fmt.Sprintf("%s of %s to %s", u.Call, u.From, u.Name)
		}
		return fmt.Sprintf("%s of %s", u.Call, u.Name)
	case vfs.SizeUnit:
		return "size of " + u.Name
	}
	fresh := ""
	if u.Fresh {
		fresh = ", never durable before"
	}
	if u.Sectors > 1 {
		return fmt.Sprintf("%s, zeros in sectors %d to %d%s", u.Name, u.Sector, u.Sector+u.Sectors-1, fresh)
	}
	return fmt.Sprintf("%s, sector %d%s", u.Name, u.Sector, fresh)
}

// list names the files of a disk with their sizes.
func list(m *vfs.Mem) string { return strings.Join(listDir(m, ""), ", ") }

func listDir(m *vfs.Mem, dir string) (out []string) {
	names, err := m.List(dir)
	if err != nil {
		return []string{fmt.Sprintf("%s cannot be listed (%v)", dir, err)}
	}
	for _, n := range names {
		name := path.Join(dir, n)
		if info, err := m.Stat(name); err == nil && !info.Dir {
			out = append(out, fmt.Sprintf("%s %d", name, info.Size))
		} else if err == nil {
			out = append(out, listDir(m, name)...)
		}
	}
	return out
}
