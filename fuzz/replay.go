package fuzz

import (
	"context"
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/forebaydb/forebay/vfs"
)

// A replay id is a workload, and then for each crash @cut:fates. The workload is
// its text, or seed.model.mode of one that was drawn. Fates are a letter each,
// after how many there are of it if more than one; a process that was killed is
// an exclamation mark.

const fateLetters = "LKZGSTabc"

// maxFates bounds what is made of an id.
const maxFates = 1 << 20

func fateString(f []vfs.Fate) string {
	if isKill(f) {
		return "!"
	}
	var b strings.Builder
	for i := 0; i < len(f); {
		n := 1
		for i+n < len(f) && f[i+n] == f[i] {
			n++
		}
		if n > 1 {
			b.WriteString(strconv.Itoa(n))
		}
		b.WriteByte(fateLetters[f[i]])
		i += n
	}
	return b.String()
}

func parseFates(s string) (f []vfs.Fate, err error) {
	if s == "!" {
		return []vfs.Fate{killed}, nil
	}
	n := 0
	for _, c := range s {
		i := strings.IndexRune(fateLetters, c)
		switch {
		case c >= '0' && c <= '9' && n < 1<<20:
			n = 10*n + int(c-'0')
			continue
		case i < 0:
			return nil, fmt.Errorf("fates %q: the letters are %s", s, fateLetters)
		}
		if len(f)+n > maxFates {
			return nil, fmt.Errorf("fates %q: more fates than the %d that a cut may have", s, maxFates)
		}
		for range max(1, n) {
			f = append(f, vfs.Fate(i))
		}
		n = 0
	}
	if n > 0 {
		return nil, fmt.Errorf("fates %q: ends in a number, of no letter", s)
	}
	return f, nil
}

// id names the workload in a replay id.
func (w *Workload) id() string {
	if !w.drawn {
		return w.String()
	}
	mode := 0
	if w.Concurrent {
		mode = 1
	}
	return fmt.Sprintf("%x.%d.%d", w.Seed, w.Model, mode)
}

func replayID(w *Workload, crashes ...crash) string {
	id := w.id()
	for _, c := range crashes {
		id += fmt.Sprintf("@%d:%s", c.cut, fateString(c.fates))
	}
	return id
}

// parseID takes a replay id apart.
func parseID(id string, p powers) (w *Workload, crashes []crash, err error) {
	parts := strings.Split(id, "@")
	if strings.Contains(parts[0], "|") {
		if w, err = ParseWorkload(parts[0]); err == nil {
			err = p.allow(w)
		}
	} else {
		var seed uint64
		var model vfs.Model
		var mode int
		if _, err = fmt.Sscanf(strings.ReplaceAll(parts[0], ".", " "), "%x %d %d", &seed, &model, &mode); err == nil && int(model) >= len(modelNames) {
			err = errors.New("no such model")
		}
		if err == nil {
			w = newWorkload(seed, model, mode == 1, p)
		}
	}
	if err != nil {
		return nil, nil, fmt.Errorf("fuzz: replay id %q begins with no workload: %w", id, err)
	}
	for _, part := range parts[1:] {
		at, fates, _ := strings.Cut(part, ":")
		var c crash
		if c.cut, err = strconv.Atoi(at); err == nil {
			c.fates, err = parseFates(fates)
		}
		if err != nil {
			return nil, nil, fmt.Errorf("fuzz: replay id %q: crash %q: %w", id, part, err)
		}
		crashes = append(crashes, c)
	}
	return w, crashes, nil
}

// sure is how often a state is judged before it is believed to be as promised.
const sure = 3

// Replay makes the workload of a violation again and checks the one state, or
// all states where the id names none (cfg.PerWorkload bounds them then). What an
// engine does in the background can fall elsewhere than it did, so that the state
// is looked for many times; of a workload with concurrent writers, which never
// repeats, all states are checked, several times.
func Replay(ctx context.Context, cfg Config, id string) (Report, error) {
	if err := prepare(&cfg); err != nil {
		return Report{}, err
	}
	w, crashes, err := parseID(id, cfg.powers)
	if err != nil {
		return Report{}, err
	}
	rep := Report{}
	if w.Concurrent || len(crashes) == 0 {
		for range 5 {
			x := newExplorer(ctx, &cfg, &shared{most: cfg.MaxViolations})
			x.explore(w, nil)
			rep.add(x.stats, x.out)
			if len(x.out) > 0 || ctx.Err() != nil {
				break
			}
		}
		return rep, nil
	}
	for try := 0; try < 300 && ctx.Err() == nil; try++ {
		x := newExplorer(ctx, &cfg, &shared{})
		x.full, x.w = true, w
		x.stats = Row{Model: w.Model, Align: w.Settings.Align, Workloads: 1}
		rec := x.run(w)
		if x.out = rec.broken; len(x.out) == 0 {
			s, _ := x.at(rec, crashes)
			if s == nil {
				continue // it fell otherwise
			}
			x.judge(s)
		}
		if rep.add(x.stats, x.out); len(x.out) > 0 || rep.States == sure {
			break
		}
	}
	if rep.States == 0 && len(rep.Violations) == 0 {
		return rep, fmt.Errorf("fuzz: replay id %q: no run of the workload came to this crash; the engine does not repeat here", id)
	}
	return rep, nil
}

// at makes the state that crashes left, nil where the recording has no such cut
// or one with other units. It returns the first of the cuts beside it.
func (x *explorer) at(rec *recording, crashes []crash) (s *state, c *cut) {
	i := crashes[0].cut - rec.offset
	if i < 0 || i >= len(rec.cuts) {
		return nil, nil
	}
	c = rec.cuts[i]
	s = &state{hist: c.hist, backups: c.backups, busy: c.did&inBackup != 0}
	disk, b := c.disk, c.bounds
	for k, cr := range crashes {
		if !isKill(cr.fates) && len(disk.Unsynced()) != len(cr.fates) {
			return nil, c
		}
		if s = s.after(cr.cut, cr.fates, disk, b); k == len(crashes)-1 {
			break
		}
		x.rnd = s.key(x)
		snaps, n, err := x.recovery(s)
		next := crashes[k+1].cut
		if err != nil || next < 0 || next >= len(snaps) {
			return nil, c
		}
		disk = snaps[next]
		if b = (bounds{s.power, s.lo, s.hi}); next == len(snaps)-1 {
			b = bounds{n, n, n}
		}
	}
	return s, c
}

// Dump writes the files of the violation's state below dir of a file system.
func (v *Violation) Dump(to vfs.FS, dir string) error { return dump(v.Disk, "", to, dir) }

func dump(m *vfs.Mem, name string, to vfs.FS, dir string) error {
	err := to.MkdirAll(dir)
	if err != nil {
		return err
	}
	names, err := m.List(name)
	for _, n := range names {
		if err != nil {
			break
		}
		from, target := path.Join(name, n), filepath.Join(dir, n)
		if info, _ := m.Stat(from); info.Dir {
			err = dump(m, from, to, target)
			continue
		}
		var f vfs.File
		if f, err = to.Create(target, vfs.ReadWrite); err == nil {
			_, err = f.WriteAt(m.Bytes(from), 0)
			err = errors.Join(err, f.Close())
		}
	}
	return err
}
