// Package sqlite is a sink.Sink for a table in a file of SQLite.
//
//	s, err := sqlite.Open(ctx, "shop.db", sqlite.Options{Table: "events"})
//	defer s.Close()
//	err = s.Write(ctx, batch) // mostly called by a buffer
//
// # Exactly once
//
// Each batch is one transaction (BEGIN IMMEDIATE), which begins with a row for the ID of
// the batch in a table of its own, the inbox. When that row is there already the batch
// was written, and Write returns nil; what it touches then is the time in the inbox, so
// that a commit with a sync of its own covers what a crash may have left unsynced.
//
// The file is in WAL mode with synchronous=FULL: when Write returns nil the batch survives
// a power cut. Foreign keys are enforced. Target and inbox are in the same file, and not
// in an attached one: with WAL a transaction over two files is not atomic.
//
// Rows of the inbox older than Options.KeepInbox are deleted, now and then. A batch that
// comes again after a longer time is written again: the time must be longer than a writer
// can be away. It is measured by the clock on the wall of this machine.
//
// # Tables
//
// Open makes the inbox and, without Options.Columns, the target, where they are not there:
//
//	CREATE TABLE events (
//	    "offset" INTEGER NOT NULL,
//	    "time"   INTEGER NOT NULL, -- microseconds since 1970, UTC
//	    "key"    BLOB,             -- NULL: a row without a key
//	    "value"  BLOB NOT NULL,
//	    headers  TEXT              -- a JSON object; NULL: a row without headers
//	);
//	CREATE TABLE forebay_inbox (id TEXT PRIMARY KEY, at INTEGER NOT NULL) WITHOUT ROWID; -- at: milliseconds since 1970
//	CREATE INDEX forebay_inbox_at ON forebay_inbox (at);
//
// # At once
//
// One batch is written at a time, by all sinks of all processes: that is SQLite. Who
// writes waits for its turn, and up to Options.Busy for writers of other programs; after
// that the error is SQLITE_BUSY, and the batch is to be written again.
//
// # Errors
//
// *sink.Rejected comes for constraints (also of triggers, by RAISE), mismatches of types
// and values that are too big: see Permanent. It names the row, and comes only after the
// transaction is rolled back. All else is to be tried again: locks, a full disk, a failed
// read or write, a table or column that is not there yet.
package sqlite
