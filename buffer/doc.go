// Package buffer is the durable front of a batch write: rows are acknowledged when they
// are in the log, and flow on into a sink.Sink (a database, a file, a service) in
// batches, by number, bytes or age.
//
//	b, err := buffer.Open(db, "orders", target, nil)
//	_, err = b.Add(buffer.Row{Key: key, Value: value}) // durable when it returns
//
// # What is promised
//
//   - A row that Add has acknowledged comes into the sink, or is a dead letter, whatever
//     crashes: exactly once where the sink remembers ids (see sink.Sink), at least once
//     where it does not. Nothing is sent that a crash could still take away.
//   - The bounds of a batch are in the log before its first attempt. So what is tried
//     again, after an error or a crash, is the identical batch with the identical id.
//     An id has a random part of the Open that made it: a store that was copied, or
//     brought back from a backup, never uses an id of the original for other rows.
//   - Rows that the sink refuses for good (*sink.Rejected) become dead letters, and the
//     others are written: a bad row that the sink cannot name is found by halving, in
//     2·log2 n + 1 writes. Everything else that a write returns has the same batch
//     written again, for ever, with a growing wait.
//   - Rows with one key are written in the order of their commits, also by several lanes.
//     A row without a key has no order.
//   - In = Done + Dead + Purged + Pending (+ Lost, behind a salvage of the store), at any
//     time; see Stats.
//   - Memory is bounded, however much waits: by about three times Lanes × Options.Bytes.
//
// # Cuts, lanes, pieces
//
// One goroutine follows the topic and cuts it: a cut is a range of offsets. It is divided
// into lanes by a hash of the rows' keys; rows without a key are all in lane number of
// the cut modulo lanes. What a lane has of a cut is one piece, which is written as a
// batch. Each lane writes one piece at a time, in the order of the cuts. A piece that is
// refused is replaced: by its two halves, or, when the sink names the bad rows, by the
// rest. Each piece has a generation, which is never used again in its lane and cut, and
//
//	id = name / token of the Open that made the cut / first offset of the cut . lane . generation
//
// Every such step is one durable commit, before the next write. A cut has the number of
// lanes with it: after an Open with another number, what is cut already is finished
// first, as it was cut.
//
// # What is stored
//
// A row is a message of the topic "buffer/" + name: the topic's time, then an envelope
// (envelope.go). The reader "sink" of the topic stands before the first row that may not
// be in the sink yet; what is before it is taken out. The keyspace "buffer/" + name has
// (records.go):
//
//	"owner"                    the token of the Open that works on the buffer
//	"state"                    the counters, and where the next cut begins
//	"c" cut                    a cut that is not finished: token, first, end, lanes
//	"l" cut, lane              what a lane has left of a cut, unless that is all of it
//	"d" number                 a dead letter
//
// Numbers in keys are big endian, of eight bytes, that of a lane two. Nobody else is to
// write there. Each Open takes the buffer over: what an earlier one still does, in this
// process or as a handle that was forgotten, comes to nothing (ErrMoved).
//
// # Locks
//
//	Buffer.state    one change of the stored state at a time; held over its commit
//	Buffer.mu       what of it is in memory
//	intake.mu, room.mu, circuit.mu, rate.mu     leaves
//
// They are taken in this order, and none is held while a sink or a function of the
// caller runs.
package buffer
