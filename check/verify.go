package check

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/forebaydb/forebay/internal/base"
	"github.com/forebaydb/forebay/internal/batch"
	"github.com/forebaydb/forebay/manifest"
	"github.com/forebaydb/forebay/segment"
	"github.com/forebaydb/forebay/wal"
	"github.com/forebaydb/forebay/wal/frame"
)

// Verify reads all of a store and reports everything that does not hold: the
// manifest, and whether what it says can be; every segment, whole, and whether it is
// the one that is listed; every record of the log, and whether it is a batch; whether
// each item of a sequence that the index names is in the log; files that nobody names.
// It writes nothing and takes no lock. The report is not nil,
// also with an error, which is that of ctx, of a directory that cannot be read, or
// of a file of a newer format; what is damaged is in the report alone.
func Verify(ctx context.Context, cfg *Config) (*Report, error) {
	v := &verifier{rep: &Report{}}
	var err error
	if v.source, err = openSource(ctx, cfg, 1); err != nil {
		return v.rep, err
	}
	for _, n := range v.sizes {
		v.rep.Files++
		v.rep.Bytes += n
	}
	v.manifest()
	if err := v.segments(); err != nil {
		return v.rep, err
	}
	if err := v.known(); err != nil {
		return v.rep, err
	}
	if err := v.log(); err != nil {
		return v.rep, err
	}
	if err := v.sequences(); err != nil {
		return v.rep, err
	}
	v.unnamed()
	if err := ctx.Err(); err != nil {
		return v.rep, err
	}
	v.fsys.finish()
	return v.rep, nil
}

// verifier is one Verify.
type verifier struct {
	*source
	rep  *Report
	hist *history // nil: nobody has asked
	hide hiding
}

// readLog is readHistory, once.
func (v *verifier) readLog() (*history, error) {
	if v.hist != nil {
		return v.hist, nil
	}
	h, err := v.readHistory()
	v.hist = h
	return h, err
}

func (v *verifier) add(p Problem) { v.rep.Problems = append(v.rep.Problems, p) }

func (v *verifier) damage(path string, offset int64, reason string, err error) {
	v.add(Problem{File: path, Offset: offset, Reason: reason, Err: err})
}

func (v *verifier) warn(path, reason string) {
	v.add(Problem{File: path, Offset: -1, Reason: reason, Severity: Warning})
}

// manifest reports what is wrong with the manifest, in itself.
func (v *verifier) manifest() {
	switch {
	case v.man == nil && v.manFile == "":
		v.damage(v.cfg.Dir, -1, "there is no manifest", nil)
		return
	case v.man == nil && errors.Is(v.manErr, manifest.ErrNone):
		v.damage(v.manFile, 0, "manifest is not complete", nil)
		return
	case v.man == nil:
		v.add(problemOf(v.manFile, v.manErr))
		return
	case v.man.Dirty():
		v.warn(v.manFile, "the last edit is not proven durable; the next open writes the manifest anew")
	}
	if err := v.state.Check(); err != nil {
		v.damage(v.manFile, -1, "manifest says what cannot be", err)
	}
}

func (v *verifier) segments() error {
	for _, g := range v.segs {
		if err := v.survey(g); err != nil {
			return err
		}
		if g.err == nil {
			v.rep.Segments++
			v.rep.Versions += g.props.Count
			continue
		}
		first := problemOf(g.path, g.err)
		v.add(first)
		if g.remains == nil {
			continue
		}
		for _, l := range g.remains.Lost {
			if l.Offset != first.Offset {
				v.damage(g.path, l.Offset, fmt.Sprintf("%s: %s", l.What, l.Reason), l.Err)
			}
		}
	}
	return nil
}

// log checks the log as an open would, and, where that finds damage, looks for
// more of it behind.
func (v *verifier) log() error {
	if v.man == nil {
		return v.logAlone()
	}
	var first *Problem
	var bad []base.LSN
	rec, err := wal.Inspect(v.cfg.LogDir, &wal.Options{FS: v.fsys, Catalog: v.man, Proven: max(v.state.ReplayStart, 1) - 1,
		OnRecord: func(lsn base.LSN, _ uint64, rec []byte) error {
			v.rep.Records++
			r, err := batch.Check(rec)
			switch {
			case err != nil:
				bad = append(bad, lsn)
			case lsn >= v.state.ReplayStart:
				v.hide.see(lsn, r)
			}
			return nil
		}})
	v.rep.Log = rec
	if cerr := v.ctx.Err(); cerr != nil {
		return cerr
	}
	switch {
	case errors.Is(err, frame.ErrUnsupported):
		return err
	case err != nil:
		p := problemOf(v.cfg.LogDir, err)
		first = &p
		v.add(p)
	case rec.Verdict == wal.Torn:
		v.warn(rec.File, fmt.Sprintf("the log is torn at offset %d (%s): %d bytes that nothing proves durable will be dropped", rec.Offset, cmp.Or(rec.Reason, "stray bytes"), rec.Dropped))
	}
	if first == nil && len(bad) == 0 && !slices.ContainsFunc(v.state.Log.Files, func(f base.LogFile) bool { return f.Retained }) {
		return nil
	}
	h, err := v.readLog()
	if err != nil {
		return err
	}
	v.retained(h)
	v.more(h, first)
	return v.noBatch(h, bad)
}

// more reports the damage of the log that comes beside what an open stops at.
func (v *verifier) more(h *history, first *Problem) {
	if first == nil {
		return
	}
	for _, d := range h.explain(h.gaps(v.state.ReplayStart), v.cfg.LogDir) {
		if d.file.path == first.File && (d.offset == first.Offset || d.offset < 0) {
			continue
		}
		if d.last > 0 || !d.void && !h.isEnd(&d) {
			v.damage(d.file.path, d.offset, d.text(), d.err)
		}
	}
}

// text says what is wrong, and what is gone by it.
func (d *hole) text() string {
	if d.last == 0 {
		return d.reason
	}
	return fmt.Sprintf("%s (commits %d to %d)", d.reason, d.first, d.last)
}

// retained checks the files below the floor, which no open reads.
func (v *verifier) retained(h *history) {
	for _, l := range h.files {
		m := l.listed
		if m == nil || !m.Retained || l.err != nil {
			continue
		}
		whole := slices.ContainsFunc(l.runs, func(r run) bool { return r.off == l.head.Start() && r.last >= m.Last })
		switch {
		case whole && l.hash != m.Hash:
			v.damage(l.path, l.head.Start(), fmt.Sprintf("retained log file has closing hash %x at LSN %d, listed is %x", l.hash, m.Last, m.Hash), nil)
		case !whole:
			at, reason := l.head.Start(), "its records end too early"
			if len(l.damage) > 0 {
				at, reason = l.damage[0].offset, l.damage[0].reason
			}
			v.damage(l.path, at, fmt.Sprintf("retained log file does not verify through LSN %d: %s", m.Last, reason), nil)
		}
	}
}

// noBatch reports records that verify and are no batch, with their places; without
// one where the files, read one by one, do not lead to it.
func (v *verifier) noBatch(h *history, bad []base.LSN) error {
	found := map[base.LSN]bool{}
	for i := range h.stretches {
		if len(bad) == 0 {
			return nil
		}
		err := v.each(&h.stretches[i], bad[0], func(p *piece, off int64, lsn base.LSN, rec []byte) error {
			if _, err := batch.Check(rec); err != nil {
				found[lsn] = true
				v.damage(p.file.path, off, fmt.Sprintf("record %d verifies and is no batch", lsn), err)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	for _, lsn := range bad {
		if !found[lsn] {
			v.damage(v.cfg.LogDir, -1, fmt.Sprintf("record %d verifies and is no batch", lsn), nil)
		}
	}
	return nil
}

// logAlone checks the log files where no manifest says which count.
func (v *verifier) logAlone() error {
	h, err := v.readHistory()
	if err != nil {
		return err
	}
	for _, l := range h.files {
		for _, r := range l.runs {
			if r.last >= r.first && r.first > 0 {
				v.rep.Records += r.last - r.first + 1
			}
		}
		for _, d := range l.damage {
			v.damage(l.path, d.offset, d.reason, d.err)
		}
	}
	return nil
}

// unnamed reports files that nobody names.
func (v *verifier) unnamed() {
	for _, name := range v.names {
		path := filepath.Join(v.cfg.Dir, name)
		_, isLog := wal.ParseFileName(name)
		n, isSegment := segment.ParseFileName(name)
		_, isManifest := manifest.ParseFileName(name)
		switch {
		case isLog, name == "LOCK", name == damagedDir, path == v.cfg.LogDir:
		case isSegment:
			if !slices.ContainsFunc(v.segs, func(g *segFile) bool { return g.number == n }) {
				v.warn(path, "segment that nobody lists; the next open removes it")
			}
		case isManifest:
			if path != v.manFile && v.man != nil {
				v.warn(path, "not the manifest that counts; the next open removes it")
			}
		default:
			v.warn(path, "file that is none of a store's")
		}
	}
	for _, path := range v.strangers() {
		v.warn(path, "log file that nobody lists")
	}
	if v.cfg.LogDir == v.cfg.Dir {
		return
	}
	for _, name := range v.logNames {
		if _, isLog := wal.ParseFileName(name); !isLog && name != "LOCK" && !v.isDir(filepath.Join(v.cfg.LogDir, name)) {
			v.warn(filepath.Join(v.cfg.LogDir, name), "file that is none of a log's")
		}
	}
}

func (v *verifier) isDir(path string) bool {
	info, err := v.fsys.Stat(path)
	return err == nil && info.Dir
}
