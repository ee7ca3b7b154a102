package merge

import (
	"bytes"

	"github.com/forebaydb/forebay/internal/base"
	"github.com/forebaydb/forebay/internal/rangedel"
)

// mask is a merger that leaves out the versions that range deletes hide. It is
// exact about each version that it shows within its bounds, at the price of one
// comparison of keys a version: that a window still holds, in which the same
// range delete counts. Where a source has nothing that could show in a
// stretch of windows it is moved over all of it at once.
type mask struct {
	m      *merger
	lsn    base.LSN
	lo, hi []byte // Behind them all is shown: it is not looked at.
	dels   []delsAt
	w      window
	// seen says of each source how many hidden versions of it were passed one
	// by one since it showed one or jumped, and max what its MaxLSN is.
	seen []int
	max  []base.LSN
	was  []byte // see went
}

// delsAt is a set of range deletes, and the index of the span last looked at.
type delsAt struct {
	set *rangedel.Set
	at  int
}

// window is a range of keys, [lo, hi), nil for no bound, in all of which the
// versions below cover are hidden.
type window struct {
	lo, hi []byte
	cover  base.LSN
	set    bool
}

func (w *window) has(key []byte) bool {
	return w.set && (w.hi == nil || bytes.Compare(key, w.hi) < 0) && (w.lo == nil || bytes.Compare(key, w.lo) >= 0)
}

func newMask(sources []Source, lsn base.LSN, lo, hi []byte, skip int) *mask {
	k := &mask{lsn: lsn, lo: lo, hi: hi, seen: make([]int, len(sources)), max: make([]base.LSN, len(sources))}
	iters := make([]base.Iterator, len(sources))
	for i, s := range sources {
		iters[i], k.max[i] = s.Iter, s.MaxLSN
		for _, d := range s.Dels {
			if d.Overlaps(lo, hi) {
				k.dels = append(k.dels, delsAt{set: d})
			}
		}
	}
	k.m = newMerger(iters, skip)
	return k
}

// look makes k.w the window around key.
func (k *mask) look(key []byte) {
	if k.w.has(key) {
		return
	}
	k.w = window{set: true}
	for i := range k.dels {
		d := &k.dels[i]
		d.at = d.set.Find(key, d.at)
		spans := d.set.Spans()
		var lo, hi []byte
		switch {
		case d.at == len(spans):
			lo = spans[d.at-1].Hi
		case bytes.Compare(spans[d.at].Lo, key) <= 0:
			lo, hi = spans[d.at].Lo, spans[d.at].Hi
			k.w.cover = max(k.w.cover, spans[d.at].Newest(k.lsn))
		default:
			hi = spans[d.at].Lo
			if d.at > 0 {
				lo = spans[d.at-1].Hi
			}
		}
		if lo != nil && (k.w.lo == nil || bytes.Compare(lo, k.w.lo) > 0) {
			k.w.lo = lo
		}
		if hi != nil && (k.w.hi == nil || bytes.Compare(hi, k.w.hi) < 0) {
			k.w.hi = hi
		}
	}
}

// hiddenTo returns the first key at or behind key at which a version with an
// LSN up to old might show, or one before that.
func (k *mask) hiddenTo(key []byte, old base.LSN) []byte {
	for range extendMax {
		grown := false
		for i := range k.dels {
			d := &k.dels[i]
			at := d.set.Find(key, d.at)
			if spans := d.set.Spans(); at == len(spans) || bytes.Compare(spans[at].Lo, key) > 0 {
				continue
			}
			if hi := d.set.HiddenTo(at, old, k.lsn); hi != nil {
				key, grown = hi, true
			}
		}
		if !grown || k.hi != nil && bytes.Compare(key, k.hi) >= 0 {
			break
		}
	}
	return key
}

// hiddenFrom returns the lowest key from which on, up to end, no version with
// an LSN up to old shows, or one behind that.
func (k *mask) hiddenFrom(end []byte, old base.LSN) []byte {
	for range extendMax {
		grown := false
		for i := range k.dels {
			d := &k.dels[i]
			// The span with the last keys before end.
			at := d.set.Find(end, d.at)
			if spans := d.set.Spans(); at == len(spans) || bytes.Compare(spans[at].Lo, end) >= 0 {
				if at--; at < 0 || !bytes.Equal(spans[at].Hi, end) {
					continue
				}
			}
			if lo := d.set.HiddenFrom(at, old, k.lsn); lo != nil {
				end, grown = lo, true
			}
		}
		if !grown || k.lo != nil && bytes.Compare(end, k.lo) <= 0 {
			break
		}
	}
	return end
}

const (
	// seekAfter is how many hidden versions of a source are passed one by one
	// before a seek passes the rest: many ranges that are deleted are short.
	seekAfter = 4
	// extendMax is how many times a stretch is made longer by a range delete
	// of another table before it is passed.
	extendMax = 64
)

// settle goes on from where the merger stands, if ok, to a version to show.
func (k *mask) settle(ok bool) bool {
	for ok {
		top := k.m.heap[0]
		if k.outside(top.key) {
			return true
		}
		if k.look(top.key); top.lsn >= k.w.cover {
			k.seen[top.rank] = 0
			return true
		}
		ok = k.m.moved(0, k.pass(top)) && k.m.settle()
	}
	return false
}

// outside says whether key is behind the bound to which the walk goes.
func (k *mask) outside(key []byte) bool {
	if k.m.reverse {
		return k.lo != nil && bytes.Compare(key, k.lo) < 0
	}
	return k.hi != nil && bytes.Compare(key, k.hi) >= 0
}

// pass moves the source s, which stands on a hidden version, to its next, and
// over as many hidden ones as it can.
func (k *mask) pass(s *source) bool {
	old := k.max[s.rank]
	switch k.seen[s.rank]++; {
	case k.seen[s.rank] <= seekAfter:
	case old < k.w.cover:
		k.seen[s.rank] = 0
		if k.m.reverse {
			return s.it.SeekLT(k.hiddenFrom(k.w.lo, old), base.MaxLSN)
		}
		return s.it.SeekGE(k.hiddenTo(k.w.hi, old), base.MaxLSN)
	case k.m.reverse:
		if it, ok := s.it.(belowSkipperBack); ok {
			k.was = append(k.was[:0], s.key...)
			if !it.SkipBelowBack(k.hiddenFrom(k.w.lo, k.w.cover-1), k.w.cover) || k.went(s) {
				return s.it.Valid()
			}
		}
	default:
		if it, ok := s.it.(belowSkipper); ok {
			k.was = append(k.was[:0], s.key...)
			if !it.SkipBelow(k.hiddenTo(k.w.hi, k.w.cover-1), k.w.cover) || k.went(s) {
				return s.it.Valid()
			}
		}
	}
	if k.m.reverse {
		return s.it.Prev()
	}
	return s.it.Next()
}

// went says whether s stands on another version than k.was with the LSN that it
// had: what skips in large steps need not move where none fits.
func (k *mask) went(s *source) bool {
	return s.it.LSN() != s.lsn || !bytes.Equal(s.it.Key(), k.was)
}

func (k *mask) First() bool { return k.settle(k.m.First()) }
func (k *mask) Last() bool  { return k.settle(k.m.Last()) }

// SeekGE does not go to key in the sources that have nothing to show there:
// to load a block of them would be a waste.
func (k *mask) SeekGE(key []byte, lsn base.LSN) bool {
	key = k.m.save(key)
	k.look(key)
	return k.settle(k.m.place(false, func(s *source) bool {
		if old := k.max[s.rank]; old < k.w.cover {
			return s.it.SeekGE(k.hiddenTo(k.w.hi, old), base.MaxLSN)
		}
		return s.it.SeekGE(key, lsn)
	}))
}

// SeekLT: see SeekGE.
func (k *mask) SeekLT(key []byte, lsn base.LSN) bool {
	key = k.m.save(key)
	if lsn != base.MaxLSN { // Versions of key itself may come first.
		return k.settle(k.m.place(true, func(s *source) bool { return s.it.SeekLT(key, lsn) }))
	}
	return k.settle(k.m.place(true, func(s *source) bool {
		return s.it.SeekLT(k.hiddenFrom(key, k.max[s.rank]), base.MaxLSN)
	}))
}

func (k *mask) Next() bool      { return k.settle(k.m.Next()) }
func (k *mask) Prev() bool      { return k.settle(k.m.Prev()) }
func (k *mask) Valid() bool     { return k.m.Valid() }
func (k *mask) Key() []byte     { return k.m.Key() }
func (k *mask) LSN() base.LSN   { return k.m.LSN() }
func (k *mask) Kind() base.Kind { return k.m.Kind() }
func (k *mask) Value() []byte   { return k.m.Value() }
func (k *mask) Err() error      { return k.m.Err() }
func (k *mask) Close() error    { return k.m.Close() }
