package commit

import (
	"bytes"
	"hash/maphash"
	"slices"
	"sort"

	"github.com/forebaydb/forebay/internal/base"
)

// Reads is what a transaction read: point reads, of keys that were there or
// not, and ranges. It copies what it is given. One goroutine at a time uses it;
// once it is given to CommitTx or SubmitTx it belongs to that commit, and it is
// the caller's again when the commit was refused or has been waited for.
type Reads struct {
	at     base.LSN
	points []point
	keys   []byte // of the points, one behind the other
	// index is a point of each hash; empty while there are few points.
	index map[uint64]int32
	// mixed: some points may not hold at at, and some share a hash.
	mixed  bool
	ranges []keyRange
}

// point is one read of one key.
type point struct {
	hash     uint64
	off, end int
	from     *Commit // whose write was read; nil: what there was at Reads.at
}

// keyRange is [lo, hi); a nil bound is open.
type keyRange struct{ lo, hi []byte }

// indexFrom is the number of points from which on they have an index.
const indexFrom = 16

var seed = maphash.MakeSeed()

func hashOf(key []byte) uint64 { return maphash.Bytes(seed, key) }

// Reset empties r, for a transaction that reads at the LSN at.
func (r *Reads) Reset(at base.LSN) {
	clear(r.points)
	clear(r.ranges)
	clear(r.index)
	*r = Reads{at: at, points: r.points[:0], keys: r.keys[:0], index: r.index, ranges: r.ranges[:0]}
}

// At returns the LSN at which the transaction reads.
func (r *Reads) At() base.LSN { return r.at }

// Empty says that nothing was read.
func (r *Reads) Empty() bool { return r.Len() == 0 }

// Len returns how many reads there are: keys, and stretches of ranges.
func (r *Reads) Len() int { return len(r.points) + len(r.ranges) }

// Key notes that key was read, be it there or not.
func (r *Reads) Key(key []byte) { r.KeyFrom(key, nil) }

// KeyFrom notes that key was read from what a commit under way writes; see
// Hold.Get. from may be nil.
func (r *Reads) KeyFrom(key []byte, from *Commit) {
	hash := hashOf(key)
	if i := r.find(hash); i >= 0 {
		if p := &r.points[i]; p.from == from && bytes.Equal(r.key(p), key) {
			return
		}
		r.mixed = true // also where a hash is shared by two keys
	}
	r.mixed = r.mixed || from != nil
	off := len(r.keys)
	r.keys = append(r.keys, key...)
	r.points = append(r.points, point{hash, off, len(r.keys), from})
	switch n := len(r.points); {
	case n == indexFrom:
		if r.index == nil {
			r.index = make(map[uint64]int32, 4*indexFrom)
		}
		for i, p := range r.points {
			r.index[p.hash] = int32(i)
		}
	case n > indexFrom:
		r.index[hash] = int32(n - 1)
	}
}

// Range notes that the keys in [lo, hi) were read; a nil bound is open.
func (r *Reads) Range(lo, hi []byte) {
	if hi != nil && bytes.Compare(lo, hi) >= 0 {
		return
	}
	r.ranges = append(r.ranges, keyRange{bytes.Clone(lo), bytes.Clone(hi)})
}

// Recheck is for a transaction that was refused with ErrStale: it calls key for
// each key and span for each range that was read, with the LSN at which it was.
// The reads still hold at an LSN now when nothing was written to them at LSNs
// above theirs and not above now: then the functions return true, and Recheck
// moves all reads to now, with which they can be committed anew. Otherwise it
// returns false, and ErrConflict is what the transaction met.
func (r *Reads) Recheck(now base.LSN, key func(key []byte, at base.LSN) bool, span func(lo, hi []byte, at base.LSN) bool) bool {
	for i := range r.points {
		p := &r.points[i]
		at := p.at(r)
		if p.from != nil && at == pending || at > now || !key(r.key(p), at) { // refused is above all
			return false
		}
	}
	for _, s := range r.ranges {
		if !span(s.lo, s.hi, r.at) {
			return false
		}
	}
	for i := range r.points {
		r.points[i].from = nil
	}
	r.at, r.mixed = now, false // two with one hash are now as good as one
	return true
}

func (r *Reads) key(p *point) []byte { return r.keys[p.off:p.end] }

// find returns a point with the hash, or -1.
func (r *Reads) find(hash uint64) int {
	if len(r.points) >= indexFrom {
		if i, ok := r.index[hash]; ok {
			return int(i)
		}
		return -1
	}
	for i := range r.points {
		if r.points[i].hash == hash {
			return i
		}
	}
	return -1
}

// seal brings the ranges into order and makes one of those that touch.
func (r *Reads) seal() {
	if len(r.ranges) < 2 {
		return
	}
	slices.SortFunc(r.ranges, func(a, b keyRange) int { return bytes.Compare(a.lo, b.lo) })
	out := r.ranges[:1]
	for _, s := range r.ranges[1:] {
		last := &out[len(out)-1]
		switch {
		case last.hi != nil && bytes.Compare(last.hi, s.lo) < 0:
			out = append(out, s)
		case last.hi != nil && (s.hi == nil || bytes.Compare(last.hi, s.hi) < 0):
			last.hi = s.hi
		}
	}
	r.ranges = out
}

// covers says whether a key lies in a range that was read.
func (r *Reads) covers(key []byte) bool {
	i := sort.Search(len(r.ranges), func(i int) bool { return bytes.Compare(r.ranges[i].lo, key) > 0 })
	return i > 0 && (r.ranges[i-1].hi == nil || bytes.Compare(key, r.ranges[i-1].hi) < 0)
}

// overlaps says whether [lo, hi) has a part in a range that was read.
func (r *Reads) overlaps(lo, hi []byte) bool {
	i := sort.Search(len(r.ranges), func(i int) bool { return r.ranges[i].hi == nil || bytes.Compare(r.ranges[i].hi, lo) > 0 })
	return i < len(r.ranges) && (hi == nil || bytes.Compare(r.ranges[i].lo, hi) < 0)
}
