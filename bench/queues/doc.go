// Command queues measures Forebay's queue and other queues that a Go program can
// carry within itself, on one machine, in one run, and prints one table.
//
// An Engine opens a Queue in a directory of its own. A cell lets producers, and
// in some cells workers, use it for some seconds: what is counted is what was
// acknowledged durably. The ledger of a cell knows each message that went in, by
// its number, and looks at each that comes out: one that is lost, or that nobody
// put in, fails the cell; those that came more than once are counted and shown.
//
// All cells run once on all engines, then all again. Each cell runs in a process
// of its own, so that no engine inherits another one's memory or goroutines.
//
// # Locks
//
// The ledger has none: all of it is atomic. Histograms belong to one goroutine each,
// or stand under the mutex of their trial.
package main
