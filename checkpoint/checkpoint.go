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
	"io/fs"
	"path/filepath"

	"github.com/forebaydb/forebay/internal/base"
	"github.com/forebaydb/forebay/internal/merge"
	"github.com/forebaydb/forebay/manifest"
	"github.com/forebaydb/forebay/memtable"
	"github.com/forebaydb/forebay/segment"
	"github.com/forebaydb/forebay/vfs"
)

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
	// Writer configures the segment, Reader its reader.
	Writer segment.WriterOptions
	Reader segment.Options
}

// Settle settles a table that nobody writes to any more, whose highest LSN is
// at most high, with nothing between its LSNs and high in any other table. It
// returns a reader of the new segment, or nil when the table was empty. After an
// error nothing has changed, unless it is the manifest's: then, as after every
// error of a manifest, nothing can be settled until the store is opened again.
func Settle(ctx context.Context, cfg *Config, table *memtable.Table, high base.LSN) (*segment.Reader, error) {
	if err := cfg.Manifest.Err(); err != nil {
		return nil, fmt.Errorf("checkpoint: %w", err)
	}
	if err := cfg.Sync(ctx, high); err != nil {
		return nil, fmt.Errorf("checkpoint: sync the log through %d: %w", high, err)
	}
	edit := manifest.Edit{ReplayStart: high + 1}
	var r *segment.Reader
	if table.Len() > 0 {
		meta, reader, err := settle(ctx, cfg, table)
		if err != nil {
			return nil, err
		}
		r = reader
		edit.Add = []manifest.Segment{{Number: meta.Number, Size: meta.Size, Count: meta.Count, Tombstones: meta.Tombstones, RangeDeletes: meta.RangeDeletes, MinLSN: meta.MinLSN, MaxLSN: meta.MaxLSN, Hash: meta.Hash, Lo: meta.Lo, Hi: meta.Hi}}
	}
	if err := cfg.Manifest.Apply(&edit); err != nil {
		// Whether the edit counts the next open will tell: the file stays.
		if r != nil {
			r.Close()
		}
		return nil, fmt.Errorf("checkpoint: %w", err)
	}
	return r, nil
}

// settle makes the segment's file and opens it: what cannot be opened must not
// be listed.
func settle(ctx context.Context, cfg *Config, table *memtable.Table) (segment.Meta, *segment.Reader, error) {
	f, number, err := create(cfg)
	if err != nil {
		return segment.Meta{}, nil, fmt.Errorf("checkpoint: %w", err)
	}
	path := filepath.Join(cfg.Dir, segment.FileName(number))
	id := segment.ID{Store: cfg.Manifest.StoreID(), Number: number}
	meta, err := write(ctx, cfg, table, f, id)
	if err == nil {
		var rf vfs.File
		if rf, err = cfg.FS.Open(path, vfs.ReadOnly); err == nil {
			var r *segment.Reader
			if r, err = segment.Open(rf, path, id, cfg.Reader); err == nil {
				return meta, r, nil
			}
			rf.Close()
		}
	}
	cfg.FS.Remove(path) // best effort: the next open removes what nothing names
	return meta, nil, fmt.Errorf("checkpoint: segment %d: %w", number, err)
}

// create makes a file under a number that was never used. A file of that name
// is somebody else's, and stays.
func create(cfg *Config) (vfs.File, uint64, error) {
	for {
		number, err := cfg.Manifest.NextSegment()
		if err != nil {
			return nil, 0, err
		}
		f, err := cfg.FS.Create(filepath.Join(cfg.Dir, segment.FileName(number)), vfs.ReadWrite)
		if !errors.Is(err, fs.ErrExist) {
			return f, number, err
		}
	}
}

// write writes and syncs the segment, closes its file and syncs its directory.
func write(ctx context.Context, cfg *Config, table *memtable.Table, f vfs.File, id segment.ID) (meta segment.Meta, err error) {
	defer func() {
		if cerr := f.Close(); err == nil {
			err = cerr
		}
		if err == nil {
			err = cfg.FS.SyncDir(cfg.Dir)
		}
	}()
	w, err := segment.NewWriter(f, id, cfg.Writer)
	if err != nil {
		return meta, err
	}
	it := merge.Compact(table.NewIter(), nil, merge.Keep{Above: cfg.KeepAbove})
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
	return w.Finish()
}
