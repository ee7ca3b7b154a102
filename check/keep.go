package check

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/forebaydb/forebay/compaction"
	"github.com/forebaydb/forebay/manifest"
	"github.com/forebaydb/forebay/vfs"
	"github.com/forebaydb/forebay/wal"
)

// damagedDir holds, in the new store, copies of the damaged files. No open looks
// at it.
const damagedDir = "damaged"

// keep copies the damaged files to where they can be studied.
func (v *salvager) keep() error {
	dir := filepath.Join(v.dst, damagedDir)
	for _, l := range v.out.Losses {
		name := filepath.Base(l.File)
		to := filepath.Join(dir, name)
		if _, ok := v.sizes[l.File]; !ok || slices.Contains(v.out.Kept, to) {
			continue
		}
		if len(v.out.Kept) == 0 {
			if err := v.cfg.FS.MkdirAll(dir); err != nil {
				return err
			}
			v.written = append(v.written, dir)
		}
		v.out.Kept = append(v.out.Kept, to)
		if err := v.copy(l.File, to); err != nil {
			return fmt.Errorf("copy of damaged file %s: %w", l.File, err)
		}
	}
	if len(v.out.Kept) == 0 {
		return nil
	}
	return v.cfg.FS.SyncDir(dir)
}

// copy copies a file; what of it cannot be read is zero in the copy.
func (v *salvager) copy(from, to string) (err error) {
	src, err := v.cfg.FS.Open(from, vfs.ReadOnly)
	if err != nil {
		return nil // There is nothing that could be kept.
	}
	defer src.Close()
	f, err := v.cfg.FS.Create(to, vfs.ReadWrite)
	if err != nil {
		return err
	}
	v.written = append(v.written, to)
	defer func() { err = errors.Join(err, f.Close()) }()
	size, err := src.Size()
	if err != nil {
		return err
	}
	if _, err := vfs.Copy(v.ctx, f, &tolerant{File: src, ctx: v.ctx}, size); err != nil {
		return err
	}
	return f.Sync()
}

// remove takes back what was written, as far as that goes, the manifest first:
// without one it is no store.
func (v *salvager) remove(out *compaction.Output) {
	names, _ := v.cfg.FS.List(v.dst) // It was empty before.
	for _, name := range names {
		if _, ok := manifest.ParseFileName(name); ok {
			_ = v.cfg.FS.Remove(filepath.Join(v.dst, name))
		}
	}
	for _, name := range names {
		if _, ok := wal.ParseFileName(name); ok {
			_ = v.cfg.FS.Remove(filepath.Join(v.dst, name))
		}
	}
	if out != nil {
		out.Abort()
	}
	for _, path := range slices.Backward(v.written) {
		_ = v.cfg.FS.Remove(path)
	}
	if v.made {
		_ = v.cfg.FS.Remove(v.dst)
	}
}
