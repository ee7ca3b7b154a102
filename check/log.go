package check

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"

	"github.com/forebaydb/forebay/internal/base"
	"github.com/forebaydb/forebay/internal/editlog"
	"github.com/forebaydb/forebay/vfs"
	"github.com/forebaydb/forebay/wal"
	"github.com/forebaydb/forebay/wal/frame"
)

// logFile is a log file of the source.
type logFile struct {
	number uint64
	order  int // of the history's files
	path   string
	listed *base.LogFile // nil: nobody lists it, or it does not matter

	// err says why nothing of it can be read; foreign that this is so because it
	// is a file of something else.
	err     error
	missing bool
	foreign bool
	head    frame.FileHeader
	size    int64
	link    *frame.Link // nil: no intact one
	runs    []run
	damage  []hole
	durable base.LSN // the highest that a frame of it proves
	hash    uint64   // closing hash of the frame that holds the last record of a retained file

	// Records above limit do not count: the history went on elsewhere.
	limit base.LSN
}

// run is a stretch of intact frames that follow each other. last is below first
// when there is no record in it.
type run struct {
	off, end    int64
	first, last base.LSN
}

// hole is a damaged place.
type hole struct {
	file           *logFile
	offset, length int64 // offset -1: the file as a whole
	reason         string
	err            error
	first, last    base.LSN // commits that are gone by it; 0: none
	// void says that no record that counts can have been there: the history had
	// gone on elsewhere.
	void bool
}

// budgetOf is how much may be read of a file of n bytes to find all its frames.
// One made so that each header names a long payload would else take for ever.
func budgetOf(n int64) int64 { return 16*n + 256<<20 }

// surveyLog reads a log file and finds all frames that verify.
func (s *source) surveyLog(l *logFile) error {
	l.limit = base.MaxLSN
	fail := func(offset int64, reason string, err error) error {
		l.err = &base.CorruptionError{File: l.path, Offset: offset, Reason: reason, Err: err}
		l.damage = append(l.damage, hole{file: l, offset: offset, length: l.size, reason: reason, err: err})
		return s.ctx.Err()
	}
	f, err := s.fsys.Open(l.path, vfs.ReadOnly)
	if errors.Is(err, fs.ErrNotExist) {
		l.missing = true
		return fail(-1, "listed log file is missing", nil)
	}
	if err != nil {
		return fail(-1, "cannot be read", err)
	}
	defer f.Close()
	t := &tolerant{File: f, ctx: s.ctx}
	l.head, l.size, err = editlog.ReadHeader(t, l.path)
	switch {
	case errors.Is(err, frame.ErrUnsupported):
		return err
	case err != nil && l.listed == nil:
		return fail(0, "file header does not verify, and no manifest says what was in it", t.err)
	case err != nil:
		l.damage = append(l.damage, hole{file: l, offset: 0, length: frame.HeaderSize, reason: "file header does not verify", err: t.err})
		if err := s.guessHeader(l, t); err != nil {
			return err
		}
	case l.head.Kind != frame.FileLog || l.head.Store != s.store || l.head.Number != l.number ||
		l.listed != nil && (l.head.Salt != l.listed.Salt || l.head.Epoch != l.listed.Epoch):
		l.foreign = true
		return fail(0, fmt.Sprintf("header is of another file: %s %d of store %x, salt %x, epoch %d", l.head.Kind, l.head.Number, l.head.Store, l.head.Salt, l.head.Epoch), nil)
	}
	return s.frames(l, t)
}

// guessHeader makes the header of a listed file anew: all that frames are bound to
// is in the manifest. Only the alignment is not; the first frame tells it.
func (s *source) guessHeader(l *logFile, t *tolerant) error {
	l.head = frame.FileHeader{Kind: frame.FileLog, Align: frame.FrameAlign, Store: s.store, Number: l.number, Salt: l.listed.Salt, Epoch: l.listed.Epoch}
	at, err := frame.Find(t, l.size, &l.head, frame.HeaderSize, nil)
	if err == nil && at >= frame.BlockAlign {
		l.head.Align = frame.BlockAlign
	}
	return s.readError(l, err)
}

// readError is what to do about an error of a read that tolerates damage: it is
// the end of ctx, or the file has become shorter.
func (s *source) readError(l *logFile, err error) error {
	if err == nil || s.ctx.Err() != nil {
		return s.ctx.Err()
	}
	return fmt.Errorf("%s changed while it was read: %w", l.path, err)
}

// frames finds the runs of frames and what is between them.
func (s *source) frames(l *logFile, t *tolerant) error {
	r := frame.NewReader(t, l.size, l.head)
	defer r.Release()
	stop, budget := t.read, budgetOf(l.size)
	buf := make([]byte, min(l.size, 256<<10))
	for {
		cur := run{off: r.Offset(), end: r.Offset()}
		var end *frame.End
		for {
			fr, e, err := r.Next()
			if err != nil {
				return s.readError(l, err)
			}
			if e == nil && !sane(fr.Next()) {
				e = &frame.End{Offset: fr.Offset, Reason: "LSN that no commit has"}
			}
			if end = e; e != nil {
				break
			}
			l.take(fr, &cur)
		}
		from := end.Offset
		if cur.end > cur.off {
			l.runs = append(l.runs, cur)
		} else {
			from++ // What begins here does not verify, though its header may.
		}
		next := int64(-1)
		if t.read-stop < budget {
			var err error
			if next, err = frame.Find(t, l.size, &l.head, from, buf); err != nil {
				return s.readError(l, err)
			}
		}
		if next < 0 {
			return s.tailOf(l, t, end)
		}
		if next > end.Offset {
			l.gap(end.Offset, next, end.Reason, t.err)
		}
		r.SeekTo(next)
	}
}

// gap notes that nothing verifies from off to to. Gaps that touch are one.
func (l *logFile) gap(off, to int64, reason string, err error) {
	if reason == "" {
		reason = "nothing is there, and frames follow"
	}
	if n := len(l.damage); n > 0 && l.damage[n-1].offset+l.damage[n-1].length == off && off > l.head.Start() {
		l.damage[n-1].length = to - l.damage[n-1].offset
		return
	}
	l.damage = append(l.damage, hole{file: l, offset: off, length: to - off, reason: reason, err: err})
}

// tailOf notes what lies behind the last frame, if it was begun.
func (s *source) tailOf(l *logFile, t *tolerant, end *frame.End) error {
	if end.Reason == "" {
		return nil
	}
	length := l.size - end.Offset
	if !l.head.Recycled() {
		p, err := frame.Search(t, l.size, &l.head, end.Offset, nil)
		if err != nil {
			return s.readError(l, err)
		}
		length = p.Used
	}
	l.gap(end.Offset, end.Offset+length, end.Reason, t.err)
	return nil
}

// take takes in a frame.
func (l *logFile) take(fr *frame.Frame, cur *run) {
	cur.end = fr.End
	if sane(fr.Durable) {
		l.durable = max(l.durable, fr.Durable)
	}
	switch fr.Kind {
	case frame.KindLink:
		if link, err := frame.DecodeLink(fr.Payload); err == nil && link.Kept+1 == fr.First {
			l.link = &link
		}
	case frame.KindData:
		if cur.last == 0 {
			cur.first = fr.First
		}
		cur.last = fr.Next() - 1
		if m := l.listed; m != nil && fr.First <= m.Last && m.Last < fr.Next() {
			l.hash = fr.Hash
		}
	}
}

// piece is a run's records that count.
type piece struct {
	file        *logFile
	off, end    int64
	first, last base.LSN
}

// stretch is records without a gap.
type stretch struct {
	first, last base.LSN
	pieces      []piece
}

// history is the log's records that count, as far as they can be read.
type history struct {
	files     []*logFile // oldest first
	stretches []stretch
	durable   base.LSN // the highest proof
}

// readHistory surveys the log files and decides which records count. That is
// plain from the newest file back: where one begins, all older ones end. (What it
// copied of them stands in both, and is the same.)
func (s *source) readHistory() (*history, error) {
	h := &history{files: slices.Clone(s.logs)}
	for _, l := range h.files {
		if err := s.surveyLog(l); err != nil {
			return nil, err
		}
	}
	inOrder(h.files)
	limit := base.MaxLSN
	var all []piece
	for _, l := range slices.Backward(h.files) {
		h.durable = max(h.durable, l.durable)
		if m := l.listed; m != nil && m.Cut {
			limit = min(limit, m.CutLSN)
		} else if m != nil && m.Retained {
			limit = min(limit, m.Last)
		}
		l.limit = limit
		for _, r := range l.runs {
			if r.last >= r.first && r.first > 0 && r.first <= limit {
				all = append(all, piece{l, r.off, r.end, r.first, min(r.last, limit)})
			}
		}
		switch {
		case l.link != nil:
			limit = min(limit, l.link.Copies)
		case len(l.runs) > 0 && l.runs[0].first > 0:
			limit = min(limit, l.runs[0].first-1)
		}
	}
	slices.SortStableFunc(all, func(a, b piece) int {
		switch {
		case a.first != b.first && a.first < b.first, a.first == b.first && a.file.order < b.file.order:
			return -1
		}
		return 1
	})
	for _, p := range all {
		n := len(h.stretches)
		if n == 0 || p.first > h.stretches[n-1].last+1 {
			h.stretches = append(h.stretches, stretch{first: p.first, last: p.last, pieces: []piece{p}})
			continue
		}
		if st := &h.stretches[n-1]; p.last > st.last {
			p.first = st.last + 1
			st.last, st.pieces = p.last, append(st.pieces, p)
		}
	}
	return h, nil
}

// inOrder puts files, which are in the order of their numbers, into that of their
// records: a spare may be overtaken by a file with a higher number, which was made while
// the spare was not ready. Of another epoch a file is never overtaken.
func inOrder(files []*logFile) {
	for j := range files {
		for i := j - 1; i >= 0; i-- {
			if _, known := files[i].behind(); !known {
				continue // it stays; what is before it may have been overtaken all the same
			}
			if !files[j].precedes(files[i]) {
				break
			}
			files[i], files[j] = files[j], files[i]
			j = i
		}
	}
	for i, l := range files {
		l.order = i
	}
}

// precedes says whether the records of a file are known to lie before another one's.
func (l *logFile) precedes(other *logFile) bool {
	a, ok := l.behind()
	b, too := other.behind()
	return ok && too && l.head.Epoch == other.head.Epoch && a < b
}

// behind returns the LSN behind which the file begins.
func (l *logFile) behind() (base.LSN, bool) {
	switch {
	case l.err != nil:
		return 0, false
	case l.link != nil:
		return l.link.Kept, true
	case len(l.runs) > 0 && l.runs[0].first > 0:
		return l.runs[0].first - 1, true
	}
	return 0, false
}

// isVoid says whether a place in the file lies behind its last record that counts,
// where a newer file takes over.
func (l *logFile) isVoid(off int64) bool {
	if l.err != nil || off < 0 {
		return false
	}
	last := base.LSN(0)
	if l.link != nil {
		last = l.link.Kept
	}
	for _, r := range l.runs {
		if r.off < off {
			last = max(last, r.last)
		}
	}
	return last > 0 && last >= l.limit
}

// isEnd says whether a damaged place lies behind the last record that counts, and
// nothing proves that one was there.
func (h *history) isEnd(d *hole) bool {
	n := len(h.stretches)
	if n == 0 {
		return true
	}
	st := &h.stretches[n-1]
	p := &st.pieces[len(st.pieces)-1]
	return h.durable <= st.last && (d.file.order > p.file.order || d.file == p.file && d.offset >= p.end)
}

// gap is commits of which the log has no record.
type gap struct {
	first, last   base.LSN
	before, after *piece
}

// gaps returns the commits from from on that were there and are not.
func (h *history) gaps(from base.LSN) []gap {
	var out []gap
	var before *piece
	for i := range h.stretches {
		st := &h.stretches[i]
		if st.last >= from {
			if st.first > from {
				out = append(out, gap{from, st.first - 1, before, &st.pieces[0]})
			}
			from = st.last + 1
		}
		before = &st.pieces[len(st.pieces)-1]
	}
	if h.durable >= from {
		out = append(out, gap{from, h.durable, before, nil})
	}
	return out
}

// explain finds the damage by which the commits of each gap are gone. Where there
// is none, the place where they should be is named.
func (h *history) explain(gaps []gap, logDir string) (holes []hole) {
	for _, l := range h.files {
		for _, d := range l.damage {
			d.void = l.isVoid(d.offset)
			holes = append(holes, d)
		}
	}
	for _, g := range gaps {
		some := false
		for i := range holes {
			if d := &holes[i]; !d.void && g.has(d) {
				d.first, d.last, some = g.first, g.last, true
			}
		}
		if some {
			continue
		}
		d := hole{file: &logFile{path: logDir}, offset: -1, reason: fmt.Sprintf("commits %d to %d are in no log file", g.first, g.last), first: g.first, last: g.last}
		if g.before != nil {
			d.file, d.offset = g.before.file, g.before.end
		}
		holes = append(holes, d)
	}
	return holes
}

// has says whether a damaged place lies where the gap's commits should be.
func (g *gap) has(d *hole) bool {
	if d.file.foreign && d.file.listed == nil {
		return false
	}
	if b := g.before; b != nil && (d.file.order < b.file.order || d.file == b.file && d.offset < b.end) {
		return false
	}
	a := g.after
	return a == nil || d.file.order < a.file.order || d.file == a.file && d.offset >= 0 && d.offset < a.off
}

// each calls fn for the records of a stretch from from on; rec is valid during the
// call, and an error ends the walk.
func (s *source) each(st *stretch, from base.LSN, fn func(p *piece, off int64, lsn base.LSN, rec []byte) error) error {
	for i := range st.pieces {
		p := &st.pieces[i]
		if p.last < from {
			continue
		}
		if err := s.eachOf(p, max(from, p.first), fn); err != nil {
			return err
		}
	}
	return nil
}

func (s *source) eachOf(p *piece, from base.LSN, fn func(p *piece, off int64, lsn base.LSN, rec []byte) error) error {
	f, err := s.fsys.Open(p.file.path, vfs.ReadOnly)
	if err != nil {
		return err
	}
	defer f.Close()
	r := frame.NewReader(&tolerant{File: f, ctx: s.ctx}, p.file.size, p.file.head)
	defer r.Release()
	r.SeekTo(p.off)
	for r.Offset() < p.end {
		fr, end, err := r.Next()
		if err != nil {
			return err
		}
		if end != nil {
			return s.readError(p.file, errors.New(end.Reason))
		}
		if fr.Kind != frame.KindData || fr.Next() <= from {
			continue
		}
		off := fr.Offset
		err = fr.EachRecord(func(lsn base.LSN, _ uint64, rec []byte) error {
			if lsn < from || lsn > p.last {
				return nil
			}
			return fn(p, off, lsn, rec)
		})
		if err != nil {
			return err
		}
		if fr.Next() > p.last {
			return nil
		}
	}
	return nil
}

// strangers are log files of the directory that the source does not count.
func (s *source) strangers() (out []string) {
	for _, name := range s.logNames {
		n, ok := wal.ParseFileName(name)
		if ok && !slices.ContainsFunc(s.logs, func(l *logFile) bool { return l.number == n }) {
			out = append(out, filepath.Join(s.cfg.LogDir, name))
		}
	}
	return out
}
