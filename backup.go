package forebay

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"

	"github.com/forebaydb/forebay/compaction"
	"github.com/forebaydb/forebay/internal/base"
	"github.com/forebaydb/forebay/manifest"
	"github.com/forebaydb/forebay/segment"
	"github.com/forebaydb/forebay/vfs"
	"github.com/forebaydb/forebay/wal"
)

// BackupInfo says what a backup holds.
type BackupInfo struct {
	// At is the last commit that it holds, as the store knows it.
	At Position
	// Segments and Bytes that were copied.
	Segments int
	Bytes    int64
	// LogFiles that hold items of sequences, and were copied; their bytes are among
	// Bytes.
	LogFiles int
}

// Backup copies the store into a new directory, beside readers and writers. The
// copy holds every commit that returned before the call, and is a store: Open
// opens it. It goes on by itself from there, in an epoch that the original never
// has, so that a reader of changes notices that the two have parted.
//
// What is not settled yet is settled first (Checkpoint). Each segment is copied,
// made durable, and every byte of the copy verified; damage of the original is a
// *CorruptionError. The manifest comes last: without it the directory is no store.
// Log files that hold items of sequences are copied, too.
//
// dir must not exist or be empty. A store without sequences has no log in the copy yet:
// a LogDir other than dir, with which it is opened, must exist. The log files of others
// are in dir: who opens the copy with another LogDir moves them there first. After an
// error what was copied stays there. When ctx ends it returns ctx's error.
func (db *DB) Backup(ctx context.Context, dir string) (BackupInfo, error) {
	ctx, end, err := db.begin(ctx)
	if err != nil {
		return BackupInfo{}, err
	}
	defer end()
	info, err := db.backup(ctx, filepath.Clean(dir))
	if err != nil {
		err = fmt.Errorf("forebay: backup to %s: %w", dir, db.seen(db.ended(err)))
	}
	return info, err
}

func (db *DB) backup(ctx context.Context, dir string) (info BackupInfo, err error) {
	fsys := db.opts.FS
	names, err := fsys.List(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		err = vfs.MkdirDurable(fsys, dir)
	case err == nil && len(names) > 0:
		err = fmt.Errorf("directory is not empty: %w", fs.ErrExist)
	}
	if err != nil {
		return info, err
	}
	// Nobody opens the copy before it is whole; and who opens it for reading only
	// needs the file and cannot make it.
	lock, err := fsys.Lock(filepath.Join(dir, "LOCK"))
	if err != nil {
		return info, err
	}
	defer lock.Close()
	v, shard, at, kept, err := db.enterBackup(ctx)
	if err != nil {
		return info, err
	}
	defer v.gate.exit(shard)
	if kept != nil {
		defer kept.Close()
	}
	info.At = at
	var tables []*table
	v.tables(func(t *table) { tables = append(tables, t) })
	state := manifest.State{ReplayStart: v.settled + 1}
	for _, t := range tables {
		if err := db.copySegment(ctx, dir, t); err != nil {
			return info, err
		}
		state.Segments = append(state.Segments, t.meta)
		state.LastSegment = max(state.LastSegment, t.meta.Number)
		info.Segments++
		info.Bytes += int64(t.meta.Size)
	}
	var files []base.LogFile
	if kept != nil {
		var n int64
		if files, n, err = kept.CopyTo(ctx, dir); err != nil {
			return info, err
		}
		info.LogFiles, info.Bytes = len(files), info.Bytes+n
	}
	if err := fsys.SyncDir(dir); err != nil {
		return info, err
	}
	if state.Log, err = db.parted(info.At); err != nil {
		return info, err
	}
	state.Log.Files = files
	return info, manifest.Create(fsys, dir, db.man.StoreID(), state, db.opts.Rand)
}

// enterBackup settles everything and enters a view of it, with the log files that hold
// what the sequences in it have, if there are sequences. Nothing is taken out of a
// sequence meanwhile: a log file that the view needs might go.
func (db *DB) enterBackup(ctx context.Context) (v *view, shard int, at Position, kept *wal.Kept, err error) {
	db.seqs.trims.Lock()
	defer db.seqs.trims.Unlock()
	if err := db.Checkpoint(ctx); err != nil {
		return nil, 0, at, nil, err
	}
	if v, shard, at, err = db.enterSettled(); err != nil {
		return nil, 0, at, nil, err
	}
	all, err := db.Sequences()
	if err == nil && len(all) > 0 {
		kept, err = db.log.OpenKept(at.LSN)
	}
	if err != nil {
		v.gate.exit(shard)
	}
	return v, shard, at, kept, public(err)
}

// enterSettled is enter with the position up to which the view is settled.
func (db *DB) enterSettled() (*view, int, Position, error) {
	for {
		v, shard, err := db.enter()
		if err != nil {
			return nil, 0, Position{}, err
		}
		at := Position{LSN: v.settled}
		if at.LSN == 0 {
			return v, shard, at, nil
		}
		// The log forgets it once a later view has settled more.
		at.Epoch = db.log.EpochAt(at.LSN)
		if at.Epoch != 0 || db.view.Load() == v {
			return v, shard, at, nil
		}
		v.gate.exit(shard)
	}
}

// parted returns the state of a log that goes on behind a position, in an epoch
// that is this store's neither now nor later: some 2³¹ opens lie between.
func (db *DB) parted(at Position) (base.LogState, error) {
	var b [4]byte
	if _, err := io.ReadFull(db.opts.Rand, b[:]); err != nil {
		return base.LogState{}, err
	}
	now := db.man.LogState()
	epoch := max(now.Epoch, at.Epoch) + 1<<31 + uint64(binary.LittleEndian.Uint32(b[:])>>1)
	return base.LogState{Floor: base.LogFloor{LSN: at.LSN, Epoch: at.Epoch}, Epoch: epoch, Number: now.Number}, nil
}

// copySegment copies the file of a segment, makes it durable, and verifies the
// copy.
func (db *DB) copySegment(ctx context.Context, dir string, t *table) error {
	fsys, path := db.opts.FS, filepath.Join(dir, segment.FileName(t.meta.Number))
	if err := copyFile(ctx, fsys, t.file.r.Name(), path, int64(t.meta.Size)); err != nil {
		return err
	}
	r, err := compaction.Open(fsys, path, db.man.StoreID(), &t.meta, segment.Options{})
	if err != nil {
		return err
	}
	return errors.Join(r.Verify(ctx), r.Close())
}

func copyFile(ctx context.Context, fsys vfs.FS, from, to string, size int64) (err error) {
	in, err := fsys.Open(from, vfs.ReadOnly)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := fsys.Create(to, vfs.ReadWrite)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	n, err := vfs.Copy(ctx, out, in, size)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = &CorruptionError{File: from, Offset: n, Reason: "file ends too early"}
	}
	if err != nil {
		return err
	}
	return out.Sync()
}
