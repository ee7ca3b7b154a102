package fuzz

import (
	"io"
	"time"

	"github.com/forebaydb/forebay/vfs"
)

// Level says what an acknowledged commit survives.
type Level uint8

// Levels, strongest first.
const (
	Durable  Level = iota // a power cut
	Written               // a crash of the process
	Buffered              // nothing
)

// String returns the level's letter in the description of a workload.
func (l Level) String() string { return [...]string{"d", "w", "b"}[l] }

// Op is one operation of a batch.
type Op struct {
	Key, Value []byte
	Delete     bool
}

// Policy says when an engine syncs beside what Durable commits ask for.
type Policy uint8

// Policies.
const (
	Group Policy = iota
	Each
	Never
	EveryBytes    // after 2 KiB
	EveryInterval // after 2 ms
)

// Settings are what a workload sets in an engine. Zero fields mean small
// defaults.
type Settings struct {
	// Align is the alignment of log writes, 0 or 4096.
	Align int64
	// FileSize of log files and TableSize of memtables, in bytes.
	FileSize, TableSize int64
	// MarkDelay is how long the log is idle before it is marked; negative: never.
	MarkDelay time.Duration
	Policy    Policy
	// Compression is 0 for the default, then none, S2, zstd.
	Compression uint8
	// Mechanism is 0 for fdatasync, then O_DSYNC, O_DIRECT|O_DSYNC.
	Mechanism uint8
	// LogDir puts the log into a directory of its own.
	LogDir bool
	// Rand gives ids and salts.
	Rand io.Reader
}

// Engine opens stores.
type Engine interface {
	// Open opens the store on a file system, or makes one.
	Open(fsys vfs.FS, s Settings) (Store, error)
	// Audit says what is on the disk that the open store does not own, or what
	// it owns and is not there.
	Audit(fsys vfs.FS, s Store) error
}

// Store is an open store. All methods may be called at once from many
// goroutines.
type Store interface {
	// Apply commits a batch, at least one operation, and returns its LSN when
	// it has reached its level. When others commit at the same time, the first
	// operation is a put of a key that nobody else writes.
	Apply(ops []Op, l Level) (lsn uint64, err error)
	// Submit orders a commit and does not wait for its level; wait does.
	Submit(ops []Op, l Level) (wait func() (lsn uint64, err error), err error)
	// Sync makes all that was committed durable.
	Sync() error
	// Checkpoint moves all that was committed out of the log.
	Checkpoint() error
	// Scan calls each for every pair, ascending or descending. The bytes are
	// valid during the call.
	Scan(reverse bool, each func(key, value []byte)) error
	// Get returns the value of a key.
	Get(key []byte) (value []byte, ok bool, err error)
	// Last is the last LSN assigned, DurableLSN the one through which all is
	// durable. Both may be called inside an I/O of the store.
	Last() uint64
	DurableLSN() uint64
	Close() error
}
