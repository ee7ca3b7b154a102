package inspect

import (
	"errors"
	"io"
	"path/filepath"
	"slices"
	"sync"

	"github.com/forebaydb/forebay/manifest"
	"github.com/forebaydb/forebay/vfs"
	"github.com/forebaydb/forebay/wal"
)

// still is a file system whose framed files stand still while a process writes
// to them: each is read whole, from back to front, when it is opened. A writer
// goes from front to back, so that whoever has seen a byte then sees all bytes
// that were written before it. Read from front to back, a file that grows shows
// frames behind a hole, which is what damage looks like.
//
// Log files are read highest number first, for the same reason, when the first
// of them is opened: by then the manifest has been read, which must be the
// older. Only the last few can be written to, and only they are kept in memory.
type still struct {
	vfs.FS
	mu   sync.Mutex // guards logs
	logs map[string]*stillFile
}

// movingLogs is how many of the last log files can be written to: the current
// one, one that it was left for, and spares.
const movingLogs = 4

// Open implements vfs.FS.
func (s *still) Open(name string, mode vfs.Mode) (vfs.File, error) {
	base := filepath.Base(name)
	if _, ok := manifest.ParseFileName(base); ok {
		return freeze(s.FS, name)
	}
	if _, ok := catalogKind.Parse(base); ok {
		return freeze(s.FS, name)
	}
	if _, ok := wal.ParseFileName(base); !ok {
		return s.FS.Open(name, mode)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.logs == nil {
		if err := s.freezeLogs(filepath.Dir(name)); err != nil {
			return nil, err
		}
	}
	if f := s.logs[base]; f != nil {
		return f, nil
	}
	return s.FS.Open(name, mode)
}

func (s *still) freezeLogs(dir string) error {
	s.logs = map[string]*stillFile{}
	names, err := s.FS.List(dir)
	if err != nil {
		return err
	}
	names = logNames(names)
	slices.Reverse(names)
	for _, name := range names[:min(len(names), movingLogs)] {
		// One that is gone is missed by whoever needs it.
		if f, err := freeze(s.FS, filepath.Join(dir, name)); err == nil {
			s.logs[name] = f
		}
	}
	return nil
}

// stillChunk is the size in bytes in which a file is read.
const stillChunk = 1 << 20

// stillFile is a file as it was; chunks of zeros are nil.
type stillFile struct {
	size   int64
	chunks [][]byte
}

// freeze reads a file from back to front.
func freeze(fsys vfs.FS, name string) (*stillFile, error) {
	f, err := fsys.Open(name, vfs.ReadOnly)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	s := &stillFile{}
	if s.size, err = f.Size(); err != nil {
		return nil, err
	}
	s.chunks = make([][]byte, (s.size+stillChunk-1)/stillChunk)
	var b []byte
	for i := len(s.chunks) - 1; i >= 0; i-- {
		at := int64(i) * stillChunk
		if b == nil {
			b = make([]byte, min(stillChunk, s.size))
		}
		part := b[:min(stillChunk, s.size-at)]
		// Within a chunk the same holds page by page.
		for end := len(part); end > 0; {
			from := max(0, (end-1)&^(4096-1))
			if n, err := f.ReadAt(part[from:end], at+int64(from)); n < end-from {
				if err == nil || errors.Is(err, io.EOF) {
					err = io.ErrUnexpectedEOF
				}
				return nil, err
			}
			end = from
		}
		if !isZero(part) {
			s.chunks[i], b = part, nil
		}
	}
	return s, nil
}

var errStill = errors.New("file is open for reading alone")

// ReadAt implements vfs.File.
func (s *stillFile) ReadAt(p []byte, off int64) (int, error) {
	n := 0
	for n < len(p) && off < s.size {
		chunk, at := s.chunks[off/stillChunk], off%stillChunk
		m := int(min(int64(len(p)-n), stillChunk-at, s.size-off))
		if chunk == nil {
			clear(p[n : n+m])
		} else {
			copy(p[n:n+m], chunk[at:])
		}
		n += m
		off += int64(m)
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// Size implements vfs.File.
func (s *stillFile) Size() (int64, error)               { return s.size, nil }
func (s *stillFile) Close() error                       { return nil }
func (s *stillFile) WriteAt([]byte, int64) (int, error) { return 0, errStill }
func (s *stillFile) Sync() error                        { return errStill }
func (s *stillFile) SyncData() error                    { return errStill }
func (s *stillFile) Zero(int64, int64) error            { return errStill }
