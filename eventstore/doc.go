// Package eventstore keeps events in streams, on a topic.
//
// An event says what happened to one thing: an account, an order. The events of one
// thing are its stream, and have versions from 1 on without gaps. All events of all
// streams are messages of one topic, in the order of their commits, so that a follower
// sees each of them once, in order, however many append at once. Nothing changes an
// event: states are made from events, and can be made again.
//
//	s, err := eventstore.Open(db, "bank", nil)
//	at, err := s.Append(ctx, "account-1", eventstore.Exactly(3), eventstore.New{Type: "Deposited", Payload: p})
//	for ev, err := range s.Stream(ctx, "account-1", 1) { … }
//	for ev, err := range s.Follow(ctx, 0) { … }
//
// Beside that there are aggregates, which fold a stream into a state and keep snapshots
// of it (Aggregate); projections, which fold all events into rows of a keyspace, with
// their place in the same commit (Projection); upcasters for payloads of old schemas;
// erasure of what is known of a subject, by forgetting a key (Forget); archives and
// retention (Archive, Retain); and a chain of hashes (Verify).
//
// # What is stored
//
// An event is a message of the topic "events/" + name, and so an item of the sequence
// "topic/events/" + name: the eight bytes of the topic's time, then an envelope.
// Numbers are little endian or uvarint, a string is its length (uvarint) and its bytes:
//
//	1   format, 1
//	1   flags: 1 the payload is sealed
//	16  id
//	8   time, nanoseconds since 1970 (UTC); never less than that of the event before
//	32  SHA-256 of the envelope of the stream's event before; zeros for version 1
//	    version (uvarint), stream, type (strings), schema (uvarint)
//	    correlation, causation, subject (strings)
//	16  id of the subject's key; only when sealed
//	    number of headers (uvarint), and each: name, value (strings), sorted by name
//	    payload: the rest. When sealed: a nonce of 12 bytes, and what AES-256-GCM makes
//	    of the payload with all bytes of the envelope before it as associated data
//
// Keyspaces, whose keys begin with one letter:
//
//	events/NAME              h stream           head: last version, its time and hash
//	                         i stream 0 version index: of an append, by its first
//	                                            version (8 bytes, big endian)
//	                         b stream           base: first version that is kept, and
//	                                            the hash of the one before
//	                         f                  floor: offset of the first event kept
//	events/NAME/keys         subject            its key, wrapped, or that it is forgotten
//	events/NAME/snapshots    s aggregate 0 stream 0 version      a snapshot
//	                         b subject 0 aggregate 0 stream 0 version   who is in it
//	events/NAME/projections  m name             generations: which serves, which is built
//	                         c name 0 gen       checkpoint: offset of the next event
//	                         d name 0 gen offset  a dead letter
//	                         g name 0 gen       rows that are to be dropped
//	events/NAME/rows/P/GEN   rows of a generation of projection P
//
// The address of an append is the LSN of its index entry: both are of one commit. An
// entry that Reindex made has the offset of its first event instead.
//
// # Locks
//
// There are none, and no goroutines: all that must hold together is read and written in
// one serializable transaction. A Store is used by any number of goroutines, and
// several Stores of one name agree as well.
//
//   - An append reads the head of its stream, and writes head, index entry and events.
//   - A batch of a projection reads generation and checkpoint, and the keys of the
//     subjects whose payloads it has read; a snapshot reads the latter. So neither is
//     committed behind a Forget that it does not know of.
//   - Retain reads all checkpoints and dead letters where it moves the floor, and takes
//     events out of the topic only below it.
//
// Handlers (Apply, upcasters, codecs) run with no lock held, but inside of such a
// transaction, which may be attempted more than once.
package eventstore
