package commit

import (
	"bytes"
	"slices"
	"sort"

	"github.com/forebaydb/forebay/internal/base"
)

// What the tracker holds is bounded by these.
const (
	setWays  = 4
	minSets  = 64 // of a new table of last writes, at most
	genBytes = 256 << 10
	// keepKey is how many bytes of a key are kept. A longer one stands for all
	// keys that begin as it does: a conflict may be a false one, no more.
	keepKey = 512
)

// limits are the bounds that tests change.
type limits struct {
	sets   int // of the table of last writes; a power of two
	writes int // of one generation of recent writes
	dels   int // and of range deletes
	bulk   int // operations from which on a batch is not noted key by key
	linger int // LSNs for which the tracker goes on after the last transaction
}

// 64K keys in 1 MiB; 8K writes and 256 range deletes in at most 2 MiB.
var defaultLimits = limits{sets: 16 << 10, writes: 4 << 10, dels: 128, bulk: 1 << 10, linger: 4 << 10}

// lastWrites is the LSN of the last write to each key, by the key's hash. A set
// that is full forgets its oldest key: then what it does not have may have been
// written as late as its oldest is.
type lastWrites struct {
	sets [][setWays]lastWrite
	used int
	max  int // sets; a power of two
	// since: what was forgotten by growing lies at or below it.
	since base.LSN
}

type lastWrite struct {
	hash uint64
	lsn  base.LSN // 0: free
}

func (t *lastWrites) put(hash uint64, lsn base.LSN) {
	if 2*t.used >= setWays*len(t.sets) && len(t.sets) < t.max {
		t.grow()
	}
	set := &t.sets[hash&uint64(len(t.sets)-1)]
	oldest := 0
	for i := range set {
		if e := &set[i]; e.lsn != 0 && e.hash == hash {
			e.lsn = lsn
			return
		}
		if set[i].lsn < set[oldest].lsn {
			oldest = i
		}
	}
	switch old := set[oldest].lsn; {
	case old == 0:
		t.used++
	case len(t.sets) < t.max && lsn-old < base.LSN(setWays*len(t.sets)):
		// The table is not full: the keys lie unluckily. Those of this set would
		// be stale again and again.
		t.grow()
		t.put(hash, lsn)
		return
	}
	set[oldest] = lastWrite{hash, lsn}
}

// get returns the LSN of the last write, or 0 and the LSN up to which there may
// have been one.
func (t *lastWrites) get(hash uint64) (lsn, unknown base.LSN) {
	if len(t.sets) == 0 {
		return 0, 0
	}
	set := &t.sets[hash&uint64(len(t.sets)-1)]
	unknown = base.MaxLSN
	for _, e := range set {
		if e.lsn != 0 && e.hash == hash {
			return e.lsn, 0
		}
		unknown = min(unknown, e.lsn)
	}
	return 0, max(unknown, t.since)
}

func (t *lastWrites) grow() {
	old := t.sets
	t.sets, t.used = make([][setWays]lastWrite, min(max(minSets, 8*len(old)), t.max)), 0
	for i := range old {
		oldest := base.MaxLSN
		for _, e := range old[i] {
			oldest = min(oldest, e.lsn)
			if e.lsn != 0 {
				t.put(e.hash, e.lsn)
			}
		}
		t.since = max(t.since, oldest) // 0 unless the set was full
	}
}

// recent is the last writes in LSN order, in two generations: when the new one
// is full the old one is forgotten.
type recent struct {
	limit    int
	old, new generation
	// dropped is the LSN of the last write that was forgotten.
	dropped base.LSN
}

type generation struct {
	writes []write
	bytes  []byte
}

// write is a write to one key or, with a hi, a range delete.
type write struct {
	lsn          base.LSN
	hash         uint64
	off, mid     int32 // of the key or the low end in bytes
	end          int32 // of the high end; -1: none
	cut, without bool  // the key was cut short; the range delete has no high end
}

func (r *recent) add(lsn base.LSN, hash uint64, key, hi []byte, isRange bool) {
	w := write{lsn: lsn, hash: hash, end: -1}
	if len(key) > keepKey {
		key, w.cut = key[:keepKey], !isRange // the low end only gets lower
	}
	if isRange && len(hi) > keepKey {
		hi = after(hi[:keepKey])
		w.without = hi == nil
	}
	if len(r.new.writes) >= r.limit || len(r.new.bytes)+len(key)+len(hi) > genBytes {
		if n := len(r.old.writes); n > 0 {
			r.dropped = r.old.writes[n-1].lsn
		}
		r.old, r.new = r.new, generation{r.old.writes[:0], r.old.bytes[:0]}
	}
	g := &r.new
	w.off = int32(len(g.bytes))
	g.bytes = append(g.bytes, key...)
	w.mid = int32(len(g.bytes))
	if isRange {
		g.bytes = append(g.bytes, hi...)
		w.end = int32(len(g.bytes))
	}
	g.writes = append(g.writes, w)
}

// after returns the first key behind all that begin with prefix, nil if none.
func after(prefix []byte) []byte {
	for i := len(prefix) - 1; i >= 0; i-- {
		if prefix[i] != 0xff {
			out := slices.Clone(prefix[:i+1])
			out[i]++
			return out
		}
	}
	return nil
}

func (g *generation) key(w *write) []byte { return g.bytes[w.off:w.mid] }

func (g *generation) bounds(w *write) (lo, hi []byte) {
	if w.without {
		return g.bytes[w.off:w.mid], nil
	}
	return g.bytes[w.off:w.mid], g.bytes[w.mid:w.end]
}

// from returns the index of the first write above at.
func (g *generation) from(at base.LSN) int {
	return sort.Search(len(g.writes), func(i int) bool { return g.writes[i].lsn > at })
}

// count returns how many writes there are above at.
func (r *recent) count(at base.LSN) int {
	return len(r.old.writes) - r.old.from(at) + len(r.new.writes) - r.new.from(at)
}

// any says whether f is true of a write above at.
func (r *recent) any(at base.LSN, f func(g *generation, w *write) bool) bool {
	for _, g := range []*generation{&r.old, &r.new} {
		for i := g.from(at); i < len(g.writes); i++ {
			if f(g, &g.writes[i]) {
				return true
			}
		}
	}
	return false
}

func within(key, lo, hi []byte) bool {
	return bytes.Compare(key, lo) >= 0 && (hi == nil || bytes.Compare(key, hi) < 0)
}
