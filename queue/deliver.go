package queue

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/forebaydb/forebay"
)

// deliver gives to those who wait what is ready, once that is noted, and buries what has
// been delivered too often.
func (g *group) deliver(ctx context.Context) (more bool, err error) {
	var hand, note, bury []*entry
	g.q.mu.Lock()
	want := 0
	for _, r := range g.requests {
		want += r.most
	}
	for len(hand)+len(note) < want && len(note)+len(bury) < someAtOnce {
		e := g.next()
		if e == nil {
			break
		}
		switch {
		case e.broken != nil || g.o.MaxDeliveries > 0 && e.attempts >= uint64(g.o.MaxDeliveries) && !e.noted:
			bury = append(bury, e)
		case e.noted:
			hand = append(hand, e)
		default:
			note = append(note, e)
		}
	}
	g.q.mu.Unlock()
	if len(note) > 0 {
		if err = g.note(ctx, note); err != nil {
			g.putBack(note)
		} else {
			hand = append(hand, note...)
		}
	}
	g.handOut(hand)
	for i, e := range bury {
		if err == nil {
			err = g.bury(ctx, e, buryReason(e))
		}
		if err != nil {
			g.putBack(bury[i:])
			break
		}
	}
	return len(hand)+len(bury) > 0, err
}

func buryReason(e *entry) string {
	if e.broken != nil {
		return e.broken.Error()
	}
	if e.reason == "" {
		return fmt.Sprintf("not acknowledged in %d deliveries", e.attempts)
	}
	return e.reason
}

// putBack makes ready again what could not be delivered.
func (g *group) putBack(entries []*entry) {
	now := g.q.now()
	g.q.mu.Lock()
	defer g.q.mu.Unlock()
	for _, e := range entries {
		if e.state == noting {
			g.put(e, now)
		}
	}
}

// keyOf returns the key of an entry's state.
func (g *group) keyOf(e *entry) []byte {
	if e.parked {
		return g.key(kindParked, e.id)
	}
	return g.key(kindState, e.id)
}

// look returns what is stored of an entry, inside of a transaction; settled if nothing
// is to be done with it any more.
func (g *group) look(ks forebay.Reader, e *entry) (state, error) {
	value, err := ks.Get(g.keyOf(e))
	switch {
	case err == nil:
		return decodeState(value)
	case !errors.Is(err, forebay.ErrNotFound):
		return state{}, err
	case e.parked || e.delivery > 0:
		return state{settled: true}, nil
	}
	return state{}, nil // it was never delivered
}

// putState writes the state of an entry that is not settled.
func (g *group) putState(w forebay.Writer, e *entry, s state) error {
	s.index, s.time, s.size = e.index, e.time, e.size
	return w.Put(g.keyOf(e), s.encode())
}

// settle writes that an entry is done with.
func (g *group) settle(w forebay.Writer, e *entry) error {
	if e.parked {
		return errors.Join(w.Delete(g.key(kindParked, e.id)), w.Delete(g.key(kindBody, e.id)), w.Delete(g.waitingKey(e.index, e.id)))
	}
	return w.Put(g.key(kindState, e.id), (&state{settled: true, size: e.size}).encode())
}

// note commits the next delivery of each entry. Whoever else writes the states of those
// that were delivered before is not known here: that is looked at in the transaction. It
// does not end with ctx: what is stored and what memory knows of it stay one.
func (g *group) note(ctx context.Context, entries []*entry) error {
	ctx = context.WithoutCancel(ctx)
	fresh := true
	for _, e := range entries {
		fresh = fresh && e.delivery == 0 && !e.parked
	}
	states := make([]state, len(entries))
	var err error
	if fresh {
		b := g.q.db.NewBatch()
		for i, e := range entries {
			states[i] = state{delivery: 1, attempts: 1}
			if err := g.putState(b.In(g.q.ks), e, states[i]); err != nil {
				return err
			}
		}
		err = g.q.apply(ctx, forebay.Written, b, func(error) {})
	} else {
		err = g.q.update(ctx, forebay.Written, func(tx *forebay.Tx) error {
			ks, err := g.q.space(tx)
			if err != nil {
				return err
			}
			for i, e := range entries {
				if states[i], err = g.look(ks.Reader, e); err != nil {
					return err
				}
				if states[i].settled {
					continue
				}
				states[i].delivery++
				states[i].attempts++
				states[i].due = 0
				if err := g.putState(ks.Writer, e, states[i]); err != nil {
					return err
				}
			}
			return nil
		}, func(error) {})
	}
	if err != nil {
		return err
	}
	now := g.q.now()
	g.q.mu.Lock()
	defer g.q.mu.Unlock()
	for i, e := range entries {
		if states[i].settled { // by a transaction of which memory has not heard yet
			g.finish(e, now)
			continue
		}
		e.delivery, e.attempts, e.noted = states[i].delivery, states[i].attempts, true
	}
	return nil
}

// handOut gives entries whose delivery is noted to those who wait. Their leases begin
// now. What nobody wants any more waits, and keeps the number of its delivery.
func (g *group) handOut(entries []*entry) {
	now := g.q.now()
	var told []handed
	g.q.mu.Lock()
	for _, e := range entries {
		switch {
		case e.state != noting:
		case len(g.requests) == 0:
			g.put(e, now)
		default:
			r := g.requests[0]
			e.state, e.noted, e.at = leased, false, now.Add(g.o.Lease)
			g.leases.add(e)
			g.flight++
			h := handed{e, e.delivery, e.attempts}
			r.got = append(r.got, h)
			told = append(told, h)
			if len(r.got) == r.most {
				g.answer()
			}
		}
	}
	if len(g.requests) > 0 && len(g.requests[0].got) > 0 {
		g.answer()
	}
	g.q.mu.Unlock()
	for _, h := range told {
		g.event(EventDelivered, h, nil)
	}
}

// answer gives the first of those who wait what he has got; mu is held.
func (g *group) answer() {
	r := g.requests[0]
	g.requests[0] = nil
	g.requests = g.requests[1:]
	r.ch <- result{got: r.got}
}

// finish takes a settled entry out of the window; mu is held. It may be called again.
func (g *group) finish(e *entry, now time.Time) bool {
	if !g.unload(e, now) {
		return false
	}
	g.passed++
	g.bytes -= e.size // less than none, if it is done before its commit is counted
	g.settleBytes()
	if e.parked {
		g.parked--
	}
	g.rate.add(now, 1)
	return true
}

// unload takes an entry out of the window; mu is held.
func (g *group) unload(e *entry, now time.Time) bool {
	if e.state == removed || e.state == blocked { // what is blocked was never delivered
		return false
	}
	g.remove(e, now)
	if g.unloaded != nil {
		g.unloaded[e.id] = e.index
	}
	if e.again {
		g.parkNext = 1
	}
	if e.parked {
		g.unparked--
		g.unparkedBytes -= e.size
	} else {
		p := g.places[e.id.Lane]
		p.loaded--
		p.bytes -= e.size
		p.gone += e.size
	}
	g.poke()
	return true
}

// bury makes a dead letter of an entry, in a commit of its own.
func (g *group) bury(ctx context.Context, e *entry, reason string) error {
	gone := false
	return g.q.update(ctx, g.o.Level, func(tx *forebay.Tx) error {
		ks, err := g.q.space(tx)
		if err != nil {
			return err
		}
		s, err := g.look(ks.Reader, e)
		if err != nil {
			return err
		}
		if gone = s.settled; gone {
			return nil
		}
		return g.putDead(ks.Writer, e, s, reason)
	}, func(err error) {
		if err == nil {
			g.buried(e, gone, reason)
		}
	})
}

// putDead writes a dead letter, and that the message is settled.
func (g *group) putDead(w forebay.Writer, e *entry, s state, reason string) error {
	d := deadRecord{delivery: s.delivery, attempts: s.attempts, time: e.time, died: g.q.now().UnixNano(), reason: cut(reason), body: e.body}
	return errors.Join(g.settle(w, e), w.Put(g.key(kindDead, e.id), d.encode()))
}

// buried follows the commit of putDead; gone: it was settled before.
func (g *group) buried(e *entry, gone bool, reason string) {
	now := g.q.now()
	g.q.mu.Lock()
	h := handed{e, e.delivery, e.attempts}
	if g.finish(e, now) && !gone {
		g.dead++
	} else {
		gone = true
	}
	g.q.mu.Unlock()
	if !gone {
		g.event(EventDead, h, errors.New(reason))
	}
}

// uncount takes back, when the queue closes, the deliveries that were noted, and handed to
// nobody: they are no attempts. Their numbers stay taken. Nobody else writes these states,
// for nobody has the deliveries.
func (g *group) uncount() error {
	var noted []*entry
	g.q.mu.Lock()
	if !g.dropped {
		for _, e := range g.entries {
			if e.noted && (e.state == ready || e.state == waiting) {
				noted = append(noted, e)
			}
		}
	}
	g.q.mu.Unlock()
	for some := range slices.Chunk(noted, someAtOnce) {
		b := g.q.db.NewBatch()
		for _, e := range some {
			if err := g.putState(b.In(g.q.ks), e, state{delivery: e.delivery, attempts: e.attempts - 1, reason: e.reason}); err != nil {
				return err
			}
		}
		if err := g.q.apply(context.Background(), forebay.Written, b, func(error) {}); err != nil {
			return err
		}
	}
	return nil
}

// stored says whether the low-water marks are stored well enough.
func (g *group) stored(now time.Time) bool {
	g.q.mu.Lock()
	defer g.q.mu.Unlock()
	for _, p := range g.places {
		if p == nil {
			continue
		}
		if ahead := p.mark() - p.saved; ahead >= markStep || ahead > 0 && now.Sub(g.savedAt) >= markEvery {
			return false
		}
	}
	return true
}

// save stores the low-water marks, and takes out the states below them.
func (g *group) save(ctx context.Context) error {
	var marks [laneLater + 1]uint64
	g.q.mu.Lock()
	for i, p := range g.places {
		if p != nil {
			marks[i] = p.mark()
		}
	}
	dropped := g.dropped
	g.q.mu.Unlock()
	b := g.q.db.NewBatch()
	for i, p := range g.places {
		if p == nil || marks[i] == p.saved {
			continue
		}
		// It follows the commits that settled what is below, so no level is needed.
		if err := errors.Join(p.r.Move(b, marks[i]),
			b.In(g.q.ks).DeleteRange(g.key(kindState, ID{p.id, p.saved}), g.key(kindState, ID{p.id, marks[i]}))); err != nil {
			return err
		}
	}
	if b.Len() == 0 || dropped {
		return nil
	}
	if err := g.q.apply(ctx, forebay.Written, b, func(error) {}); err != nil {
		return err
	}
	g.q.mu.Lock()
	defer g.q.mu.Unlock()
	for i, p := range g.places {
		if p != nil {
			p.saved = marks[i]
		}
	}
	g.q.pokeMaintenance()
	return nil
}
