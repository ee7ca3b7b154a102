package fuzz

import (
	"fmt"
	"maps"
)

// ledger is what a store that fails was asked and has said since it last showed
// all that it has. Of a commit that returned an error nobody knows whether it is
// there, and so there are many states that the store may be in.
type ledger struct {
	bases   []world // the states that it may have had then
	entries []entry // in the order in which they were asked for
	// How many of the entries a crash of the process, and a power cut, must leave;
	// what is not sure among them may be missing all the same.
	kill, power int
	unsure      int // entries that are not sure, since the last rebase
}

// entry is a commit that is there, if it is sure, or may be.
type entry struct {
	c    commit
	sure bool
	// train is the number of those that were submitted together, 0 for none: of
	// them none is there without those before it.
	train int
}

// world is one state that a store may be in.
type world struct {
	live map[string]string
	sum  uint64
	// without is the train of which an entry is not there.
	without int
}

func newLedger() *ledger { return &ledger{bases: []world{{live: map[string]string{}}}} }

// acked takes down a commit that was acknowledged at a level.
func (l *ledger) acked(c commit, level Level, train int) {
	l.entries = append(l.entries, entry{c, true, train})
	if level <= Written {
		l.kill = len(l.entries)
	}
	if level == Durable {
		l.power = len(l.entries)
	}
}

// unknown takes down a commit that may be there or not.
func (l *ledger) unknown(c commit, train int) {
	l.entries = append(l.entries, entry{c, false, train})
	l.unsure++
}

// settled says that all that is there is durable.
func (l *ledger) settled() { l.kill, l.power = len(l.entries), len(l.entries) }

// rebase begins anew with the states that the store may have, all of it durable.
func (l *ledger) rebase(ws map[uint64]world) {
	l.bases, l.entries = nil, nil
	for _, w := range ws {
		w.without = 0
		l.bases = append(l.bases, w)
	}
	l.kill, l.power, l.unsure = 0, 0, 0
}

// after returns the states that a crash may leave of which the first must entries
// are past; with must = len(entries) those that the store may show now. They are
// by their sums.
func (l *ledger) after(must int) map[uint64]world {
	out := map[uint64]world{}
	add := func(ws map[uint64]world) {
		for _, w := range ws {
			out[w.sum] = w
		}
	}
	at := map[uint64]world{}
	for _, w := range l.bases {
		at[w.key()] = w
	}
	for i, e := range l.entries {
		if i >= must {
			add(at)
		}
		at = e.enter(at)
	}
	add(at)
	return out
}

// now returns the states that the store may show.
func (l *ledger) now() map[uint64]world { return l.after(len(l.entries)) }

// enter returns what an entry makes of states.
func (e *entry) enter(at map[uint64]world) map[uint64]world {
	out := make(map[uint64]world, len(at))
	for _, w := range at {
		if e.train == 0 || w.without != e.train {
			if next, ok := w.with(e.c); ok {
				out[next.key()] = next
			}
		} else if e.sure {
			continue
		}
		if !e.sure {
			if e.train != 0 {
				w.without = e.train
			}
			out[w.key()] = w
		}
	}
	return out
}

func (w world) key() uint64 { return mix(w.sum, uint64(w.without)) }

// with returns the state after a commit, and whether the commit can have been
// made in it.
func (w world) with(c commit) (world, bool) {
	for name, saw := range c.seen {
		if v, ok := w.live[name]; ok && saw != "="+v || !ok && saw != "" {
			return w, false
		}
	}
	next := world{live: maps.Clone(w.live), sum: w.sum, without: w.without}
	err := apply(next.live, c, func(name, value string, added bool) {
		space, key := spaceOf(name)
		x := pairHash(space, []byte(key), []byte(value))
		if !added {
			x = -x
		}
		next.sum += x
	})
	return next, err == nil
}

// nearest describes how what was found differs from the state that is least
// different.
func nearest(ws map[uint64]world, got map[string]string) string {
	best := ""
	least := -1
	for _, w := range ws {
		d := differing(w.live, got)
		if least < 0 || len(d) < least {
			least, best = len(d), ""
			for _, name := range d {
				v, ok := got[name]
				want, wanted := w.live[name]
				best += describe(name, v, ok) + ", not " + describe("", want, wanted) + "; "
			}
		}
	}
	return best
}

func describe(name, v string, ok bool) string {
	if name != "" {
		name += " is "
	}
	if !ok {
		return name + "absent"
	}
	return fmt.Sprintf("%s%d bytes, %.6q", name, len(v), v)
}
