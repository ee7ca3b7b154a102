// Package clickhouse is a sink.Sink for a table of ClickHouse, over its HTTP interface.
//
//	s, err := clickhouse.New(clickhouse.Options{URL: "http://localhost:8123", Table: "events"})
//	err = s.Write(ctx, batch) // mostly called by a buffer
//
// # Exactly once, as long as the table remembers
//
// Each batch is one INSERT whose insert_deduplication_token is the ID of the batch. A
// table that deduplicates takes a token once, and answers yes to every later INSERT with
// it. Tables of the Replicated family do so by themselves; a MergeTree does it with the
// setting non_replicated_deduplication_window. They remember a number of last INSERTs, and
// replicated ones for a limited time (replicated_deduplication_window and …_window_seconds):
// what comes again after that is written again, and both must be larger than what is
// written while a writer is away. Without deduplication in the table it is at least once;
// then use an engine whose rows replace each other, as ReplacingMergeTree.
//
// Write returns nil when the server has answered that the INSERT is done. Whether it is on
// a disk then, and on how many replicas, are settings of the server (fsync_after_insert,
// insert_quorum): Options.Settings takes them.
//
// # Tables
//
// Without Options.Encode a row is five columns:
//
//	CREATE TABLE events (
//	    offset  UInt64,
//	    time    DateTime64(6, 'UTC'), -- whole microseconds: the rest is cut off
//	    key     String,
//	    value   String,
//	    headers Map(String, String)
//	) ENGINE = MergeTree ORDER BY offset
//	SETTINGS non_replicated_deduplication_window = 10000;
//
// They are written in the format RowBinaryWithNamesAndTypes: a server whose columns have
// other types refuses them, and the batch waits for who mends the table. A batch is one block, so that all of it is there or nothing, if it has at
// most a million rows and all of its rows are in one partition of the table. ClickHouse
// sets partitions of an INSERT down one after the other: where a batch spreads over some,
// a crash may leave a part until the batch comes again, and each row is there once then.
//
// ClickHouse wants few and large INSERTs, about one a second: tens of thousands of rows a
// batch are right.
//
// # Errors
//
// An answer is yes when its status is 200, its body is empty to its end, and ClickHouse
// has put its headers on it. A server may find an error when it has sent status 200
// already; then the exception is in the body. Redirects are not followed.
//
// *sink.Rejected comes for exceptions that are of a row and stay: see Permanent. They come
// of reading and checking the rows, before anything of the block is written; but where a
// materialized view fails, which comes behind that, the rows of the table may be there:
// set Options.Permanent when views can fail by rows. It also comes when somebody
// on the way finds the batch too large (413), or it has more rows than a block: written in
// pieces it may go. *sink.Later comes where the answer has Retry-After. All else is to be
// tried again: connections,
// overload (too many parts, memory, queries), read-only replicas, and unknown tables and
// columns, which a migration mends.
package clickhouse
