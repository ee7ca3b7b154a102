package forebay_test

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/forebaydb/forebay"
)

// modelCrowd is a store that several owners write to at once.
type modelCrowd struct {
	*modelWorld // options, files, failures
	owners      []*modelOwner
	// open is held for reading while somebody uses db, and for writing by who
	// replaces it.
	open sync.RWMutex
	left atomic.Int64
	copy atomic.Int64

	mu     sync.Mutex // guards what follows
	counts map[string]int
	failed string
}

// read reads all of a snapshot; lsn is its own.
func (w *modelCrowd) read(s *forebay.Snapshot, back bool) (modelState, error) {
	m := modelState{lsn: s.LSN(), spaces: map[string]modelSpace{}}
	names, err := s.Keyspaces()
	if err != nil {
		return m, err
	}
	for _, name := range append(names, "") {
		from := s.Reader
		if name != "" {
			if from, err = s.Keyspace(name); err != nil {
				return m, err
			}
		}
		seq := from.Range(nil, nil)
		if back {
			seq = from.RangeReverse(nil, nil)
		}
		var sp modelSpace
		for e, err := range seq {
			if err != nil {
				return m, err
			}
			sp.entries = append(sp.entries, modelEntry{key: string(e.Key), value: string(e.Value)})
		}
		if back {
			slices.Reverse(sp.entries)
		}
		for i := 1; i < len(sp.entries); i++ {
			if sp.entries[i-1].key >= sp.entries[i].key {
				return m, fmt.Errorf("keyspace %q: key %s comes before %s", name, brief(sp.entries[i-1].key), brief(sp.entries[i].key))
			}
		}
		m.spaces[name] = sp
	}
	return m, nil
}

// find looks in which state each owner is, and returns it. least says how many of
// his commits must be there.
func (w *modelCrowd) find(m modelState, least func(i int) int, what string) []int {
	out := make([]int, len(w.owners))
	all := len(m.spaces[""].entries)
	for i, o := range w.owners {
		p := []byte(o.prefix())
		mine := m.spaces[""].clip(p, prefixEnd(p))
		all -= len(mine)
		got := modelState{spaces: map[string]modelSpace{"": {entries: mine}, "own": m.spaces[o.name]}}
		if out[i] = o.found(least(i), got); out[i] < 0 {
			w.fail("%s @%d: owner %d is in no state that has its %d commits; %s", what, m.lsn, i, least(i), o.nearest(got))
		}
	}
	if all != 0 {
		w.fail("%s: %d keys of nobody", what, all)
	}
	return out
}

// nearest helps to understand what is wrong.
func (o *modelOwner) nearest(got modelState) string {
	o.mu.Lock()
	defer o.mu.Unlock()
	text := ""
	for i := range o.hist {
		for _, space := range []string{"", "own"} {
			if !sameKeys(o.hist[i].spaces[space], got.spaces[space]) {
				continue
			}
			text += fmt.Sprintf(" %q as of %d;", space, o.base+i)
		}
	}
	want := slices.Clone(o.last().spaces[""].entries)
	for i := range want {
		want[i].lsn = 0
	}
	return fmt.Sprintf("states %d to %d;%s to the last: %s", o.base, o.base+len(o.hist)-1, text, differ(want, got.spaces[""].entries))
}

func (w *modelCrowd) bounds() []ownerBounds {
	out := make([]ownerBounds, len(w.owners))
	for i, o := range w.owners {
		out[i] = o.now()
	}
	return out
}

func (w *modelCrowd) count(what string) {
	w.mu.Lock()
	w.counts[what]++
	w.mu.Unlock()
}

func (w *modelCrowd) point(o *modelOwner, from modelReader, s modelSpace, what string) {
	key := o.key()
	want, ok := s.get(string(key))
	got, err := from.Get(key)
	switch {
	case !ok && errors.Is(err, forebay.ErrNotFound):
	case err != nil || !ok || want != string(got):
		w.fail("owner %d: %s: get %s is %s, %v; want %s, %t", o.id, what, brief(string(key)), brief(string(got)), err, brief(want), ok)
	}
}

func (w *modelCrowd) walk(o *modelOwner, from modelReader, s modelSpace, what string) {
	i, seq := 0, from.Prefix([]byte(o.prefix()))
	want := s.entries
	if o.r.oneIn(2) {
		seq, want = from.PrefixReverse([]byte(o.prefix())), reversed(want)
	}
	for e, err := range seq {
		w.must(err, what)
		if i >= len(want) || want[i].key != string(e.Key) || want[i].value != string(e.Value) {
			w.fail("owner %d: %s: entry %d of %d is %s = %s", o.id, what, i, len(want), brief(string(e.Key)), brief(string(e.Value)))
		}
		i++
	}
	if i != len(want) {
		w.fail("owner %d: %s: %d entries, want %d", o.id, what, i, len(want))
	}
}
