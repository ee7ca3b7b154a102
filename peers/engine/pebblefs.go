package engine

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	pvfs "github.com/cockroachdb/pebble/v2/vfs"

	"github.com/forebaydb/forebay/vfs"
)

// pebbleFS is a file system of Forebay as one of Pebble.
type pebbleFS struct{ fsys vfs.FS }

var _ pvfs.FS = pebbleFS{}

// Create replaces what has the name, as Pebble wants it.
func (p pebbleFS) Create(name string, _ pvfs.DiskWriteCategory) (pvfs.File, error) {
	f, err := p.fsys.Create(name, vfs.ReadWrite)
	if errors.Is(err, fs.ErrExist) {
		if err = p.fsys.Remove(name); err == nil {
			f, err = p.fsys.Create(name, vfs.ReadWrite)
		}
	}
	return p.file(f, name, err)
}

func (p pebbleFS) file(f vfs.File, name string, err error) (pvfs.File, error) {
	if err != nil {
		return nil, err
	}
	return &pebbleFile{File: f, fsys: p, name: name}, nil
}

// Link is used by checkpoints of Pebble alone, which nobody makes here.
func (pebbleFS) Link(_, _ string) error { return vfs.ErrUnsupported }

func (p pebbleFS) Open(name string, opts ...pvfs.OpenOption) (pvfs.File, error) {
	info, err := p.fsys.Stat(name)
	if err != nil {
		return nil, err
	}
	if info.Dir {
		return p.OpenDir(name)
	}
	f, err := p.fsys.Open(name, vfs.ReadOnly)
	out, err := p.file(f, name, err)
	if err == nil {
		for _, o := range opts {
			o.Apply(out)
		}
	}
	return out, err
}

func (p pebbleFS) OpenReadWrite(name string, _ pvfs.DiskWriteCategory, _ ...pvfs.OpenOption) (pvfs.File, error) {
	f, err := p.fsys.Open(name, vfs.ReadWrite)
	if errors.Is(err, fs.ErrNotExist) {
		f, err = p.fsys.Create(name, vfs.ReadWrite)
	}
	return p.file(f, name, err)
}

func (p pebbleFS) OpenDir(name string) (pvfs.File, error) {
	return &pebbleDir{fsys: p, name: name}, nil
}

func (p pebbleFS) Remove(name string) error { return p.fsys.Remove(name) }

func (p pebbleFS) RemoveAll(name string) error {
	names, err := p.fsys.List(name)
	if err != nil {
		err = p.fsys.Remove(name)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	for _, n := range names {
		if err := p.RemoveAll(filepath.Join(name, n)); err != nil {
			return err
		}
	}
	return p.fsys.Remove(name)
}

func (p pebbleFS) Rename(oldname, newname string) error { return p.fsys.Rename(oldname, newname) }

func (p pebbleFS) ReuseForWrite(oldname, newname string, c pvfs.DiskWriteCategory) (pvfs.File, error) {
	if err := p.fsys.Rename(oldname, newname); err != nil {
		return nil, err
	}
	return p.OpenReadWrite(newname, c)
}

func (p pebbleFS) MkdirAll(dir string, _ os.FileMode) error { return p.fsys.MkdirAll(dir) }

func (p pebbleFS) Lock(name string) (io.Closer, error) { return p.fsys.Lock(name) }

func (p pebbleFS) List(dir string) ([]string, error) { return p.fsys.List(dir) }

func (p pebbleFS) Stat(name string) (pvfs.FileInfo, error) {
	info, err := p.fsys.Stat(name)
	if err != nil {
		return nil, err
	}
	return pebbleInfo{info, name}, nil
}

func (pebbleFS) PathBase(path string) string    { return filepath.Base(path) }
func (pebbleFS) PathJoin(elem ...string) string { return filepath.Join(elem...) }
func (pebbleFS) PathDir(path string) string     { return filepath.Dir(path) }
func (pebbleFS) Unwrap() pvfs.FS                { return nil }
func (pebbleFS) GetDiskUsage(string) (pvfs.DiskUsage, error) {
	return pvfs.DiskUsage{}, pvfs.ErrUnsupported
}

type pebbleInfo struct {
	info vfs.Info
	name string
}

func (i pebbleInfo) Name() string            { return filepath.Base(i.name) }
func (i pebbleInfo) Size() int64             { return i.info.Size }
func (i pebbleInfo) ModTime() time.Time      { return time.Time{} }
func (i pebbleInfo) IsDir() bool             { return i.info.Dir }
func (i pebbleInfo) Sys() any                { return nil }
func (i pebbleInfo) DeviceID() pvfs.DeviceID { return pvfs.DeviceID{} }
func (i pebbleInfo) Mode() os.FileMode {
	if i.info.Dir {
		return os.ModeDir | 0o700
	}
	return 0o600
}

// pebbleFile reads and writes on from where it stands; one goroutine does so.
type pebbleFile struct {
	vfs.File
	fsys     pebbleFS
	name     string
	rat, wat int64
}

func (f *pebbleFile) Read(p []byte) (int, error) {
	n, err := f.ReadAt(p, f.rat)
	f.rat += int64(n)
	if n > 0 && errors.Is(err, io.EOF) {
		err = nil
	}
	return n, err
}

func (f *pebbleFile) Write(p []byte) (int, error) {
	n, err := f.WriteAt(p, f.wat)
	f.wat += int64(n)
	return n, err
}

func (f *pebbleFile) Preallocate(_, _ int64) error { return nil }
func (f *pebbleFile) Prefetch(_, _ int64) error    { return nil }
func (f *pebbleFile) SyncTo(int64) (bool, error)   { return true, f.SyncData() }
func (f *pebbleFile) Fd() uintptr                  { return pvfs.InvalidFd }
func (f *pebbleFile) Stat() (pvfs.FileInfo, error) {
	size, err := f.Size()
	return pebbleInfo{vfs.Info{Size: size, Regular: true}, f.name}, err
}

// pebbleDir is a directory, to be synced.
type pebbleDir struct {
	fsys pebbleFS
	name string
}

func (d *pebbleDir) Sync() error                        { return d.fsys.fsys.SyncDir(d.name) }
func (d *pebbleDir) SyncData() error                    { return d.Sync() }
func (d *pebbleDir) SyncTo(int64) (bool, error)         { return false, nil }
func (d *pebbleDir) Close() error                       { return nil }
func (d *pebbleDir) Read([]byte) (int, error)           { return 0, vfs.ErrNotRegular }
func (d *pebbleDir) ReadAt([]byte, int64) (int, error)  { return 0, vfs.ErrNotRegular }
func (d *pebbleDir) Write([]byte) (int, error)          { return 0, vfs.ErrNotRegular }
func (d *pebbleDir) WriteAt([]byte, int64) (int, error) { return 0, vfs.ErrNotRegular }
func (d *pebbleDir) Preallocate(_, _ int64) error       { return nil }
func (d *pebbleDir) Prefetch(_, _ int64) error          { return nil }
func (d *pebbleDir) Fd() uintptr                        { return pvfs.InvalidFd }
func (d *pebbleDir) Stat() (pvfs.FileInfo, error)       { return d.fsys.Stat(d.name) }
