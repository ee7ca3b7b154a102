package forebay

import (
	"slices"
	"sync"

	"github.com/forebaydb/forebay/internal/base"
)

// readers knows at which LSNs there are readers who come back: what a checkpoint
// or a compaction must keep for them. Who reads in one view alone need not be
// known here.
type readers struct {
	mu sync.Mutex // guards all below; it is a leaf
	// snapshots are LSNs at which somebody reads, ascending.
	snapshots []base.LSN
	// floors are LSNs from which on somebody may read anywhere, in the order in
	// which they came, which is ascending; one that was taken back is 0.
	floors []base.LSN
	first  uint64 // the number of floors[0]
}

// snapshot registers a reader at the LSN that mark returns.
func (r *readers) snapshot(mark func() base.LSN) base.LSN {
	r.mu.Lock()
	defer r.mu.Unlock()
	lsn := mark()
	r.snapshots = append(r.snapshots, lsn) // the mark never moves back
	return lsn
}

func (r *readers) release(lsn base.LSN) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if i, ok := slices.BinarySearch(r.snapshots, lsn); ok {
		r.snapshots = slices.Delete(r.snapshots, i, i+1)
	}
}

// floor registers a reader who may read at any LSN from mark on.
func (r *readers) floor(mark func() base.LSN) (ticket uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.floors = append(r.floors, max(mark(), 1))
	return r.first + uint64(len(r.floors)) - 1
}

func (r *readers) lift(ticket uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.floors[ticket-r.first] = 0
	n := 0
	for n < len(r.floors) && r.floors[n] == 0 {
		n++
	}
	if r.first += uint64(n); n == len(r.floors) {
		r.floors = r.floors[:0]
	} else {
		r.floors = r.floors[n:]
	}
}

// keep returns who reads: at each of snapshots, and at above and higher. Who
// comes later reads at mark, as it is now, or higher.
func (r *readers) keep(mark func() base.LSN) (snapshots []base.LSN, above base.LSN) {
	r.mu.Lock()
	defer r.mu.Unlock()
	above = mark()
	if len(r.floors) > 0 { // lift left one that counts in front
		above = min(above, r.floors[0])
	}
	for _, lsn := range r.snapshots {
		if lsn >= above {
			break
		}
		if n := len(snapshots); n == 0 || snapshots[n-1] != lsn {
			snapshots = append(snapshots, lsn)
		}
	}
	return snapshots, above
}

// oldest returns how many snapshots there are and the LSN of the oldest, 0 when
// there is none.
func (r *readers) oldest() (n int, lsn base.LSN) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.snapshots) > 0 {
		lsn = r.snapshots[0]
	}
	return len(r.snapshots), lsn
}
