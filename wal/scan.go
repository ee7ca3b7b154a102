package wal

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/forebaydb/forebay/internal/base"
	"github.com/forebaydb/forebay/internal/editlog"
	"github.com/forebaydb/forebay/vfs"
	"github.com/forebaydb/forebay/wal/frame"
)

// FileName returns the name of log file n.
func FileName(n uint64) string { return fmt.Sprintf("%06d.log", n) }

// ParseFileName returns the number in a log file's name.
func ParseFileName(name string) (uint64, bool) {
	rest, ok := strings.CutSuffix(name, ".log")
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseUint(rest, 10, 64)
	return n, err == nil && n > 0 && n <= base.MaxFileNumber && FileName(n) == name
}

// Verdict is what an open says of a log's end.
type Verdict uint8

const (
	// Clean: nothing follows the last record that counts.
	Clean Verdict = iota
	// Torn: something follows that does not verify, and nothing proves that it
	// was ever durable. The log was cut there.
	Torn
)

// String returns the verdict's name.
func (v Verdict) String() string {
	if v == Torn {
		return "torn"
	}
	return "clean"
}

// Recovery reports what an open, or Inspect, found.
type Recovery struct {
	// Verdict on the log's end. Damage below a proof is no verdict but a
	// *CorruptionError.
	Verdict Verdict
	// Closed says that the log ended with a close mark: nothing was cut.
	Closed bool
	// Last is the last LSN that counts; Proven the last one that was proven
	// durable before this open; Floor the one behind which the log begins.
	Last, Proven, Floor LSN
	// Epoch is the epoch of the last file.
	Epoch uint64
	// File and Offset say where the log ended, and Reason why, where something
	// torn is there. File is empty for an empty log.
	File   string
	Offset int64
	Reason string
	// Dropped is the length in bytes from there to the last byte that is not
	// zero, void files included (stale bytes of a recycled file excluded).
	Dropped int64
	// Files, Records and Bytes count what was walked.
	Files   int
	Records uint64
	Bytes   int64
	// Copied is the number of records above Proven that the open made durable
	// again by copying them into a new file; for Inspect, that it would copy.
	Copied uint64
	// Void names listed files that are no part of the history.
	Void []string
}

// span is one file of the history.
type span struct {
	meta FileMeta
	// first is the LSN of the first record (kept+1), last of the last that
	// counts; last < first when there is none.
	first, last LSN
	hash        uint64 // closing hash of the frame that holds last
	copies      LSN    // records first…copies were copied …
	copyEpoch   uint64 // … and committed in this epoch
	index       int64  // offset of the index frame; 0: none
	keep        uint64
	given       uint64 // what Unkeep gave back while the file was written
	size        int64
	refs        int // tail readers that stand in the file
	live        bool
}

// epochOf returns the epoch in which the span's record lsn was committed.
func (s *span) epochOf(lsn LSN) uint64 {
	if lsn <= s.copies {
		return s.copyEpoch
	}
	return s.meta.Epoch
}

// stretch is a row of data frames of one file that may lie above the last proof. Not
// each frame is kept: behind a load without a sync these are as many as its commits.
// What is wanted of one is read again.
type stretch struct {
	file   int   // index in scan.files
	offset int64 // of the first frame
	end    int64 // behind the last one
	last   LSN   // of the last one that counts
	hash   uint64
}

// stretchMax is about how many bytes a stretch has.
const stretchMax = 64 << 10

// listed is a listed file while it is being scanned.
type listed struct {
	meta  FileMeta
	path  string
	f     vfs.File
	head  frame.FileHeader
	size  int64
	link  *frame.Link // nil: no intact link
	why   *frame.End  // why there is no link
	chain bool
}

// scan reads a log and decides what of it counts. It writes nothing.
type scan struct {
	fsys   vfs.FS
	dir    string
	state  State
	store  [16]byte
	proven LSN
	size   func(bytes int64)
	each   func(lsn LSN, keep uint64, rec []byte) error

	files []*listed
	spans []span
	tail  []stretch
	rep   Recovery
	r     frame.Reader

	// where the walk stands
	pos     Floor // file, LSN, hash, epoch
	cur     *listed
	end     *frame.End
	durable LSN // highest proof so far
	closed  bool
	cutHere bool
	names   []string // in dir
	foreign []uint64 // numbers of files of other stores
	proofIn *listed  // a file off the chain that proves more than the chain holds
}

// run does the whole scan. On success rep, spans, tail and pos are filled in.
func (s *scan) run() error {
	if err := s.state.Check(); err != nil {
		return &CorruptionError{File: s.dir, Offset: -1, Reason: "catalog or manifest says what cannot be", Err: err}
	}
	if err := s.open(); err != nil {
		return err
	}
	if err := s.strangers(); err != nil {
		return err
	}
	if err := s.copies(); err != nil {
		return err
	}
	if s.size != nil {
		s.size(s.full())
	}
	s.pos = s.state.Floor
	s.durable = max(s.proven, s.pos.LSN)
	for {
		next, err := s.successor()
		if err != nil {
			return err
		}
		if next == nil {
			break
		}
		if err := s.walk(next); err != nil {
			return err
		}
		if s.broken() {
			break
		}
	}
	return s.judge()
}

func (s *scan) close() {
	s.r.Release()
	for _, l := range s.files {
		l.f.Close()
	}
}

// open opens every listed file and reads its header and its link.
func (s *scan) open() error {
	for _, m := range s.state.Files {
		l := &listed{meta: m, path: filepath.Join(s.dir, FileName(m.Number))}
		bad := func(off int64, format string, args ...any) error {
			return &CorruptionError{File: l.path, Offset: off, Reason: fmt.Sprintf(format, args...)}
		}
		var err error
		if l.f, err = s.fsys.Open(l.path, vfs.ReadOnly); err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				return bad(-1, "listed log file is missing")
			}
			return err
		}
		s.files = append(s.files, l)
		l.head, l.size, err = editlog.ReadHeader(l.f, l.path)
		switch {
		case errors.Is(err, frame.ErrNoHeader):
			return bad(0, "file header does not verify")
		case err != nil:
			return err
		case l.head.Kind != frame.FileLog || l.head.Number != m.Number || l.head.Salt != m.Salt || l.head.Epoch != m.Epoch || l.head.Store != s.store:
			return bad(0, "header is of another file: %s %d, salt %x, epoch %d; listed are %d, %x, %d",
				l.head.Kind, l.head.Number, l.head.Salt, l.head.Epoch, m.Number, m.Salt, m.Epoch)
		}
		if m.Retained {
			sp := span{meta: m, first: m.First, last: m.Last, hash: m.Hash, index: m.Index, keep: m.Keep, size: l.size}
			if sp.copies, sp.copyEpoch, err = s.copied(l); err != nil {
				return err
			}
			at, _ := slices.BinarySearchFunc(s.spans, m.First, func(a span, lsn LSN) int { return cmp.Compare(a.first, lsn) })
			s.spans = slices.Insert(s.spans, at, sp)
			continue
		}
		s.r.Reset(l.f, l.size, l.head)
		fr, end, err := s.r.Next()
		if err != nil {
			return fmt.Errorf("%s: %w", l.path, err)
		}
		l.why = end
		if fr != nil {
			link, err := frame.DecodeLink(fr.Payload)
			if err != nil || link.Kept+1 != fr.First {
				l.why = &frame.End{Offset: fr.Offset, Reason: "link with impossible numbers"}
				continue
			}
			l.link = &link
		}
	}
	return nil
}

// full sums the sizes of the files above the floor that others follow: they were
// left because they were full.
func (s *scan) full() (bytes int64) {
	last := int64(0)
	for _, l := range s.files {
		if l.link != nil {
			bytes, last = bytes+last, l.size
		}
	}
	return bytes
}

// copied returns how far a retained file holds copies, and of which epoch: the
// catalog does not say. That its link is damaged is for its readers to find.
func (s *scan) copied(l *listed) (last LSN, epoch uint64, err error) {
	s.r.Reset(l.f, l.size, l.head)
	fr, _, err := s.r.Next()
	if err != nil {
		return 0, 0, fmt.Errorf("%s: %w", l.path, err)
	}
	if fr == nil || fr.Kind != frame.KindLink {
		return 0, 0, nil
	}
	link, err := frame.DecodeLink(fr.Payload)
	if err != nil || link.Copies == link.Kept {
		return 0, 0, nil
	}
	return link.Copies, link.CopyEpoch, nil
}

// strangers looks at log files that the catalog does not list. One of another
// store is somebody else's and stays. One of this store that was listed after
// the last edit that the catalog knows is corruption: frames are written into
// listed files alone, so that no crash leaves it. All others are leftovers.
func (s *scan) strangers() error {
	var err error
	if s.names, err = s.fsys.List(s.dir); err != nil {
		return err
	}
	for _, name := range s.names {
		n, ok := ParseFileName(name)
		if !ok || slices.ContainsFunc(s.files, func(l *listed) bool { return l.meta.Number == n }) {
			continue
		}
		path := filepath.Join(s.dir, name)
		head, used, err := peek(s.fsys, path)
		switch {
		case err != nil:
			return err
		case !used || head.Kind != frame.FileLog || head.Number != n:
			// Never listed, or what a disk held before at this place.
		case head.Store != s.store:
			s.foreign = append(s.foreign, n)
		case n > s.state.Number:
			return &CorruptionError{File: path, Offset: 0, Reason: "log file is newer than the catalog or manifest; was an older one put back?"}
		}
	}
	return nil
}

// copies drops the links that name copies of which one does not verify.
func (s *scan) copies() error {
	for _, l := range s.files {
		if l.link == nil || l.link.Copies == l.link.Kept {
			continue
		}
		s.r.Reset(l.f, l.size, l.head)
		got := l.link.Kept
		for got < l.link.Copies {
			fr, end, err := s.r.Next()
			if err != nil {
				return fmt.Errorf("%s: %w", l.path, err)
			}
			if end != nil {
				l.link, l.why = nil, &frame.End{Offset: end.Offset, Reason: "copied records do not verify: " + end.Reason}
				break
			}
			if fr.Kind == frame.KindLink {
				continue
			}
			if fr.Flags&frame.FlagCopy == 0 {
				l.link, l.why = nil, &frame.End{Offset: fr.Offset, Reason: "copied records are missing"}
				break
			}
			got = fr.Next() - 1
		}
	}
	return nil
}

// successor returns the file that the history goes on in: the highest-numbered
// one whose counting link names the file where the walk stands.
func (s *scan) successor() (*listed, error) {
	var best *listed
	for _, l := range s.files {
		if l.link == nil || l.chain || l.meta.Retained || l.link.Pred != s.pos.File {
			continue
		}
		if s.cur != nil && s.cur.meta.Cut && l.link.Kept > s.cur.meta.CutLSN {
			continue
		}
		best = l
	}
	if best == nil {
		return nil, nil
	}
	if s.cur == nil && (best.link.Kept != s.pos.LSN || best.link.Hash != s.pos.Hash) {
		return nil, &CorruptionError{File: best.path, Offset: best.head.Start(),
			Reason: fmt.Sprintf("link follows LSN %d (hash %x), but the log's floor is LSN %d (hash %x)", best.link.Kept, best.link.Hash, s.pos.LSN, s.pos.Hash)}
	}
	if s.cur != nil && best.meta.Epoch < s.cur.meta.Epoch {
		return nil, &CorruptionError{File: best.path, Offset: 0, Reason: "epoch goes back along the log"}
	}
	return best, nil
}

// walk reads file l, which follows the walk's place, up to where its own
// successor takes over or its frames end.
func (s *scan) walk(l *listed) error {
	l.chain = true
	s.cur, s.end, s.closed, s.cutHere = l, nil, false, false
	s.pos.File = l.meta.Number
	limit := LSN(1<<64 - 1)
	next, err := s.successor()
	if err != nil {
		return err
	}
	if l.meta.Cut {
		// A truncation syncs before it cuts.
		limit, s.cutHere = l.meta.CutLSN, next == nil
		s.durable = max(s.durable, limit)
	}
	if next != nil {
		limit = next.link.Kept
	}
	s.spans = append(s.spans, span{meta: l.meta, first: l.link.Kept + 1, last: l.link.Kept, hash: s.pos.Hash, copies: l.link.Copies, copyEpoch: l.link.CopyEpoch, size: l.size, live: true})
	sp := &s.spans[len(s.spans)-1]
	if next != nil {
		sp.index = next.link.PredIndex
	}
	s.rep.Files++
	ahead := newReadAhead(l.f, l.size)
	defer ahead.stop()
	s.r.Reset(ahead, l.size, l.head)
	start := s.pos.LSN
	for next == nil && !s.cutHere || s.pos.LSN < limit {
		fr, end, err := s.r.Next()
		if err != nil {
			return fmt.Errorf("%s: %w", l.path, err)
		}
		if end != nil {
			s.end = end
			break
		}
		if err := s.frame(fr, limit, sp); err != nil {
			return err
		}
	}
	if s.end == nil {
		s.end = &frame.End{Offset: s.r.Offset()}
	}
	s.rep.Bytes += s.r.Offset()
	if s.cutHere && s.pos.LSN == limit && s.pos.Hash != l.meta.CutHash {
		return &CorruptionError{File: l.path, Offset: s.r.Offset(), Reason: fmt.Sprintf("record %d is not the one at which the log was cut", limit)}
	}
	if next != nil && s.pos.LSN == limit {
		if s.pos.LSN == start || s.pos.Hash != next.link.Hash {
			return &CorruptionError{File: next.path, Offset: next.head.Start(), Reason: fmt.Sprintf("link names LSN %d of file %d with another hash than that file has", limit, l.meta.Number)}
		}
		s.end = nil
	}
	return nil
}

// frame takes in one frame of the walk.
func (s *scan) frame(fr *frame.Frame, limit LSN, sp *span) error {
	s.durable = max(s.durable, fr.Durable)
	s.closed = fr.Flags&frame.FlagClose != 0
	if fr.Kind == frame.KindIndex {
		sp.index = fr.Offset
	}
	if fr.Kind != frame.KindData {
		return nil
	}
	last := min(fr.Next()-1, limit)
	err := fr.EachRecord(func(lsn LSN, keep uint64, rec []byte) error {
		if lsn > limit {
			return nil
		}
		s.rep.Records++
		sp.keep += keep
		if s.each == nil {
			return nil
		}
		return s.each(lsn, keep, rec)
	})
	if err != nil {
		return err
	}
	s.pos.LSN, s.pos.Hash = last, fr.Hash
	s.pos.Epoch = sp.epochOf(last)
	sp.last, sp.hash = last, fr.Hash
	s.extend(fr, last)
	drop := 0
	for drop < len(s.tail) && s.tail[drop].last < s.durable {
		drop++
	}
	s.tail = slices.Delete(s.tail, 0, drop)
	return nil
}

// extend adds a data frame, which counts through LSN last, to the tail.
func (s *scan) extend(fr *frame.Frame, last LSN) {
	if n := len(s.tail); n > 0 {
		t := &s.tail[n-1]
		if s.files[t.file] == s.cur && fr.End-t.offset <= stretchMax {
			t.end, t.last, t.hash = fr.End, last, fr.Hash
			return
		}
	}
	s.tail = append(s.tail, stretch{slices.Index(s.files, s.cur), fr.Offset, fr.End, last, fr.Hash})
}

// broken says that the file just walked ended before its successor took over,
// or has no successor.
func (s *scan) broken() bool { return s.end != nil }

// goesOn is the path of the file in which the history should have begun, as far as
// that is known: the first one listed that may hold it.
func (s *scan) goesOn() string {
	for _, l := range s.files {
		if !l.meta.Retained && l.meta.Number > s.pos.File {
			return l.path
		}
	}
	return s.dir
}

// judge searches for proofs behind the end and gives the verdict.
func (s *scan) judge() error {
	s.rep.Last, s.rep.Floor = s.pos.LSN, s.state.Floor.LSN
	s.rep.Epoch = s.state.Floor.Epoch
	if s.cur != nil {
		s.rep.File, s.rep.Offset, s.rep.Reason = s.cur.path, s.end.Offset, s.end.Reason
		s.rep.Epoch = s.cur.meta.Epoch
	}
	s.rep.Closed = s.closed && s.end.Reason == ""
	if s.rep.Reason != "" {
		s.rep.Verdict = Torn
	}
	buf := make([]byte, 0)
	if s.cur != nil && !s.cutHere && !s.rep.Closed {
		p, err := frame.Search(s.cur.f, s.cur.size, &s.cur.head, s.end.Offset, buf)
		if err != nil {
			return fmt.Errorf("%s: %w", s.cur.path, err)
		}
		s.durable = max(s.durable, p.Durable)
		s.rep.Dropped += dropped(s.cur, s.end, p)
	}
	if err := s.searchVoid(); err != nil {
		return err
	}
	if s.durable > s.pos.LSN {
		if l := s.proofIn; l != nil && s.rep.Reason == "" {
			return &CorruptionError{File: l.path, Offset: l.why.Offset, Reason: fmt.Sprintf("record %d was durable (proven through %d), but the link of its file does not count: %s", s.pos.LSN+1, s.durable, l.why.Reason)}
		}
		e := &CorruptionError{File: s.rep.File, Offset: s.rep.Offset, Reason: fmt.Sprintf("record %d was durable (proven through %d) and does not verify: %s", s.pos.LSN+1, s.durable, s.rep.Reason)}
		if e.File == "" {
			e.File, e.Offset = s.goesOn(), -1
		}
		if s.rep.Reason == "" {
			e.Reason = fmt.Sprintf("record %d was durable (proven through %d) and is missing", s.pos.LSN+1, s.durable)
		}
		return e
	}
	if s.rep.Dropped > 0 {
		s.rep.Verdict = Torn
	}
	s.rep.Proven = s.durable
	for len(s.tail) > 0 && s.tail[0].last < s.durable {
		s.tail = s.tail[1:]
	}
	s.rep.Copied = s.rep.Last - s.rep.Proven
	return nil
}

// dropped returns how many bytes behind an end were begun in this use of the
// file. In a recycled file they cannot be told from stale ones; there it is what
// lies before the last frame header that verifies, or one header.
func dropped(l *listed, end *frame.End, p frame.Proof) int64 {
	switch {
	case !l.head.Recycled():
		return p.Used
	case p.Any:
		return p.LastAt + frame.FrameHeaderSize - end.Offset
	case end.Reason != "":
		return frame.FrameHeaderSize
	}
	return 0
}

// searchVoid searches listed files that the walk did not reach. Below the epoch
// where the log ended they are of a past that was cut off. A mark proves that
// its file's first sync had succeeded, so that its link cannot be missing by a
// crash alone.
func (s *scan) searchVoid() error {
	epoch := s.state.Floor.Epoch
	if s.cur != nil {
		epoch = s.cur.meta.Epoch
	}
	for _, l := range s.files {
		if l.chain || l.meta.Retained {
			continue
		}
		s.rep.Void = append(s.rep.Void, filepath.Base(l.path))
		if l.meta.Epoch < epoch {
			continue
		}
		p, err := frame.Search(l.f, l.size, &l.head, l.head.Start(), nil)
		if err != nil {
			return fmt.Errorf("%s: %w", l.path, err)
		}
		if p.Mark {
			e := &CorruptionError{File: l.path, Offset: l.head.Start(), Reason: fmt.Sprintf("the file was durable (mark at offset %d), but its link does not count", p.MarkAt)}
			if l.why != nil {
				e.Offset, e.Reason = l.why.Offset, e.Reason+": "+l.why.Reason
			}
			return e
		}
		if p.Durable > s.pos.LSN && l.why != nil && s.proofIn == nil {
			s.proofIn = l
		}
		s.durable = max(s.durable, p.Durable)
		s.rep.Dropped += dropped(l, &frame.End{Offset: l.head.Start()}, p)
	}
	return nil
}

// place returns where record lsn, which is the last proven one, lies: what a
// link must name.
func (s *scan) place(lsn LSN) (Floor, error) {
	if lsn == s.state.Floor.LSN {
		return s.state.Floor, nil
	}
	t := &s.tail[slices.IndexFunc(s.tail, func(t stretch) bool { return t.last >= lsn })]
	l := s.files[t.file]
	at := Floor{File: l.meta.Number, LSN: lsn, Hash: t.hash, Epoch: l.meta.Epoch}
	if t.last == lsn {
		return at, nil
	}
	found := false
	err := s.again(t, func(fr *frame.Frame) error {
		if !found && fr.Next() > lsn {
			found, at.Hash = true, fr.Hash
		}
		return nil
	})
	return at, err
}

// again reads the data frames of a stretch once more.
func (s *scan) again(t *stretch, each func(fr *frame.Frame) error) error {
	l := s.files[t.file]
	s.r.Reset(l.f, l.size, l.head)
	for s.r.SeekTo(t.offset); s.r.Offset() < t.end; {
		at := s.r.Offset()
		fr, end, err := s.r.Next()
		if err != nil {
			return fmt.Errorf("%s: %w", l.path, err)
		}
		if end != nil {
			return fmt.Errorf("wal: %s changed while it was read, at offset %d: %s", l.path, at, end.Reason)
		}
		if fr.Kind != frame.KindData {
			continue
		}
		if err := each(fr); err != nil {
			return err
		}
	}
	return nil
}
