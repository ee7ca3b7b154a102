// Package checkpoint settles a frozen memtable into a segment and moves the
// start of replay forward.
//
// The order: the log is synced through the table's highest LSN; the segment is
// written and synced, of a large table meanwhile; its directory is synced; one
// manifest edit, behind all syncs, lists the segment and moves the replay start. A crash
// before the edit leaves a file that nothing names, which the next open removes.
//
// What no reader can see is not settled: versions that newer ones or range
// deletes hide, and deletes of keys that no live segment can hold. Of a queue
// that is shorter than a memtable nothing is ever written but the log.
package checkpoint

import (
	"context"
	"fmt"
	"sync"

	"github.com/forebaydb/forebay/compaction"
	"github.com/forebaydb/forebay/internal/base"
	"github.com/forebaydb/forebay/internal/merge"
	"github.com/forebaydb/forebay/internal/rangedel"
	"github.com/forebaydb/forebay/manifest"
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
	// Yield, if not nil, is called as the work goes on, every few hundred versions.
	Yield func()
	// Snapshots, ascending, and Above say which readers there are and will be:
	// at the LSN of each snapshot, and at Above and higher. A snapshot that is
	// made later is at or above Above.
	Snapshots []base.LSN
	Above     base.LSN
	// Writer configures the segment, Reader its reader.
	Writer segment.WriterOptions
	Reader segment.Options
}

// Table is what is settled: a frozen memtable, or a sorted Run.
type Table interface {
	NewIter() base.Iterator
	RangeDeletes() *rangedel.Set
	Bytes() int64
}

// Settle settles a table that nobody writes to any more, whose highest LSN is
// at most high, with nothing between its LSNs and high in any other table, and
// nothing below them outside of the segments that the manifest lists. It returns
// a reader of the new segment, which is the caller's, and what the manifest says
// of it; nil when nothing was to be settled, so that only the replay start
// moved. Compactions may run at the same time. After an error nothing has
// changed, unless it is the manifest's: then, as after every error of a
// manifest, nothing can be settled until the store is opened again.
func Settle(ctx context.Context, cfg *Config, table Table, high base.LSN) (*segment.Reader, manifest.Segment, error) {
	none := manifest.Segment{}
	if err := cfg.Manifest.Err(); err != nil {
		return nil, none, fmt.Errorf("checkpoint: %w", err)
	}
	synced := syncing(ctx, cfg, high, table.Bytes() >= syncBeside)
	if table.Bytes() < syncBeside {
		if err := synced(); err != nil {
			return nil, none, err
		}
	}
	out := compaction.NewOutput(compaction.Files{
		FS: cfg.FS, Dir: cfg.Dir, Store: cfg.Manifest.StoreID(), Next: cfg.Manifest.NextSegment, Writer: cfg.Writer, Reader: cfg.Reader,
	}, 0)
	segs, readers, err := settle(ctx, cfg, table, out)
	if serr := synced(); serr != nil {
		out.Abort()
		return nil, none, serr
	}
	if err != nil {
		return nil, none, fmt.Errorf("checkpoint: %w", err)
	}
	if err := cfg.Manifest.Apply(&manifest.Edit{ReplayStart: high + 1, Add: segs}); err != nil {
		if cfg.Manifest.Err() == nil { // refused
			out.Abort()
			return nil, none, fmt.Errorf("checkpoint: %w", err)
		}
		// Whether the edit counts the next open will tell: the file stays.
		for _, r := range readers {
			r.Close()
		}
		return nil, none, fmt.Errorf("checkpoint: %w", err)
	}
	if len(readers) == 0 {
		return nil, none, nil
	}
	return readers[0], segs[0], nil
}

// syncBeside is how large a table is that is written while the log is synced: both
// take long. What counts is that both are durable before the edit is.
const syncBeside = 1 << 20

// syncing syncs the log through an LSN, with beside in a goroutine of its own, and
// returns what waits for it, as often as it is called.
func syncing(ctx context.Context, cfg *Config, high base.LSN, beside bool) func() error {
	wait := sync.OnceValue(func() error {
		if err := cfg.Sync(ctx, high); err != nil {
			return fmt.Errorf("checkpoint: sync the log through %d: %w", high, err)
		}
		return nil
	})
	if beside {
		go func() { _ = wait() }() // who waits has the error
	}
	return wait
}

// settle makes the segment, or none, and opens it: what cannot be opened must
// not be listed.
func settle(ctx context.Context, cfg *Config, table Table, out *compaction.Output) ([]manifest.Segment, []*segment.Reader, error) {
	if err := write(ctx, cfg, table, out); err != nil {
		out.Abort()
		return nil, nil, err
	}
	return out.Finish()
}

// yieldVersions is how many versions are some hundred microseconds of work.
const yieldVersions = 256

// write writes what remains of the table. The manifest lists all that is older;
// a compaction that replaces some of it meanwhile adds no key to it.
func write(ctx context.Context, cfg *Config, table Table, out *compaction.Output) error {
	below := compaction.NewBelow(cfg.Manifest.State().Segments)
	keep := below.Keep(merge.Keep{Snapshots: cfg.Snapshots, Above: cfg.Above})
	dels := table.RangeDeletes()
	it := merge.Compact(table.NewIter(), dels, keep)
	defer it.Close()
	for ok, n := it.First(), 0; ok; ok, n = it.Next(), n+1 {
		if n%yieldVersions == 0 {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if cfg.Yield != nil {
				cfg.Yield()
			}
		}
		if err := out.Add(it.Key(), it.LSN(), it.Kind(), it.Value()); err != nil {
			return err
		}
	}
	if err := it.Err(); err != nil {
		return err
	}
	return out.Cut(keep.Dels(dels))
}
