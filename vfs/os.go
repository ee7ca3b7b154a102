package vfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
	"syscall"
)

// OS returns the file system of the operating system. Errors are those of
// package os (*fs.PathError, *os.LinkError), so that errors.Is finds
// fs.ErrNotExist, syscall.ENOSPC and the like in them.
//
// SyncData is fdatasync on Linux and Sync elsewhere; Sync is F_FULLFSYNC on
// macOS and FlushFileBuffers on Windows. SyncDir does nothing on Windows, where
// a directory cannot be synced. DSync is known on Linux and Windows, Direct on
// Linux; elsewhere both are ErrUnsupported (the O_DSYNC of macOS does not reach
// the medium, so it is not used). Lock is a flock on Linux and macOS, which
// belongs to the open file, so that a second open in this process and an open
// through a hard link meet it too; LockFileEx on Windows; elsewhere it holds
// within the process only.
func OS() FS { return osFS{} }

type osFS struct{}

type osFile struct {
	f    *os.File
	mode Mode
}

// zeroChunk is what Zero writes in one call. Linux keeps what was written at once,
// and aligned, together: then one fault maps 2 MiB of a Mapping.
const zeroChunk = 2 << 20

var zeroBuf = sync.OnceValue(func() []byte { return AlignedBuf(zeroChunk) })

func (osFS) Create(name string, mode Mode) (File, error) {
	f, err := openOS("create", name, os.O_RDWR|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return nil, err
	}
	return &osFile{f: f, mode: mode | ReadWrite}, nil
}

func (osFS) Open(name string, mode Mode) (File, error) {
	flag := os.O_RDONLY
	if mode&ReadWrite != 0 {
		flag = os.O_RDWR
	}
	f, err := openOS("open", name, flag, mode)
	if err != nil {
		return nil, err
	}
	return &osFile{f: f, mode: mode}, nil
}

func (osFS) Remove(name string) error             { return os.Remove(name) }
func (osFS) Rename(oldName, newName string) error { return os.Rename(oldName, newName) }
func (osFS) MkdirAll(dir string) error            { return os.MkdirAll(dir, 0o700) }

func (osFS) List(dir string) ([]string, error) {
	ents, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	names := make([]string, len(ents))
	for i, e := range ents {
		names[i] = e.Name()
	}
	return names, nil
}

func (osFS) Stat(name string) (Info, error) {
	st, err := os.Lstat(name)
	if err != nil {
		return Info{}, err
	}
	if st.IsDir() {
		return Info{Dir: true}, nil
	}
	return Info{Size: st.Size(), Regular: st.Mode().IsRegular()}, nil
}

func (osFS) SyncDir(dir string) error { return syncDir(dir) }

func (osFS) Lock(name string) (io.Closer, error)       { return lockOS(name, false) }
func (osFS) LockShared(name string) (io.Closer, error) { return lockOS(name, true) }

// checkRegular closes f and returns an error where it is not a plain file.
func checkRegular(op, name string, f *os.File) error {
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = &fs.PathError{Op: op, Path: name, Err: ErrNotRegular}
	}
	if err != nil {
		f.Close()
	}
	return err
}

func unsupported(op, name string, what string) error {
	return &fs.PathError{Op: op, Path: name, Err: fmt.Errorf("%s: %w", what, ErrUnsupported)}
}

func (o *osFile) ReadAt(p []byte, off int64) (int, error) {
	if o.mode&Direct == 0 {
		return o.f.ReadAt(p, off)
	}
	if !directAligned(p, off) {
		return 0, &fs.PathError{Op: "read", Path: o.f.Name(), Err: syscall.EINVAL}
	}
	n, err := o.f.ReadAt(p, off)
	if n > 0 && errors.Is(err, syscall.EINVAL) {
		// The read stopped at an end that is not aligned, and its
		// continuation was refused. It is the end only if the size says so.
		if size, serr := o.Size(); serr == nil && off+int64(n) >= size {
			err = io.EOF
		}
	}
	return n, err
}

func (o *osFile) WriteAt(p []byte, off int64) (int, error) {
	if o.mode&Direct != 0 && !directAligned(p, off) {
		return 0, &fs.PathError{Op: "write", Path: o.f.Name(), Err: syscall.EINVAL}
	}
	return o.f.WriteAt(p, off)
}

func (o *osFile) Close() error { return o.f.Close() }

func (o *osFile) Size() (int64, error) {
	st, err := o.f.Stat()
	if err != nil {
		return 0, err
	}
	return st.Size(), nil
}

func (o *osFile) Sync() error     { return o.f.Sync() }
func (o *osFile) SyncData() error { return syncData(o.f) }

func (o *osFile) Zero(off, n int64) error {
	if off < 0 || n < 0 || off+n < off {
		return &fs.PathError{Op: "zero", Path: o.f.Name(), Err: syscall.EINVAL}
	}
	for n > 0 {
		// The first write ends at a multiple of the chunk, the rest begin there.
		c := min(n, zeroChunk-off%zeroChunk)
		if _, err := o.WriteAt(zeroBuf()[:c], off); err != nil {
			return err
		}
		off, n = off+c, n-c
	}
	return nil
}
