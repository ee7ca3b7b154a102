// Package real is the layer of the crash explorer that trusts nobody's model:
// real processes that are killed, real file systems whose power is cut, real
// disks that are full.
//
//	rep, err := real.Kill(ctx, real.KillConfig{Kills: 1000, Child: []string{"crash-child"}})
//	rep, err := real.Power(ctx, real.PowerConfig{Cuts: 500, Child: []string{"crash-child"}})
//	rep, err := real.Model(ctx, real.ModelConfig{Cuts: 500, Child: []string{"crash-child"}})
//
// All three start the program that they are part of once more, as a child, and
// tell it on its standard input what to do: that program calls Child for the
// arguments that Child names.
//
// # Kill
//
// A child opens a store in a directory and writes to it from one to four
// goroutines, batches, range deletes and transactions at all levels, over two
// keyspaces, with memtables so small that checkpoints, compactions, backups and
// changes of the log file run all the time (load.go). It says what it begins and
// what was acknowledged through a pipe (report.go), and so does the file system
// under it when a phase begins or ends (phase.go). The parent kills it, at a
// moment in a phase that it has chosen, the open among them; then it opens what
// is left for reading only, which changes nothing, and judges it (line.go). The
// next child recovers what the last one left, and may be killed while it does.
//
// # Power
//
// An ext4 or xfs file system in a file (volume_linux.go) is written to in the same
// way, and at a moment shut down without a flush of its journal: what it had not
// written by then is lost, as when a machine stops. Then it is unmounted, mounted,
// which replays the journal, and the store is opened and judged, by what a power
// cut may take. This needs root, and the child has a mount namespace of its own:
// however it ends, nothing stays mounted.
//
// # How a store is judged
//
// Every commit is a function of the seed, its life, its writer and its number
// (commit.go), so that the parent can make it again. Beside its operations it
// writes one of eight witness keys of its writer, whose LSN an iterator tells; with
// the LSNs that were reported this gives each commit that can be there its place,
// without a hole. The store must be exactly what these commits make in that order,
// at least what its level and the kind of crash promise, and nothing that was not
// begun.
//
// # Model
//
// The third campaign checks package vfs's own model of a power cut: short scripts
// of calls run on a vfs.Mem and on a real file system at once, with the kernel made
// to write parts of files back early; the power of both is cut, and what the real
// one holds must be a state that the model contains (Mem.Contains).
package real
