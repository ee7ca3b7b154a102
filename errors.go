package forebay

import (
	"errors"

	"github.com/forebaydb/forebay/commit"
	"github.com/forebaydb/forebay/internal/base"
	"github.com/forebaydb/forebay/internal/batch"
	"github.com/forebaydb/forebay/manifest"
	"github.com/forebaydb/forebay/vfs"
	"github.com/forebaydb/forebay/wal"
)

// Errors. They come wrapped: compare with errors.Is. After ErrUnknown a write
// may be in the store, whole and in order, or not; after every other error of a
// write it certainly is not.
var (
	// ErrNotFound: the key is not in the store.
	ErrNotFound = errors.New("forebay: not found")
	// ErrClosed: the store was closed.
	ErrClosed = errors.New("forebay: store is closed")
	// ErrReadOnly: the store was opened for reading only.
	ErrReadOnly = errors.New("forebay: store is open for reading only")
	// ErrNoKeyspace: there is no keyspace with the name.
	ErrNoKeyspace = errors.New("forebay: no such keyspace")
	// ErrKeyspaceDropped: the keyspace of this handle was dropped.
	ErrKeyspaceDropped = errors.New("forebay: keyspace was dropped")
	// ErrConflict: what a transaction read was written by others. Update tries
	// again by itself.
	ErrConflict = commit.ErrConflict
	// ErrNested: a write by itself, or a transaction, inside of a transaction that
	// runs alone: it would wait for itself.
	ErrNested = errors.New("forebay: a write inside of a transaction that others wait for")
	// ErrTxDone: the transaction's function has returned.
	ErrTxDone = errors.New("forebay: transaction is over")
	// ErrDiverged: a Position is of a history that was cut off.
	ErrDiverged = wal.ErrDiverged
	// ErrLocked: another open holds the directory, in this process or another.
	ErrLocked = vfs.ErrLocked
	// ErrFull: the log may not grow (Options.MaxLogBytes, or the disk is full), or
	// settling has failed for so long that memory is full. Reads go on; writes go
	// on once there is room.
	ErrFull = wal.ErrFull
	// ErrPoisoned: an earlier write or sync failed. Reads go on, writes need a
	// reopen. The cause is wrapped beside it.
	ErrPoisoned = wal.ErrPoisoned
	// ErrUnknown: a write or a sync failed under this very call.
	ErrUnknown = wal.ErrUnknown
	// ErrEmptyKey: a key of no bytes.
	ErrEmptyKey = batch.ErrEmptyKey
)

// CorruptionError says where stored bytes are damaged. Nothing is served from
// there, and no file was changed.
type CorruptionError = base.CorruptionError

// CompactedError says that the log does not hold what is behind a Position any
// more, and what is the oldest that it holds.
type CompactedError = wal.CompactedError

// LimitError says that a key, a value or a batch is above its limit; the write
// was not applied.
type LimitError = batch.LimitError

// Limits, in bytes. The same numbers hold when a log is replayed.
const (
	MaxKeySize   = base.MaxUserKey
	MaxValueSize = base.MaxValueSize
	// MaxBatchSize is the longest encoded batch.
	MaxBatchSize = base.MaxRecordSize
)

// public turns an error of a room below into one of this package.
func public(err error) error {
	if errors.Is(err, wal.ErrClosed) || errors.Is(err, manifest.ErrClosed) {
		return ErrClosed
	}
	return err
}
