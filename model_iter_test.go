package forebay_test

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/forebaydb/forebay"
)

// modelIter is an iterator, and where it must stand.
type modelIter struct {
	it      *forebay.Iterator
	entries []modelEntry // within its bounds
	pos     int          // -1: nowhere
	dead    bool         // the store was closed since
	what    string
	anyLSN  bool // the LSNs of entries are not known
}

// newIter opens an iterator with bounds of some kind.
func newIter(r *modelRand, from modelReader, s modelSpace) *modelIter {
	m := &modelIter{pos: -1}
	var lo, hi []byte
	switch r.IntN(4) {
	case 0:
		m.it = from.NewIterator(nil)
	case 1:
		p := r.key()
		p = p[:r.IntN(len(p)+1)]
		lo, hi = p, prefixEnd(p)
		m.it = from.NewIterator(&forebay.IterOptions{Prefix: bytes.Clone(p), Lower: []byte("x"), Upper: []byte("a")})
		m.what = fmt.Sprintf("prefix %s", brief(string(p)))
	default:
		lo, hi = r.bounds()
		m.it = from.NewIterator(&forebay.IterOptions{Lower: lo, Upper: hi})
		m.what = fmt.Sprintf("bounds [%s, %s)", brief(string(lo)), brief(string(hi)))
	}
	m.entries = s.clip(lo, hi)
	return m
}

// move makes one move and says what is wrong, "" if nothing is.
func (m *modelIter) move(r *modelRand) string {
	n, ok, what := len(m.entries), false, ""
	was := m.pos
	switch k := r.IntN(20); {
	case k == 0:
		what, ok = "First", m.it.First()
		m.pos = 0
	case k == 1:
		what, ok = "Last", m.it.Last()
		m.pos = n - 1
	case k < 6:
		key := m.target(r)
		what, ok = "SeekGE "+brief(string(key)), m.it.SeekGE(bytes.Clone(key))
		m.pos, _ = modelSpace{entries: m.entries}.find(string(key))
	case k < 10:
		key := m.target(r)
		what, ok = "SeekLT "+brief(string(key)), m.it.SeekLT(bytes.Clone(key))
		m.pos, _ = modelSpace{entries: m.entries}.find(string(key))
		m.pos--
	case k < 15:
		what, ok = "Next", m.it.Next()
		if m.pos >= 0 {
			m.pos++
		}
	default:
		what, ok = "Prev", m.it.Prev()
		if m.pos >= 0 {
			m.pos--
		}
	}
	if m.pos >= n {
		m.pos = -1
	}
	return m.check(fmt.Sprintf("iterator over %s at %d of %d: %s", m.what, was, n, what), ok)
}

// target is a key to seek: one that is there, one near it, or any.
func (m *modelIter) target(r *modelRand) []byte {
	switch {
	case r.oneIn(12):
		return nil
	case len(m.entries) == 0 || r.oneIn(3):
		return r.key()
	}
	key := []byte(m.entries[r.IntN(len(m.entries))].key)
	switch r.IntN(4) {
	case 0:
		return append(key, 0)
	case 1:
		return key[:len(key)-1]
	}
	return key
}

func (m *modelIter) check(what string, ok bool) string {
	switch {
	case m.it.Err() != nil:
		return fmt.Sprintf("%s: %v", what, m.it.Err())
	case ok != (m.pos >= 0) || m.it.Valid() != ok:
		return fmt.Sprintf("%s is %t, valid %t, want %t", what, ok, m.it.Valid(), m.pos >= 0)
	case !ok:
		return ""
	}
	got := modelEntry{string(m.it.Key()), string(m.it.Value()), m.it.LSN()}
	want := m.entries[m.pos]
	if m.anyLSN {
		want.lsn = got.lsn
	}
	if got != want {
		return fmt.Sprintf("%s: stands on %s, want %s", what, got, want)
	}
	return ""
}

func (w *modelWorld) moves(r *modelRand, m *modelIter, n int) {
	for range n {
		if text := m.move(r); text != "" {
			w.fail("%s", text)
		}
	}
}

// opIter opens, moves and closes iterators that live for long.
func opIter(w *modelWorld, r *modelRand) {
	if len(w.iters) == 0 || len(w.iters) < 5 && r.oneIn(5) {
		w.await()
		var m *modelIter
		if len(w.snaps) > 0 && r.oneIn(3) {
			s := w.snaps[r.IntN(len(w.snaps))]
			if s.dead {
				return
			}
			name := s.state.someSpace(r)
			m = newIter(r, w.snapSpace(s, name), s.state.spaces[name])
			m.what += fmt.Sprintf(" of %q of the snapshot @%d", name, s.state.lsn)
		} else {
			name, ks := w.space(r)
			m = newIter(r, ks, w.now.spaces[name])
			m.what += fmt.Sprintf(" of %q @%d", name, w.now.lsn)
		}
		w.say("    iterator over %s", m.what)
		w.iters = append(w.iters, m)
		w.moves(r, m, r.IntN(4))
		return
	}
	i := r.IntN(len(w.iters))
	m := w.iters[i]
	w.say("    iterator over %s", m.what)
	if m.dead {
		if m.it.First() {
			w.fail("an iterator of a closed store moves")
		}
		w.mustBe(m.it.Err(), forebay.ErrClosed, "iterator of a closed store")
	} else {
		w.moves(r, m, 1+r.IntN(12))
	}
	if m.dead || r.oneIn(10) {
		w.must(m.it.Close(), "close of an iterator")
		w.must(m.it.Close(), "second close of an iterator")
		if m.it.Next() || m.it.First() || m.it.Valid() {
			w.fail("a closed iterator moves")
		}
		w.iters = slices.Delete(w.iters, i, i+1)
	}
}
