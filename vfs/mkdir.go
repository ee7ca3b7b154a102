package vfs

import (
	"errors"
	"io/fs"
	"path/filepath"
)

// MkdirDurable makes a directory and its parents, and makes the entry of each
// that it made durable. It does nothing when dir exists.
func MkdirDurable(fsys FS, dir string) error {
	if info, err := fsys.Stat(dir); err == nil && info.Dir {
		return nil
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	parent := filepath.Dir(dir)
	if parent != dir {
		if err := MkdirDurable(fsys, parent); err != nil {
			return err
		}
	}
	if err := fsys.MkdirAll(dir); err != nil {
		return err
	}
	return fsys.SyncDir(parent)
}
