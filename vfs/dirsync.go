package vfs

import (
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"syscall"
)

// ErrDirSync is wrapped, beside its cause, by the error of each SyncDir of
// StickyDirSync that fails: the directory is synced no more until it is opened
// anew.
var ErrDirSync = errors.New("vfs: a sync of this directory failed, now or before")

// StickyDirSync returns fsys with directory syncs that fail for good: after one
// SyncDir of a directory has failed, all later ones of it fail too, and they
// never run at once. A failed sync leaves entries clean that are not durable, as
// it does pages, so that the success of a later one, asked for by somebody else
// for the sake of another file, proves nothing. Where there was no file descriptor
// to begin it with, nothing was synced and nothing is spoilt: that is an error like
// others.
func StickyDirSync(fsys FS) FS {
	return &stickyDirs{FS: fsys, failed: map[string]error{}}
}

type stickyDirs struct {
	FS
	mu     sync.Mutex // guards failed, and orders syncs
	failed map[string]error
}

func (s *stickyDirs) SyncDir(dir string) error {
	dir = filepath.Clean(dir)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.failed[dir]; err != nil {
		return err
	}
	err := s.FS.SyncDir(dir)
	if errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) {
		return err
	}
	if err != nil {
		err = fmt.Errorf("%w: %w", ErrDirSync, err)
		s.failed[dir] = err
	}
	return err
}

// Unwrap returns the file system below.
func (s *stickyDirs) Unwrap() FS { return s.FS }
