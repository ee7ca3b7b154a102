package queue

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/forebaydb/forebay"
)

// delivery is a message in the hands of a receiver, without the type of its value.
type delivery struct {
	g *group
	handed
	done atomic.Bool // it was settled or given back by this receiver
}

func (d *delivery) stale() error {
	return fmt.Errorf("%w: message %v of queue %q, delivery %d", ErrStaleLease, d.e.id, d.g.q.name, d.delivery)
}

// hold marks the entry as being settled or given back; mu is held.
func (d *delivery) hold() error {
	switch g := d.g; {
	case g.q.closed:
		return ErrClosed
	case g.dropped || d.e.state != leased || d.e.delivery != d.delivery || d.e.busy:
		return d.stale()
	}
	d.e.busy = true
	return nil
}

// let undoes hold; mu is held. The lease may have ended meanwhile.
func (d *delivery) let() {
	d.e.busy = false
	if d.e.state == leased && d.e.place < 0 {
		d.g.leases.add(d.e)
	}
	d.g.poke()
}

// ack acknowledges deliveries of one group in one commit.
func (g *group) ack(ctx context.Context, ds []*delivery) error {
	if len(ds) == 0 {
		return nil
	}
	if err := g.q.begin(true); err != nil {
		return err
	}
	defer g.q.end()
	var stale error
	held := make([]*delivery, 0, len(ds))
	g.q.mu.Lock()
	for _, d := range ds {
		if err := d.hold(); err != nil {
			stale = errors.Join(stale, err)
			continue
		}
		held = append(held, d)
	}
	if len(held) == 0 {
		g.q.mu.Unlock()
		return stale
	}
	g.acks.Add(1)
	g.q.mu.Unlock()
	then := func(err error) {
		defer g.acks.Done()
		now := g.q.now()
		g.q.mu.Lock()
		for _, d := range held {
			if err != nil {
				d.let()
				continue
			}
			g.finish(d.e, now)
		}
		g.q.mu.Unlock()
		if err == nil {
			for _, d := range held {
				if d.done.Swap(true) { // by an AckTx
					continue
				}
				g.event(EventAcked, d.handed, nil)
			}
		}
	}
	// The entries are held: nobody delivers them, and AckTx writes no other state.
	b := batches.Get().(*forebay.Batch)
	b.Reset()
	for _, d := range held {
		if err := g.settle(b.In(g.q.ks), d.e); err != nil {
			then(err)
			return err
		}
	}
	if err := g.q.apply(ctx, g.o.Level, b, then); err != nil {
		return err
	}
	batches.Put(b)
	return stale
}

// ackTx acknowledges a delivery when the transaction is committed.
func (d *delivery) ackTx(tx *forebay.Tx) error {
	g, e := d.g, d.e
	g.q.mu.Lock()
	closed := g.q.closed
	g.q.mu.Unlock()
	switch {
	case closed:
		return ErrClosed
	case g.isDropped():
		return d.stale()
	}
	ks, err := g.q.space(tx)
	if err != nil {
		return err
	}
	value, err := ks.Get(g.keyOf(e))
	if errors.Is(err, forebay.ErrNotFound) {
		return d.stale()
	}
	if err != nil {
		return err
	}
	s, err := decodeState(value)
	if err != nil {
		return err
	}
	// What nobody has waits until a time: it was given back, or was dead and is redriven.
	if s.settled || s.delivery != d.delivery || s.due != 0 {
		return d.stale()
	}
	if err := g.settle(ks.Writer, e); err != nil {
		return err
	}
	tx.OnDone(func(o forebay.Outcome) {
		if o.Err != nil {
			return
		}
		now := g.q.now()
		g.q.mu.Lock()
		g.finish(e, now)
		g.q.mu.Unlock()
		if !d.done.Swap(true) {
			g.event(EventAcked, d.handed, nil)
		}
	})
	return nil
}

// give gives a delivery back, to be delivered again after a while, or buries it.
func (d *delivery) give(ctx context.Context, wait time.Duration, dead bool, cause error) error {
	g, e := d.g, d.e
	if err := g.q.begin(true); err != nil {
		return err
	}
	defer g.q.end()
	g.q.mu.Lock()
	if err := d.hold(); err != nil {
		g.q.mu.Unlock()
		return err
	}
	attempts := d.attempts
	g.q.mu.Unlock()
	reason := ""
	if cause != nil {
		reason = cut(cause.Error())
	}
	dead = dead || g.o.MaxDeliveries > 0 && attempts >= uint64(g.o.MaxDeliveries)
	if !dead && wait < 0 {
		wait = g.o.backoff(attempts)
	}
	wait = min(wait, maxDelay)
	now := g.q.now()
	due := max(now.Add(wait).UnixNano(), 1)
	park := !dead && wait >= parkAfter && e.env.key == ""
	level := forebay.Written // else it comes sooner after a crash
	if dead {
		level = g.o.Level
	}
	gone := false // settled
	return g.q.update(ctx, level, func(tx *forebay.Tx) error {
		if g.isDropped() { // its name may be another group's by now
			return d.stale()
		}
		ks, err := g.q.space(tx)
		if err != nil {
			return err
		}
		s, err := g.look(ks.Reader, e)
		if err != nil {
			return err
		}
		// An AckTx of the same delivery may have come before.
		if gone = s.settled; gone || s.delivery != d.delivery {
			return d.stale()
		}
		s.reason, s.due = reason, due
		switch {
		case dead:
			return g.putDead(ks.Writer, e, s, reason)
		case park:
			s.index = due
			return g.putParked(ks.Writer, e, s)
		}
		return g.putState(ks.Writer, e, s)
	}, func(err error) {
		switch {
		case gone:
			g.q.mu.Lock()
			g.finish(e, now)
			g.q.mu.Unlock()
			return
		case err != nil:
			g.q.mu.Lock()
			d.let()
			g.q.mu.Unlock()
			return
		}
		d.done.Store(true)
		if dead {
			g.buried(e, false, reason)
			return
		}
		g.q.mu.Lock()
		e.busy, e.reason = false, reason
		if park {
			if !e.parked {
				g.parked++
			}
			g.unload(e, now)
			g.parkNext = earlier(g.parkNext, due)
		} else if e.state == leased {
			g.take(e)
			e.at = now.Add(wait)
			g.put(e, now)
		}
		g.poke()
		g.q.mu.Unlock()
		g.event(EventNacked, d.handed, cause)
	})
}

// extend makes a lease end a while from now.
func (d *delivery) extend(by time.Duration) error {
	now := d.g.q.now()
	g := d.g
	g.q.mu.Lock()
	defer g.q.mu.Unlock()
	if err := d.hold(); err != nil {
		return err
	}
	g.leases.remove(d.e)
	d.e.at = now.Add(min(by, maxDelay))
	d.let()
	return nil
}

// unwanted puts back what was handed out to somebody who has gone.
func (g *group) unwanted(got []handed) {
	now := g.q.now()
	g.q.mu.Lock()
	defer g.q.mu.Unlock()
	for _, h := range got {
		if e := h.e; e.state == leased && !e.busy && e.delivery == h.delivery {
			g.take(e)
			e.noted, e.at = true, now
			g.put(e, now)
		}
	}
	g.poke()
}

// receive waits for 1 to most entries.
func (g *group) receive(ctx context.Context, most int) ([]handed, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	r := &request{most: max(most, 1), ch: make(chan result, 1)}
	g.q.mu.Lock()
	if g.err != nil {
		g.q.mu.Unlock()
		return nil, g.err
	}
	g.requests = append(g.requests, r)
	g.q.runs++ // Close waits until it is known whether somebody has what is handed out
	g.poke()
	g.q.mu.Unlock()
	defer g.q.end()
	select {
	case res := <-r.ch:
		return res.got, res.err
	case <-ctx.Done():
	}
	g.q.mu.Lock()
	for i, other := range g.requests {
		if other == r {
			g.requests = append(g.requests[:i:i], g.requests[i+1:]...)
			break
		}
	}
	g.q.mu.Unlock()
	select { // it came at the same moment
	case res := <-r.ch:
		g.unwanted(res.got)
	default:
	}
	return nil, ctx.Err()
}
