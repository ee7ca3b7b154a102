package recovery

import (
	"errors"
	"path/filepath"
	"slices"

	"github.com/forebaydb/forebay/internal/base"
	"github.com/forebaydb/forebay/manifest"
	"github.com/forebaydb/forebay/segment"
	"github.com/forebaydb/forebay/vfs"
)

// stray is a segment that the manifest does not list, and that proves something.
type stray struct {
	path string
	last base.LSN // all commits through it were durable
}

// strays returns the segment of this store that the manifest does not list and that
// proves most, if that is more than proven. A checkpoint syncs the log through what
// it settles before it writes the segment. So a whole segment with a commit that the
// log does not hold any more is not what a crash leaves behind: somebody has put
// back an older manifest.
func (s *Store) strays(cfg *Config, proven base.LSN) (most stray, err error) {
	names, err := cfg.FS.List(cfg.Dir)
	if err != nil {
		return stray{}, err
	}
	for _, name := range names {
		n, ok := cfg.ParseSegment(name)
		if !ok || slices.ContainsFunc(s.Listed, func(g manifest.Segment) bool { return g.Number == n }) {
			continue
		}
		path := filepath.Join(cfg.Dir, name)
		last, err := s.settledIn(cfg, path, n)
		if err != nil {
			return stray{}, err
		}
		if last > max(proven, most.last) {
			most = stray{path, last}
		}
	}
	return most, nil
}

// settledIn returns the highest LSN in a segment of this store; 0 where it is none,
// or not whole.
func (s *Store) settledIn(cfg *Config, path string, n uint64) (base.LSN, error) {
	f, err := cfg.FS.Open(path, vfs.ReadOnly)
	if errors.Is(err, vfs.ErrNotRegular) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer f.Close()
	var last base.LSN
	r, err := segment.Open(f, path, segment.ID{Store: s.Manifest.StoreID(), Number: n}, segment.Options{})
	if err == nil {
		var p segment.Properties
		p, err = r.Props()
		last = p.MaxLSN
	}
	var corrupt *base.CorruptionError
	var newer *segment.UnsupportedError
	if errors.As(err, &corrupt) || errors.As(err, &newer) {
		return 0, nil
	}
	return last, err
}

// blame tells what the segment proves in an error of the log in dir, and makes it
// one of the segment where no log file is to blame.
func (p stray) blame(err error, dir string) error {
	var c *base.CorruptionError
	if p.last > 0 && errors.As(err, &c) {
		c.Reason += "; " + p.path + ", which the manifest does not list, proves it: was an older manifest put back?"
		if c.File == dir {
			c.File = p.path
		}
	}
	return err
}
