package fuzz

import (
	"errors"
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

// OpKind says what an operation does.
type OpKind uint8

// Kinds of operations.
const (
	Put OpKind = iota
	Delete
	// DeleteRange removes the keys in [Key, Value), with what the batch did to
	// them before. nil bounds are open.
	DeleteRange
	// Create makes the keyspace, Drop removes it with all that is in it. In a
	// history they are operations like the others; a Store is told of them by
	// calls of their own.
	Create
	Drop
)

// Op is one operation of a batch.
type Op struct {
	Kind OpKind
	// Space is the keyspace: 0 is the one that is always there, the others have
	// a number for a name.
	Space      int
	Key, Value []byte
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
	// Level is that of commits that are not told one: Create and Drop.
	Level Level
	// Dir is the directory of the store; "" is the engine's choice.
	Dir string
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
	// it has reached its level. Its keyspaces are there, else the error is
	// ErrNoSpace and nothing happens. When others commit at the same time, the
	// first operation is a put of a key that nobody else writes.
	Apply(ops []Op, l Level) (lsn uint64, err error)
	// Submit orders a commit and does not wait for its level; wait does.
	Submit(ops []Op, l Level) (wait func() (lsn uint64, err error), err error)
	// Update commits the operations as a transaction that first reads the keys
	// that it puts or deletes. It makes keyspaces that are not there. seen is what
	// it read, and may be nil: see Seen.
	Update(ops []Op, l Level) (lsn uint64, seen map[string]string, err error)
	// Create makes a keyspace, and Drop removes one, that nobody else makes at
	// the same time; they are commits at Settings.Level. The LSN of a Drop is
	// right when nobody commits at the same time.
	Create(space int) (lsn uint64, err error)
	Drop(space int) (lsn uint64, err error)
	// Spaces lists the keyspaces, ascending.
	Spaces() ([]int, error)
	// Sync makes all that was committed durable.
	Sync() error
	// Checkpoint moves all that was committed out of the log.
	Checkpoint() error
	// Compact is Checkpoint, and then merges all that can be merged.
	Compact() error
	// Compactions is how many there were since the open.
	Compactions() int64
	// Backup makes a store in a new directory that holds all that was committed
	// before. It returns the LSN of the last commit that it holds.
	Backup(dir string) (lsn uint64, err error)
	// Scan calls each for every keyspace but 0, with a nil key, and then for every
	// pair in it: keyspaces ascending, and the keys of each; or all descending. The
	// bytes are valid during the call. What it shows is one state when it ascends.
	Scan(reverse bool, each func(space int, key, value []byte)) error
	// Get returns the value of a key; in a keyspace that is not there are none.
	Get(space int, key []byte) (value []byte, ok bool, err error)
	// Last is the last LSN assigned, DurableLSN the one through which all is
	// durable. Both may be called inside an I/O of the store.
	Last() uint64
	DurableLSN() uint64
	Close() error
}

// Seen notes in m what a transaction read of a key: ok says whether it was there.
func Seen(m map[string]string, space int, key, value []byte, ok bool) {
	if ok {
		m[keyName(space, key)] = "=" + string(value)
	} else {
		m[keyName(space, key)] = ""
	}
}

// ErrNoSpace says that a keyspace is not there.
var ErrNoSpace = errors.New("no such keyspace")
