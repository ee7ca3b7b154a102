package vfs

import (
	"fmt"
	"io"
)

// MapAlign is what the offset of a Mapping is a multiple of, in bytes.
const MapAlign = 64 << 10

// Mapping is a range of an open file as memory: what is written there is with the
// operating system without a system call. It survives the death of the process,
// readers of the file see it, and the file's next Sync or SyncData makes it durable
// and reports where that fails, as for File.WriteAt.
//
// Below a file system may write more than was changed: all of a page, or of many
// pages that it keeps together. So synced bytes beside are written again, as they
// are.
//
// One goroutine at a time uses a Mapping.
type Mapping interface {
	// WriteAt is File.WriteAt, within the range. An error, after which any part of
	// p may have been written, says that the memory was taken away: the file was
	// made shorter, its pages cannot be read, or the disk is full after all.
	io.WriterAt
	// Close ends the mapping, and must come before the file is closed, renamed,
	// removed or made shorter.
	io.Closer
}

// Mapper is a File that may be mapped. Not all can; it is asked for with Map.
type Mapper interface {
	File
	// Map maps n bytes at off, a multiple of MapAlign. They are in the file
	// already, written, zeroed or reserved, and a Sync has returned since.
	Map(off, n int64) (Mapping, error)
}

// Map maps a range of a file; see Mapper. An error, ErrUnsupported where the file
// is no Mapper, means that nothing has happened and that WriteAt is to be used.
func Map(f File, off, n int64) (Mapping, error) {
	m, ok := f.(Mapper)
	if !ok {
		return nil, fmt.Errorf("vfs: map a file: %w", ErrUnsupported)
	}
	return m.Map(off, n)
}

// Map is for Mapper: each write to it is one to the file.
func (f *injFile) Map(off, n int64) (Mapping, error) { return mapBelow(f.f, off, n, f.write) }

// Map is for Mapper: each write to it is one to the file.
func (f *recFile) Map(off, n int64) (Mapping, error) { return mapBelow(f.f, off, n, f.write) }

// writer writes to what is below a file, as a write of the file.
type writer func(below io.WriterAt, p []byte, off int64) (int, error)

// mapBelow maps what is below a file.
func mapBelow(below File, off, n int64, write writer) (Mapping, error) {
	m, err := Map(below, off, n)
	if err != nil {
		return nil, err
	}
	return &mappingBelow{m, write}, nil
}

type mappingBelow struct {
	m     Mapping
	write writer
}

func (m *mappingBelow) WriteAt(p []byte, off int64) (int, error) { return m.write(m.m, p, off) }
func (m *mappingBelow) Close() error                             { return m.m.Close() }

// Map is for Mapper. The model of a mapping is that of writes.
func (f *memFile) Map(off, n int64) (Mapping, error) {
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	if err := checkMap(f.name, f.mode, size, off, n); err != nil {
		return nil, err
	}
	return &memMapping{f, off, n}, nil
}

type memMapping struct {
	f      *memFile
	off, n int64
}

func (m *memMapping) WriteAt(p []byte, off int64) (int, error) {
	if err := checkStore(m.f.name, off-m.off, int64(len(p)), m.n); err != nil {
		return 0, err
	}
	return m.f.WriteAt(p, off)
}

func (m *memMapping) Close() error { return nil }
