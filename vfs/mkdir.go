package vfs

import (
	"errors"
	"io/fs"
	"path/filepath"
)

// MkdirDurable makes a directory and its parents and makes the entries of the
// whole path durable, those that it found included: whoever made them may have
// been killed before it synced them. A parent that may not be opened is passed
// over.
func MkdirDurable(fsys FS, dir string) error {
	dir = filepath.Clean(dir)
	if err := fsys.MkdirAll(dir); err != nil {
		return err
	}
	for {
		parent := filepath.Dir(dir)
		if parent == dir {
			return nil
		}
		if err := fsys.SyncDir(parent); err != nil && !errors.Is(err, fs.ErrPermission) {
			return err
		}
		if parent == "." {
			return nil
		}
		dir = parent
	}
}
