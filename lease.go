package forebay

import (
	"fmt"
	"runtime"
	"strings"

	"github.com/forebaydb/forebay/internal/base"
	"github.com/forebaydb/forebay/internal/merge"
	"github.com/forebaydb/forebay/memtable"
)

// lease lends a cursor to one Iterator after another, which alone know it meanwhile:
// when one was forgotten, the garbage collector finds its lease, and the cursor is
// closed. While it is lent, nothing that the cursor knows may refer to the lease.
type lease struct {
	c       *cursor
	cleanup runtime.Cleanup
}

// lend opens a cursor over [lo, hi), which are kept, in a view that was entered; or one
// that was used before, as to make one costs more than a seek.
func (db *DB) lend(v *view, shard int, lsn base.LSN, lo, hi []byte) (*lease, error) {
	// What reads at lsn may see has come before it: a range delete, too.
	plain := v.plain && !v.active.HasRangeDeletes() && v.wide(lo, hi)
	if plain {
		if l := v.idle[shard%len(v.idle)].Swap(nil); l != nil {
			c := l.c
			c.Resume(lsn, lo, hi)
			c.shard, c.lsn, c.shut = shard, lsn, false
			c.made()
			return l, nil
		}
	}
	from, to := lo, hi
	if plain { // for other bounds as well
		from, to = nil, nil
	}
	c, err := db.cursor(v, shard, lsn, from, to, nil, 0)
	if err != nil {
		return nil, err
	}
	if c.plain = plain; plain {
		c.Resume(lsn, lo, hi)
	}
	c.made()
	l := &lease{c: c}
	l.cleanup = runtime.AddCleanup(l, (*cursor).forgotten, c)
	return l, nil
}

// cursor opens a cursor over [lo, hi), which are kept, in a view that was entered,
// which it leaves when it is closed. own is what a transaction has written up to seq,
// or nil.
func (db *DB) cursor(v *view, shard int, lsn base.LSN, lo, hi []byte, own *memtable.Table, seq base.LSN) (*cursor, error) {
	sources, err := v.sources(lo, hi, own, seq)
	if err != nil {
		v.gate.exit(shard)
		return nil, db.seen(err)
	}
	return &cursor{Visible: merge.NewReader(sources, lsn, lo, hi), db: db, v: v, shard: shard, lsn: lsn, own: own != nil}, nil
}

// close gives the cursor back, to the view if there is a place.
func (l *lease) close() error {
	c := l.c
	if c.shut {
		return nil
	}
	if c.plain && c.Err() == nil {
		v, shard := c.v, c.shard
		c.shut = true
		c.Rest()
		// From here on it is another's. The view drops what it keeps when all have left.
		if v.idle[shard%len(v.idle)].CompareAndSwap(nil, l) {
			v.gate.exit(shard)
			return nil
		}
		c.shut = false
	}
	l.cleanup.Stop()
	return c.close()
}

// wide says whether a cursor over [lo, hi) looks at no fewer tables than one over all.
func (v *view) wide(lo, hi []byte) bool {
	for _, t := range v.zero {
		if !t.overlaps(lo, hi) {
			return false
		}
	}
	return true
}

// dropIdle forgets the cursors that were closed.
func (v *view) dropIdle() {
	for i := range v.idle {
		if l := v.idle[i].Swap(nil); l != nil {
			l.cleanup.Stop()
		}
	}
}

// noteEvery is how often it is noted where a cursor was lent from, beside the first
// time: that takes as long as a short scan.
const noteEvery = 16

// made notes who asked for the cursor, from time to time.
func (c *cursor) made() {
	if c.uses++; c.uses%noteEvery != 1 {
		c.askers[0] = 0
		return
	}
	clear(c.askers[runtime.Callers(4, c.askers[:]):])
}

// forgotten reports an iterator that was never closed, and closes its cursor.
func (c *cursor) forgotten() {
	if c.shut {
		return
	}
	at := "a place that was not noted; of those forgotten some are"
	if c.askers[0] != 0 {
		at = placeOf(c.askers[:])
	}
	c.db.opts.Logger.Error("forebay: an iterator was never closed", "made in", at)
	c.close()
}

// placeOf names the callers, innermost first.
func placeOf(pcs []uintptr) string {
	var at []string
	for frames := runtime.CallersFrames(pcs); ; {
		f, more := frames.Next()
		if f.Function != "" {
			at = append(at, fmt.Sprintf("%s (%s:%d)", f.Function, f.File, f.Line))
		}
		if !more {
			return strings.Join(at, " < ")
		}
	}
}
