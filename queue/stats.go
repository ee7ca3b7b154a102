package queue

import (
	"context"
	"errors"
	"time"

	"github.com/forebaydb/forebay"
)

// Stats are figures of a group at one moment. Enqueued = Done + Dead + Pending.
type Stats struct {
	// Enqueued is what was enqueued since the group's beginning, as far as Enqueue has
	// returned.
	Enqueued int64
	// Done is what was acknowledged, and dead letters that were purged.
	Done int64
	// Dead is how many dead letters there are.
	Dead int64
	// Pending is all that is neither: it is the depth of the queue. InFlight of them are
	// with receivers, and Delayed wait for their time.
	Pending, InFlight, Delayed int64
	// Bytes of what is pending, to within ten a message; while Options.MaxBytes is 0
	// only what was enqueued and redriven since Open, less what was settled.
	Bytes int64
	// Loaded is how many messages are in memory.
	Loaded int
	// OldestAge is how long ago the oldest pending message was enqueued: the first of
	// each lane and of what is parked are looked at. 0: nothing is pending.
	OldestAge time.Duration
	// DrainRate is how many messages a second were done or given up in the last ten
	// seconds, DrainETA how long at this rate it takes until nothing is pending; 0 when
	// nothing is, negative when nothing drains.
	DrainRate float64
	DrainETA  time.Duration
}

// Stats returns the figures of the group. It costs the same whatever is pending: it reads
// one message of each lane at most.
func (g *Group[T]) Stats(ctx context.Context) (Stats, error) { return g.group.stats(ctx) }

// stats is Group.Stats.
func (g *group) stats(ctx context.Context) (Stats, error) {
	q := g.q
	if err := q.begin(false); err != nil {
		return Stats{}, err
	}
	defer q.end()
	now := q.now()
	var from [laneLater + 1]uint64
	oldest := int64(0)
	q.mu.Lock()
	s := Stats{Dead: g.dead, InFlight: g.flight, Bytes: max(g.bytes, 0), Loaded: len(g.entries)}
	var starts int64
	for _, at := range g.starts {
		starts += int64(at)
	}
	s.Enqueued = q.in - starts
	s.Pending = max(q.in-g.passed, 0)
	s.Done = s.Enqueued - s.Dead - s.Pending
	s.Delayed = g.parked - int64(g.unparked) + int64(g.window.waiting.Len())
	s.DrainRate = g.rate.perSecond(now)
	for i, p := range g.places {
		if p == nil {
			continue
		}
		if from[i] = p.mark(); len(p.fifo) > 0 {
			oldest = earlier(oldest, p.fifo[0].time)
			from[i] = ^uint64(0)
		}
	}
	q.mu.Unlock()
	for i, p := range g.places {
		if p == nil || from[i] >= p.seq.Next() {
			continue
		}
		for m, err := range p.t.Read(ctx, from[i]) {
			if err != nil {
				if errors.Is(err, forebay.ErrNotFound) { // it was settled meanwhile
					break
				}
				return s, err
			}
			oldest = earlier(oldest, m.Time.UnixNano())
			break
		}
	}
	for i := range g.places {
		p := append(g.prefix(kindParked), byte(i))
		for en, err := range q.ks.Prefix(p) {
			_, st, err := stateOf(en, err)
			if err != nil {
				return s, err
			}
			oldest = earlier(oldest, st.time)
			break
		}
	}
	if s.Pending > 0 {
		if oldest != 0 {
			s.OldestAge = max(now.Sub(time.Unix(0, oldest)), 0)
		}
		if s.DrainETA = -1; s.DrainRate > 0 {
			s.DrainETA = time.Duration(min(float64(s.Pending)/s.DrainRate, maxDelay.Seconds()) * float64(time.Second))
		}
	}
	return s, nil
}
