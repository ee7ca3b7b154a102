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
	heldMu sync.Mutex         // guards held
	held   = map[string]int{} // how many hold a shared lock; exclusive is the exclusive one
)

const exclusive = -1

type heldLock struct {
	f    *os.File
	path string
}

// lockOS takes a lock of the file name: the exclusive one, of a file that it
// makes if needed, or a shared one, of a file that it only reads.
func lockOS(name string, shared bool) (io.Closer, error) {
	flag, mode := os.O_RDWR|os.O_CREATE, ReadWrite
	if shared {
		flag, mode = os.O_RDONLY, ReadOnly
	}
	path, err := filepath.Abs(name)
	if err != nil {
		return nil, err
	}
	heldMu.Lock()
	defer heldMu.Unlock()
	if n := held[path]; n == exclusive || n > 0 && !shared {
		return nil, &fs.PathError{Op: "lock", Path: name, Err: ErrLocked}
	}
	f, err := openOS("lock", name, flag, mode)
	if err != nil {
		return nil, err
	}
	if held[path]++; !shared {
		held[path] = exclusive
	}
	return &heldLock{f: f, path: path}, nil
}

func (l *heldLock) Close() error {
	heldMu.Lock()
	defer heldMu.Unlock()
	err := l.f.Close()
	if err == nil {
		if held[l.path]--; held[l.path] <= 0 { // the last one, or the exclusive one
			delete(held, l.path)
		}
	}
	return err
}
