package fuzz

import "github.com/forebaydb/forebay/vfs"

// syncedWrites makes of each write with O_DSYNC two steps, so that the power
// can be cut between them: the bytes in the cache, then on the disk.
type syncedWrites struct{ *vfs.Mem }

func (s syncedWrites) Open(name string, mode vfs.Mode) (vfs.File, error) {
	return s.wrap(s.Mem.Open, name, mode)
}

func (s syncedWrites) Create(name string, mode vfs.Mode) (vfs.File, error) {
	return s.wrap(s.Mem.Create, name, mode)
}

func (s syncedWrites) wrap(open func(string, vfs.Mode) (vfs.File, error), name string, mode vfs.Mode) (vfs.File, error) {
	f, err := open(name, mode)
	if err != nil || mode&vfs.DSync == 0 {
		return f, err
	}
	cache, err := s.Mem.Open(name, mode&^vfs.DSync)
	if err != nil {
		f.Close()
		return nil, err
	}
	return &syncedFile{f, cache}, nil
}

type syncedFile struct {
	vfs.File
	cache vfs.File
}

func (f *syncedFile) WriteAt(p []byte, off int64) (int, error) {
	if n, err := f.cache.WriteAt(p, off); err != nil {
		return n, err
	}
	return f.File.WriteAt(p, off)
}

func (f *syncedFile) Close() error {
	f.cache.Close()
	return f.File.Close()
}
