package queue

import "context"

// Hooks let others follow messages: traces, say. Each may be nil, is called by many
// goroutines at once with no lock held, and must be quick.
type Hooks struct {
	// Inject is called for each message on its way in, with the context of Enqueue; what
	// it sets goes into the headers.
	Inject func(ctx context.Context, set func(name, value string))
	// Extract returns the context that Run gives to the handler of a message with these
	// headers, which must not be changed.
	Extract func(ctx context.Context, headers map[string]string) context.Context
	// Event is told what happened, behind its commit. It may be told a moment late, and
	// of one message's events out of their order.
	Event func(Event)
}

// EventKind says what an Event is about.
type EventKind uint8

// Kinds of events.
const (
	// EventEnqueued: a message was enqueued, not by EnqueueTx.
	EventEnqueued EventKind = iota + 1
	// EventDelivered: it is handed out, for the Attempt'th time.
	EventDelivered
	// EventAcked: it is done.
	EventAcked
	// EventNacked: an attempt failed with Err, and there will be another.
	EventNacked
	// EventExpired: a lease has ended.
	EventExpired
	// EventDead: it is a dead letter, for Err.
	EventDead
	// EventFailing: Err keeps the group from delivering; it tries again.
	EventFailing
)

var eventNames = [...]string{"", "enqueued", "delivered", "acked", "nacked", "expired", "dead", "failing"}

// String returns the kind's name.
func (k EventKind) String() string {
	if int(k) < len(eventNames) {
		return eventNames[k]
	}
	return ""
}

// Event is something that happened to a message.
type Event struct {
	Kind         EventKind
	Queue, Group string
	ID           ID
	Attempt      int
	Err          error
}

// event tells of one. No lock is held.
func (q *core) event(e Event) {
	if tell := q.o.Hooks.Event; tell != nil {
		e.Queue = q.name
		tell(e)
	}
}

// event tells of an entry as it was handed out.
func (g *group) event(kind EventKind, h handed, err error) {
	if g.q.o.Hooks.Event != nil {
		g.q.event(Event{Kind: kind, Group: g.name, ID: h.e.id, Attempt: int(h.attempts), Err: err})
	}
}
