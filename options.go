package forebay

import (
	"crypto/rand"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/forebaydb/forebay/recovery"
	"github.com/forebaydb/forebay/segment"
	"github.com/forebaydb/forebay/vfs"
	"github.com/forebaydb/forebay/wal"
)

// Level says what an acknowledged write survives.
type Level = wal.Level

const (
	// Durable survives a crash of the machine and a power cut. It costs a share
	// of one sync.
	Durable = wal.Durable
	// Written survives a crash of the process: the bytes are with the operating
	// system. It costs a share of one write.
	Written = wal.Written
	// Buffered survives nothing. It costs no system call.
	Buffered = wal.Buffered
)

// SyncPolicy says when the log syncs beside what Durable commits ask for.
type SyncPolicy = wal.Policy

var (
	// SyncGroup, the default: all Durable commits that wait together share one
	// sync, and nothing more.
	SyncGroup = wal.SyncGroup
	// SyncEach gives each Durable commit a sync of its own.
	SyncEach = wal.SyncEach
	// SyncNever never syncs of its own accord.
	SyncNever = wal.SyncNever
)

// SyncInterval also syncs what is unsynced at most d after it was written.
func SyncInterval(d time.Duration) SyncPolicy { return wal.SyncInterval(d) }

// SyncBytes also syncs when n unsynced bytes have been written.
func SyncBytes(n int64) SyncPolicy { return wal.SyncBytes(n) }

// Mechanism is how a durable group reaches the disk.
type Mechanism = wal.Mechanism

// Mechanisms; see package wal.
const (
	Fdatasync   = wal.Fdatasync
	DSync       = wal.DSync
	DirectDSync = wal.DirectDSync
	Fsync       = wal.Fsync
	Direct      = wal.Direct
)

// Compression of the log's frames and of the segments' blocks.
type Compression uint8

const (
	// DefaultCompression leaves log frames as they are and packs segments with
	// S2.
	DefaultCompression Compression = iota
	// NoCompression packs nothing.
	NoCompression
	// S2 packs both with S2.
	S2
	// Zstd packs both with Zstandard.
	Zstd
)

// Options configure a store. A nil pointer is valid, zero fields mean the
// defaults, and Open changes nothing in it.
type Options struct {
	// FS is the file system; nil: the operating system.
	FS vfs.FS
	// LogDir holds the log files; "": the store's own directory. The store does
	// not remember it: each open names it.
	LogDir string
	// DefaultLevel is the level of Put, Delete, DeleteRange and Update, and of
	// making and dropping keyspaces; the zero Level is Durable.
	DefaultLevel Level
	// Sync says when the log syncs beside Durable commits.
	Sync SyncPolicy
	// Mechanism is how durable groups are written; default Fdatasync.
	Mechanism Mechanism
	// LogAlign 4096 writes no block of the log twice once it holds synced
	// bytes, and so does without the third assumption about the disk in
	// docs/durability.md. 0: groups follow each other directly.
	LogAlign int64
	// LogFileSize is the size in bytes to which log files grow; default 64 MiB,
	// at least 16 KiB. The first file of an open has 64 KiB, or this if smaller.
	LogFileSize int64
	// MaxLogBytes bounds all log files together, in bytes, spares and what pins
	// hold among them, but not what sequences hold once it is settled; 0: no bound. What would go beyond it is refused with ErrFull.
	MaxLogBytes int64
	// SettleShare is the share of a log file, which sequences alone keep, that must be
	// live for it to stay: when less is, that is written to segments and the file goes.
	// Default 1/8; at most 1; negative: a file stays for one item.
	SettleShare float64
	// MemoryLimit bounds memtables, block cache, and the indexes of segments
	// together, in bytes; default 256 MiB. The cache has what the others leave, a
	// memtable that is not full among them, and an eighth at least. What a group of
	// commits holds, and what the garbage collector leaves lying for a while, come on
	// top. On Linux memtables and cached blocks lie outside of Go's heap: GOMEMLIMIT does
	// not see them.
	MemoryLimit int64
	// MemtableSize is the size in bytes at which a memtable is frozen and
	// settled into a segment; default a quarter of MemoryLimit, at most 64 MiB.
	// Up to three of them are in memory. An open settles a log that is larger than one.
	MemtableSize int64
	// Compression of log and segments.
	Compression Compression
	// ReadOnly opens a store that exists and changes nothing on disk; see Open.
	ReadOnly bool
	// OnEvent is called for what happens in the background, one call at a time; see
	// EventKind. It runs in a goroutine of its own and may call the store.
	OnEvent func(Event)
	// SlowSync is how long a sync of the log may take before it is told as an
	// event; default 1 s.
	SlowSync time.Duration
	// Logger is told of what happens in the background; nil: nobody.
	Logger *slog.Logger
	// MarkDelay is how long the log must be idle before a mark proves its last
	// group; default 100 ms, negative: on Close alone.
	MarkDelay time.Duration
	// Rand gives store ids and salts; nil: crypto/rand. It is for tests that
	// must repeat.
	Rand io.Reader
}

const defaultMemory = 256 << 20

func (o *Options) withDefaults() (Options, error) {
	var out Options
	if o != nil {
		out = *o
	}
	if out.FS == nil {
		out.FS = vfs.OS()
	}
	if out.Logger == nil {
		out.Logger = slog.New(slog.DiscardHandler)
	}
	if out.MemoryLimit == 0 {
		out.MemoryLimit = defaultMemory
	}
	if out.MemoryLimit < 1<<20 {
		return out, fmt.Errorf("forebay: Options.MemoryLimit is %d bytes; it must be at least 1 MiB", out.MemoryLimit)
	}
	if out.MemtableSize == 0 {
		out.MemtableSize = min(out.MemoryLimit/4, 64<<20)
	}
	if out.SettleShare == 0 || out.SettleShare != out.SettleShare { // not a number
		out.SettleShare = 1. / 8
	}
	out.SettleShare = min(out.SettleShare, 1)
	if out.MemtableSize < 4<<10 {
		return out, fmt.Errorf("forebay: Options.MemtableSize is %d bytes; it must be at least 4 KiB", out.MemtableSize)
	}
	if out.Rand == nil {
		out.Rand = rand.Reader
	}
	if out.DefaultLevel > Buffered {
		return out, fmt.Errorf("forebay: Options.DefaultLevel %d is unknown", out.DefaultLevel)
	}
	if out.Compression > Zstd {
		return out, fmt.Errorf("forebay: Options.Compression %d is unknown", out.Compression)
	}
	return out, nil
}

// recovery returns what an open of dir needs.
func (o *Options) recovery(dir string, c *segment.Cache) *recovery.Config {
	cfg := &recovery.Config{
		FS: o.FS, Dir: dir, LogDir: dir, Rand: o.Rand,
		Segment:     segment.Options{Cache: c},
		SegmentName: segment.FileName, ParseSegment: segment.ParseFileName,
		Log: wal.Options{
			Policy: o.Sync, Mechanism: o.Mechanism, Align: o.LogAlign,
			FileSize: o.LogFileSize, MaxBytes: o.MaxLogBytes, MarkDelay: o.MarkDelay, SlowSync: o.SlowSync,
		},
	}
	if o.LogDir != "" {
		cfg.LogDir = filepath.Clean(o.LogDir)
	}
	switch o.Compression {
	case S2:
		cfg.Log.Compression = wal.S2
	case Zstd:
		cfg.Log.Compression = wal.Zstd
	}
	return cfg
}

// writer returns how segments are written.
func (o *Options) writer() segment.WriterOptions {
	return segment.WriterOptions{Compression: [...]segment.Compression{segment.S2, segment.NoCompression, segment.S2, segment.Zstd}[o.Compression]}
}
