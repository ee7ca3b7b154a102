package fuzz

import (
	"fmt"
	"strings"
)

// backup is a directory that a Backup was to fill. Until it is done nobody knows
// what is in it, but that it is no wrong store: n is then the last commit before
// it began, and else the last that it holds.
type backup struct {
	dir  string
	n    uint64
	done bool
}

// checkBackups opens the backups of a state. Those that were done long ago are
// looked at now and then.
func (x *explorer) checkBackups(s *state, full bool) (kind, detail string) {
	for i, b := range s.backups {
		if (b.done && i < len(s.backups)-1 || !s.busy) && !full && x.dice.IntN(4) != 0 {
			continue
		}
		if kind, detail = x.checkBackup(s, b, full); kind != "" {
			return "backup: " + kind, fmt.Sprintf("%s: %s", b, detail)
		}
	}
	return "", ""
}

func (x *explorer) checkBackup(s *state, b backup, full bool) (kind, detail string) {
	t := &state{disk: s.disk.Snapshot(), lo: b.n, hi: b.n, hist: s.hist, dir: b.dir}
	st, n, err := x.open(x.under(t.disk), x.settings(t, false), t.hist, t.lo, t.hi)
	if err != nil {
		if !b.done {
			return "", "" // it says that it is no store yet
		}
		return "open fails", err.Error()
	}
	if !b.done {
		if t.hi = s.hi; n == 0 {
			t.lo = 0 // an empty one
		}
	}
	return x.checkOpen(st, t, n, full)
}

// String names the backup.
func (b backup) String() string {
	s := fmt.Sprintf("%s of %d commits", b.dir, b.n)
	if !b.done {
		s = strings.Replace(s, "of", "that was not done, of at least", 1)
	}
	return s
}
