// Package pipeline is a logging platform on one machine: simulated servers send log
// events over loopback TCP; they are made durable in a sequence of a store and only then
// acknowledged; batch consumers write them into a sink; and every event is accounted for.
//
//	servers → wire → ingest → sequence → consumer → sink
//	                        ↘      buffer       ↗
//
// What flows, file by file: events.go makes events, servers.go sends them, wire.go is how
// they look on the way, ingest.go appends and acknowledges. through.go has the two ways on:
// package buffer, or a sequence and consume.go, which reads it back, flushes by size or age
// and moves its durable position. sink.go takes what comes, seen.go has a bit for each event
// that arrived. run.go puts them together for one measurement; suite.go makes the
// measurements that stand beside each other in a report; report.go and plots.go write it,
// view.go shows it while it runs.
//
// On the wire a frame is its length (4 bytes), the number of its events (4 bytes), and each
// event behind its length (2 bytes), little endian; the answer is the number of events (4
// bytes), once they are durable. A frame longer than MaxFrame is refused before anything
// is allocated for it.
//
// An event is a line of text. At fixed places it has its time and, in 16 hexadecimal
// digits, which server sent it, and which of its events it is: by that the bit is found.
//
// Locks: the consumer's mu guards the batch that is filled, its order's mu which batches
// are done; neither is held while a sink writes or a commit is made. The seen bits have a
// mutex of their own.
package pipeline
