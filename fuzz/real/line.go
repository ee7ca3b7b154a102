package real

import (
	"fmt"

	"github.com/forebaydb/forebay"
)

// line is what is known of one store: the state in which it was last judged, and
// the LSN of that.
type line struct {
	seed  uint64
	base  uint64
	state state
}

func newLine(seed uint64) *line { return &line{seed: seed, state: state{}} }

// column is the kind of crash by which a life is judged.
type column uint8

const (
	processCrash column = iota
	powerCut
)

// promised says whether what was acknowledged at a level survives.
func (c column) promised(l forebay.Level) bool {
	return l == forebay.Durable || c == processCrash && l == forebay.Written
}

// verdict is what was found in a store after a crash.
type verdict struct {
	lsn      uint64
	promised int // acknowledged commits that had to be there
	lost     int // of these: not there
	flight   int // there and not acknowledged: under way at the crash
	dropped  int // acknowledged, promised nothing, and gone
	problem  string
}

func (v *verdict) say(format string, args ...any) {
	if v.problem == "" {
		v.problem = fmt.Sprintf(format, args...)
	}
}

// found is what an open store holds.
type found struct {
	state state
	at    map[place]uint64 // LSNs of the witness keys
}

func read(db *forebay.DB) (*found, error) {
	f := &found{state: state{}, at: map[place]uint64{}}
	for e, err := range db.Range(nil, nil) {
		if err != nil {
			return nil, err
		}
		key, value := string(e.Key), string(e.Value)
		f.state[stateKey(0, key)] = value
		if p, ok := parseWitness(key, value); ok {
			f.at[p] = e.LSN
		}
	}
	names, err := db.Keyspaces()
	if err != nil || len(names) == 0 {
		return f, err
	}
	side, err := db.Keyspace(sideSpace)
	if err != nil {
		return nil, err
	}
	for e, err := range side.Range(nil, nil) {
		if err != nil {
			return nil, err
		}
		f.state[stateKey(1, string(e.Key))] = string(e.Value)
	}
	return f, nil
}

// judge compares an open store with what may be there after a life of the line
// that has ended in a crash, and moves the line to it.
func (l *line) judge(life *life, kind column, db *forebay.DB) (v verdict, err error) {
	f, err := read(db)
	if err != nil {
		return v, err
	}
	return l.compare(life, kind, db.LastLSN(), f), nil
}

// compare is judge for a store that was read: its last LSN is n.
func (l *line) compare(life *life, kind column, n uint64, f *found) (v verdict) {
	v.lsn = n
	if n < l.base {
		v.lost += int(l.base - n)
		v.say("it is at LSN %d; an open before has shown LSN %d", n, l.base)
	}
	if n < life.durable {
		v.lost++
		v.say("it is at LSN %d; a sync had made %d durable", n, life.durable)
	}
	at := l.order(life, n, f, &v)
	acked := l.acknowledged(life, kind, n, at, &v)
	next := map[int]uint32{}
	for lsn := l.base + 1; lsn <= n; lsn++ {
		p, ok := at[lsn]
		switch {
		case ok:
		case lsn == 1: // the one that makes the side keyspace
			continue
		default:
			v.say("the commit with LSN %d is nobody's", lsn)
			continue
		}
		next[p.writer]++
		for next[p.writer] < p.number && life.failed[place{p.life, p.writer, next[p.writer]}] {
			next[p.writer]++
		}
		if next[p.writer] != p.number {
			v.say("LSN %d is commit %d of writer %d; it should be its number %d", lsn, p.number, p.writer, next[p.writer])
		}
		if p.number > life.begun[p.writer] {
			v.say("commit %d of writer %d is there; it was never begun", p.number, p.writer)
		}
		if !acked[p] {
			v.flight++
		}
		l.state.apply(newCommit(l.seed, p))
	}
	if key := l.state.differ(f.state); key != "" && v.problem == "" {
		v.say("it is at LSN %d, and is not S(%d): key %q of keyspace %c is %s, and should be %s", n, n, key[1:], key[0], show(f.state, key), show(l.state, key))
	}
	l.base = n
	return v
}

// order returns which commit of the life has which LSN, of those that are known.
func (l *line) order(life *life, n uint64, f *found, v *verdict) map[uint64]place {
	at := map[uint64]place{}
	set := func(lsn uint64, p place) {
		if q, ok := at[lsn]; ok && q != p {
			v.say("LSN %d is commit %d of writer %d and commit %d of writer %d", lsn, p.number, p.writer, q.number, q.writer)
		}
		at[lsn] = p
	}
	for _, a := range life.acks {
		if a.lsn > 0 && a.lsn <= n {
			set(a.lsn, a.place)
		}
		if have, ok := f.at[a.place]; ok && a.lsn > 0 && have != a.lsn {
			v.say("commit %d of writer %d was acknowledged as LSN %d, and is %d", a.number, a.writer, a.lsn, have)
		}
	}
	for p, lsn := range f.at {
		switch {
		case p.life == life.number:
			set(lsn, p)
		case p.life > life.number || lsn > l.base:
			v.say("commit %d of writer %d in life %d has LSN %d; it was not made in this one", p.number, p.writer, p.life, lsn)
		}
	}
	return at
}

// acknowledged counts what was acknowledged, and what of that is lost.
func (l *line) acknowledged(life *life, kind column, n uint64, at map[uint64]place, v *verdict) map[place]bool {
	there := make(map[place]bool, len(at))
	for _, p := range at {
		there[p] = true
	}
	acked := make(map[place]bool, len(life.acks))
	for _, a := range life.acks {
		acked[a.place] = true
		switch {
		case kind.promised(a.level):
			v.promised++
			if !there[a.place] {
				v.lost++
				v.say("commit %d of writer %d, LSN %d, was acknowledged at level %d and is not there; the store ends at LSN %d", a.number, a.writer, a.lsn, a.level, n)
			}
		case !there[a.place]:
			v.dropped++
		}
	}
	return acked
}

// show describes the value of a key.
func show(s state, key string) string {
	v, ok := s[key]
	switch {
	case !ok:
		return "absent"
	case len(v) > 24:
		return fmt.Sprintf("%d bytes %x…", len(v), v[:16])
	}
	return fmt.Sprintf("%q", v)
}
