// Package postgres is a sink.Sink for a table of PostgreSQL.
//
//	pool, err := pgxpool.New(ctx, "postgres:///shop")
//	s, err := postgres.New(pool, postgres.Options{Table: pgx.Identifier{"events"}})
//	err = s.EnsureSchema(ctx) // or the statements below, by a migration
//	err = s.Write(ctx, batch) // mostly called by a buffer
//
// # Exactly once
//
// Each batch is one transaction, which begins with a row for the ID of the batch in a
// table of its own, the inbox. Who writes the same batch at the same time waits there for
// the end of the first; when the row is there the batch was written, and Write returns
// nil without an effect. So the reply of a COMMIT may be lost as often as it likes.
//
// Rows of the inbox older than Options.KeepInbox are deleted, by the writer, now and then.
// A batch that comes again after a longer time is written again: the time must be longer
// than a writer can be away. It is measured by the clock of the server.
//
// Write returns nil when the commit is durable on the server: where synchronous_commit is
// off for the session, it is on for the transaction. Other values of it ("local",
// "remote_apply") stay. A server with fsync=off promises nothing.
//
// # Tables
//
// Without Options.Columns a row is five columns, in a table that EnsureSchema makes:
//
//	CREATE TABLE events (
//	    "offset" bigint NOT NULL,
//	    "time"   timestamptz NOT NULL, -- whole microseconds: the rest is cut off
//	    "key"    bytea,                -- NULL: a row without a key
//	    "value"  bytea NOT NULL,
//	    headers  jsonb                 -- NULL: a row without headers
//	);
//	CREATE TABLE forebay_inbox (
//	    id bytea PRIMARY KEY,          -- convert_from(id, 'UTF8') shows it
//	    at timestamptz NOT NULL DEFAULT clock_timestamp()
//	);
//	CREATE INDEX ON forebay_inbox (at);
//
// The sink needs the privileges INSERT, SELECT and, to prune, DELETE on the inbox, INSERT
// and SELECT on the target (UPDATE with ConflictUpdate), and TEMPORARY on the database for
// COPY with Conflict.
//
// With Columns and Map it is what the caller makes of it. The types of the columns are
// asked of the server in each transaction, so a migration may change them meanwhile.
// Values are of Go types that pgx can encode in the binary format of the column's type,
// or strings; types that pgx does not know (of extensions) are registered by the pool's AfterConnect.
//
// # Ways to write
//
// Options.Mode has COPY (the default), arrays with unnest, INSERT with many VALUES, and
// one INSERT a row, which is there to be compared with. BenchmarkModes measures them.
// With Options.Conflict rows whose key is there already are left out or update; COPY then
// goes through a temporary table, one a session, whose rows go with the transaction.
// Where a batch has a key more than once, the last row has it.
//
// # Errors
//
// *sink.Rejected comes for errors that are of a row and stay: see Permanent. It comes only
// after the server has said that the transaction is rolled back. All else (connections,
// serialization, deadlocks, a full disk, shutdown) is to be tried again. So are all errors
// of class 42, as an undefined table or column, or a missing privilege: they are of the
// statement and not of a row, a migration mends them, and rows that were refused for them
// would all be dead letters.
package postgres
