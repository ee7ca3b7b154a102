package real

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"path/filepath"

	"github.com/forebaydb/forebay/vfs"
)

// script makes random calls on few files of a directory and one below it. What
// was written since the last sync of a file stays below what a Mem remembers
// (vfs.MaxVersions), so that the model knows every version.
type script struct {
	fsys  vfs.FS
	dir   string
	rand  *rand.Rand
	since map[string]int // writes by file
	// early makes the kernel write a part of a file, or all that the journal has,
	// before anybody asks for it.
	early func(name string, off, n int64, all bool) error
	log   []string
}

var scriptFiles = [...]string{"a", "b", "c", "d/e", "d/f"}

func (s *script) name() string { return scriptFiles[s.rand.IntN(len(scriptFiles))] }

func (s *script) say(format string, args ...any) { s.log = append(s.log, fmt.Sprintf(format, args...)) }

// run makes n calls. Only what the file system should not have done is an error.
func (s *script) run(n int) error {
	for range n {
		if err := s.step(); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("%q: %w", s.log, err)
		}
	}
	return nil
}

func (s *script) step() error {
	name := s.name()
	path := filepath.Join(s.dir, name)
	switch k := s.rand.IntN(100); {
	case k < 2:
		s.say("mkdir d")
		return s.fsys.MkdirAll(filepath.Join(s.dir, "d"))
	case k < 8:
		s.say("remove %s", name)
		delete(s.since, name)
		return s.fsys.Remove(path)
	case k < 16:
		to := s.name()
		s.say("rename %s %s", name, to)
		err := s.fsys.Rename(path, filepath.Join(s.dir, to))
		if err == nil && to != name {
			s.since[to] = s.since[name]
			delete(s.since, name)
		}
		return err
	case k < 24:
		below := [...]string{"", "d"}[s.rand.IntN(2)]
		s.say("syncdir %q", below)
		return s.fsys.SyncDir(filepath.Join(s.dir, below))
	case k < 40:
		off, n, all := int64(s.rand.IntN(12))*4096, int64(1+s.rand.IntN(8))*4096, s.rand.IntN(4) == 0
		s.say("early %s %d %d %v", name, off, n, all)
		return s.early(path, off, n, all)
	}
	return s.write(name, path)
}

// write opens or makes a file, and writes to it or syncs it.
func (s *script) write(name, path string) error {
	mode := vfs.ReadWrite
	if s.rand.IntN(8) == 0 {
		mode |= vfs.DSync
	}
	f, err := s.fsys.Open(path, mode)
	if errors.Is(err, fs.ErrNotExist) {
		s.say("create %s %d", name, mode)
		f, err = s.fsys.Create(path, mode)
	}
	if err != nil {
		return err
	}
	k := s.rand.IntN(10)
	if s.since[name] == vfs.MaxVersions-1 {
		k = 0
	}
	off := int64(s.rand.IntN(40_000))
	if s.rand.IntN(2) == 0 { // an append
		if off, err = f.Size(); err != nil {
			return errors.Join(err, f.Close())
		}
	}
	switch {
	case k < 2:
		s.say("sync %s", name)
		err = f.Sync()
		s.since[name] = 0
	case k < 3:
		s.say("syncdata %s", name)
		err = f.SyncData()
		s.since[name] = 0
	case k < 4:
		n := int64(1 + s.rand.IntN(30_000))
		s.say("zero %s %d %d", name, off, n)
		err = f.Zero(off, n)
		s.since[name]++
	default:
		p := make([]byte, 1+s.rand.IntN(10_000))
		for i := range p {
			p[i] = byte(s.rand.Uint32())
		}
		s.say("write %s %d %d mode %d", name, off, len(p), mode)
		_, err = f.WriteAt(p, off)
		s.since[name]++
	}
	return errors.Join(err, f.Close())
}
