// Package queue is a durable queue on topics: at least once to a handler, once in its
// effect where the handler acknowledges in the transaction of what it does (AckTx).
//
//	q, err := queue.Open(db, "mail", queue.JSON[Mail]{}, nil)
//	id, err := q.Enqueue(ctx, mail, nil)                 // durable when it returns
//	g, err := q.Group("sender", nil)
//	err = g.Run(ctx, 16, func(ctx context.Context, m *queue.Message[Mail]) error { … })
//
// A message is enqueued once and goes to each consumer group. A group delivers it to one
// receiver at a time, under a lease, until it is acknowledged or dead. At all times, for
// each group, enqueued = done + dead + pending.
//
// # Lanes
//
// A queue has a topic for each of its priorities, and one more for what is delayed: its
// lanes. So an urgent message is found behind any number of others, by reading the lane
// from where the group is in it. An ID names lane and offset. Offsets of a lane are in
// the order of the commits.
//
// # What is stored
//
// The payload is written once, in the log, as a message of the topic "queue/" + name
// (priority 0), "queue/" + name + "/" + priority, or "queue/" + name + "/later":
//
//	version 1, flags, [priority], [not before, 8 bytes], [key], [dedupe id], [headers], payload
//
// A reader of each topic with the name of the group stands at its low-water mark: all
// below is settled: done, dead or parked. The keyspace "queue/" + name has the exceptions.
// Group stands for its length, one byte, and its name; id is the lane, one byte, and the
// offset, eight; numbers in keys are big endian:
//
//	i                how often the queue was opened: a transaction of an earlier handle conflicts
//	g name           the group: where it began in each lane
//	s group id       a message at or above the mark: deliveries, attempts, or that it is settled
//	p group id       a parked message: the same, and its place in w
//	b group id       its body: the envelope
//	w group time id  parked messages by the time when they are due
//	x group id       a dead letter: reason, attempts, times, body
//	D id             a dedupe id: until when, and the lane; the LSN of the entry names the commit
//	E time id        dedupe ids by the time at which they end
//
// Parked is what is delayed, what is to be tried again in more than ten seconds and has
// no key, and what was redriven. It is out of its lane, with a copy of its own, so that
// neither the low-water mark nor memory waits for it.
//
// # Order of commits
//
// A delivery is committed, at level Written, before the message is handed out, and its
// lease begins when that is done: a message that kills the process has been counted. What
// was noted and handed to nobody, Close takes back. Who acknowledges in a transaction
// reads the message's state in it, and so does whatever
// writes a state for a message that had been delivered before (but for Ack, which only
// ever settles, and keeps the lease from ending meanwhile). So of a redelivery and an AckTx
// one comes first in the log, and the other sees it: ErrStaleLease, or a message that is
// settled and not handed out. Memory follows behind the commit. The low-water mark moves
// behind the commits that settle what is below it, and Trim behind the mark.
//
// # Locks
//
// core.trims, then core.mu. mu guards all memory of a queue and of its groups; no read,
// no commit, and nobody else's code is called with it held. trims is held by who takes
// messages out of the topics and by who makes or drops a group: a group does not begin
// behind what is being taken out. One goroutine for each group in use, its scheduler,
// reads lanes, parks, delivers, and moves the mark; one of the queue trims and forgets
// dedupe ids. Close ends them. There is one handle of a queue in a process (ErrOpen).
//
// # Memory
//
// A group holds at most Window messages and WindowBytes (or one message) of each lane,
// as much of what was settled behind one of them that is not, and of what was parked and
// is due. Depth is counted, not listed.
package queue
