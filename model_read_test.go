package forebay_test

import (
	"bytes"
	"errors"
	"iter"
	"slices"

	"github.com/forebaydb/forebay"
)

// modelReader is what all readers have.
type modelReader interface {
	Get(key []byte) ([]byte, error)
	GetFunc(key []byte, fn func(value []byte) error) error
	Has(key []byte) (bool, error)
	Range(lo, hi []byte) iter.Seq2[forebay.Entry, error]
	RangeReverse(lo, hi []byte) iter.Seq2[forebay.Entry, error]
	Prefix(prefix []byte) iter.Seq2[forebay.Entry, error]
	PrefixReverse(prefix []byte) iter.Seq2[forebay.Entry, error]
	NewIterator(opts *forebay.IterOptions) *forebay.Iterator
}

var errModel = errors.New("the user's own error")

// checkPoint reads one key in one of the ways.
func (w *modelWorld) checkPoint(r *modelRand, from modelReader, s modelSpace) {
	key := r.key()
	if len(s.entries) > 0 && r.oneIn(2) {
		key = []byte(s.entries[r.IntN(len(s.entries))].key)
	}
	want, ok := s.get(string(key))
	var got []byte
	var err error
	switch r.IntN(4) {
	case 0:
		has, err := from.Has(key)
		w.must(err, "has")
		if has != ok {
			w.fail("has %s is %t", brief(string(key)), has)
		}
		return
	case 1:
		fail := r.oneIn(4)
		err = from.GetFunc(key, func(v []byte) error {
			got = bytes.Clone(v)
			if fail {
				return errModel
			}
			return nil
		})
		if fail && ok {
			w.mustBe(err, errModel, "GetFunc")
			err = nil
		}
	default:
		got, err = from.Get(key)
	}
	if !ok {
		w.mustBe(err, forebay.ErrNotFound, "get "+brief(string(key)))
		return
	}
	w.must(err, "get "+brief(string(key)))
	if string(got) != want {
		w.fail("get %s is %s, want %s", brief(string(key)), brief(string(got)), brief(want))
	}
}

// checkWalk reads a range by range-over-func.
func (w *modelWorld) checkWalk(r *modelRand, from modelReader, s modelSpace) {
	lo, hi := r.bounds()
	prefix := r.oneIn(3)
	if prefix {
		lo = r.key()
		lo = lo[:r.IntN(len(lo)+1)]
		hi = prefixEnd(lo)
	}
	want := s.clip(lo, hi)
	var seq iter.Seq2[forebay.Entry, error]
	switch back := r.oneIn(2); {
	case back && prefix:
		seq, want = from.PrefixReverse(lo), reversed(want)
	case back:
		seq, want = from.RangeReverse(lo, hi), reversed(want)
	case prefix:
		seq = from.Prefix(lo)
	default:
		seq = from.Range(lo, hi)
	}
	limit := -1
	if r.oneIn(2) {
		limit = r.IntN(20)
		want = want[:min(limit, len(want))]
	}
	w.walk(seq, want, limit, "walk")
}

// walk compares what seq gives, but for what comes behind limit, if it is not
// negative.
func (w *modelWorld) walk(seq iter.Seq2[forebay.Entry, error], want []modelEntry, limit int, what string) {
	got := make([]modelEntry, 0, len(want))
	for e, err := range seq {
		w.must(err, what)
		if len(got) == limit {
			break
		}
		got = append(got, modelEntry{string(e.Key), string(e.Value), e.LSN})
	}
	if d := differ(want, got); d != "" {
		w.fail("%s: %s", what, d)
	}
}

// compare reads all of a keyspace; both ways if whole.
func (w *modelWorld) compare(from modelReader, s modelSpace, whole bool, what string) {
	w.walk(from.Range(nil, nil), s.entries, -1, what)
	if whole {
		w.walk(from.RangeReverse(nil, nil), reversed(s.entries), -1, what+" backward")
		for i := range s.entries {
			if i%8 == 0 || len(s.entries) < 40 {
				e := s.entries[i]
				v, err := from.Get([]byte(e.key))
				w.must(err, what+": get "+brief(e.key))
				if string(v) != e.value {
					w.fail("%s: get %s is %s, want %s", what, brief(e.key), brief(string(v)), brief(e.value))
				}
			}
		}
	}
}

// compareAll reads all of a store.
func (w *modelWorld) compareAll(db *forebay.DB, s modelState, whole bool) {
	names, err := db.Keyspaces()
	w.must(err, "keyspaces")
	if !slices.Equal(names, s.names()) {
		w.fail("keyspaces are %q, want %q", names, s.names())
	}
	w.compare(db, s.spaces[""], whole, "default keyspace")
	for _, name := range names {
		ks, err := db.Keyspace(name)
		w.must(err, "keyspace "+name)
		w.compare(ks, s.spaces[name], whole, "keyspace "+name)
	}
}

// compareSnapshot reads all that a snapshot shows.
func (w *modelWorld) compareSnapshot(s modelSnap, whole bool) {
	if s.s.LSN() != s.state.lsn {
		w.fail("the snapshot has LSN %d, want %d", s.s.LSN(), s.state.lsn)
	}
	names, err := s.s.Keyspaces()
	w.must(err, "keyspaces of a snapshot")
	if !slices.Equal(names, s.state.names()) {
		w.fail("keyspaces of the snapshot @%d are %q, want %q", s.state.lsn, names, s.state.names())
	}
	w.compare(s.s, s.state.spaces[""], whole, "snapshot")
	for _, name := range names {
		w.compare(w.snapSpace(s, name), s.state.spaces[name], whole, "snapshot of "+name)
	}
}

func (w *modelWorld) snapSpace(s modelSnap, name string) modelReader {
	if name == "" {
		return s.s
	}
	ks, err := s.s.Keyspace(name)
	w.must(err, "keyspace "+name+" of a snapshot")
	return ks
}

// someSpace draws a keyspace of a state.
func (s modelState) someSpace(r *modelRand) string {
	names := s.names()
	if r.oneIn(2) || len(names) == 0 {
		return ""
	}
	return names[r.IntN(len(names))]
}

func opGet(w *modelWorld, r *modelRand) {
	w.await()
	for range 1 + r.IntN(5) {
		name, ks := w.space(r)
		w.checkPoint(r, ks, w.now.spaces[name])
	}
}

func opWalk(w *modelWorld, r *modelRand) {
	w.await()
	name, ks := w.space(r)
	w.checkWalk(r, ks, w.now.spaces[name])
}

func opView(w *modelWorld, r *modelRand) {
	// What was submitted may be there, or not yet.
	least := w.now.lsn
	if len(w.waiting) > 0 {
		least = w.waiting[0].lsn - 1
	}
	fail := r.oneIn(3)
	err := w.db.View(func(s *forebay.Snapshot) error {
		if s.LSN() < least {
			w.fail("a view has LSN %d, and %d was acknowledged", s.LSN(), least)
		}
		v := modelSnap{s: s, state: w.at(s.LSN())}
		for range 1 + r.IntN(4) {
			name := v.state.someSpace(r)
			if r.oneIn(2) {
				w.checkPoint(r, w.snapSpace(v, name), v.state.spaces[name])
			} else {
				w.checkWalk(r, w.snapSpace(v, name), v.state.spaces[name])
			}
		}
		_, err := s.Keyspace("never")
		w.mustBe(err, forebay.ErrNoKeyspace, "snapshot of a keyspace that is not there")
		if fail {
			return errModel
		}
		return nil
	})
	if fail {
		w.mustBe(err, errModel, "view")
	} else {
		w.must(err, "view")
	}
}

// opSnap opens, reads and closes snapshots that live for long.
func opSnap(w *modelWorld, r *modelRand) {
	if len(w.snaps) == 0 || len(w.snaps) < 4 && r.oneIn(6) {
		w.await()
		s, err := w.db.Snapshot()
		w.must(err, "snapshot")
		if s.LSN() != w.now.lsn {
			w.fail("a snapshot has LSN %d, want %d", s.LSN(), w.now.lsn)
		}
		w.snaps = append(w.snaps, modelSnap{s: s, state: w.now})
		w.say("    snapshot @%d", w.now.lsn)
		return
	}
	i := r.IntN(len(w.snaps))
	s := w.snaps[i]
	w.say("    of the snapshot @%d", s.state.lsn)
	if s.dead {
		_, err := s.s.Get([]byte("k"))
		w.mustBe(err, forebay.ErrClosed, "get of a snapshot of a closed store")
	}
	if s.dead || r.oneIn(12) {
		w.must(s.s.Close(), "close of a snapshot")
		w.must(s.s.Close(), "second close of a snapshot")
		_, err := s.s.Has([]byte("k"))
		w.mustBe(err, forebay.ErrClosed, "has of a closed snapshot")
		w.snaps = slices.Delete(w.snaps, i, i+1)
		return
	}
	if r.oneIn(5) {
		w.compareSnapshot(s, r.oneIn(3))
		return
	}
	for range 1 + r.IntN(4) {
		name := s.state.someSpace(r)
		if r.oneIn(2) {
			w.checkPoint(r, w.snapSpace(s, name), s.state.spaces[name])
		} else {
			w.checkWalk(r, w.snapSpace(s, name), s.state.spaces[name])
		}
	}
}

func opCompare(w *modelWorld, r *modelRand) {
	w.await()
	w.compareAll(w.db, w.now, r.oneIn(2))
}

func opStats(w *modelWorld, _ *modelRand) {
	w.await()
	s := w.db.Stats()
	open := 0
	for _, s := range w.snaps {
		if !s.dead {
			open++
		}
	}
	if s.LastLSN != w.now.lsn || s.VisibleLSN != w.now.lsn || s.Snapshots != open || s.Corruptions != 0 || s.Conflicts != 0 {
		w.fail("stats are %+v; the last LSN is %d, snapshots are %d", s, w.now.lsn, open)
	}
	n := 0
	for _, l := range s.Levels {
		n += l.Segments
	}
	if n != s.Segments {
		w.fail("stats: %d segments, and %d in the levels", s.Segments, n)
	}
}
