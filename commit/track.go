package commit

import (
	"errors"
	"fmt"
	"math/bits"
	"sync"
	"sync/atomic"
	"time"

	"github.com/forebaydb/forebay/internal/base"
	"github.com/forebaydb/forebay/internal/batch"
	"github.com/forebaydb/forebay/wal"
)

// Errors of transactions. The commit was refused: nothing of it was applied.
var (
	// ErrConflict: something that the transaction read was written since.
	ErrConflict = errors.New("commit: conflict")
	// ErrStale: the leader does not remember enough of what was written since
	// the transaction read. Who can look into the tables does so and comes again
	// with a higher LSN; see Reads.Recheck.
	ErrStale = errors.New("commit: read too long ago to be validated")
)

// Outcomes of a commit; any other is its LSN.
const (
	pending base.LSN = 0
	refused base.LSN = base.MaxLSN
)

const (
	// maxWork bounds what the leader does to validate one commit, in steps of
	// some 10 ns; above it the commit is stale.
	maxWork = 64 << 10
	// manyPoints is the number of point reads from which on the leader looks for
	// another way than to take them one by one.
	manyPoints = 1 << 10
	// hotFor is how long a key counts as contended after a conflict.
	hotFor = 20 // ms
)

// tracker remembers, while transactions are active, what was written lately, so
// that the leader can tell whether what a transaction read has been written
// since. It is told of each admitted request in LSN order. Each thing that it
// remembers has an LSN from which on it has no gap; below that it says ErrStale,
// and never that there was no write.
//
// It begins at an LSN: since. A transaction counts as active before it takes the
// LSN at which it reads. If the leader has admitted a request without noting it,
// because it saw no transaction, that request's LSN is at most since, and it was
// applied after the transaction began or else is at most the transaction's LSN.
type tracker struct {
	active atomic.Int64
	limits limits

	mu sync.Mutex // guards all below; it is a leaf
	on bool       // changed by the leader alone
	// since: all writes above it are noted, as far as the rooms below go.
	since  base.LSN
	last   base.LSN // of the last request that was noted
	busy   base.LSN // when there was last a transaction
	points lastWrites
	keys   recent
	dels   recent
	// bulk are the large batches of the group under way. Their records may be
	// looked at by the leader alone, and until the group has been applied: then
	// they are in the tables, and since moves.
	bulk []bulkBatch

	hot [256]atomic.Uint64 // 40 bits of a hash, 24 of a time in ms
}

type bulkBatch struct {
	lsn base.LSN
	ops batch.Reader
}

// idle says that r need be neither validated nor noted. The leader calls it.
func (t *tracker) idle(c *Commit) bool {
	return t.active.Load() == 0 && !t.on && (c == nil || c.reads == nil)
}

// ask asks the guard. The leader calls it, with no lock held.
func (c *Commit) ask() error {
	guard := c.guard
	c.guard = nil
	return guard()
}

// askUnlocked asks the guard; mu is held, but not meanwhile: a guard may have
// locks of its own. None but the leader notes or admits anything in between.
func (t *tracker) askUnlocked(c *Commit) error {
	t.mu.Unlock()
	defer t.mu.Lock()
	return c.ask()
}

// admit validates a request and notes what it writes. The guard comes last: then
// nothing but its own error refuses the request any more.
func (t *tracker) admit(r *wal.Request, c *Commit) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.turn(r.First)
	var err error
	if c != nil && c.reads != nil {
		if err = ErrConflict; c.outcome.Load() != refused {
			err = t.check(c.reads, true)
		}
	}
	var one [1]batch.Reader
	ops := one[:0]
	for i := 0; err == nil && i < len(r.Records); i++ {
		var rec batch.Reader
		if rec, err = batch.Decode(r.Records[i].Data); err != nil {
			err = fmt.Errorf("commit: refused: %w", err)
		}
		ops = append(ops, rec)
	}
	if err == nil && c != nil && c.guard != nil {
		err = t.askUnlocked(c)
	}
	if err == nil {
		t.note(r.First, ops)
	}
	if c != nil {
		c.reads, c.guard = nil, nil
	}
	switch {
	case c == nil:
	case err != nil:
		c.outcome.Store(refused)
	case len(r.Records) > 0:
		c.outcome.Store(r.First)
	}
	return err
}

// turn turns the tracker on, in front of the commit next, or off: then what it
// remembers has a gap, and since says so when it is on again.
func (t *tracker) turn(next base.LSN) {
	if t.active.Load() > 0 {
		t.busy = next
	}
	switch {
	case !t.on:
		t.on, t.since, t.last, t.busy = true, next-1, next-1, next
		t.points.max, t.keys.limit, t.dels.limit = t.limits.sets, t.limits.writes, t.limits.dels
	case next > t.busy+base.LSN(t.limits.linger):
		// This one is still noted; those that follow are not.
		t.on = false
	}
}

// note notes what a request writes, whose first record has the LSN first.
func (t *tracker) note(first base.LSN, recs []batch.Reader) {
	for i, ops := range recs {
		lsn := first + base.LSN(i)
		t.last = lsn
		if ops.Len() >= t.limits.bulk {
			t.bulk = append(t.bulk, bulkBatch{lsn, ops})
			continue
		}
		for ops.Next() {
			if ops.Kind() == base.KindRangeDelete {
				t.dels.add(lsn, 0, ops.Key(), ops.Value(), true)
				continue
			}
			hash := hashOf(ops.Key())
			t.points.put(hash, lsn)
			t.keys.add(lsn, hash, ops.Key(), nil, false)
		}
	}
}

// applied is told that the group under way is in the tables.
func (t *tracker) applied() {
	if len(t.bulk) == 0 { // none but the leader fills it
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.since = max(t.since, t.bulk[len(t.bulk)-1].lsn)
	clear(t.bulk)
	t.bulk = t.bulk[:0]
}

// early validates reads before their commit is ordered: what is a conflict now
// will be one then.
func (t *tracker) early(rd *Reads) error {
	if len(rd.points) > manyPoints || len(rd.ranges) > 4 { // the leader must not wait for it
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.on {
		return nil
	}
	return t.check(rd, false)
}

// check says whether nothing that was read has been written since. final: the
// leader asks, in the order of the log; before that a read from a commit that
// is still to be admitted passes. mu is held.
func (t *tracker) check(rd *Reads, final bool) error {
	if len(rd.points) > 0 && (looksAtPoints || looksAtOverlay) {
		if err := t.checkPoints(rd, final); err != nil {
			return err
		}
	}
	if len(rd.ranges) > 0 && looksAtRanges {
		if err := t.checkRanges(rd); err != nil {
			return err
		}
	}
	if final && looksAtPoints && looksAtRanges {
		for i := range t.bulk {
			if t.bulk[i].meets(rd) {
				return ErrConflict
			}
		}
	}
	return nil
}

func (t *tracker) checkPoints(rd *Reads, final bool) error {
	if looksAtPoints && len(rd.points) > manyPoints && !rd.mixed && rd.at >= max(t.since, t.keys.dropped) && t.keys.count(rd.at) < len(rd.points) {
		// Fewer writes than reads: look for these in those.
		if t.keys.any(rd.at, func(_ *generation, w *write) bool { return rd.find(w.hash) >= 0 }) {
			return ErrConflict
		}
		return t.checkDeleted(rd, rd.at)
	}
	if len(rd.points) > 2*t.limits.writes {
		return ErrStale
	}
	low := base.MaxLSN
	for i := range rd.points {
		p := &rd.points[i]
		at := p.at(rd)
		switch {
		case at == pending && p.from != nil && !final:
			continue
		case p.from != nil && (at == pending || at == refused):
			if looksAtOverlay {
				return ErrConflict
			}
			continue
		case !looksAtPoints:
			continue
		case at < t.since:
			return ErrStale
		}
		lsn, unknown := t.points.get(p.hash)
		if lsn > at {
			t.heat(p.hash)
			return ErrConflict
		}
		if unknown > at {
			return ErrStale
		}
		low = min(low, at)
	}
	return t.checkDeleted(rd, low)
}

// at returns the LSN as of which a point was read; see the outcomes.
func (p *point) at(rd *Reads) base.LSN {
	if p.from != nil {
		return p.from.outcome.Load()
	}
	return rd.at
}

// checkDeleted looks for range deletes, above low, of keys that were read.
func (t *tracker) checkDeleted(rd *Reads, low base.LSN) error {
	if low < t.dels.dropped {
		return ErrStale
	}
	n := t.dels.count(low)
	if n*len(rd.points) > maxWork {
		return ErrStale
	}
	if n > 0 && t.dels.any(low, func(g *generation, w *write) bool {
		lo, hi := g.bounds(w)
		return rd.anyPoint(lo, hi, w.lsn)
	}) {
		return ErrConflict
	}
	return nil
}

// anyPoint says whether a key in [lo, hi) was read as of an LSN below lsn.
func (r *Reads) anyPoint(lo, hi []byte, lsn base.LSN) bool {
	for i := range r.points {
		p := &r.points[i]
		at := p.at(r)
		if at == pending && p.from != nil { // it is to come
			continue
		}
		if at < lsn && within(r.key(p), lo, hi) {
			return true
		}
	}
	return false
}

func (t *tracker) checkRanges(rd *Reads) error {
	if rd.at < max(t.since, t.keys.dropped, t.dels.dropped) {
		return ErrStale
	}
	if (t.keys.count(rd.at)+t.dels.count(rd.at))*bits.Len(uint(len(rd.ranges))) > maxWork {
		return ErrStale
	}
	if t.keys.any(rd.at, func(g *generation, w *write) bool {
		if key := g.key(w); w.cut {
			return rd.overlaps(key, after(key))
		} else {
			return rd.covers(key)
		}
	}) || t.dels.any(rd.at, func(g *generation, w *write) bool { return rd.overlaps(g.bounds(w)) }) {
		return ErrConflict
	}
	return nil
}

// meets says whether a large batch writes what was read.
func (b *bulkBatch) meets(rd *Reads) bool {
	for ops := b.ops; ops.Next(); {
		if ops.Kind() == base.KindRangeDelete {
			if rd.overlaps(ops.Key(), ops.Value()) || rd.anyPoint(ops.Key(), ops.Value(), b.lsn) {
				return true
			}
			continue
		}
		if len(rd.ranges) > 0 && rd.covers(ops.Key()) {
			return true
		}
		if len(rd.points) == 0 {
			continue
		}
		i := rd.find(hashOf(ops.Key()))
		if i >= 0 && (rd.mixed && rd.anyPoint(ops.Key(), append(ops.Key()[:len(ops.Key()):len(ops.Key())], 0), b.lsn) || !rd.mixed) {
			return true
		}
	}
	return false
}

// heat notes that a key is contended.
func (t *tracker) heat(hash uint64) {
	t.hot[hash&255].Store(hash>>24<<24 | millis()&(1<<24-1))
}

func (t *tracker) isHot(hash uint64) bool {
	w := t.hot[hash&255].Load()
	return w>>24 == hash>>24 && (millis()-w)&(1<<24-1) < hotFor
}

var began = time.Now()

// millis is a clock in milliseconds that does not jump.
func millis() uint64 { return uint64(time.Since(began).Milliseconds()) }

// refuse says of a commit whose outcome is pending that it will never be
// admitted.
func (t *tracker) refuse(c *Commit) {
	t.mu.Lock()
	defer t.mu.Unlock()
	c.outcome.CompareAndSwap(pending, refused)
	c.reads = nil
}
