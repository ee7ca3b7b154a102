package check

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/forebaydb/forebay/internal/base"
	"github.com/forebaydb/forebay/internal/merge"
	"github.com/forebaydb/forebay/internal/rangedel"
	"github.com/forebaydb/forebay/manifest"
	"github.com/forebaydb/forebay/segment"
	"github.com/forebaydb/forebay/vfs"
)

// segFile is a segment of the source.
type segFile struct {
	number uint64
	path   string
	listed *manifest.Segment // nil: nobody lists it

	id      segment.ID
	missing bool
	// err is the first thing that does not hold, nil for an intact segment, and
	// other that it is an intact segment, but not this one.
	err   error
	other bool
	// props are those of an intact one; remains is what a survey found of one
	// that is not, nil when there is nothing.
	props   segment.Properties
	remains *segment.Remains

	// Of what can be read: the versions are in [lo, hi), at or below maxPoint.
	lo, hi   []byte
	maxPoint base.LSN
	dels     *rangedel.Set
}

// survey verifies a segment and, if it is damaged, finds what remains of it. An
// error is one after which nothing can go on.
func (s *source) survey(g *segFile) error {
	g.id = segment.ID{Store: s.store, Number: g.number}
	f, err := s.fsys.Open(g.path, vfs.ReadOnly)
	if err != nil {
		if g.missing = errors.Is(err, fs.ErrNotExist); g.missing {
			err = &base.CorruptionError{File: g.path, Offset: -1, Reason: "listed segment is missing"}
		}
		g.err = err
		return s.ctx.Err()
	}
	defer f.Close()
	if id, err := segment.ReadID(f, g.path); err == nil && id != g.id {
		if g.other = id.Store != s.store || g.listed != nil; g.other {
			g.err = &base.CorruptionError{File: g.path, Offset: 0, Reason: fmt.Sprintf("file is %v, not %v", id, g.id)}
			return nil
		}
		g.id = id // It was renamed, and nobody says what should be here.
	}
	if g.err = s.verifySegment(f, g); g.err == nil {
		return nil
	}
	if err := s.ctx.Err(); err != nil {
		return err
	}
	t := &tolerant{File: f, ctx: s.ctx}
	if g.remains, err = segment.Survey(s.ctx, t, g.path, g.id); err != nil {
		if newer := (*segment.UnsupportedError)(nil); errors.As(err, &newer) || s.ctx.Err() != nil {
			return err
		}
		g.err = errors.Join(g.err, err)
		return nil
	}
	m := g.remains
	for i := range m.Lost {
		if m.Lost[i].Err == nil {
			m.Lost[i].Err = t.err
		}
	}
	g.lo, g.hi, g.maxPoint, g.dels = m.Lo, m.Hi, m.MaxLSN, m.Dels
	return nil
}

// verifySegment verifies all of a segment, and takes in what it says of itself.
func (s *source) verifySegment(f vfs.File, g *segFile) error {
	r, err := segment.Open(kept{f}, g.path, g.id, segment.Options{})
	if err != nil {
		return err
	}
	defer r.Close()
	if err := r.Verify(s.ctx); err != nil {
		return err
	}
	if g.props, err = r.Props(); err != nil {
		return err
	}
	if !sane(g.props.MaxLSN) {
		return &base.CorruptionError{File: g.path, Offset: 0, Reason: fmt.Sprintf("segment has LSN %d, which no commit has", g.props.MaxLSN)}
	}
	if g.dels, err = r.RangeDeletes(); err != nil {
		return err
	}
	g.lo, g.hi, g.maxPoint = g.props.Lo, g.props.Hi, r.PointMaxLSN(g.props.MaxLSN)
	return g.compare(r)
}

// compare compares an intact segment with what the manifest says of it.
func (g *segFile) compare(r *segment.Reader) error {
	l, p := g.listed, &g.props
	if l == nil {
		return nil
	}
	bad := func(format string, args ...any) error {
		return &base.CorruptionError{File: g.path, Offset: 0, Reason: "not the segment that the manifest lists: " + fmt.Sprintf(format, args...)}
	}
	switch {
	case r.Hash() != l.Hash || r.Size() != l.Size:
		return bad("hash %x of %d bytes, listed %x of %d", r.Hash(), r.Size(), l.Hash, l.Size)
	case p.Count != l.Count || p.Tombstones != l.Tombstones || p.RangeDeletes != l.RangeDeletes:
		return bad("%d versions, %d tombstones and %d range deletes, listed %d, %d and %d", p.Count, p.Tombstones, p.RangeDeletes, l.Count, l.Tombstones, l.RangeDeletes)
	case p.MinLSN != l.MinLSN || p.MaxLSN != l.MaxLSN:
		return bad("LSNs %d to %d, listed %d to %d", p.MinLSN, p.MaxLSN, l.MinLSN, l.MaxLSN)
	case !bytes.Equal(p.Lo, l.Lo) || !bytes.Equal(p.Hi, l.Hi):
		return bad("keys from %q to %q, listed %q to %q", brief(p.Lo), brief(p.Hi), brief(l.Lo), brief(l.Hi))
	}
	return nil
}

func brief(key []byte) []byte { return key[:min(len(key), 64)] }

// kept is a file that stays open when its reader is closed.
type kept struct{ vfs.File }

// Close implements io.Closer.
func (kept) Close() error { return nil }

// known says from when to when the segment has commits, if that is known.
func (g *segFile) known() (first, last base.LSN) {
	switch {
	case g.listed != nil && sane(g.listed.MaxLSN):
		return g.listed.MinLSN, g.listed.MaxLSN
	case g.err == nil:
		return g.props.MinLSN, g.props.MaxLSN
	}
	return 0, 0
}

// hasVersions says whether there is something to iterate over.
func (g *segFile) hasVersions() bool {
	return g.err == nil && g.props.Count > 0 || g.remains != nil && g.remains.Count > 0
}

// iter opens the segment's versions.
func (g *segFile) iter(s *source) base.Iterator {
	f, err := s.fsys.Open(g.path, vfs.ReadOnly)
	if err != nil {
		return failed{err}
	}
	if g.remains != nil {
		return owner{g.remains.NewIter(&tolerant{File: f, ctx: s.ctx}), f.Close}
	}
	r, err := segment.Open(f, g.path, g.id, segment.Options{})
	if err != nil {
		f.Close()
		return failed{err}
	}
	return owner{r.NewScanIter(), r.Close}
}

// sources returns the readable segments as merge wants them: in as few sources
// as can be, of which each has one segment open at a time. Levels do not matter,
// for they are not known in the worst case.
func (s *source) sources() []merge.Source {
	var segs []*segFile
	var dels []*rangedel.Set
	for _, g := range s.segs {
		if g.dels.Len() > 0 {
			dels = append(dels, g.dels)
		}
		if g.hasVersions() {
			segs = append(segs, g)
		}
	}
	slices.SortStableFunc(segs, func(a, b *segFile) int { return bytes.Compare(a.lo, b.lo) })
	var runs [][]*segFile
	for _, g := range segs {
		i := slices.IndexFunc(runs, func(run []*segFile) bool { return bytes.Compare(run[len(run)-1].hi, g.lo) <= 0 })
		if i < 0 {
			i, runs = len(runs), append(runs, nil)
		}
		runs[i] = append(runs[i], g)
	}
	out := make([]merge.Source, 0, len(runs)+1)
	for _, run := range runs {
		src := merge.Source{Iter: merge.Concat(len(run),
			func(i int) (lo, hi []byte) { return run[i].lo, run[i].hi },
			func(i int) base.Iterator { return run[i].iter(s) })}
		for _, g := range run {
			src.MaxLSN = max(src.MaxLSN, g.maxPoint)
		}
		out = append(out, src)
	}
	if len(dels) > 0 {
		out = append(out, merge.Source{Iter: failed{}, Dels: []*rangedel.Set{rangedel.Merge(dels...)}})
	}
	return out
}

// owner is an iterator that closes what it reads.
type owner struct {
	base.Iterator
	close func() error
}

// Close implements base.Iterator.
func (o owner) Close() error { return errors.Join(o.Iterator.Close(), o.close()) }

// failed is an iterator over nothing, because of err or because there is nothing.
type failed struct{ err error }

func (failed) First() bool                  { return false }
func (failed) Last() bool                   { return false }
func (failed) SeekGE([]byte, base.LSN) bool { return false }
func (failed) SeekLT([]byte, base.LSN) bool { return false }
func (failed) Next() bool                   { return false }
func (failed) Prev() bool                   { return false }
func (failed) Valid() bool                  { return false }
func (failed) Key() []byte                  { return nil }
func (failed) LSN() base.LSN                { return 0 }
func (failed) Kind() base.Kind              { return 0 }
func (failed) Value() []byte                { return nil }
func (f failed) Err() error                 { return f.err }
func (failed) Close() error                 { return nil }
