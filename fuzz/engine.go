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

var levelNames = [...]string{"d", "w", "b"}

// String returns the level's letter in the text of a workload.
func (l Level) String() string { return levelNames[l] }

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
	// Mechanism is 0 for fdatasync, then O_DSYNC, O_DIRECT|O_DSYNC, fsync, O_DIRECT with fdatasync.
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

// Engine opens stores. It is all that an engine under test must have, with the
// Store that it opens; the interfaces below are optional, and what an engine or
// its Store does not have is left out of its workloads.
type Engine interface {
	// Open opens the store on a file system, or makes one. It may be called for
	// many file systems at once.
	Open(fsys vfs.FS, s Settings) (Store, error)
}

// Store is an open store.
type Store interface {
	// Apply commits a batch, at least one operation, whole or not at all, and
	// returns when it has reached its level. lsn is the number of the commit
	// where the Store is Numbered, and else not looked at. The keyspaces of the
	// operations are there, else the error is ErrNoSpace and nothing happens. When
	// others commit at the same time, the first operation is a put of a key that
	// nobody else writes. The bytes of the operations must not be changed; they
	// stay as they are.
	Apply(ops []Op, l Level) (lsn uint64, err error)
	// Scan calls each for every keyspace but 0, with a nil key, and then for every
	// pair in it: keyspaces ascending, and the keys of each. The bytes are valid
	// during the call. What it shows is one state.
	Scan(each func(space int, key, value []byte)) error
	// Close closes the store; all that was committed is durable then.
	Close() error
}

// Able is an Engine that says what it can do. One that does not gets commits of
// one put or delete, all of them Durable, by one writer.
type Able interface{ Abilities() Abilities }

// Abilities are what an engine can do beyond puts and deletes.
type Abilities struct {
	// Batches of several operations are atomic.
	Batches bool
	// Ranges can be deleted.
	Ranges bool
	// Levels below Durable differ from it.
	Levels bool
	// Writers may be many. The Store is Numbered.
	Writers bool
	// Settings are heeded: without it all workloads have the same.
	Settings bool
}

// Auditor is an Engine that knows which files belong to a store.
type Auditor interface {
	// Audit says what is on the disk that the open store does not own, or what
	// it owns and is not there.
	Audit(fsys vfs.FS, s Store) error
}

// Numbered is a Store that numbers its commits: 1, 2, 3 …, in the order in which
// they happen. Without numbers the explorer finds out by what a store shows which
// commits are there. Both methods may be called inside an I/O of the store.
type Numbered interface {
	// Last is the last number assigned.
	Last() uint64
	// DurableLSN is the one through which all is durable.
	DurableLSN() uint64
}

// Getter is a Store that finds one key.
type Getter interface {
	// Get returns the value of a key; in a keyspace that is not there are none.
	Get(space int, key []byte) (value []byte, ok bool, err error)
}

// ReverseScanner is a Store that can be scanned the other way around: as Scan,
// keyspaces and keys descending, each keyspace after its pairs.
type ReverseScanner interface {
	ScanReverse(each func(space int, key, value []byte)) error
}

// Syncer is a Store with a call that makes durable all that was committed.
type Syncer interface{ Sync() error }

// Checkpointer is a Store with a call that moves all that was committed out of
// its log, and makes it durable.
type Checkpointer interface{ Checkpoint() error }

// Compacter is a Store with a call that does what Checkpointer does and then
// merges all that can be merged.
type Compacter interface{ Compact() error }

// Counter is a Compacter that counts its compactions since the open, those that
// nobody asked for included.
type Counter interface{ Compactions() int64 }

// Submitter is a Store that orders a commit without waiting for its level; wait
// does.
type Submitter interface {
	Submit(ops []Op, l Level) (wait func() (lsn uint64, err error), err error)
}

// Updater is a Store with transactions.
type Updater interface {
	// Update commits the operations as a transaction that first reads the keys
	// that it puts or deletes. It makes keyspaces that are not there. seen is what
	// it read, and may be nil: see Seen.
	Update(ops []Op, l Level) (lsn uint64, seen map[string]string, err error)
}

// Spacer is a Store with keyspaces beside the first.
type Spacer interface {
	// Create makes a keyspace, and Drop removes one, that nobody else makes at
	// the same time; they are commits at Settings.Level. The LSN of a Drop is
	// right when nobody commits at the same time.
	Create(space int) (lsn uint64, err error)
	Drop(space int) (lsn uint64, err error)
	// Spaces lists the keyspaces, ascending.
	Spaces() ([]int, error)
}

// BackupMaker is a Store that can copy itself.
type BackupMaker interface {
	// Backup makes a store in a new directory that holds all that was committed
	// before. It returns the LSN of the last commit that it holds.
	Backup(dir string) (lsn uint64, err error)
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
