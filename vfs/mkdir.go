package vfs

import (
	"errors"
	"io/fs"
	"path/filepath"
)

// MkdirDurable makes a directory and its parents and makes the entries of the
// whole path durable, those that it found included: whoever made them may have
// been killed before it synced them. A parent that may not be opened is passed
// over. Where a sync fails the directories that it made are removed again: a
// later sync of the same entries would succeed and prove nothing.
func MkdirDurable(fsys FS, dir string) error {
	dir = filepath.Clean(dir)
	var made []string // deepest first
	for d := dir; ; d = filepath.Dir(d) {
		if _, err := fsys.Stat(d); !errors.Is(err, fs.ErrNotExist) || d == filepath.Dir(d) {
			break
		}
		made = append(made, d)
	}
	if err := fsys.MkdirAll(dir); err != nil {
		return err
	}
	for {
		parent := filepath.Dir(dir)
		if parent == dir {
			return nil
		}
		if err := fsys.SyncDir(parent); err != nil && !errors.Is(err, fs.ErrPermission) {
			for _, d := range made {
				if fsys.Remove(d) != nil {
					break // somebody uses it already
				}
			}
			return err
		}
		if parent == "." {
			return nil
		}
		dir = parent
	}
}
