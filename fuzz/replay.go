package fuzz

import (
	"context"
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"strings"

	"github.com/forebaydb/forebay/vfs"
)

// A replay id is seed.model.mode.cut.fates.inner.fates2: numbers, and a letter
// for each fate.

const fateLetters = "LKZGST123"

func fateString(f []vfs.Fate) string {
	if len(f) == 1 && f[0] == killed {
		return "killed"
	}
	b := make([]byte, len(f))
	for i, v := range f {
		b[i] = fateLetters[v]
	}
	return string(b)
}

func replayID(w *Workload, cut int, s *state) string {
	mode := 0
	if w.Concurrent {
		mode = 1
	}
	id := fmt.Sprintf("%x.%d.%d.%d", w.Seed, w.Model, mode, cut)
	if s == nil {
		return id
	}
	return fmt.Sprintf("%s.%s.%d.%s", id, fateString(s.fates), s.inner, fateString(s.fates2))
}

// Replay makes the workload of a violation again and checks the one state, or
// all states where the id names none. What an engine does in the background can
// fall elsewhere than it did, so that the state is looked for several times; of
// a workload with concurrent writers all states are checked each time.
func Replay(ctx context.Context, cfg Config, id string) (Report, error) {
	var seed uint64
	var model vfs.Model
	var mode, at int
	parts := strings.SplitN(id, ".", 5)
	if len(parts) < 4 {
		return Report{}, fmt.Errorf("fuzz: replay id %q", id)
	}
	if _, err := fmt.Sscanf(strings.Join(parts[:4], " "), "%x %d %d %d", &seed, &model, &mode, &at); err != nil {
		return Report{}, fmt.Errorf("fuzz: replay id %q: %w", id, err)
	}
	if err := prepare(&cfg); err != nil {
		return Report{}, err
	}
	w, tries := newWorkload(seed, model, mode == 1, cfg.powers), 5
	if !w.Concurrent && at >= 0 {
		tries, cfg.only, cfg.PerWorkload = 1000, &at, 0
		cfg.capture = func(x *explorer, s *state) bool { return replayID(x.w, x.cut, s) != id }
	}
	rep := Report{}
	for range tries {
		x := newExplorer(ctx, &cfg, &shared{})
		x.explore(w)
		rep.add(x.stats, x.out)
		if len(x.out) > 0 || ctx.Err() != nil {
			break
		}
	}
	return rep, nil
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
