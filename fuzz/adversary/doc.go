// Package adversary is tests alone: stores that somebody made to do harm. They
// are whole directories (log, manifest, segments, backup), changed wherever a
// field can be changed and sealed again, so that every checksum is right and what
// lies behind it is reached. Each is opened in every way that a user has: Open,
// for reading and for writing, Explain, changes, package check's Verify and
// Salvage, and a log alone by package wal.
//
// Whatever a directory holds: nothing panics; no call reads or allocates more
// than a multiple of the directory's size and a constant (judge_test.go has both
// numbers); no name is touched that is none of a store's; an error is of a type
// that says what to do; and where an open fails no file has changed.
package adversary
