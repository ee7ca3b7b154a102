package queue

import (
	"context"
	"time"
)

const (
	// tidyEvery is how often dedupe ids that have ended are looked for.
	tidyEvery = time.Minute
	// tidyRest is how long the maintenance rests between two rounds.
	tidyRest = time.Second
)

// maintain trims topics and forgets dedupe ids until the queue closes. What fails is
// tried again in the next round.
func (q *core) maintain() {
	for q.ctx.Err() == nil {
		timer := time.NewTimer(tidyEvery)
		select {
		case <-q.ctx.Done():
		case <-q.wake:
		case <-timer.C:
		}
		timer.Stop()
		if err := q.tidy(q.ctx); err != nil && q.ctx.Err() == nil {
			q.event(Event{Kind: EventFailing, Err: err})
		}
		timer.Reset(tidyRest)
		select {
		case <-q.ctx.Done():
		case <-timer.C:
		}
		timer.Stop()
	}
}

func (q *core) tidy(ctx context.Context) error {
	if err := q.trim(); err != nil || ctx.Err() != nil {
		return err
	}
	return q.forgetDedupes(ctx)
}

// trim takes out of the topics what all groups have behind them.
func (q *core) trim() error {
	q.trims.Lock()
	defer q.trims.Unlock()
	for i, l := range q.lanes {
		if l == nil {
			continue
		}
		before, some := ^uint64(0), false
		q.mu.Lock()
		for _, g := range q.groups {
			before, some = min(before, g.places[i].saved), true
		}
		q.mu.Unlock()
		if !some || before <= l.trimmed {
			continue
		}
		if err := l.seq.Trim(before); err != nil {
			return err
		}
		first, _, err := l.seq.Bounds()
		if err != nil {
			return err
		}
		l.trimmed = first
	}
	return nil
}

func (q *core) pokeMaintenance() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}
