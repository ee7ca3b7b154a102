package real

import (
	"hash/maphash"
	"io"
	"path/filepath"
	"strings"
	"sync"

	"github.com/forebaydb/forebay/vfs"
)

// twin is a file system that does everything twice, one call at a time: on the
// real one, below a directory, and, where that succeeded, on a model.
type twin struct {
	real vfs.FS
	root string
	mem  *vfs.Mem
	seen *sectors
	// boast keeps syncs of files from the real one.
	boast bool

	mu sync.Mutex // held during each call that changes anything, and during a cut
}

// rel is the model's name for a real one.
func (t *twin) rel(name string) string {
	return strings.TrimPrefix(strings.TrimPrefix(filepath.Clean(name), t.root), string(filepath.Separator))
}

func (t *twin) both(real func() error, model func() error) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := real(); err != nil {
		return err
	}
	return model()
}

type twinFile struct {
	vfs.File
	mem vfs.File
	t   *twin
}

func (t *twin) file(real, model func(string, vfs.Mode) (vfs.File, error), name string, mode vfs.Mode) (vfs.File, error) {
	f := &twinFile{t: t}
	err := t.both(func() (err error) { f.File, err = real(name, mode); return err },
		func() (err error) { f.mem, err = model(t.rel(name), mode); return err })
	if err != nil {
		return nil, err
	}
	return f, nil
}

func (t *twin) Create(name string, mode vfs.Mode) (vfs.File, error) {
	return t.file(t.real.Create, t.mem.Create, name, mode)
}

func (t *twin) Open(name string, mode vfs.Mode) (vfs.File, error) {
	return t.file(t.real.Open, t.mem.Open, name, mode)
}

func (t *twin) Remove(name string) error {
	return t.both(func() error { return t.real.Remove(name) }, func() error { return t.mem.Remove(t.rel(name)) })
}

func (t *twin) Rename(oldName, newName string) error {
	return t.both(func() error { return t.real.Rename(oldName, newName) },
		func() error { return t.mem.Rename(t.rel(oldName), t.rel(newName)) })
}

func (t *twin) MkdirAll(dir string) error {
	return t.both(func() error { return t.real.MkdirAll(dir) }, func() error { return t.mem.MkdirAll(t.rel(dir)) })
}

func (t *twin) SyncDir(dir string) error {
	if !strings.HasPrefix(filepath.Clean(dir), t.root) {
		return t.real.SyncDir(dir) // above the directory that both have
	}
	return t.both(func() error { return t.real.SyncDir(dir) }, func() error { return t.mem.SyncDir(t.rel(dir)) })
}

func (t *twin) List(dir string) ([]string, error)      { return t.real.List(dir) }
func (t *twin) Stat(name string) (vfs.Info, error)     { return t.real.Stat(name) }
func (t *twin) LockShared(n string) (io.Closer, error) { return t.real.LockShared(n) }

func (t *twin) Lock(name string) (c io.Closer, err error) {
	err = t.both(func() (err error) { c, err = t.real.Lock(name); return err }, func() error {
		l, err := t.mem.Lock(t.rel(name))
		if err != nil {
			return err
		}
		return l.Close() // the real one excludes
	})
	return c, err
}

func (f *twinFile) WriteAt(p []byte, off int64) (n int, err error) {
	err = f.t.both(func() (err error) { n, err = f.File.WriteAt(p, off); return err }, func() error {
		if _, err := f.mem.WriteAt(p, off); err != nil {
			return err
		}
		return f.t.seen.add(f.mem, off, int64(len(p)))
	})
	return n, err
}

func (f *twinFile) Zero(off, n int64) error {
	return f.t.both(func() error { return f.File.Zero(off, n) }, func() error { return f.mem.Zero(off, n) })
}

func (f *twinFile) Reserve(off, n int64) error {
	return f.t.both(func() error { return vfs.Reserve(f.File, off, n) }, func() error { return vfs.Reserve(f.mem, off, n) })
}

func (f *twinFile) Sync() error     { return f.sync(f.File.Sync, f.mem.Sync) }
func (f *twinFile) SyncData() error { return f.sync(f.File.SyncData, f.mem.SyncData) }

func (f *twinFile) sync(real, model func() error) error {
	if f.t.boast {
		real = func() error { return nil }
	}
	return f.t.both(real, model)
}

func (f *twinFile) Close() error {
	err := f.File.Close()
	_ = f.mem.Close()
	return err
}

// sectors remembers every sector that was written to a disk, whole and as the last
// one of a file that ended in it.
type sectors struct {
	seed maphash.Seed
	has  map[uint64]struct{}
}

func newSectors() *sectors { return &sectors{maphash.MakeSeed(), map[uint64]struct{}{}} }

// add notes what a write has made of the sectors in which it lies.
func (s *sectors) add(f io.ReaderAt, off, n int64) error {
	buf := make([]byte, vfs.SectorSize)
	for at := off / vfs.SectorSize * vfs.SectorSize; at < off+n; at += vfs.SectorSize {
		clear(buf)
		if _, err := f.ReadAt(buf, at); err != nil && err != io.EOF {
			return err
		}
		s.has[maphash.Bytes(s.seed, buf)] = struct{}{}
	}
	return nil
}

// known says whether a whole sector was written. Of the beginning of one it
// believes it.
func (s *sectors) known(b []byte) bool {
	if len(b) < vfs.SectorSize {
		return true
	}
	_, ok := s.has[maphash.Bytes(s.seed, b)]
	return ok
}
