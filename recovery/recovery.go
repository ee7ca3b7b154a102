// Package recovery turns a directory into a consistent state: manifest,
// segments, log replay, verdict, report.
//
// It knows neither memtable nor batch: what it replays it hands to a callback.
// The order of an open is: manifest; segments; the log (wal.Open: scan, verdict;
// then what the manifest says is made durable, if its last edit was not proven, and
// the records above the last proof); and, last of all, the removal of files that
// nothing names. Whatever is damaged is found before anything is written.
package recovery

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/forebaydb/forebay/compaction"
	"github.com/forebaydb/forebay/internal/base"
	"github.com/forebaydb/forebay/manifest"
	"github.com/forebaydb/forebay/segment"
	"github.com/forebaydb/forebay/vfs"
	"github.com/forebaydb/forebay/wal"
)

// Config says what to open.
type Config struct {
	FS vfs.FS
	// Dir holds manifest and segments, LogDir the log files.
	Dir, LogDir string
	// Log configures the log; Catalog, Proven and OnRecord are filled in here.
	Log wal.Options
	// Segment configures the readers of segments.
	Segment segment.Options
	// SegmentName and ParseSegment give and take apart a segment's file name.
	SegmentName  func(n uint64) string
	ParseSegment func(name string) (uint64, bool)
	// Apply is called for each record that is not settled in segments, in LSN
	// order; record is valid during the call. With ErrLeft it leaves the record,
	// and all behind it, in the log: it looks at them, and does not take them.
	Apply func(lsn base.LSN, record []byte) error
	// Applied, if not nil, is called behind the last Apply, once the log is judged and
	// before anything is changed: what is wrong with what Apply was given can still
	// be said. Not by Explain.
	Applied func() error
	// Size, if not nil, is called before Apply: at least so many bytes of log files
	// hold the records.
	Size func(bytes int64)
	// Rand gives store ids and salts.
	Rand io.Reader
}

// Report says what an open found and did.
type Report struct {
	wal.Recovery
	// Created says that the directory held no store.
	Created bool
	// ReplayStart is the first LSN that was not settled in segments.
	ReplayStart base.LSN
	// Replayed and ReplayedBytes count the records, and their bytes, that were
	// handed to Apply.
	Replayed      uint64
	ReplayedBytes int64
	// Left is the first LSN that Apply has left in the log, 0 if it has taken all.
	Left base.LSN
	// Segments is the number of live segments.
	Segments int
	// Removed names files that nothing named and that were removed.
	Removed []string
	// Duration of the open.
	Duration time.Duration
}

// ErrLeft is what Config.Apply returns for a record that it leaves in the log.
var ErrLeft = errors.New("recovery: left in the log")

// Store is an opened store.
type Store struct {
	Manifest *manifest.Manifest
	// Log is nil when the store was opened to be read alone.
	Log *wal.Log
	// Listed is what the manifest said of the live segments, in its order:
	// oldest first. Segments are their readers, in the same order.
	Listed   []manifest.Segment
	Segments []*segment.Reader
	Report   Report
}

// Open recovers a store, or makes one. After an error no file was changed,
// unless the error came while something was being made durable.
func Open(cfg *Config) (*Store, error) {
	start := time.Now()
	s := &Store{}
	if err := s.load(cfg); err != nil {
		return nil, err
	}
	if err := s.openRest(cfg); err != nil {
		s.Close()
		return nil, err
	}
	s.Report.Recovery = s.Log.Recovery()
	if err := s.removeUnnamed(cfg); err != nil {
		s.Log.Close()
		s.Close()
		return nil, err
	}
	s.Report.Duration = time.Since(start)
	return s, nil
}

// Explain reports what Open would find and do, and changes nothing. With a
// *base.CorruptionError the report says how far it came.
func Explain(cfg *Config) (Report, error) {
	s := &Store{}
	defer s.Close()
	if err := s.load(cfg); err != nil || s.Report.Created {
		return s.Report, err
	}
	return s.Report, s.inspect(cfg)
}

// OpenReadOnly recovers a store into memory and changes nothing: no file is made,
// written or removed. The manifest of the result takes no edit, and it has no
// log. What Apply is given need not be durable, as it is after Open: it is what
// an Open would make durable. Without a store in the directory the error wraps
// fs.ErrNotExist.
//
// Nobody may write to the store before OpenReadOnly has returned, nor remove
// files of it before Close: the caller holds its lock, shared at least
// (vfs.FS.LockShared).
func OpenReadOnly(cfg *Config) (*Store, error) {
	start := time.Now()
	s := &Store{}
	err := s.load(cfg)
	switch {
	case err == nil && s.Report.Created:
		err = fmt.Errorf("no store in %s: %w", cfg.Dir, fs.ErrNotExist)
	case err == nil:
		if err = s.inspect(cfg); err == nil {
			err = cfg.applied()
		}
	case errors.Is(err, fs.ErrNotExist): // no directory
		err = fmt.Errorf("no store in %s: %w", cfg.Dir, err)
	}
	if err != nil {
		s.Close()
		return nil, err
	}
	s.Report.Duration = time.Since(start)
	return s, nil
}

func (c *Config) applied() error {
	if c.Applied == nil {
		return nil
	}
	return c.Applied()
}

// inspect is what an open does behind load, without a change.
func (s *Store) inspect(cfg *Config) error {
	if err := s.openSegments(cfg); err != nil {
		return err
	}
	opts, by, err := s.logOptions(cfg)
	if err != nil {
		return err
	}
	s.Report.Recovery, err = wal.Inspect(cfg.LogDir, &opts)
	return by.blame(err, cfg.LogDir)
}

// load reads the manifest and refuses a directory that lost it.
func (s *Store) load(cfg *Config) error {
	m, err := manifest.Load(cfg.FS, cfg.Dir)
	if errors.Is(err, manifest.ErrNone) {
		s.Report.Created = true
		err = refuseOrphans(cfg)
	}
	if err != nil {
		return err
	}
	st := m.State()
	if m.Name() != "" {
		if err := st.Check(); err != nil {
			return &base.CorruptionError{File: filepath.Join(cfg.Dir, m.Name()), Offset: -1, Reason: "manifest says what cannot be", Err: err}
		}
	}
	s.Manifest = m
	s.Report.ReplayStart = st.ReplayStart
	return nil
}

func (s *Store) openRest(cfg *Config) error {
	if err := s.openSegments(cfg); err != nil {
		return err
	}
	opts, by, err := s.logOptions(cfg)
	if err != nil {
		return err
	}
	opts.BeforeChange = func() error {
		if err := cfg.applied(); err != nil {
			return err
		}
		return s.Manifest.Writable(cfg.FS, cfg.Dir, cfg.Rand)
	}
	s.Log, err = wal.Open(cfg.LogDir, &opts)
	return by.blame(err, cfg.LogDir)
}

func (s *Store) logOptions(cfg *Config) (wal.Options, stray, error) {
	opts := cfg.Log
	from := s.Manifest.State().ReplayStart
	opts.FS, opts.Catalog, opts.Rand = cfg.FS, s.Manifest, cfg.Rand
	if from > 0 {
		opts.Proven = from - 1
	}
	by, err := s.strays(cfg, opts.Proven)
	if err != nil {
		return opts, by, err
	}
	opts.Proven = max(opts.Proven, by.last)
	opts.OnSize = cfg.Size
	opts.OnRecord = func(lsn wal.LSN, _ uint64, rec []byte) error {
		if lsn < from {
			return nil
		}
		s.Report.Replayed++
		s.Report.ReplayedBytes += int64(len(rec))
		if cfg.Apply == nil {
			return nil
		}
		err := cfg.Apply(lsn, rec)
		if err == ErrLeft {
			if s.Report.Left == 0 {
				s.Report.Left = lsn
			}
			return nil
		}
		if err != nil && !errors.As(err, new(*base.CorruptionError)) {
			err = &base.CorruptionError{File: cfg.LogDir, Offset: -1, Reason: fmt.Sprintf("log record %d verifies and is no batch", lsn), Err: err}
		}
		return err
	}
	return opts, by, nil
}

// openSegments opens every segment that the manifest lists.
func (s *Store) openSegments(cfg *Config) error {
	s.Listed = s.Manifest.State().Segments
	for i := range s.Listed {
		g := &s.Listed[i]
		path := filepath.Join(cfg.Dir, cfg.SegmentName(g.Number))
		r, err := compaction.Open(cfg.FS, path, s.Manifest.StoreID(), g, cfg.Segment)
		if err != nil {
			return err
		}
		s.Segments = append(s.Segments, r)
	}
	s.Report.Segments = len(s.Segments)
	return nil
}

// refuseOrphans fails when a directory without a manifest holds a segment or a
// log file with frames. Logs without frames are an unfinished create.
func refuseOrphans(cfg *Config) error {
	for _, dir := range dirs(cfg) {
		names, err := cfg.FS.List(dir)
		if err != nil {
			return err
		}
		for _, name := range names {
			path := filepath.Join(dir, name)
			if _, ok := cfg.ParseSegment(name); ok {
				return &base.CorruptionError{File: path, Offset: -1, Reason: "segment, but no intact manifest in " + cfg.Dir}
			}
			if _, ok := wal.ParseFileName(name); !ok {
				continue
			}
			used, err := wal.HasFrames(cfg.FS, path)
			if err != nil {
				return err
			}
			if used {
				return &base.CorruptionError{File: path, Offset: -1, Reason: "log file with frames, but no intact manifest in " + cfg.Dir}
			}
		}
	}
	return nil
}

func dirs(cfg *Config) []string {
	if cfg.LogDir == cfg.Dir {
		return []string{cfg.Dir}
	}
	return []string{cfg.Dir, cfg.LogDir}
}

// removeUnnamed removes segments that the manifest does not name: what a
// checkpoint left when it was cut short. (The log does the same for its files.)
func (s *Store) removeUnnamed(cfg *Config) error {
	names, err := cfg.FS.List(cfg.Dir)
	if err != nil {
		return err
	}
	live := map[uint64]bool{}
	for _, g := range s.Segments {
		live[g.ID().Number] = true
	}
	for _, name := range names {
		n, ok := cfg.ParseSegment(name)
		if !ok {
			continue
		}
		s.Manifest.SkipSegments(n)
		if live[n] {
			continue
		}
		if err := cfg.FS.Remove(filepath.Join(cfg.Dir, name)); err != nil {
			return err
		}
		s.Report.Removed = append(s.Report.Removed, name)
	}
	return nil
}

// Close closes segments and manifest; the log is closed by its owner.
func (s *Store) Close() error {
	var errs []error
	for _, r := range s.Segments {
		errs = append(errs, r.Close())
	}
	if s.Manifest != nil {
		errs = append(errs, s.Manifest.Close())
	}
	return errors.Join(errs...)
}
