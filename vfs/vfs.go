// Package vfs is the seam between Forebay and the file system. Four things
// stand behind it: the operating system (OS), a file system in memory whose
// power can be cut (Mem), a wrapper that makes chosen calls fail (Injector) and
// a wrapper that records every call with its place in time (Recorder).
//
// Nothing above this package calls package os.
package vfs

import (
	"errors"
	"io"
	"unsafe"
)

// ErrLocked is returned by FS.Lock and FS.LockShared when somebody holds a lock
// that excludes it, in this process or in another. Neither ever waits.
var ErrLocked = errors.New("vfs: locked by another open")

// ErrUnsupported is returned for a Mode that the platform or the file system
// cannot give (Direct on a file system without O_DIRECT, say).
var ErrUnsupported = errors.New("vfs: not supported here")

// ErrNotRegular is returned by Open, Create, Lock and LockShared for a name that
// is a symbolic link, a directory, a pipe or anything else but a plain file. None
// of them ever follows a link at the end of the name.
var ErrNotRegular = errors.New("vfs: not a regular file")

// Mode says how a file is opened. The modes are flags.
type Mode uint8

const (
	// ReadOnly opens for reading alone; it is the zero Mode.
	ReadOnly Mode = 0
	// ReadWrite opens for reading and writing.
	ReadWrite Mode = 1
	// DSync makes each WriteAt return only when its own bytes are durable
	// (O_DSYNC). It says nothing of bytes written before through another
	// handle.
	DSync Mode = 2
	// Direct bypasses the page cache (O_DIRECT): buffer address, offset and
	// length of every read and write are multiples of DirectAlign.
	Direct Mode = 4
)

// DirectAlign is the alignment in bytes that Direct asks for.
const DirectAlign = 4096

// SectorSize is the unit in which a disk is assumed to write: 512 bytes.
const SectorSize = 512

// Info describes a file or a directory.
type Info struct {
	// Size in bytes; 0 for a directory.
	Size int64
	// Dir is true for a directory.
	Dir bool
	// Regular is true for a plain file, false for a symbolic link and all else.
	Regular bool
}

// FS is a file system. Names are paths in the form of the platform
// (filepath.Join). Errors wrap fs.ErrNotExist, fs.ErrExist and so on where they
// apply. All methods may be called at once from many goroutines.
type FS interface {
	// Create makes a new file with permission 0600 and opens it for reading
	// and writing, whether mode says ReadWrite or not. A name that
	// exists is an error (fs.ErrExist); symbolic links are not followed. The
	// new name is durable only after SyncDir of its directory.
	Create(name string, mode Mode) (File, error)
	// Open opens an existing regular file; symbolic links are not followed.
	Open(name string, mode Mode) (File, error)
	// Remove deletes a file or an empty directory; durable after SyncDir.
	Remove(name string) error
	// Rename moves a file, replacing the target, atomically; durable after
	// SyncDir.
	Rename(oldName, newName string) error
	// MkdirAll makes a directory and its parents with permission 0700.
	MkdirAll(dir string) error
	// List returns the names in dir, without dir, sorted.
	List(dir string) ([]string, error)
	// Stat describes a name without following a symbolic link.
	Stat(name string) (Info, error)
	// SyncDir makes the entries of dir durable.
	SyncDir(dir string) error
	// Lock makes the file if needed and takes its exclusive lock, at once or
	// with ErrLocked. Close of the result gives it back. The lock dies with
	// the process.
	Lock(name string) (io.Closer, error)
	// LockShared takes the shared lock of a file that exists, at once or with
	// ErrLocked: any number may hold it together, and nobody holds it while
	// somebody has the exclusive one. It writes nothing, so that a directory
	// that may only be read will do. Close of the result gives it back. The lock
	// dies with the process.
	LockShared(name string) (io.Closer, error)
}

// File is an open file. ReadAt and WriteAt may be called at once from many
// goroutines. WriteAt follows io.WriterAt: n < len(p) comes with an error, and
// then any part of p may have been written.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	// Size returns the current size in bytes.
	Size() (int64, error)
	// Sync makes all bytes written before it, and all metadata, durable
	// (fsync; F_FULLFSYNC on macOS). After an error nothing is known about
	// what became durable, and a later success proves nothing about those
	// bytes.
	Sync() error
	// SyncData is Sync without metadata that is not needed to read the bytes
	// back (fdatasync). A grown size is included.
	SyncData() error
	// Zero writes n real zero bytes at off, in large writes, growing the file
	// if needed, so that later writes there change no metadata once a Sync
	// has returned.
	Zero(off, n int64) error
}

// AlignedBuf returns n zero bytes whose address is a multiple of DirectAlign,
// as a Direct file wants them. It costs up to DirectAlign bytes more than n.
func AlignedBuf(n int) []byte {
	b := make([]byte, n+DirectAlign)
	skip := int(-uintptr(unsafe.Pointer(unsafe.SliceData(b))) & (DirectAlign - 1))
	return b[skip : skip+n : skip+n]
}

// directAligned tells whether a Direct file may transfer p at off.
func directAligned(p []byte, off int64) bool {
	addr := uintptr(unsafe.Pointer(unsafe.SliceData(p)))
	return (uint64(addr)|uint64(off)|uint64(len(p)))&(DirectAlign-1) == 0
}

// ReadFile reads a whole file. Its size is bounded by max bytes; a larger file
// is an error.
func ReadFile(fsys FS, name string, max int64) ([]byte, error) {
	f, err := fsys.Open(name, ReadOnly)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	if size > max {
		return nil, errors.New("vfs: " + name + " is larger than expected")
	}
	b := make([]byte, size)
	n, err := f.ReadAt(b, 0)
	if n == len(b) {
		return b, nil
	}
	if err == nil || err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return nil, err
}
