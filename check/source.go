package check

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"slices"

	"github.com/forebaydb/forebay/internal/base"
	"github.com/forebaydb/forebay/internal/editlog"
	"github.com/forebaydb/forebay/manifest"
	"github.com/forebaydb/forebay/segment"
	"github.com/forebaydb/forebay/vfs"
	"github.com/forebaydb/forebay/wal"
	"github.com/forebaydb/forebay/wal/frame"
)

// source is a store to look at: what its directories hold, and what its manifest
// says, if it can be read.
type source struct {
	cfg  *Config
	ctx  context.Context
	fsys *watcher

	names, logNames []string
	// man is nil when no manifest can be read; then manErr says why, and manFile
	// which one it is, "" if there is none.
	man     *manifest.Manifest
	manErr  error
	manFile string
	state   manifest.State
	store   [16]byte

	segs  []*segFile // listed, or found
	logs  []*logFile // listed, or found
	sizes map[string]int64
}

// openSource reads the manifest and the names of all files. passes is how often
// the files will be read.
func openSource(ctx context.Context, cfg *Config, passes int64) (*source, error) {
	s := &source{cfg: cfg.withDefaults(), ctx: ctx, sizes: map[string]int64{}}
	s.fsys = newWatcher(ctx, s.cfg)
	var err error
	if s.names, err = s.fsys.List(s.cfg.Dir); err != nil {
		return nil, err
	}
	s.logNames = s.names
	if s.cfg.LogDir != s.cfg.Dir {
		if s.logNames, err = s.fsys.List(s.cfg.LogDir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	if err := s.measure(passes); err != nil {
		return nil, err
	}
	if err := s.loadManifest(); err != nil {
		return nil, err
	}
	s.segs, s.logs = s.segments(s.man == nil), s.logFiles(s.man == nil)
	return s, ctx.Err()
}

// measure takes the sizes of all files of a store. There must be one.
func (s *source) measure(passes int64) error {
	take := func(dir, name string) {
		path := filepath.Join(dir, name)
		if info, err := s.fsys.Stat(path); err == nil && info.Regular {
			s.sizes[path] = info.Size
			s.fsys.expect(path, info.Size*passes)
		}
	}
	for _, name := range s.names {
		_, seg := segment.ParseFileName(name)
		_, man := manifest.ParseFileName(name)
		if seg || man {
			take(s.cfg.Dir, name)
		}
	}
	for _, name := range s.logNames {
		if _, ok := wal.ParseFileName(name); ok {
			take(s.cfg.LogDir, name)
		}
	}
	if len(s.sizes) == 0 {
		return ErrNone
	}
	return nil
}

// loadManifest loads the manifest, if that can be done, and finds the store's id.
// A manifest of a newer format is an error: it is not damaged.
func (s *source) loadManifest() error {
	for _, name := range s.names {
		if _, ok := manifest.ParseFileName(name); ok {
			s.manFile = filepath.Join(s.cfg.Dir, name) // the highest one is the last
		}
	}
	m, err := manifest.Load(s.fsys, s.cfg.Dir)
	if err == nil {
		s.man, s.state, s.store = m, m.State(), m.StoreID()
		s.manFile = filepath.Join(s.cfg.Dir, m.Name())
		return nil
	}
	if errors.Is(err, frame.ErrUnsupported) {
		return err
	}
	if cerr := s.ctx.Err(); cerr != nil {
		return cerr
	}
	s.manErr = err
	return s.vote()
}

// vote takes for the store's id what most of its files have.
func (s *source) vote() error {
	votes := map[[16]byte]int{}
	best := 0
	for _, path := range sortedPaths(s.sizes) {
		id, ok, err := s.storeOf(path)
		if err != nil {
			return err
		}
		if ok {
			if votes[id]++; votes[id] > best {
				best, s.store = votes[id], id
			}
		}
	}
	return s.ctx.Err()
}

func sortedPaths(m map[string]int64) []string {
	out := make([]string, 0, len(m))
	for path := range m {
		out = append(out, path)
	}
	slices.Sort(out)
	return out
}

// storeOf returns the store id that a file gives. The error is that the file is
// of a newer format: who cannot read it must not take it for damage.
func (s *source) storeOf(path string) (id [16]byte, ok bool, err error) {
	f, err := s.fsys.Open(path, vfs.ReadOnly)
	if err != nil {
		return id, false, nil
	}
	defer f.Close()
	if _, isSegment := segment.ParseFileName(filepath.Base(path)); isSegment {
		sid, err := segment.ReadID(f, path)
		if newer := (*segment.UnsupportedError)(nil); errors.As(err, &newer) {
			return id, false, err
		}
		return sid.Store, err == nil, nil
	}
	head, _, err := editlog.ReadHeader(f, path)
	if errors.Is(err, frame.ErrUnsupported) {
		return id, false, err
	}
	return head.Store, err == nil, nil
}

// segments returns the segments that the manifest lists, and, if all, those that
// are there.
func (s *source) segments(all bool) []*segFile {
	var out []*segFile
	for i := range s.state.Segments {
		g := &s.state.Segments[i]
		out = append(out, &segFile{number: g.Number, path: filepath.Join(s.cfg.Dir, segment.FileName(g.Number)), listed: g})
	}
	for _, name := range s.names {
		if n, ok := segment.ParseFileName(name); ok && all && !slices.ContainsFunc(out, func(g *segFile) bool { return g.number == n }) {
			out = append(out, &segFile{number: n, path: filepath.Join(s.cfg.Dir, name)})
		}
	}
	return out
}

// logFiles returns the log files that the manifest lists, and, if all, those that
// are there, by number. When all are asked for the manifest is no guide, and what
// it says of them is left out.
func (s *source) logFiles(all bool) []*logFile {
	var out []*logFile
	if !all {
		for i := range s.state.Log.Files {
			m := &s.state.Log.Files[i]
			out = append(out, &logFile{number: m.Number, path: filepath.Join(s.cfg.LogDir, wal.FileName(m.Number)), listed: m})
		}
		return out
	}
	for _, name := range s.logNames {
		if n, ok := wal.ParseFileName(name); ok {
			out = append(out, &logFile{number: n, path: filepath.Join(s.cfg.LogDir, name)})
		}
	}
	slices.SortFunc(out, func(a, b *logFile) int { return int(int64(a.number) - int64(b.number)) })
	return out
}

// stale says that the manifest is older than the files: there is a log file of
// this store, with frames, that was made after its last edit.
func (s *source) stale() (bool, error) {
	for _, l := range s.logFiles(true) {
		if l.number <= s.state.Log.Number {
			continue
		}
		if err := s.surveyLog(l); err != nil {
			return false, err
		}
		if l.err == nil && len(l.runs) > 0 {
			return true, nil
		}
	}
	return false, nil
}

// sane says whether a commit may have an LSN: one that a manifest can name.
func sane(lsn base.LSN) bool { return lsn < base.MaxListed }
