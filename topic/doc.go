// Package topic gives the items of a sequence a time, named readers and a retention.
//
// A topic is a forebay.Sequence: messages are written once, in the log, have offsets
// without gaps in the order of their commits, and share commits with keys and other
// topics. Beside that it has
//
//   - the time at which each message was given to it, and SeekTime;
//   - readers: named offsets in a keyspace, which move in the commit of what was done
//     with the messages, and outlive every crash like it;
//   - retention by age, number and bytes, which never takes what a reader has before it.
//
// # What is stored
//
// A message is an item of the sequence "topic/" + name: eight bytes, little endian, the
// nanoseconds since 1970 (UTC), then the payload. A reader is a key of the keyspace
// "topic/" + name: its name, 1 to 1,000 bytes; the value is the offset of its next message,
// eight bytes, big endian. The key of 1,001 bytes 0xff, behind all names, has the floor in
// the same form: the offset before which Retain has taken messages out. Nobody else is to
// write to the two.
//
// # Locks
//
// There is one, which Retain holds as long as it works. What it takes out and where readers
// are is agreed on in transactions: Retain reads all readers where it moves the floor, and
// takes messages out only below it; who makes a reader, or moves one back, reads the floor.
// So of a Retain and such a transaction one comes first, and the other sees it.
package topic
