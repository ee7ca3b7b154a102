package queue

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/forebaydb/forebay"
)

// bytesAtOnce bounds the bodies that one commit copies.
const bytesAtOnce = 8 << 20

// room says whether the window has room enough in a lane to read on: not for each
// message that leaves it. mu is held.
func (g *group) room(p *place) bool {
	return p.loaded == 0 || p.loaded <= g.o.Window-max(1, g.o.Window/4) && p.bytes < g.o.WindowBytes
}

// fill reads on in a lane as far as there is room. Only the scheduler moves a cursor.
func (g *group) fill(ctx context.Context, p *place) (more bool, err error) {
	g.q.mu.Lock()
	room, loaded, size := g.room(p), p.loaded, p.bytes
	g.q.mu.Unlock()
	if !room || p.cursor >= p.seq.Next() {
		return false, nil
	}
	var in, park []*entry
	var seen uint64
	var parkBytes int64
	now, from := g.q.now(), p.cursor
	at := from
	read := func() error {
		for m, err := range p.t.Read(ctx, from) {
			if err != nil {
				return err
			}
			e, keep, err := g.entryOf(p, m.Offset, m.Time.UnixNano(), m.Payload, now)
			if err != nil {
				return err
			}
			at, seen = m.Offset+1, seen+1
			switch {
			case e == nil: // settled
			case keep:
				in = append(in, e)
				loaded, size = loaded+1, size+e.size
			default:
				park = append(park, e)
				parkBytes += e.size
			}
			if loaded >= g.o.Window || size >= g.o.WindowBytes || len(park) >= someAtOnce || parkBytes >= bytesAtOnce {
				break
			}
		}
		return nil
	}
	err = read()
	if err == nil && at == from {
		// What was enqueued below Durable, and nothing durable came behind it.
		if _, next, berr := p.t.Bounds(); berr != nil || next <= from {
			return false, berr
		}
		if err = g.q.db.Sync(ctx); err == nil {
			err = read()
		}
	}
	if errors.Is(err, forebay.ErrNotFound) && at == from { // somebody else took it out
		first, _, berr := p.t.Bounds()
		if berr != nil || first <= from {
			return false, errors.Join(err, berr)
		}
		at, err = first, nil
	}
	if err != nil {
		return false, err
	}
	if err := g.park(ctx, park); err != nil {
		return false, err
	}
	g.q.mu.Lock()
	defer g.q.mu.Unlock()
	g.passed += int64(at - from - seen) // what is not there any more; the settled were counted by load
	p.prune(g.o.WindowBytes)
	for _, e := range in {
		p.fifo = append(p.fifo, e)
		p.loaded++
		p.bytes += e.size
		g.insert(e, now)
	}
	p.cursor = at
	return at > from, nil
}

// entryOf makes the entry of a message that is read, nil if it is settled. keep: it
// belongs into the window.
func (g *group) entryOf(p *place, offset uint64, at int64, payload []byte, now time.Time) (e *entry, keep bool, err error) {
	id := ID{p.id, offset}
	var s state
	stored := false
	if offset < p.known {
		value, err := g.q.ks.Get(g.key(kindState, id))
		switch {
		case err == nil:
			if s, err = decodeState(value); err != nil {
				return nil, false, err
			}
			if s.settled {
				return nil, false, nil
			}
			stored = true
		case !errors.Is(err, forebay.ErrNotFound):
			return nil, false, err
		}
	}
	e = newEntry(id, bytes.Clone(payload), at)
	e.restore(s, now)
	return e, p.id != laneLater || stored || e.env.notBefore <= now.UnixNano(), nil
}

// newEntry takes over body.
func newEntry(id ID, body []byte, at int64) *entry {
	e := &entry{id: id, body: body, time: at, size: itemSize(len(body)), place: -1}
	if e.env, e.broken = decodeEnvelope(body); e.broken != nil {
		e.env = envelope{payload: body}
	}
	return e
}

// restore takes over what was stored of an entry that nobody else knows yet.
func (e *entry) restore(s state, now time.Time) {
	e.delivery, e.attempts, e.reason = s.delivery, s.attempts, s.reason
	if s.due != 0 { // by the clock that does not jump, like all others
		e.at = now.Add(time.Unix(0, s.due).Sub(now))
	}
}

// park stores entries that are in no window as parked.
func (g *group) park(ctx context.Context, entries []*entry) error {
	if len(entries) == 0 {
		return nil
	}
	b := g.q.db.NewBatch()
	w := b.In(g.q.ks)
	next := int64(0)
	for _, e := range entries {
		at := max(e.env.notBefore, 1)
		if err := g.putParked(w, e, state{due: at, index: at, delivery: e.delivery, attempts: e.attempts, reason: e.reason}); err != nil {
			return err
		}
		next = earlier(next, at)
	}
	// ctx ends when the group does.
	if err := g.q.apply(ctx, forebay.Written, b, func(error) {}); err != nil {
		return err
	}
	g.q.mu.Lock()
	defer g.q.mu.Unlock()
	g.parked += int64(len(entries))
	g.parkNext = earlier(g.parkNext, next)
	return nil
}

// putParked writes a message as parked, and that it is settled in its lane.
func (g *group) putParked(w forebay.Writer, e *entry, s state) error {
	s.time, s.size = e.time, e.size
	err := errors.Join(
		w.Put(g.key(kindParked, e.id), s.encode()),
		w.Put(g.waitingKey(s.index, e.id), []byte{}))
	if !e.parked {
		err = errors.Join(err,
			w.Put(g.key(kindBody, e.id), e.body),
			w.Put(g.key(kindState, e.id), (&state{settled: true, size: e.size}).encode()))
	} else if e.index != s.index {
		err = errors.Join(err, w.Delete(g.waitingKey(e.index, e.id)))
	}
	return err
}

// earlier returns the earlier of two times, of which 0 is none.
func earlier(a, b int64) int64 {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}

// roomForParked is room for what was parked; mu is held.
func (g *group) roomForParked() bool {
	return g.unparked == 0 || g.unparked <= g.o.Window-max(1, g.o.Window/4) && g.unparkedBytes < g.o.WindowBytes
}

// unpark loads what is parked and due, as far as there is room.
func (g *group) unpark(ctx context.Context) error {
	q := g.q
	now := q.now()
	q.mu.Lock()
	if g.parkNext == 0 || g.parkNext > now.UnixNano() || !g.roomForParked() {
		q.mu.Unlock()
		return nil
	}
	n, size := g.unparked, g.unparkedBytes
	g.parkNext = 0 // who parks meanwhile sets it
	g.unloaded = map[ID]int64{}
	q.mu.Unlock()
	var in []*entry
	next := int64(0)
	scan := func() error {
		for en, err := range q.ks.Prefix(g.prefix(kindWaiting)) {
			if err == nil {
				err = ctx.Err()
			}
			if err != nil {
				return err
			}
			id, err := idOf(en.Key)
			if err != nil || len(en.Key) != len(g.prefix(kindWaiting))+17 {
				return errors.Join(err, fmt.Errorf("%w: key %x", ErrDamaged, en.Key))
			}
			at := int64(binary.BigEndian.Uint64(en.Key[len(en.Key)-17:]))
			if at > now.UnixNano() {
				next = earlier(next, at)
				return nil
			}
			if known, again := g.knows(id, at); known {
				if again {
					next = earlier(next, at)
				}
				continue
			}
			if n >= g.o.Window || size >= g.o.WindowBytes {
				next = earlier(next, at) // once there is room
				return nil
			}
			e, err := g.parkedEntry(id, at, now)
			if err != nil {
				return err
			}
			if e != nil {
				in = append(in, e)
				n, size = n+1, size+e.size
			}
		}
		return nil
	}
	err := scan()
	q.mu.Lock()
	defer q.mu.Unlock()
	if err != nil {
		next = 1
	}
	g.parkNext = earlier(g.parkNext, next)
	for _, e := range in {
		if _, gone := g.unloaded[e.id]; gone || g.entries[e.id] != nil {
			continue
		}
		g.unparked++
		g.unparkedBytes += e.size
		g.insert(e, now)
	}
	g.unloaded = nil
	return err
}

// knows says whether a message that is parked at a time is in the window, or was since the
// scheduler began to look. Where that is from before it was parked there, by a commit
// that came before memory has heard of another one, he is to look again: now, or when it
// leaves the window.
func (g *group) knows(id ID, index int64) (known, again bool) {
	g.q.mu.Lock()
	defer g.q.mu.Unlock()
	if e := g.entries[id]; e != nil {
		e.again = e.index != index
		return true, false
	}
	was, gone := g.unloaded[id]
	return gone, gone && was != index
}

// parkedEntry reads a parked message, nil if it was settled meanwhile.
func (g *group) parkedEntry(id ID, index int64, now time.Time) (*entry, error) {
	value, err := g.q.ks.Get(g.key(kindParked, id))
	if errors.Is(err, forebay.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	s, err := decodeState(value)
	if err != nil || s.index != index {
		return nil, err
	}
	body, err := g.q.ks.Get(g.key(kindBody, id))
	if errors.Is(err, forebay.ErrNotFound) { // settled between the two
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	e := newEntry(id, body, s.time)
	e.parked, e.index = true, index
	e.restore(s, now)
	return e, nil
}
