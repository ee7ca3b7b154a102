// Package check looks at a store that nobody has open: it verifies all of it, and
// makes a new store of what can be read of one that Open refuses.
//
// Verify reads every byte that counts and tells everything that does not hold,
// not only the first thing. Salvage reads what Verify reads, passes over what is
// damaged, and writes a store of its own elsewhere. Neither changes a byte of the
// store, nor takes its lock: nobody may write to it meanwhile, and that is the
// caller's business.
//
// # What a salvage does
//
// Every version carries its LSN, so that everything that can be read, from
// whatever level or file, can be merged into one. What a reader at the end of it
// sees is written into new segments of the last level, under a new store id and
// in an epoch far above all that the store had:
//
//	the manifest is intact      its segments, and the log from the replay start on
//	a listed segment is not     also what the log still holds of settled commits
//	... or is not even there    and segments that nobody lists
//	the manifest is not, or is  all segments, and the log from the first commit on
//	older than the files        that no intact segment has
//
// A damaged segment gives the blocks that verify (segment.Survey). A damaged log
// gives its commits up to the first that is missing: the result is then S(n) for
// the highest n that can be had. With BeyondHoles it gives those behind the hole
// too, and the result is the state of no moment.
//
// Items of sequences lie in log files alone, which stay below the floor for them, and
// segments have the index. The frames of a log file are bound to the store's id. So the
// items of the index are appended anew, with the offsets that they had, to a log of the
// new store: sequence by sequence, each read with one pass over the log files that have
// something of it. In place of items whose records cannot be read there is an entry of
// nothing: a read from there says that they are gone, and others do not get their
// offsets. Where segments are lost that had entries, these are made anew from the records.
//
// The order is: segments and log files, durable; then the manifest. After a crash
// before that dst is no store.
//
// # What a salvage cannot know
//
// A key whose newest version is lost shows an older one where there is one. When
// the lost version was a delete, or a range delete, the key is back. Where the
// manifest is gone, a segment that a compaction had replaced and that was not yet
// removed counts too: a key is back if the compaction dropped its tombstone. Each
// Loss says which of that may be. Likewise items are back that were trimmed, if segments,
// or the manifest, are lost and their log files were kept for others: it is better to
// trim again than to miss what nobody had trimmed. And a commit in the log counts as it stands: one
// that was cut off by a truncation which only the lost manifest knew of is back.
package check

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"github.com/forebaydb/forebay/internal/base"
	"github.com/forebaydb/forebay/segment"
	"github.com/forebaydb/forebay/vfs"
	"github.com/forebaydb/forebay/wal"
)

var (
	// ErrNone says that a directory holds no file of a store.
	ErrNone = errors.New("check: no store here")
	// ErrNotEmpty says that the directory for the new store holds something, or
	// lies inside the old one. Nothing was written.
	ErrNotEmpty = errors.New("check: not an empty directory of its own")
)

// Config says what to look at and how. All but FS and Dir may be left zero.
type Config struct {
	FS vfs.FS
	// Dir holds manifest and segments, LogDir the log files; empty: Dir.
	Dir, LogDir string
	// Progress is told how many bytes of how many have been read. It is called
	// often, and not by two goroutines at once.
	Progress func(done, total int64)

	// The rest is for Salvage.

	// BeyondHoles takes the intact commits behind a hole in the log, too.
	BeyondHoles bool
	// Writer configures the new segments.
	Writer segment.WriterOptions
	// MemtableSize is how many bytes of the log's commits are held in memory;
	// default 64 MiB. SegmentSize is how large the new segments become; default a
	// 512th of all, at least 64 MiB.
	MemtableSize, SegmentSize int64
	// Rand gives the store id and salts; default crypto/rand.
	Rand io.Reader
}

func (c *Config) withDefaults() *Config {
	out := *c
	out.Dir = filepath.Clean(out.Dir)
	if out.LogDir == "" {
		out.LogDir = out.Dir
	}
	out.LogDir = filepath.Clean(out.LogDir)
	if out.MemtableSize <= 0 {
		out.MemtableSize = 64 << 20
	}
	if out.Rand == nil {
		out.Rand = rand.Reader
	}
	return &out
}

// Severity says how bad a problem is.
type Severity uint8

const (
	// Damage: something that must be intact is not.
	Damage Severity = iota
	// Warning: something is odd, and nothing is lost by it.
	Warning
)

// String returns the severity's name.
func (s Severity) String() string {
	if s == Warning {
		return "warning"
	}
	return "damage"
}

// Problem is one thing that does not hold.
type Problem struct {
	// File is where, Offset the byte in it, -1 for the whole file.
	File   string
	Offset int64
	// Reason says in words what does not hold; Err is the cause, if there is one.
	Reason   string
	Err      error
	Severity Severity
}

// String returns the problem in one line.
func (p Problem) String() string {
	s := p.Severity.String() + ": " + p.File
	if p.Offset >= 0 {
		s += fmt.Sprintf(" at offset %d", p.Offset)
	}
	s += ": " + p.Reason
	if p.Err != nil {
		s += ": " + p.Err.Error()
	}
	return s
}

// problemOf makes a problem of an error that came while path was read.
func problemOf(path string, err error) Problem {
	if c := (*base.CorruptionError)(nil); errors.As(err, &c) {
		return Problem{File: c.File, Offset: c.Offset, Reason: c.Reason, Err: c.Err}
	}
	return Problem{File: path, Offset: -1, Reason: "cannot be read", Err: err}
}

// Report is what Verify found.
type Report struct {
	// Problems are in the order in which they were found: manifest, segments, log,
	// items of sequences, files that nobody names.
	Problems []Problem
	// Files and Bytes count what was looked at; Segments and Versions what is live
	// and intact; Records those of the log that an open reads.
	Files, Segments   int
	Bytes             int64
	Versions, Records uint64
	// Log is what an open would find; zero when there is no intact manifest.
	Log wal.Recovery
}

// Err returns the first damage as a *base.CorruptionError, nil if there is none.
func (r *Report) Err() error {
	for _, p := range r.Problems {
		if p.Severity == Damage {
			return &base.CorruptionError{File: p.File, Offset: p.Offset, Reason: p.Reason, Err: p.Err}
		}
	}
	return nil
}

// Count returns how many problems of a severity there are.
func (r *Report) Count(s Severity) (n int) {
	for _, p := range r.Problems {
		if p.Severity == s {
			n++
		}
	}
	return n
}
