package queue

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"

	"github.com/forebaydb/forebay"
)

// Item is a value to be enqueued and what goes with it.
type Item[T any] struct {
	Value T
	Meta  Meta
}

// outgoing is a message on its way in.
type outgoing struct {
	lane   *lane
	body   []byte
	dedupe string
	until  int64 // when the dedupe id is forgotten
}

var bodies = sync.Pool{New: func() any { return new([]byte) }}

// prepare encodes a message into the memory of buf.
func (q *Queue[T]) prepare(ctx context.Context, buf []byte, value T, m *Meta) (outgoing, error) {
	var meta Meta
	if m != nil {
		meta = *m
	}
	if inject := q.o.Hooks.Inject; inject != nil {
		meta.Headers = maps.Clone(meta.Headers)
		inject(ctx, func(name, value string) {
			if meta.Headers == nil {
				meta.Headers = map[string]string{}
			}
			meta.Headers[name] = value
		})
	}
	headers := 0
	for k, v := range meta.Headers {
		headers += len(k) + len(v) + 4
	}
	for _, l := range []struct {
		what        string
		size, limit int64
	}{
		{"bytes of a key", int64(len(meta.Key)), MaxKey},
		{"bytes of a dedupe id", int64(len(meta.DedupeID)), MaxDedupeID},
		{"bytes of headers", int64(headers), MaxHeaders},
		{"priority", int64(meta.Priority), int64(q.o.Priorities) - 1},
		{"delay in nanoseconds", int64(meta.Delay), int64(maxDelay)},
	} {
		if l.size < 0 || l.size > l.limit {
			return outgoing{}, &LimitError{l.what, l.size, l.limit}
		}
	}
	now := q.now()
	out := outgoing{lane: q.lanes[meta.Priority], dedupe: meta.DedupeID}
	var notBefore int64
	if meta.Delay > 0 {
		out.lane = q.lanes[laneLater]
		notBefore = max(now.Add(meta.Delay).UnixNano(), 1) // also of a clock that shows nonsense
	}
	if out.dedupe != "" {
		out.until = now.Add(q.o.DedupeFor).UnixNano()
	}
	var err error
	if out.body, err = q.codec.Append(appendEnvelope(buf, &meta, notBefore), value); err != nil {
		return outgoing{}, fmt.Errorf("queue: a value does not encode: %w", err)
	}
	if len(out.body) > MaxMessage {
		return outgoing{}, &LimitError{"bytes of a message", int64(len(out.body)), MaxMessage}
	}
	return out, nil
}

func sizeOf(items []outgoing) size {
	s := size{n: int64(len(items))}
	for i := range items {
		s.bytes += itemSize(len(items[i].body))
	}
	return s
}

// itemSize is what counts for Options.MaxBytes of a message with a body.
func itemSize(body int) int64 { return int64(body) + 8 + overhead } // 8: the topic's time

// Enqueue enqueues a value; m may be nil. It returns when the message has reached
// Options.Level, and then its ID. When ctx ends first it returns ctx's error, and the
// message may be enqueued all the same.
//
// Errors: *LimitError, *FullError, *DuplicateError, ErrClosed, the codec's, and those of
// forebay.DB.Apply: after ErrUnknown the message may be in the queue or not, after all
// others it is not.
func (q *Queue[T]) Enqueue(ctx context.Context, value T, m *Meta) (ID, error) {
	buf := bodies.Get().(*[]byte)
	defer bodies.Put(buf)
	out, err := q.prepare(ctx, (*buf)[:0], value, m)
	if err != nil {
		return ID{}, err
	}
	if cap(out.body) <= 1<<16 {
		*buf = out.body
	}
	items := [1]outgoing{out}
	ids, err := q.put(ctx, items[:])
	if err != nil {
		return ID{}, err
	}
	return ids[0], nil
}

// EnqueueBatch enqueues values in one commit: all or none. Otherwise it is as Enqueue.
func (q *Queue[T]) EnqueueBatch(ctx context.Context, items []Item[T]) ([]ID, error) {
	if len(items) == 0 {
		return nil, nil
	}
	out := make([]outgoing, len(items))
	var room []byte // behind what is used of a chunk of memory
	for i := range items {
		if cap(room) < 1024 {
			room = make([]byte, 0, 64<<10)
		}
		var err error
		if out[i], err = q.prepare(ctx, room, items[i].Value, &items[i].Meta); err != nil {
			return nil, fmt.Errorf("item %d: %w", i, err)
		}
		if n := len(out[i].body); n <= cap(room) { // else it has memory of its own
			out[i].body = out[i].body[:n:n]
			room = room[n:n]
		}
	}
	return q.put(ctx, out)
}

// EnqueueTx enqueues a value when the transaction is committed, with what else that
// does. ctx is for Hooks alone. Errors are as of Enqueue. Behind a *FullError, a
// *DuplicateError or a *LimitError of this package the transaction may go on without the
// message; all others its function is to return.
func (q *Queue[T]) EnqueueTx(ctx context.Context, tx *forebay.Tx, value T, m *Meta) error {
	out, err := q.prepare(ctx, nil, value, m)
	if err != nil {
		return err
	}
	return q.putTx(tx, []outgoing{out}, nil)
}

// put enqueues items in a commit of their own.
func (q *core) put(ctx context.Context, items []outgoing) (ids []ID, err error) {
	if err := q.begin(false); err != nil {
		return nil, err
	}
	defer q.end()
	for i := range items {
		if items[i].dedupe != "" {
			return q.putOnce(ctx, items)
		}
	}
	s := sizeOf(items)
	if err := q.reserve(s); err != nil {
		return nil, err
	}
	b := batches.Get().(*forebay.Batch)
	b.Reset()
	for i := range items {
		if err := items[i].lane.t.AppendTo(b, items[i].body); err != nil {
			q.release(s, false)
			batches.Put(b)
			return nil, err
		}
	}
	if err := q.apply(ctx, q.o.Level, b, func(err error) { q.release(s, err == nil) }); err != nil {
		return nil, err // the batch may be in use
	}
	ids = idsOf(items, b.Appended)
	if b.Size() <= 1<<16 {
		batches.Put(b)
	}
	q.enqueued(ids)
	return ids, nil
}

// putOnce is put for items that have dedupe ids.
func (q *core) putOnce(ctx context.Context, items []outgoing) ([]ID, error) {
	var ids []ID // with an error it may be another goroutine's
	err := q.update(ctx, q.o.Level, func(tx *forebay.Tx) error {
		return q.putTx(tx, items, func(o forebay.Outcome) { ids = idsOf(items, o.Appended) })
	}, func(error) {})
	var dup *DuplicateError
	if errors.As(err, &dup) {
		q.identify(ctx, dup)
	}
	if err != nil {
		return nil, err
	}
	q.enqueued(ids)
	return ids, nil
}

var batches = sync.Pool{New: func() any { return new(forebay.Batch) }}

func (q *core) enqueued(ids []ID) {
	if q.o.Hooks.Event != nil {
		for _, id := range ids {
			q.event(Event{Kind: EventEnqueued, ID: id})
		}
	}
}

// idsOf returns the ids of items that were committed, and nothing else with them.
func idsOf(items []outgoing, appended func(*forebay.Sequence) (uint64, int)) []ID {
	ids := make([]ID, len(items))
	var next [laneLater + 1]uint64
	var known [laneLater + 1]bool
	for i := range items {
		l := items[i].lane
		if !known[l.id] {
			next[l.id], _ = appended(l.seq)
			known[l.id] = true
		}
		ids[i] = ID{l.id, next[l.id]}
		next[l.id]++
	}
	return ids
}

// putTx enqueues items in a transaction, all or, with an error, none; then is told of the
// attempt if it is committed.
func (q *core) putTx(tx *forebay.Tx, items []outgoing, then func(forebay.Outcome)) error {
	ks, err := q.space(tx)
	if err != nil {
		return err
	}
	note, added, err := q.remember(ks, items)
	if err != nil {
		return err
	}
	s := sizeOf(items)
	if err := q.reserve(s); err != nil {
		return err
	}
	whole := false
	tx.OnDone(func(o forebay.Outcome) {
		if o.Err == nil && whole {
			if then != nil {
				then(o)
			}
			q.mu.Lock()
			q.dedupes += added
			over := q.dedupes > int64(q.o.DedupeMax)
			q.mu.Unlock()
			if over {
				q.pokeMaintenance()
			}
		}
		q.release(s, o.Err == nil && whole)
	})
	for i := range items {
		if err := items[i].lane.t.AppendTo(tx, items[i].body); err != nil {
			return err
		}
	}
	whole = true
	for _, n := range note {
		if err := n(); err != nil {
			return err
		}
	}
	return nil
}

// identify finds the message that has a dedupe id, if it is still there.
func (q *core) identify(ctx context.Context, dup *DuplicateError) {
	key := append([]byte{kindDedupe}, dup.DedupeID...)
	for e, err := range q.ks.Range(key, append(bytes.Clone(key), 0)) {
		if err != nil {
			return
		}
		d, err := decodeDedupe(e.Value)
		if err != nil || q.lanes[d.lane] == nil {
			return
		}
		for it, err := range q.lanes[d.lane].seq.Commit(ctx, e.LSN) {
			if err != nil || len(it.Value) < 8 {
				return
			}
			if env, err := decodeEnvelope(it.Value[8:]); err == nil && env.dedupe == dup.DedupeID {
				dup.ID, dup.Known = ID{d.lane, it.Offset}, true
				return
			}
		}
	}
}
