// Package policy measures what the ways to sync cost, and what they lose: for
// each policy, level, number of writers, size of values and mechanism the rate,
// the latencies, the syncs, and how many acknowledged writes a power cut and a
// killed process would have taken.
//
// # What is measured
//
// A cell runs writers in a closed loop, each of which commits one put of a
// 16-byte key after the other, on a real directory. Most cells run on the store
// (forebay.Open), because that is what an application waits for: the batch, the
// log and the memtable. Cells that compare mechanisms run on the log alone
// (wal.Open): what they differ in is the log's, the memtable would only blur it,
// and the store always fills its files with zeros ahead. Options.On decides
// otherwise.
//
// # Where the losses come from
//
// The log is run over a file system (watch) that passes all calls to the real
// one and notes when each write and each sync of a log file returned, and which
// records it held. With the moments at which the writers got their
// acknowledgements this is a Timeline of a real run on a real disk. A cut of the
// power at a moment t loses each write that was acknowledged by t and that no
// sync returned by t covers. That is the worst that the disk may do: what was
// written and not synced may be there all the same, and for some milliseconds
// most of it will not be. A kill of the process at t loses what was acknowledged
// by t and given to no write that had returned by t. The moments are drawn from a
// seed over the whole window that is measured.
//
// That the engine keeps what it acknowledged is not shown by this arithmetic:
// tests cut the power of vfs.Mem under the same watch, and the crash explorer does
// nothing else.
package policy
