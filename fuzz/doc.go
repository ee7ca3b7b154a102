// Package fuzz is the crash explorer: it runs short workloads on a file system
// in memory, cuts the power (or kills the process) after every single I/O, makes
// the states that a disk may then hold, opens each, and compares what is there
// with what was promised (package forebay, "What is promised").
//
//	rep, covered, err := fuzz.Exhaust(ctx, fuzz.Config{}, fuzz.Bound{Ops: 2}) // all small workloads
//	rep, err := fuzz.Run(ctx, fuzz.Config{Budget: time.Minute})               // longer ones, by chance
//
// Any engine can be explored that does its I/O through package vfs: see Engine,
// which is all that it needs, and docs/crash-testing.md.
//
// # How a workload is explored
//
// A workload (workload.go) is settings, a few lives, and in each life a few
// steps: batches and transactions over several keyspaces, keyspaces that come and
// go, checkpoints, compactions, backups (steps.go). It is a text (script.go), a
// function of its seed (generate.go), or one of all that there are of a length
// (small.go). While it runs (record.go), a snapshot is kept after each I/O, with
// the bounds that a crash there must respect: lo, the last commit that must be
// there after a power cut; kill, the same after a crash of the process; hi, the
// last LSN assigned. What the engine does in the background, checkpoints of full
// memtables and compactions, has its place among the I/Os too, though not the same
// every time. A life ends in a crash whose remains the next life opens, so that
// recovery is followed by more writes, and they by more crashes.
//
// Each snapshot, a cut, is then explored (explore.go, enumerate.go): the process
// is killed, and the power is cut with every subset of what is unsynced kept (up
// to eight units), or else with every prefix, every one and every two lost, every
// one kept; then with other fates, zeros, garbage, stale and torn sectors among
// them, as far as the model of the disk allows.
//
// Each state is opened and scanned (check.go). The hash of the keyspaces and pairs
// that are found must be H(n), where n is the LSN that the engine says, and n must
// be within the bounds. Some states go through more: reads, reverse scans and the
// list of keyspaces agree with S(n); no stray file is left; a compaction changes
// nothing; recovering again changes nothing; a new durable write survives one more
// crash; and the power is cut again after every I/O of the recovery itself, and of
// the recovery of what that leaves.
//
// Backups are directories of the same disk, and go through the same crashes
// (backup.go). One that was done is S(n) of the n that it was said to hold.
// One that was not may refuse to open; if it opens it is empty, or a legal state.
//
// A violation is made smaller (shrink.go), and has one line that makes the state
// again (Replay) or tells its story (Explain), and the state itself.
//
// forebay.go is the only file that knows Forebay.
package fuzz
