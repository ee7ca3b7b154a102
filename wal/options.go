package wal

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/forebaydb/forebay/internal/base"
	"github.com/forebaydb/forebay/vfs"
	"github.com/forebaydb/forebay/wal/frame"
)

// LSN is a log sequence number; the first record of a log has LSN 1.
type LSN = base.LSN

// CorruptionError says where stored bytes are damaged.
type CorruptionError = base.CorruptionError

// MaxRecordSize is the longest record in bytes.
const MaxRecordSize = base.MaxRecordSize

// Errors of this package. They come wrapped: compare with errors.Is.
var (
	// ErrClosed: the log was closed. The call did nothing.
	ErrClosed = errors.New("wal: log is closed")
	// ErrFull: the log may not take more bytes (Options.MaxBytes), or the disk has
	// no room for its next file. The call did nothing; it may succeed once files
	// were released.
	ErrFull = errors.New("wal: log is full")
	// ErrPoisoned: an earlier write or sync failed. Nothing more is accepted
	// until the log is opened again; the cause is wrapped beside it.
	ErrPoisoned = errors.New("wal: log is poisoned by an earlier error")
	// ErrUnknown: a write or sync failed under this very call. Its records may
	// be in the log, whole and in order, or not; the next open tells.
	ErrUnknown = errors.New("wal: outcome unknown")
	// ErrTooLarge: a record is longer than MaxRecordSize. The call did nothing.
	ErrTooLarge = errors.New("wal: record too large")
	// ErrDiverged: a Position is of a history that was cut off.
	ErrDiverged = errors.New("wal: position is of another history")
	// ErrRange: a truncation point is outside of what the log holds.
	ErrRange = errors.New("wal: LSN out of range")
)

// CompactedError says that a position lies below what the log still holds.
type CompactedError struct {
	// Oldest is the lowest LSN that can be read on to the end.
	Oldest LSN
}

// Error implements error.
func (e *CompactedError) Error() string {
	return fmt.Sprintf("wal: position was compacted away; the oldest LSN is %d", e.Oldest)
}

// Level says what an acknowledged record survives.
type Level uint8

const (
	// Durable survives a crash of the machine: the record was synced.
	Durable Level = iota
	// Written survives a crash of the process: the bytes are with the
	// operating system.
	Written
	// Buffered survives nothing: the bytes are in the memory of the process.
	Buffered
)

// String returns the level's name.
func (l Level) String() string {
	switch l {
	case Durable:
		return "durable"
	case Written:
		return "written"
	case Buffered:
		return "buffered"
	}
	return fmt.Sprintf("level(%d)", uint8(l))
}

// PolicyKind names when the log syncs of its own accord.
type PolicyKind uint8

const (
	policyGroup PolicyKind = iota
	policyEach
	policyInterval
	policyBytes
	policyNever
)

// Policy says when the log syncs beside what Durable records ask for. The zero
// Policy is SyncGroup.
type Policy struct {
	kind     PolicyKind
	interval time.Duration
	bytes    int64
}

var (
	// SyncGroup syncs for Durable records, all that wait together sharing one
	// sync, and when a file is full.
	SyncGroup = Policy{}
	// SyncEach gives each Durable record a write and a sync of its own.
	SyncEach = Policy{kind: policyEach}
	// SyncNever never syncs of its own accord, not even when a file is full.
	SyncNever = Policy{kind: policyNever}
)

// SyncInterval syncs what is unsynced at most d after it was written.
func SyncInterval(d time.Duration) Policy { return Policy{kind: policyInterval, interval: d} }

// SyncBytes syncs when n unsynced bytes have been written.
func SyncBytes(n int64) Policy { return Policy{kind: policyBytes, bytes: n} }

// String returns the policy as it is named in figures.
func (p Policy) String() string {
	switch p.kind {
	case policyEach:
		return "each"
	case policyInterval:
		return "interval " + p.interval.String()
	case policyBytes:
		return fmt.Sprintf("bytes %d", p.bytes)
	case policyNever:
		return "never"
	}
	return "group"
}

// Mechanism is how a durable group reaches the disk.
type Mechanism uint8

const (
	// Fdatasync writes and then calls fdatasync.
	Fdatasync Mechanism = iota
	// DSync writes through a handle opened with O_DSYNC, one call a group.
	DSync
	// DirectDSync writes with O_DIRECT|O_DSYNC in blocks of 4096 bytes; it
	// needs Options.Align = 4096.
	DirectDSync
	// Fsync writes and then calls fsync, which also makes durable what Fdatasync
	// may leave out: the times of the file. It promises no more, and is for
	// comparison.
	Fsync
	// Direct writes with O_DIRECT in blocks of 4096 bytes and then calls fdatasync; it
	// needs Options.Align = 4096.
	Direct
)

// blocks says that the mechanism writes whole blocks.
func (m Mechanism) blocks() bool { return m == DirectDSync || m == Direct }

// String returns the mechanism's name.
func (m Mechanism) String() string {
	switch m {
	case DSync:
		return "O_DSYNC"
	case DirectDSync:
		return "O_DIRECT|O_DSYNC"
	case Fsync:
		return "fsync"
	case Direct:
		return "O_DIRECT, fdatasync"
	}
	return "fdatasync"
}

// Codec says how frames are compressed.
type Codec = frame.Codec

// Compression of frames.
const (
	NoCompression = frame.CodecNone
	S2            = frame.CodecS2
	Zstd          = frame.CodecZstd
)

// Applier is told of every request, by one goroutine at a time and in LSN
// order. The engine's commit pipeline is one; a log that is used alone has none.
type Applier interface {
	// Admit is asked in order, with r.First the LSN that r would get. An error
	// refuses r alone: it is what r's Commit or Wait returns, r gets no LSN, and
	// nothing of it is written; those behind r get r's place. A request that was
	// admitted gets its LSN, or the log is poisoned. Requests without records
	// are asked only when they have an Owner.
	Admit(r *Request) error
	// Assign is called when the LSNs of reqs are known and before their
	// records are copied: it may change the records' bytes.
	Assign(reqs []*Request)
	// Apply is called once the records have been given to the file (or to the
	// buffer), perhaps while their sync runs. last is the last LSN so far.
	Apply(reqs []*Request, last LSN)
	// Publish is called when all requests up to last have reached their level.
	Publish(last LSN)
}

// ArchiveFile names a closed log file for the archive hook.
type ArchiveFile struct {
	// Path may be read until the hook returns; the file does not change.
	Path         string
	Number, Salt uint64
	First, Last  LSN
	// Hash is the closing hash of the frame that holds Last.
	Hash uint64
}

// Options configure a log. A nil pointer and zero fields mean the defaults.
type Options struct {
	// FS is the file system; nil: the operating system.
	FS vfs.FS
	// Catalog says which files exist; nil: a file of the log's own.
	Catalog Catalog
	// Policy says when to sync beside Durable records.
	Policy Policy
	// Mechanism is how durable groups are written. Default Fdatasync.
	Mechanism Mechanism
	// Align is the alignment of groups in bytes: 0 (none) or 4096. With 4096
	// no block that holds synced bytes is ever written again.
	Align int64
	// Compression of frames; default none.
	Compression Codec
	// FileSize is the size in bytes to which log files grow; default 64 MiB.
	FileSize int64
	// FirstFileSize is the size in bytes of the first file of an open; each
	// next one is four times as large, up to FileSize. Default 64 KiB.
	FirstFileSize int64
	// MaxBytes bounds the size in bytes of all log files together, spares and
	// retained files included, but for those that are retained for keep-counts; 0: no
	// bound.
	MaxBytes int64
	// NoSpares makes each file when it is needed, not one ahead in the
	// background.
	NoSpares bool
	// NoZeros makes no room in files beforehand, and uses no file again: files grow
	// as they are written, and each sync has to make a new size durable, too; a disk
	// that is full poisons the log where otherwise there is ErrFull. Without it a
	// file is given its room (fallocate) where syncs are far from each other, and
	// filled with zeros where they are near, as a sync is quicker then.
	NoZeros bool
	// MapFrom is how many bytes of a file must be unsynced before small writes of
	// Written records go into mapped memory, without a system call. It needs a file
	// system with vfs.Mapper, files with room, Align 0, and the mechanism
	// Fdatasync. Default 2 MiB; negative: never. A sync may then write up to 4 MiB
	// more than what was changed.
	MapFrom int64
	// MarkDelay is how long the log must be idle before a mark is written, so
	// that damage to the last group is not taken for a torn tail. Default
	// 100 ms; negative: marks are written on Close alone.
	MarkDelay time.Duration
	// Hold is the time for which a leader waits for the writers of the group before
	// to come back. While they come fast it is as long as a sync takes, at most.
	// Default 100 µs; negative: never.
	Hold time.Duration
	// Archive is called once or more for each closed file, in the background;
	// a file stays until its call has returned nil. ctx ends at Close.
	Archive func(ctx context.Context, f ArchiveFile) error
	// OnSlowSync is told of a sync of records that hangs: once it has taken
	// SlowSync and still runs, with done false, and again when it has ended, with
	// done true and the whole time. The two calls come one after the other from a
	// goroutine of their own that holds no lock and that nothing waits for.
	// Whether the sync failed Log.Err tells.
	OnSlowSync func(took time.Duration, done bool)
	// SlowSync is how long a sync may take; default 1 s.
	SlowSync time.Duration
	// Applier is told of every request; see Applier.
	Applier Applier
	// Proven is the highest LSN of which something else proves that it was
	// durable: the engine's last checkpoint.
	Proven LSN
	// OnRecord is called for each record above the floor while the log opens,
	// in LSN order. rec is valid during the call; an error ends the open.
	OnRecord func(lsn LSN, keep uint64, rec []byte) error
	// OnSize is called once while the log opens, before OnRecord is: at least so
	// many bytes of log files hold the records above the floor.
	OnSize func(bytes int64)
	// BeforeChange is called once an open has found the log in order and before
	// it changes anything; an error ends the open. The owner of a Catalog makes
	// durable there what its catalog says: nothing that is damaged was changed.
	BeforeChange func() error
	// Rand gives store ids and salts; nil: crypto/rand.
	Rand io.Reader
}

func (o *Options) withDefaults() (Options, error) {
	var out Options
	if o != nil {
		out = *o
	}
	if out.FS == nil {
		out.FS = vfs.OS()
	}
	if out.Rand == nil {
		out.Rand = randReader
	}
	switch out.Align {
	case 0:
		out.Align = frame.FrameAlign
	case frame.FrameAlign, frame.BlockAlign:
	default:
		return out, fmt.Errorf("wal: Options.Align is %d; it may be 0 or %d", out.Align, frame.BlockAlign)
	}
	if out.Mechanism.blocks() && out.Align != frame.BlockAlign {
		return out, fmt.Errorf("wal: %s needs Options.Align = %d", out.Mechanism, frame.BlockAlign)
	}
	if out.FileSize == 0 {
		out.FileSize = 64 << 20
	}
	if out.FirstFileSize == 0 {
		out.FirstFileSize = 64 << 10
	}
	out.FirstFileSize = min(out.FirstFileSize, out.FileSize)
	if out.FileSize < minFileSize || out.FirstFileSize < minFileSize {
		return out, fmt.Errorf("wal: file sizes must be at least %d bytes", minFileSize)
	}
	if out.Align == frame.BlockAlign {
		// Header, index and marks take a block each.
		out.FileSize, out.FirstFileSize = max(out.FileSize, 2*minFileSize), max(out.FirstFileSize, 2*minFileSize)
	}
	out.FileSize &^= frame.BlockAlign - 1
	out.FirstFileSize = min(out.FirstFileSize&^(frame.BlockAlign-1), out.FileSize)
	if out.MapFrom == 0 {
		out.MapFrom = windowFrom
	}
	if out.MarkDelay == 0 {
		out.MarkDelay = 100 * time.Millisecond
	}
	if out.Hold == 0 {
		out.Hold = 100 * time.Microsecond
	}
	if out.SlowSync <= 0 {
		out.SlowSync = time.Second
	}
	if out.Policy.kind == policyInterval && out.Policy.interval <= 0 || out.Policy.kind == policyBytes && out.Policy.bytes <= 0 {
		return out, fmt.Errorf("wal: sync policy %q needs a positive bound", out.Policy)
	}
	return out, nil
}

const minFileSize = 16 << 10
