package check

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/forebaydb/forebay/compaction"
	"github.com/forebaydb/forebay/internal/base"
	"github.com/forebaydb/forebay/internal/merge"
	"github.com/forebaydb/forebay/manifest"
	"github.com/forebaydb/forebay/vfs"
	"github.com/forebaydb/forebay/wal"
)

const (
	// lastLevel is where the new segments are: nothing is below them.
	lastLevel = 6
	// epochStep is how far above every epoch of the source the new store begins.
	epochStep = 1 << 20
)

// Salvaged says what a salvage did and what was lost.
type Salvaged struct {
	// Losses are all places that are damaged, also those by which nothing is lost.
	Losses []Loss
	// Rebuilt says that no manifest was there to say what counts.
	Rebuilt bool
	// Keys, Segments and Bytes are what the new store has.
	Keys     uint64
	Segments int
	Bytes    int64
	// Commits were taken from the log; Skipped are intact ones behind a hole that
	// were not.
	Commits, Skipped uint64
	// Through is the last commit before the first hole in the log: but for what is
	// lost of segments, the new store has the state after it.
	Through base.LSN
	// Items of sequences were appended anew, with the offsets that they had;
	// LostItems were not, as their records cannot be read.
	Items, LostItems uint64
	// LastLSN is the last one that the new store has given: behind everything that
	// was ever seen in the old one, and behind the records of Items.
	LastLSN base.LSN
	// Unlisted names segments that nobody listed and that were used; Ignored
	// names files that were not, because they are of another store or left over.
	Unlisted, Ignored []string
	// Kept names the copies of damaged files.
	Kept []string
}

// Salvage makes a new store in dst, which must be empty or not there and outside
// of the old one, of everything that can be read of the store that cfg names. It
// changes nothing of that, and takes no lock. An error leaves dst as it was; that
// something is lost is no error, and told by the result. Files of a newer format
// are an error: they are not damaged. Copies of damaged files are in dst/damaged.
//
// The new store has no log but for the items of sequences: these lie in log files in
// dst, whatever cfg.LogDir. The manifest comes last, when all else is durable: without
// it dst is no store.
func Salvage(ctx context.Context, cfg *Config, dst string) (*Salvaged, error) {
	s, err := openSource(ctx, cfg, 2)
	if err != nil {
		return nil, err
	}
	v := &salvager{source: s, out: &Salvaged{}, dst: filepath.Clean(dst)}
	if err := v.mayWrite(); err != nil {
		return nil, err
	}
	if err := v.surveyAll(); err != nil {
		return nil, err
	}
	if err := v.write(); err != nil {
		return nil, fmt.Errorf("salvage of %s: %w", v.cfg.Dir, err)
	}
	v.fsys.finish()
	return v.out, nil
}

// salvager is one Salvage.
type salvager struct {
	*source
	out *Salvaged
	dst string

	hist *history
	// from is the first commit that is not in segments; exact says that the
	// manifest says so, heal that older ones that the log has are wanted too.
	from  base.LSN
	exact bool
	heal  bool
	// below are stretches of the log, of records in segments, that were not applied.
	below []stretch
	// first to last are the commits that were applied without a gap, and beyond
	// says that some were behind one.
	first, last base.LSN
	beyond      bool

	files   compaction.Files
	number  uint64
	made    bool // dst
	written []string
}

// mayWrite refuses a place for the new store that is not its own.
func (v *salvager) mayWrite() error {
	for _, dir := range []string{v.cfg.Dir, v.cfg.LogDir} {
		rel, err := filepath.Rel(dir, v.dst)
		if err == nil && rel != ".." && !strings.HasPrefix(rel, ".."+string(filepath.Separator)) {
			return fmt.Errorf("%w: %s is in %s", ErrNotEmpty, v.dst, dir)
		}
	}
	names, err := v.cfg.FS.List(v.dst)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		v.made = true
	case err != nil:
		return err
	case len(names) > 0:
		return fmt.Errorf("%w: %s holds %s", ErrNotEmpty, v.dst, names[0])
	}
	return nil
}

// surveyAll reads everything and decides what counts.
func (v *salvager) surveyAll() error {
	stale, err := v.stale()
	if err != nil {
		return err
	}
	if v.man == nil || stale {
		if stale {
			v.manErr = &base.CorruptionError{File: v.manFile, Offset: -1, Reason: "manifest is older than the log; was an older one put back?"}
		}
		v.rebuild()
	}
	if err := v.surveySegments(); err != nil {
		return err
	}
	if v.hist, err = v.readHistory(); err != nil {
		return err
	}
	if v.man != nil && v.nothingFits() {
		v.manErr = &base.CorruptionError{File: v.manFile, Offset: -1, Reason: "no file that the manifest lists is there; is it of another store?"}
		if err := v.vote(); err != nil {
			return err
		}
		v.state.ReplayStart = 0
		v.rebuild()
		if err := v.surveySegments(); err != nil {
			return err
		}
		if v.hist, err = v.readHistory(); err != nil {
			return err
		}
	}
	v.from = max(v.state.ReplayStart, 1)
	for _, g := range v.segs {
		v.heal = v.heal || g.err != nil
		// Only a segment that was written to its end says that all commits up to
		// its last one are in segments.
		if g.err == nil {
			v.from = max(v.from, g.props.MaxLSN+1)
		} else if g.remains != nil && g.remains.Finished {
			v.from = max(v.from, g.remains.MaxLSN+1)
		}
	}
	return nil
}

// rebuild makes the source one without a manifest.
func (v *salvager) rebuild() {
	v.man, v.out.Rebuilt, v.heal = nil, true, true
	v.state.Segments = nil
	v.segs, v.logs = v.segments(true), v.logFiles(true)
}

// surveySegments surveys the listed segments, and, when one of them is not there,
// those that nobody lists as well: the manifest may be older than they are. (When
// one is damaged they stay out: to have a few blocks back is not worth that keys
// are, whose tombstones a compaction had dropped.)
func (v *salvager) surveySegments() error {
	gone := false
	for _, g := range v.segs {
		if err := v.survey(g); err != nil {
			return err
		}
		gone = gone || g.missing || g.other
	}
	v.exact = v.man != nil
	if v.man == nil {
		v.dropOthers()
		return nil
	}
	for _, g := range v.segments(true)[len(v.segs):] {
		if !gone {
			v.out.Ignored = append(v.out.Ignored, g.path)
			continue
		}
		if err := v.survey(g); err != nil {
			return err
		}
		if g.hasVersions() || g.dels.Len() > 0 {
			v.out.Unlisted = append(v.out.Unlisted, g.path)
		}
		v.segs = append(v.segs, g)
	}
	v.dropOthers()
	return nil
}

// dropOthers forgets segments that are of another store and that nobody lists.
func (v *salvager) dropOthers() {
	v.segs = slices.DeleteFunc(v.segs, func(g *segFile) bool {
		if g.other && g.listed == nil {
			v.out.Ignored = append(v.out.Ignored, g.path)
			return true
		}
		return false
	})
}

// nothingFits says that of all that the manifest lists nothing is there.
func (v *salvager) nothingFits() bool {
	n := 0
	for _, g := range v.segs {
		if g.listed != nil && !g.missing && !g.other {
			return false
		}
		n++
	}
	for _, l := range v.logs {
		if !l.missing && !l.foreign {
			return false
		}
		n++
	}
	return n > 0
}

// write makes the new store. The manifest comes last: without one dst is no store.
func (v *salvager) write() (err error) {
	var rep *replay
	out := (*compaction.Output)(nil)
	c := &carrier{v: v}
	defer func() {
		c.close()
		if rep != nil {
			rep.close()
		}
		if err != nil {
			v.remove(out)
		}
	}()
	if err := vfs.MkdirDurable(v.cfg.FS, v.dst); err != nil {
		return err
	}
	v.files = compaction.Files{FS: v.cfg.FS, Dir: v.dst, Writer: v.cfg.Writer, Next: func() (uint64, error) { v.number++; return v.number, nil }}
	if _, err := io.ReadFull(v.cfg.Rand, v.files.Store[:]); err != nil {
		return err
	}
	rep = newReplay(v.files, v.cfg.MemtableSize)
	if err := v.replay(rep); err != nil {
		return err
	}
	v.tell()
	if err := v.keep(); err != nil {
		return err
	}
	if err := v.healSequences(rep); err != nil {
		return err
	}
	if err := c.begin(rep); err != nil {
		return err
	}
	out = compaction.NewOutput(v.files, lastLevel)
	if err := v.merge(rep, out, c); err != nil {
		return err
	}
	segs, readers, err := out.Finish()
	if err != nil {
		return err
	}
	for i, r := range readers {
		v.out.Bytes += int64(segs[i].Size)
		if err := r.Close(); err != nil {
			return err
		}
	}
	v.out.Segments = len(segs)
	rep.close()
	rep = nil
	log, err := c.finish()
	if err != nil {
		return err
	}
	return v.seal(segs, log)
}

// merge writes what a reader at the end of everything sees: items of sequences into the
// log, all else into segments.
func (v *salvager) merge(rep *replay, out *compaction.Output, c *carrier) error {
	size := v.cfg.SegmentSize
	if size <= 0 {
		var total int64
		for _, n := range v.sizes {
			total += n
		}
		size = min(max(total/512, 64<<20), 1<<30)
	}
	it := v.reader(rep)
	defer it.Close()
	n, top := 0, v.top()
	add := func(key, value []byte, lsn base.LSN) error {
		v.out.Keys++
		if !sane(lsn) {
			lsn = top // No log could go on behind it.
		}
		return out.Add(key, lsn, base.KindPut, value)
	}
	for ok := it.First(); ok; ok = it.Next() {
		if n++; n%1024 == 0 && v.ctx.Err() != nil {
			return v.ctx.Err()
		}
		if out.Size() >= size {
			if err := out.Cut(nil); err != nil {
				return err
			}
		}
		taken, err := c.take(it.Key(), it.Value(), it.LSN(), add)
		if err == nil && !taken {
			err = add(it.Key(), it.Value(), it.LSN())
		}
		if err != nil {
			return err
		}
	}
	if err := errors.Join(it.Err(), c.settle(add)); err != nil {
		return err
	}
	return out.Cut(nil)
}

// reader reads what there is at the end of everything.
func (v *salvager) reader(rep *replay) *merge.Visible {
	return merge.NewReader(append(rep.sources(), v.sources()...), base.OwnLSN-1, nil, nil)
}

// newLog is the state of a log that goes on behind everything that was ever seen, in an
// epoch that the old store does not come to.
func (v *salvager) newLog() base.LogState {
	top, epoch := v.top(), v.state.Log.Epoch
	for _, l := range v.hist.files {
		epoch = max(epoch, l.head.Epoch)
	}
	epoch = min(epoch, base.MaxListed-epochStep) + epochStep
	return base.LogState{Floor: base.LogFloor{LSN: top, Epoch: epoch}, Epoch: epoch}
}

// seal writes the manifest.
func (v *salvager) seal(segs []manifest.Segment, log base.LogState) error {
	if err := v.ctx.Err(); err != nil {
		return err
	}
	if err := v.cfg.FS.SyncDir(v.dst); err != nil {
		return err
	}
	st := manifest.State{Log: log, Segments: segs, ReplayStart: log.Floor.LSN + 1, LastSegment: v.number}
	return manifest.Create(v.cfg.FS, v.dst, v.files.Store, st, v.cfg.Rand)
}

// top returns the highest LSN that the old store shows in any place, of what is
// lost too: none is given to another commit.
func (v *salvager) top() base.LSN {
	var top base.LSN
	see := func(lsn base.LSN) {
		if !sane(lsn) {
			lsn = 1
		}
		top = max(top, lsn)
	}
	see(max(v.state.ReplayStart, 1) - 1)
	see(v.state.Log.Floor.LSN)
	for _, g := range v.segs {
		_, last := g.known()
		see(last)
		see(g.maxPoint)
		see(g.dels.MaxLSN())
	}
	see(v.hist.durable)
	for _, l := range v.hist.files {
		for _, r := range l.runs {
			see(r.last)
		}
		if l.link != nil {
			see(l.link.Copies)
		}
	}
	return top
}

// replay applies the commits of the log.
func (v *salvager) replay(rep *replay) error {
	st := v.hist.stretches
	at := slices.IndexFunc(st, func(s stretch) bool { return s.first <= v.from && v.from <= s.last+1 })
	if at < 0 && !v.exact {
		// Whether what is between was settled, and its files released, nobody says.
		at = slices.IndexFunc(st, func(s stretch) bool { return s.first > v.from })
	}
	v.below = st[:max(at, 0)]
	for i := max(at, 0); i < len(st); i++ {
		if st[i].last < v.from && i != at {
			v.below = st[:i+1]
			continue
		}
		hole, from := i != at, max(v.from, st[i].first)
		if !hole {
			if v.heal {
				from = st[i].first
			}
			v.first, v.last = from, from-1
		}
		switch {
		case st[i].last < from:
		case hole && !v.cfg.BeyondHoles:
			v.out.Skipped += st[i].last - from + 1
		default:
			if err := v.applyStretch(rep, &st[i], from, hole); err != nil {
				return err
			}
		}
	}
	v.out.Commits, v.out.Through = rep.count, max(v.from-1, v.last)
	return nil
}

// applyStretch applies a stretch from from on, behind a hole or not. A record that
// is no batch is a hole, too.
func (v *salvager) applyStretch(rep *replay, st *stretch, from base.LSN, hole bool) error {
	return v.each(st, from, func(p *piece, off int64, lsn base.LSN, rec []byte) error {
		if hole && !v.cfg.BeyondHoles {
			v.out.Skipped++
			return nil
		}
		err := rep.apply(lsn, rec)
		if errors.Is(err, errBatch) {
			hole = true
			v.out.Losses = append(v.out.Losses, Loss{File: p.file.path, Offset: off, What: "record", Reason: errBatch.Error(), Err: err, FirstLSN: lsn, LastLSN: lsn, Effect: effectLog})
			return nil
		}
		if err == nil && !hole {
			v.last = lsn
		}
		v.beyond = v.beyond || hole
		return err
	})
}

// ignoredLogs are log files that do not count.
func (v *salvager) ignoredLogs() {
	for _, l := range v.logs {
		if l.foreign && l.listed == nil {
			v.out.Ignored = append(v.out.Ignored, l.path)
		}
	}
	for _, path := range v.strangers() {
		if _, ok := wal.ParseFileName(filepath.Base(path)); ok {
			v.out.Ignored = append(v.out.Ignored, path)
		}
	}
}
