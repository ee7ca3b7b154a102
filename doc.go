// Package forebay is an embedded, log-structured storage engine. Every write
// lands first in a checksummed log, is made durable there by one shared sync,
// and is acknowledged; it settles into sorted segments later. After a crash the
// log is replayed, and nothing acknowledged is lost.
//
//	db, err := forebay.Open("data", nil)      // nil: the safest settings
//	defer db.Close()
//	err = db.Put(key, value)                  // durable when it returns
//	v, err := db.Get(key)                     // a copy; errors.Is(err, forebay.ErrNotFound)
//	err = db.Update(func(tx *forebay.Tx) error { … })   // a serializable transaction
//
// # What is promised
//
// A write names its level and returns when it is reached: Buffered survives
// nothing, Written a crash of the process, Durable (the default) a power cut.
// With S(n) = the state after the first n commits, Open after any crash returns
// an error or exactly S(n), with n at least the last acknowledged Durable commit
// (after a crash of the process alone, also the last Written one). Never a hole,
// never a part of a batch, never a resurrected delete. What Open shows is
// durable. Damage to what is proven to have been durable is a *CorruptionError,
// never a silently shorter store. docs/durability.md lists what is assumed of
// the disk. An Update reads one state and is validated in the order of the log,
// and it returns when what it read cannot be lost any more; docs/transactions.md
// has the rest.
//
// # Three paths
//
// A write: encode the batch (batch.AppendPut) → be let in (DB.admit) → join the
// commit group (wal.Log.Commit) → the leader asks who may commit
// (commit.Pipeline.Admit), stamps LSNs and lays the group out (wal.Log.append) →
// writes it and syncs (wal.Log.writeOut) while the memtable takes it in
// (DB.apply) → publishes (commit.Pipeline.Publish) → wakes the group. Behind
// that, in the background: DB.maybeFreeze → checkpoint.Settle → compaction.Pick →
// compaction.Run.
//
// A read: the view, one atomic pointer, with the visible mark (DB.enterAt) →
// memtable.Table.Get → the frozen memtables → segment.Reader.Get, level 0 newest
// first, and then one segment of each level. What range deletes hide is asked of
// each on the way (view.newest). An iterator merges the same tables
// (view.sources).
//
// An open: lock (DB.lock) → manifest.Load → the segments
// (recovery.Store.openSegments) → the log (wal.Open): scan (wal.scan.walk),
// verdict (wal.scan.judge), copy forward what no proof covers
// (wal.Log.copyForward) → ready (DB.populate) → if the log is larger than a memtable,
// settle it (DB.settleLog).
package forebay
