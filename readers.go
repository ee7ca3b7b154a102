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
	// floors are LSNs from which on somebody may read anywhere, ascending.
	floors []base.LSN
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
	r.snapshots = without(r.snapshots, lsn)
}

// floor registers a reader who may read at any LSN from the one that mark returns
// on, which lift is to be given.
func (r *readers) floor(mark func() base.LSN) base.LSN {
	r.mu.Lock()
	defer r.mu.Unlock()
	lsn := mark()
	r.floors = append(r.floors, lsn)
	return lsn
}

func (r *readers) lift(lsn base.LSN) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.floors = without(r.floors, lsn)
}

// without takes one of the readers at lsn, which are all alike, out of a list.
func without(list []base.LSN, lsn base.LSN) []base.LSN {
	if i, ok := slices.BinarySearch(list, lsn); ok {
		return slices.Delete(list, i, i+1)
	}
	return list
}

// keep returns who reads: at each of snapshots, and at above and higher. Who
// comes later reads at mark, as it is now, or higher.
func (r *readers) keep(mark func() base.LSN) (snapshots []base.LSN, above base.LSN) {
	r.mu.Lock()
	defer r.mu.Unlock()
	above = mark()
	if len(r.floors) > 0 {
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
