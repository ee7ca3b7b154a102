package queue

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"
	"time"

	"github.com/forebaydb/forebay"
)

// Group is a handle of a consumer group. Any number of goroutines may use it.
type Group[T any] struct {
	*group
	codec Codec[T]
}

// Group returns the consumer group with a name of 1 to 100 bytes, and makes it, by a
// durable commit, when there is none: in front of the oldest message that is there. From
// then on what is enqueued waits for it until it is dropped. The options of the first
// call since Open hold.
func (q *Queue[T]) Group(name string, o *GroupOptions) (*Group[T], error) {
	g, err := q.group(name, o)
	if err != nil {
		return nil, err
	}
	return &Group[T]{g, q.codec}, nil
}

// Groups returns the names of all groups, in no order.
func (q *Queue[T]) Groups() []string { return q.core.groupNames() }

// DropGroup ends a group's deliveries and forgets it with its dead letters, by a durable
// commit. What is in flight cannot be acknowledged any more: ErrStaleLease. It is no error
// if there is none. After another error the group delivers nothing until the next Open.
func (q *Queue[T]) DropGroup(name string) error { return q.core.dropGroup(name) }

// Name returns the group's name.
func (g *Group[T]) Name() string { return g.group.name }

// Message is a message that was delivered. Whoever has it settles it: Ack or AckTx when
// it is done, Nack or Kill when it is not. Each of them ends the lease. Its methods may
// be called by many goroutines; what does not come first is ErrStaleLease.
type Message[T any] struct {
	ID ID
	// Value is what the codec made of the payload; of Bytes it is the payload itself.
	Value T
	Key   string
	// Headers must not be changed.
	Headers  map[string]string
	Priority int
	// Time at which it was enqueued, by the clock of who did.
	Time time.Time
	// Attempt counts its deliveries since it was enqueued or redriven, from 1 on, also
	// those of which nothing was heard because the process ended. Delivery goes on
	// behind a redrive: ID and Delivery name a delivery for ever.
	Attempt  int
	Delivery uint64

	d *delivery
}

// message decodes an entry that was handed out.
func (g *Group[T]) message(h handed) (*Message[T], error) {
	e := h.e
	m := &Message[T]{
		ID: e.id, Key: e.env.key, Headers: e.env.headers, Priority: int(e.env.priority), Time: time.Unix(0, e.time),
		Attempt: int(h.attempts), Delivery: h.delivery, d: &delivery{g: g.group, handed: h},
	}
	var err error
	if m.Value, err = g.codec.Decode(e.env.payload); err != nil {
		err = fmt.Errorf("queue: message %v does not decode: %w", e.id, err)
	}
	return m, err
}

// Receive waits until there are messages, and returns 1 to most of them, each under a
// lease of its own. A message that the codec refuses is made a dead letter, and is not
// among them. Errors: ctx's, ErrClosed, what has ended the group's deliveries: a store
// that is closed or poisoned; and damage that keeps it from them now. While the log is full
// it waits.
func (g *Group[T]) Receive(ctx context.Context, most int) ([]*Message[T], error) {
	for {
		got, err := g.receive(ctx, most)
		if err != nil {
			return nil, err
		}
		out := make([]*Message[T], 0, len(got))
		for _, h := range got {
			m, err := g.message(h)
			if err != nil {
				// If this fails, too, the lease ends, and it is tried again.
				_ = m.d.give(context.WithoutCancel(ctx), 0, true, err)
				continue
			}
			out = append(out, m)
		}
		if len(out) > 0 {
			return out, nil
		}
	}
}

// Messages receives messages one by one, until ctx ends or the queue is closed, whose
// error comes as the last pair. Who has a message settles it.
func (g *Group[T]) Messages(ctx context.Context) iter.Seq2[*Message[T], error] {
	return func(yield func(*Message[T], error) bool) {
		for {
			ms, err := g.Receive(ctx, 1)
			if err != nil {
				yield(nil, err)
				return
			}
			if !yield(ms[0], nil) {
				return
			}
		}
	}
}

// Run has handler called for messages by a number of workers, until ctx ends or the
// queue is closed, and returns when all handlers have: with ctx's error, or ErrClosed,
// or what has ended the group's deliveries. The context of a handler ends with ctx, or
// when the queue closes.
//
// When handler returns nil the message is acknowledged, if it has not done so itself.
// An error gives it back, to be tried again; one that wraps ErrPermanent makes it a dead
// letter. A panic is not recovered: the attempt has been counted by then.
func (g *Group[T]) Run(ctx context.Context, workers int, handler func(context.Context, *Message[T]) error) error {
	if err := g.q.begin(false); err != nil {
		return err
	}
	defer g.q.end()
	inner, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(g.runCtx, cancel)()
	var work sync.WaitGroup
	errs := make([]error, max(workers, 1))
	for i := range errs {
		work.Go(func() {
			for errs[i] == nil {
				var ms []*Message[T]
				if ms, errs[i] = g.Receive(inner, 1); errs[i] == nil {
					g.handle(inner, ms[0], handler)
				}
			}
		})
	}
	work.Wait()
	if err := ctx.Err(); err != nil {
		return err
	}
	for _, err := range errs {
		if !errors.Is(err, context.Canceled) {
			return err
		}
	}
	return ErrClosed // it ended the workers' context
}

// handle calls the handler and settles the message.
func (g *Group[T]) handle(ctx context.Context, m *Message[T], handler func(context.Context, *Message[T]) error) {
	hctx := ctx
	if extract := g.q.o.Hooks.Extract; extract != nil {
		hctx = extract(ctx, m.Headers)
	}
	err := handler(hctx, m)
	if m.d.done.Load() {
		return
	}
	// What was done is to be noted also when ctx has ended. If that fails, the lease ends.
	ctx = context.WithoutCancel(ctx)
	switch {
	case err == nil:
		_ = m.Ack(ctx)
	case errors.Is(err, ErrPermanent):
		_ = m.Kill(ctx, err)
	default:
		_ = m.Nack(ctx, err)
	}
}

// Ack says that a message is done, by a commit at GroupOptions.Level, in which others
// share. When ctx ends first it returns ctx's error, and the commit goes on.
// ErrStaleLease: the message is somebody else's, or was settled. Other errors as of
// forebay.DB.Apply.
func (m *Message[T]) Ack(ctx context.Context) error { return m.d.g.ack(ctx, []*delivery{m.d}) }

// Ack acknowledges messages that this group has delivered in one commit. Those whose lease is
// stale are left out: they are joined in the error, and all others are done.
func (g *Group[T]) Ack(ctx context.Context, ms ...*Message[T]) error {
	ds := make([]*delivery, len(ms))
	for i, m := range ms {
		if m.d.g != g.group {
			return fmt.Errorf("queue: message %v was delivered by group %q of queue %q", m.ID, m.d.g.name, m.d.g.q.name)
		}
		ds[i] = m.d
	}
	return g.ack(ctx, ds)
}

// AckTx says that a message is done when the transaction, of the store in which the queue
// is, is committed, with what else that does: once, however often the message was
// delivered. The lease may have ended, as long as the message was not delivered again.
// ErrStaleLease: it was, or it is settled or given back; the transaction's function is to return it.
func (m *Message[T]) AckTx(tx *forebay.Tx) error { return m.d.ackTx(tx) }

// Nack gives a message back because of cause, to be delivered again after a random time:
// see GroupOptions.Backoff. At GroupOptions.MaxDeliveries it becomes a dead letter.
// Errors as for Ack.
func (m *Message[T]) Nack(ctx context.Context, cause error) error {
	return m.d.give(ctx, -1, false, cause)
}

// NackAfter is Nack with a time of the caller's.
func (m *Message[T]) NackAfter(ctx context.Context, wait time.Duration, cause error) error {
	return m.d.give(ctx, max(wait, 0), false, cause)
}

// Kill makes a message a dead letter because of cause. Errors as for Ack.
func (m *Message[T]) Kill(ctx context.Context, cause error) error {
	return m.d.give(ctx, 0, true, cause)
}

// Extend makes the lease end a while from now. It is not stored: all leases end with the
// process. ErrStaleLease: it has ended.
func (m *Message[T]) Extend(by time.Duration) error { return m.d.extend(by) }
