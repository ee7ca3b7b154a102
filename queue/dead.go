package queue

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/forebaydb/forebay"
)

// DeadLetter is a message that a group has given up.
type DeadLetter struct {
	ID ID
	// Reason of the last attempt's failure, and how many there were.
	Reason   string
	Attempts int
	// Time at which it was enqueued, and Died at which it was given up.
	Time, Died time.Time
	Key        string
	Headers    map[string]string
	Priority   int
	// Payload as the codec made it; of a message that does not decode all that there is.
	// It is the caller's.
	Payload []byte
}

// DeadLetters iterates over the dead letters, lane by lane in the order of their
// offsets, as they are when it begins. An error ends it and comes as the last pair.
func (g *Group[T]) DeadLetters() iter.Seq2[DeadLetter, error] { return g.group.deadLetters() }

// Redrive has dead letters delivered again, as if they had not been attempted, in one
// commit for all: to this group alone, now, and behind others of their key. An id that
// is no dead letter is forebay.ErrNotFound, and nothing is done. Options' bounds do not
// hold for it.
func (g *Group[T]) Redrive(ctx context.Context, ids ...ID) error { return g.group.redrive(ctx, ids...) }

// Purge forgets dead letters, in one commit for all. An id that is no dead letter is
// forebay.ErrNotFound, and nothing is done.
func (g *Group[T]) Purge(ctx context.Context, ids ...ID) error { return g.group.purge(ctx, ids...) }

// RedriveAll redrives all dead letters that there are when it begins, some in each
// commit, and returns how many.
func (g *Group[T]) RedriveAll(ctx context.Context) (int, error) { return g.group.redriveAll(ctx) }

// PurgeAll forgets all dead letters that there are when it begins, some in each commit,
// and returns how many.
func (g *Group[T]) PurgeAll(ctx context.Context) (int, error) { return g.group.purgeAll(ctx) }

// deadLetters is Group.DeadLetters.
func (g *group) deadLetters() iter.Seq2[DeadLetter, error] {
	return func(yield func(DeadLetter, error) bool) {
		for en, err := range g.q.ks.Prefix(g.prefix(kindDead)) {
			if err != nil {
				yield(DeadLetter{}, err)
				return
			}
			id, err := idOf(en.Key)
			if err == nil {
				var d deadRecord
				if d, err = decodeDead(append([]byte(nil), en.Value...)); err == nil {
					if !yield(letter(id, d), nil) {
						return
					}
					continue
				}
			}
			yield(DeadLetter{}, err)
			return
		}
	}
}

func letter(id ID, d deadRecord) DeadLetter {
	env, err := decodeEnvelope(d.body)
	if err != nil {
		env = envelope{payload: d.body}
	}
	return DeadLetter{
		ID: id, Reason: d.reason, Attempts: int(d.attempts), Time: time.Unix(0, d.time), Died: time.Unix(0, d.died),
		Key: env.key, Headers: env.headers, Priority: int(env.priority), Payload: env.payload,
	}
}

// redrive is Group.Redrive.
func (g *group) redrive(ctx context.Context, ids ...ID) error {
	return g.exhume(ctx, ids, func(ks forebay.Space, id ID, d deadRecord, now int64) error {
		e := newEntry(id, d.body, d.time)
		s := state{delivery: d.delivery, due: now, index: now, time: e.time, size: e.size}
		return errors.Join(
			ks.Put(g.key(kindParked, id), s.encode()),
			ks.Put(g.key(kindBody, id), d.body),
			ks.Put(g.waitingKey(now, id), []byte{}))
	}, func(n, bytes, now int64) {
		g.parked += n
		g.passed -= n
		g.bytes += bytes
		g.parkNext = earlier(g.parkNext, now)
		g.poke()
	})
}

// purge is Group.Purge.
func (g *group) purge(ctx context.Context, ids ...ID) error {
	return g.exhume(ctx, ids, func(forebay.Space, ID, deadRecord, int64) error { return nil }, func(_, _, _ int64) {})
}

// exhume takes dead letters away, with what else each does in the transaction; after is
// called behind the commit with mu held.
func (g *group) exhume(ctx context.Context, ids []ID, each func(ks forebay.Space, id ID, d deadRecord, now int64) error, after func(n, bytes, now int64)) error {
	if len(ids) == 0 {
		return nil
	}
	if err := g.q.begin(false); err != nil {
		return err
	}
	defer g.q.end()
	now := max(g.q.now().UnixNano(), 1)
	var n, bytes int64
	return g.q.update(ctx, g.o.Level, func(tx *forebay.Tx) error {
		n, bytes = 0, 0
		// Asked in each attempt: a drop since meets it with a conflict, and its name may be
		// another group's by now.
		if g.isDropped() {
			return ErrClosed
		}
		ks, err := g.q.space(tx)
		if err != nil {
			return err
		}
		for _, id := range ids {
			value, err := ks.Get(g.key(kindDead, id))
			if err != nil {
				return fmt.Errorf("queue: dead letter %v: %w", id, err)
			}
			d, err := decodeDead(value)
			if err != nil {
				return err
			}
			if err := errors.Join(ks.Delete(g.key(kindDead, id)), each(ks, id, d, now)); err != nil {
				return err
			}
			n++
			bytes += itemSize(len(d.body))
		}
		return nil
	}, func(err error) {
		if err != nil {
			return
		}
		g.q.mu.Lock()
		defer g.q.mu.Unlock()
		g.dead -= n
		after(n, bytes, now)
	})
}

// redriveAll is Group.RedriveAll.
func (g *group) redriveAll(ctx context.Context) (int, error) { return g.all(ctx, g.redrive) }

// purgeAll is Group.PurgeAll.
func (g *group) purgeAll(ctx context.Context) (int, error) { return g.all(ctx, g.purge) }

func (g *group) all(ctx context.Context, do func(context.Context, ...ID) error) (n int, err error) {
	if g.isDropped() {
		return 0, ErrClosed
	}
	var ids []ID
	size := 0
	flush := func() error {
		err := do(ctx, ids...)
		if errors.Is(err, forebay.ErrNotFound) { // somebody else took one of them
			err = nil
			for _, id := range ids {
				switch one := do(ctx, id); {
				case one == nil:
					n++
				case !errors.Is(one, forebay.ErrNotFound):
					return one
				}
			}
		} else if err == nil {
			n += len(ids)
		}
		ids, size = ids[:0], 0
		return err
	}
	for en, err := range g.q.ks.Prefix(g.prefix(kindDead)) {
		if err != nil {
			return n, err
		}
		id, err := idOf(en.Key)
		if err != nil {
			return n, err
		}
		ids = append(ids, id)
		if size += len(en.Value); len(ids) >= someAtOnce || size >= bytesAtOnce {
			if err := flush(); err != nil {
				return n, err
			}
		}
	}
	err = flush()
	return n, err
}
