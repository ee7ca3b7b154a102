package vfs

import "fmt"

// Reserver is a File that can be given room without being written. Not all can; it
// is asked for with Reserve.
type Reserver interface {
	File
	// Reserve gives a file room for n bytes at off, growing it if needed. What was
	// never written there reads as zeros. Later writes there do not fail for want
	// of room, as Zero's do not, but the first sync behind each changes metadata.
	// After an error any part of it may have happened.
	Reserve(off, n int64) error
}

// Reserve gives a file room; see Reserver. ErrUnsupported, where the file is no
// Reserver or the file system has nothing of the kind, means that nothing has
// happened and that Zero is to be used.
func Reserve(f File, off, n int64) error {
	r, ok := f.(Reserver)
	if !ok {
		return fmt.Errorf("vfs: reserve: %w", ErrUnsupported)
	}
	return r.Reserve(off, n)
}

// Reserve is for Reserver, counted and failed as CallZero.
func (f *injFile) Reserve(off, n int64) error {
	return f.fill(off, n, func(off, n int64) error { return Reserve(f.f, off, n) })
}

// Reserve is for Reserver, reported as CallZero.
func (f *recFile) Reserve(off, n int64) error {
	return f.fill(off, n, func(off, n int64) error { return Reserve(f.f, off, n) })
}

// Reserve is for Reserver. The model of it is Zero behind the end of the file, which
// leaves more to chance.
func (f *memFile) Reserve(off, n int64) error {
	size, err := f.Size()
	if err != nil || off < 0 || n < 0 {
		return f.Zero(off, n) // it tells what is wrong
	}
	from := max(off, size)
	return f.Zero(from, max(off+n-from, 0))
}
