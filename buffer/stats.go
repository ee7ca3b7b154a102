package buffer

import (
	"sync"
	"time"
)

// Stats are figures of a buffer. Rows are counted in the store, and the counts are exact
// behind every crash: at any time In = Done + Dead + Purged + Lost + Pending. What is
// below Writes counts since Open.
type Stats struct {
	// In is how many rows were added. Rows that were redriven are counted once.
	In uint64
	// Done rows are in the sink, Dead ones are dead letters now, and Purged ones were.
	// Lost ones a salvage of the store could not read.
	Done, Dead, Purged, Lost uint64
	// Pending rows wait to be written, or are being written; of calls of Add that are
	// under way, too.
	Pending uint64
	// PendingBytes is what they have in the log, and what calls under way have asked for.
	PendingBytes int64
	// Held is how many of them are in memory, in lanes; Batches are the cuts that are
	// not finished.
	Held    int64
	Batches int
	// OldestAge is how long the oldest row that was read waits by now.
	OldestAge time.Duration
	// Rate is how many rows a second became Done or Dead, over the last seconds, and
	// Drain how long Pending takes at this rate; 0 when nothing moves.
	Rate  float64
	Drain time.Duration
	// Writes into the sink, Writing now; Rejected for good, and Failed otherwise.
	Writes, Rejected, Failed uint64
	Writing                  int
	// LastError is what a write returned at LastFailed, when it last failed.
	LastError  error
	LastFailed time.Time
	// Away: writes have failed in a row, and only one at a time is tried.
	Away bool
	// Err is why the buffer works no more, or nil: the store is closed or poisoned, or
	// another Open took it over (ErrMoved).
	Err error
}

// counts are those of Stats that are not stored.
type counts struct {
	writes, rejected, failed uint64
	writing                  int
	last                     error
	lastAt                   time.Time
}

func (b *Buffer) counted(change func(*counts)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	change(&b.count)
}

// Stats returns figures. It costs the same, however much there is.
func (b *Buffer) Stats() Stats {
	now := time.Now()
	b.mu.Lock()
	c, n := b.c, b.count
	s := Stats{
		Done: c.done, Dead: c.dead, Purged: c.purged, Lost: c.lost,
		Held: b.held.rows, Batches: len(b.cuts),
		Writes: n.writes, Rejected: n.rejected, Failed: n.failed, Writing: n.writing,
		LastError: n.last, LastFailed: n.lastAt, Err: b.err,
	}
	oldest := b.first
	for _, cut := range b.cuts {
		if t := cut.oldest; !t.IsZero() && (oldest.IsZero() || t.Before(oldest)) {
			oldest = t
		}
	}
	b.mu.Unlock()
	// A row that comes in between waits.
	next := b.seq.Next()
	s.In, s.Pending = next+c.again-c.redriven, c.pending(next)
	s.PendingBytes = b.room.waiting().bytes
	if !oldest.IsZero() && s.Pending > 0 {
		s.OldestAge = max(now.Sub(oldest), 0)
	}
	if s.Rate = b.rate.perSecond(now); s.Rate > 0 {
		s.Drain = timeFor(float64(s.Pending), s.Rate)
	}
	s.Away = b.circuit.open()
	return s
}

// timeFor is how long some rows take at so many a second, which are more than 0; at most
// longest.
func timeFor(rows, perSecond float64) time.Duration {
	return time.Duration(min(rows/perSecond*float64(time.Second), float64(longest)))
}

// rateSpan is over how long a rate is measured, at least.
const rateSpan = 5 * time.Second

// rate is how many rows a second were done, in the span of time under way and the one
// before.
type rate struct {
	mu           sync.Mutex // guards what follows
	from, before time.Time  // when the two spans began
	n, had       int64      // in them
}

func (r *rate) add(now time.Time, rows int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch gone := now.Sub(r.from); {
	case r.from.IsZero() || gone >= 2*rateSpan:
		r.from, r.before, r.n, r.had = now, time.Time{}, 0, 0
	case gone >= rateSpan:
		r.from, r.before, r.n, r.had = now, r.from, 0, r.n
	}
	r.n += rows
}

func (r *rate) perSecond(now time.Time) float64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.from.IsZero() {
		return 0
	}
	from, n := r.from, r.n
	if !r.before.IsZero() {
		from, n = r.before, n+r.had
	}
	gone := now.Sub(from)
	if gone > 3*rateSpan || n == 0 {
		return 0
	}
	return float64(n) / max(gone.Seconds(), 0.01)
}
