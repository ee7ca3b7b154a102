// Package checkpoint settles a frozen memtable into a segment and moves the
// start of replay forward.
//
// The order: the log is synced through the table's highest LSN; the segment is
// written and synced; its directory is synced; one manifest edit lists the
// segment and moves the replay start. A crash before the edit leaves a file
// that nothing names, which the next open removes.
package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/forebaydb/forebay/internal/base"
	"github.com/forebaydb/forebay/internal/merge"
	"github.com/forebaydb/forebay/manifest"
	"github.com/forebaydb/forebay/memtable"
	"github.com/forebaydb/forebay/segment"
	"github.com/forebaydb/forebay/vfs"
)

// FileName returns the name of segment n.
func FileName(n uint64) string { return fmt.Sprintf("%06d.seg", n) }

// ParseFileName returns the number in a segment's file name.
func ParseFileName(name string) (uint64, bool) {
	rest, ok := strings.CutSuffix(name, ".seg")
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseUint(rest, 10, 64)
	return n, err == nil && n > 0 && FileName(n) == name
}

// Config is what a checkpoint needs of its store.
type Config struct {
	FS       vfs.FS
	Dir      string
	Manifest *manifest.Manifest
	// Sync makes the log durable through an LSN.
	Sync func(ctx context.Context, lsn base.LSN) error
	// KeepAbove is an LSN below which no reader is or will be: of each key, the
	// versions below the newest at or below it are dropped.
	KeepAbove base.LSN
	// Writer configures the segment.
	Writer segment.WriterOptions
}

// Settle settles a table that nobody writes to any more, whose highest LSN is
// at most high, with nothing between its LSNs and high in any other table. It
// returns the new segment, or nil when the table was empty. After an error
// nothing has changed, unless it is the manifest's.
func Settle(ctx context.Context, cfg *Config, table *memtable.Table, high base.LSN) (*manifest.Segment, error) {
	if err := cfg.Sync(ctx, high); err != nil {
		return nil, fmt.Errorf("checkpoint: sync the log through %d: %w", high, err)
	}
	edit := manifest.Edit{ReplayStart: high + 1}
	var seg *manifest.Segment
	if table.Len() > 0 {
		number := cfg.Manifest.NextSegment()
		meta, err := write(ctx, cfg, table, number)
		if err != nil {
			cfg.FS.Remove(filepath.Join(cfg.Dir, FileName(number))) // best effort: the next open removes what nothing names
			return nil, fmt.Errorf("checkpoint: segment %d: %w", number, err)
		}
		seg = &manifest.Segment{Number: number, Size: meta.Size, Count: meta.Count, Tombstones: meta.Tombstones, MinLSN: meta.MinLSN, MaxLSN: meta.MaxLSN, Hash: meta.Hash, Smallest: meta.Smallest, Largest: meta.Largest}
		edit.Add = []manifest.Segment{*seg}
	}
	if err := cfg.Manifest.Apply(&edit); err != nil {
		return nil, fmt.Errorf("checkpoint: %w", err)
	}
	return seg, nil
}

// write writes and syncs the segment, and syncs its directory.
func write(ctx context.Context, cfg *Config, table *memtable.Table, number uint64) (meta segment.Meta, err error) {
	f, err := cfg.FS.Create(filepath.Join(cfg.Dir, FileName(number)), vfs.ReadWrite)
	if err != nil {
		return meta, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	w, err := segment.NewWriter(f, segment.ID{Store: cfg.Manifest.StoreID(), Number: number}, cfg.Writer)
	if err != nil {
		return meta, err
	}
	it := merge.Compact(table.NewIter(), cfg.KeepAbove)
	defer it.Close()
	for ok, n := it.First(), 0; ok; ok, n = it.Next(), n+1 {
		if n%1024 == 0 && ctx.Err() != nil {
			return meta, ctx.Err()
		}
		if err := w.Add(it.Key(), it.LSN(), it.Kind(), it.Value()); err != nil {
			return meta, err
		}
	}
	if err := it.Err(); err != nil {
		return meta, err
	}
	if meta, err = w.Finish(); err != nil {
		return meta, err
	}
	return meta, cfg.FS.SyncDir(cfg.Dir)
}
