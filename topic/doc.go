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
// "topic/" + name: its name; the value is the offset of its next message, eight bytes,
// big endian. Nobody else is to write to the two.
//
// # Locks
//
// There is one, which Retain holds as long as it works, and who makes a reader: nothing
// is taken out between his look and his commit.
package topic
