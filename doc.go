// Package forebay is an embedded, log-structured storage engine. Every write
// lands first in a checksummed log, is made durable there by one shared sync,
// and is acknowledged; it settles into sorted segments later. After a crash the
// log is replayed, and nothing acknowledged is lost.
//
//	db, err := forebay.Open("data", nil)      // nil: the safest settings
//	defer db.Close()
//	err = db.Put(key, value)                  // durable when it returns
//	v, err := db.Get(key)                     // a copy; errors.Is(err, forebay.ErrNotFound)
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
// the disk.
//
// # Three paths
//
// A write: encode the batch (batch.AppendPut) → join the commit group
// (wal.Log.Commit) → the leader stamps LSNs and writes the group
// (wal.Log.commit) → syncs (wal.Log.writeOut) while the memtable takes it in
// (DB.enter) → publishes (commit.Pipeline.Publish) → wakes the group.
//
// A read: the view, one atomic pointer (DB.find) → memtable.Table.Get → the
// frozen memtables → segment.Reader.Get, newest segment first.
//
// An open: lock (DB.lock) → manifest.Load → recovery.OpenSegment → wal.Open:
// scan, verdict (scan.judge), copy forward what no proof covers
// (wal.Log.copyForward) → ready.
package forebay
