//go:build !linux && !darwin && !windows

package vfs

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
)

// openOS looks at the name before and after opening it, for want of a way to
// open without following a link.
func openOS(op, name string, flag int, mode Mode) (*os.File, error) {
	if mode&(DSync|Direct) != 0 {
		return nil, unsupported(op, name, "dsync or direct")
	}
	st, err := os.Lstat(name)
	if err == nil && flag&os.O_EXCL == 0 && !st.Mode().IsRegular() {
		return nil, &fs.PathError{Op: op, Path: name, Err: ErrNotRegular}
	}
	f, err := os.OpenFile(name, flag, 0o600)
	if err != nil {
		return nil, err
	}
	if err := checkRegular(op, name, f); err != nil {
		return nil, err
	}
	return f, nil
}

func syncData(f *os.File) error { return f.Sync() }

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

var (
	heldMu sync.Mutex // guards held
	held   = map[string]bool{}
)

type heldLock struct {
	f    *os.File
	path string
}

func lockOS(name string) (io.Closer, error) {
	path, err := filepath.Abs(name)
	if err != nil {
		return nil, err
	}
	heldMu.Lock()
	defer heldMu.Unlock()
	if held[path] {
		return nil, &fs.PathError{Op: "lock", Path: name, Err: ErrLocked}
	}
	f, err := openOS("lock", name, os.O_RDWR|os.O_CREATE, ReadWrite)
	if err != nil {
		return nil, err
	}
	held[path] = true
	return &heldLock{f: f, path: path}, nil
}

func (l *heldLock) Close() error {
	heldMu.Lock()
	defer heldMu.Unlock()
	err := l.f.Close()
	if err == nil {
		delete(held, l.path)
	}
	return err
}
