package queue

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/forebaydb/forebay"
)

const (
	// parkAfter is how long a message without a key must have to wait to be parked.
	parkAfter = 10 * time.Second
	// someAtOnce is how many messages one commit delivers, parks or buries.
	someAtOnce = 256
	// markStep is by how many messages the low-water mark moves before it is stored, and
	// markEvery how long that waits for fewer.
	markStep  = 8192
	markEvery = time.Second
	// longestWait is how late a jump of the clock is noticed.
	longestWait = time.Second
	// afterFailure is how long the scheduler rests.
	afterFailure = 100 * time.Millisecond
)

// schedule is the goroutine of a group, until ctx ends.
func (g *group) schedule(ctx context.Context) {
	defer close(g.ended)
	g.savedAt = g.q.now()
	for ctx.Err() == nil {
		more, err := g.step(ctx)
		var rest time.Duration
		switch {
		case ctx.Err() != nil:
			return
		case errors.Is(err, forebay.ErrClosed) || errors.Is(err, forebay.ErrPoisoned) || errors.Is(err, forebay.ErrUnknown) ||
			errors.Is(err, forebay.ErrKeyspaceDropped):
			g.q.mu.Lock()
			g.fail(fmt.Errorf("queue %q: group %q: %w", g.q.name, g.name, err))
			g.q.mu.Unlock()
			return
		case err != nil: // a full log: there may be room soon; damage: it may be mended
			if !errors.Is(err, forebay.ErrFull) {
				g.q.mu.Lock()
				g.refuse(fmt.Errorf("queue %q: group %q: %w", g.q.name, g.name, err))
				g.q.mu.Unlock()
			}
			g.q.event(Event{Kind: EventFailing, Group: g.name, Err: err})
			rest = afterFailure
		case more:
			continue
		default:
			rest = g.rest()
		}
		wake := g.wake
		if err != nil {
			wake = nil
		}
		timer := time.NewTimer(rest)
		select {
		case <-ctx.Done():
		case <-wake:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// rest returns how long there is nothing to do unless somebody pokes.
func (g *group) rest() time.Duration {
	now := g.q.now()
	g.q.mu.Lock()
	defer g.q.mu.Unlock()
	d := time.Hour
	sooner := func(at time.Time) { d = min(d, max(at.Sub(now), 0), longestWait) }
	if e := g.leases.first(); e != nil {
		sooner(e.at)
	}
	if e := g.waiting.first(); e != nil {
		sooner(e.at)
	}
	if g.parkNext != 0 && g.roomForParked() {
		sooner(time.Unix(0, g.parkNext))
	}
	for _, p := range g.places {
		if p != nil && p.mark() > p.saved {
			sooner(g.savedAt.Add(markEvery))
		}
	}
	return d
}

// step does what there is to do now, and says whether there may be more.
func (g *group) step(ctx context.Context) (more bool, err error) {
	now := g.q.now()
	g.expire(now)
	for i := len(g.places) - 1; i >= 0; i-- { // first what is delayed, then by priority
		if p := g.places[i]; p != nil {
			some, err := g.fill(ctx, p)
			if err != nil {
				return false, err
			}
			more = more || some
		}
	}
	if err := g.unpark(ctx); err != nil {
		return false, err
	}
	some, err := g.deliver(ctx)
	if err != nil {
		return false, err
	}
	if now = g.q.now(); g.stored(now) {
		return more || some, nil
	}
	err = g.save(ctx)
	g.savedAt = now
	return more || some, err
}

// expire ends the leases whose time is over, and wakes what has waited.
func (g *group) expire(now time.Time) {
	var out []handed
	g.q.mu.Lock()
	for e := g.leases.first(); e != nil && !e.at.After(now); e = g.leases.first() {
		g.leases.remove(e)
		if e.busy { // who settles it puts it back if he fails
			continue
		}
		g.flight--
		e.noted, e.reason, e.at = false, "the lease ended", now
		g.put(e, now)
		out = append(out, handed{e, e.delivery, e.attempts})
	}
	g.window.wake(now)
	g.q.mu.Unlock()
	for _, h := range out {
		g.event(EventExpired, h, nil)
	}
}
