package engine

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/syndtr/goleveldb/leveldb/storage"

	"github.com/forebaydb/forebay/vfs"
)

// ldbStorage is a directory of a file system of Forebay as a storage of goleveldb.
type ldbStorage struct {
	fsys vfs.FS
	dir  string
}

var _ storage.Storage = (*ldbStorage)(nil)

type ldbLock struct{ io.Closer }

func (l ldbLock) Unlock() { l.Close() }

func (s *ldbStorage) path(name string) string { return filepath.Join(s.dir, name) }

func (s *ldbStorage) Lock() (storage.Locker, error) {
	l, err := s.fsys.Lock(s.path("LOCK"))
	return ldbLock{l}, err
}

func (s *ldbStorage) Log(string) {}

// SetMeta writes CURRENT beside, and moves it into its place.
func (s *ldbStorage) SetMeta(fd storage.FileDesc) error {
	name := s.path("CURRENT.tmp")
	if err := s.fsys.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := s.fsys.Create(name, vfs.ReadWrite)
	if err != nil {
		return err
	}
	_, err = f.WriteAt([]byte(fd.String()+"\n"), 0)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := s.fsys.Rename(name, s.path("CURRENT")); err != nil {
		return err
	}
	return s.fsys.SyncDir(s.dir)
}

// GetMeta takes the manifest that CURRENT names; as goleveldb's own storage it says
// that a name which is none, or of no file, is corruption.
func (s *ldbStorage) GetMeta() (storage.FileDesc, error) {
	b, err := vfs.ReadFile(s.fsys, s.path("CURRENT"), 1<<10)
	if errors.Is(err, fs.ErrNotExist) {
		return storage.FileDesc{}, os.ErrNotExist
	}
	if err != nil {
		return storage.FileDesc{}, err
	}
	name := strings.TrimSuffix(string(b), "\n")
	fd, ok := ldbParse(name)
	if !ok || len(name) == len(b) {
		return fd, &storage.ErrCorrupted{Err: errors.New("leveldb/storage: corrupted or incomplete CURRENT file")}
	}
	if _, err := s.fsys.Stat(s.path(name)); err != nil {
		return fd, err
	}
	return fd, nil
}

func (s *ldbStorage) List(ft storage.FileType) (out []storage.FileDesc, err error) {
	names, err := s.fsys.List(s.dir)
	for _, name := range names {
		if fd, ok := ldbParse(name); ok && fd.Type&ft != 0 {
			out = append(out, fd)
		}
	}
	return out, err
}

func (s *ldbStorage) Open(fd storage.FileDesc) (storage.Reader, error) {
	f, err := s.fsys.Open(s.path(fd.String()), vfs.ReadOnly)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, os.ErrNotExist
	}
	if err != nil {
		return nil, err
	}
	size, err := f.Size()
	return &ldbReader{io.NewSectionReader(f, 0, size), f}, err
}

// Create empties what has the name.
func (s *ldbStorage) Create(fd storage.FileDesc) (storage.Writer, error) {
	name := s.path(fd.String())
	if err := s.fsys.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	f, err := s.fsys.Create(name, vfs.ReadWrite)
	return &ldbWriter{File: f, s: s, fd: fd}, err
}

func (s *ldbStorage) Remove(fd storage.FileDesc) error { return s.fsys.Remove(s.path(fd.String())) }

func (s *ldbStorage) Rename(from, to storage.FileDesc) error {
	return s.fsys.Rename(s.path(from.String()), s.path(to.String()))
}

func (s *ldbStorage) Close() error { return nil }

type ldbReader struct {
	*io.SectionReader
	f vfs.File
}

func (r *ldbReader) Close() error { return r.f.Close() }

type ldbWriter struct {
	vfs.File
	s  *ldbStorage
	fd storage.FileDesc
	at int64
}

func (w *ldbWriter) Write(p []byte) (int, error) {
	n, err := w.WriteAt(p, w.at)
	w.at += int64(n)
	return n, err
}

// Sync syncs the directory of a manifest, too, as goleveldb's own storage does.
func (w *ldbWriter) Sync() error {
	err := w.File.Sync()
	if err == nil && w.fd.Type == storage.TypeManifest {
		err = w.s.fsys.SyncDir(w.s.dir)
	}
	return err
}

// ldbParse takes the name of a file apart.
func ldbParse(name string) (fd storage.FileDesc, ok bool) {
	number := name
	switch ext := filepath.Ext(name); {
	case strings.HasPrefix(name, "MANIFEST-"):
		fd.Type, number = storage.TypeManifest, name[len("MANIFEST-"):]
	case ext == ".log":
		fd.Type, number = storage.TypeJournal, strings.TrimSuffix(name, ext)
	case ext == ".ldb":
		fd.Type, number = storage.TypeTable, strings.TrimSuffix(name, ext)
	case ext == ".tmp":
		fd.Type, number = storage.TypeTemp, strings.TrimSuffix(name, ext)
	default:
		return fd, false
	}
	for _, c := range number {
		if c < '0' || c > '9' || fd.Num > 1<<40 {
			return fd, false
		}
		fd.Num = 10*fd.Num + int64(c-'0')
	}
	return fd, number != ""
}
