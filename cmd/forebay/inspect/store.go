package inspect

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/internal/base"
	"github.com/forebaydb/forebay/internal/editlog"
	"github.com/forebaydb/forebay/manifest"
	"github.com/forebaydb/forebay/segment"
	"github.com/forebaydb/forebay/vfs"
	"github.com/forebaydb/forebay/wal"
	"github.com/forebaydb/forebay/wal/frame"
)

// store is what the list of live files in a directory says: the manifest of an
// engine, or the catalog of a log that is used alone.
type store struct {
	dir, logDir string
	engine      bool
	kind        editlog.Kind
	id          [16]byte
	state       manifest.State
	edits       []manifest.Edit
	loaded      *editlog.Loaded // nil: the list could not be read
	err         error           // why not, or why not to its end
	names       []string        // in dir
	logNames    []string        // in logDir
}

var (
	manifestKind = editlog.Kind{Prefix: "MANIFEST", File: frame.FileManifest}
	catalogKind  = editlog.Kind{Prefix: "CATALOG", File: frame.FileCatalog}
)

// errNoStore says that a directory holds nothing of an engine or a log.
var errNoStore = errors.New("no store and no log here")

// load reads the list of dir. logDir is "" when the log lies in dir. A store
// comes back also where its list is damaged or lost; err then says so.
func (t *tool) load(dir, logDir string) (*store, error) {
	s := &store{dir: filepath.Clean(dir), kind: manifestKind, engine: true}
	s.logDir = s.dir
	if logDir != "" {
		s.logDir = filepath.Clean(logDir)
	}
	var err error
	if s.names, err = t.fsys.List(s.dir); err != nil {
		return nil, err
	}
	if s.logNames, err = t.fsys.List(s.logDir); err != nil {
		return nil, err
	}
	has := func(names []string, is func(string) (uint64, bool)) bool {
		return slices.ContainsFunc(names, func(n string) bool { _, ok := is(n); return ok })
	}
	switch {
	case has(s.names, manifestKind.Parse):
	case has(s.names, catalogKind.Parse):
		s.kind, s.engine = catalogKind, false
	case has(s.names, segment.ParseFileName):
	case has(s.logNames, wal.ParseFileName):
	default:
		return s, fmt.Errorf("%s: %w", s.dir, errNoStore)
	}
	s.loaded, s.err = editlog.Load(&still{FS: t.fsys}, s.dir, s.kind, func(_ uint64, b []byte) error {
		e, err := decodeEdit(s.kind.File, b)
		if err == nil {
			s.edits = append(s.edits, *e)
			s.state.Apply(e)
		}
		return err
	})
	if s.loaded != nil {
		s.id = s.loaded.Store
	}
	return s, nil
}

// decodeEdit decodes a record of a manifest or of a catalog.
func decodeEdit(kind frame.FileKind, b []byte) (*manifest.Edit, error) {
	if kind == frame.FileManifest {
		return manifest.DecodeEdit(b)
	}
	e, err := base.DecodeLogEdit(b)
	return &manifest.Edit{Log: e}, err
}

// listed returns what the list says of log file n.
func (s *store) listed(n uint64) (base.LogFile, bool) {
	for _, f := range s.state.Log.Files {
		if f.Number == n {
			return f, true
		}
	}
	return base.LogFile{}, false
}

// logFiles returns the names of the log files in the directory, by number.
func (s *store) logFiles() []string { return logNames(s.logNames) }

// logNames picks the log files, by number.
func logNames(names []string) []string {
	var out []string
	for _, name := range names {
		if _, ok := wal.ParseFileName(name); ok {
			out = append(out, name)
		}
	}
	slices.SortFunc(out, func(a, b string) int {
		x, _ := wal.ParseFileName(a)
		y, _ := wal.ParseFileName(b)
		return cmp.Compare(x, y)
	})
	return out
}

// status says in a word or two what the list says of a log file.
func (s *store) status(name string) string {
	n, _ := wal.ParseFileName(name)
	f, ok := s.listed(n)
	switch {
	case s.loaded == nil || s.loaded.Number == 0:
		return "no list says whether it counts"
	case !ok:
		return "not listed"
	case f.Retained:
		return "listed, retained for " + lsns(f.First, f.Last)
	case f.Cut:
		return fmt.Sprintf("listed, cut at LSN %d", f.CutLSN)
	}
	return "listed"
}

// fixedCatalog shows a list that was read as the catalog of a log.
type fixedCatalog struct{ s *store }

func (c fixedCatalog) StoreID() [16]byte           { return c.s.id }
func (c fixedCatalog) LogState() base.LogState     { return c.s.state.Log.Clone() }
func (c fixedCatalog) EditLog(*base.LogEdit) error { return manifest.ErrReadOnly }
func (c fixedCatalog) Err() error                  { return manifest.ErrReadOnly }

// explain asks the engine, or the log, what an open would find.
func (t *tool) explain(s *store) (forebay.Recovery, error) {
	fsys := &still{FS: t.fsys}
	if s.engine {
		o := &forebay.Options{FS: fsys}
		if s.logDir != s.dir {
			o.LogDir = s.logDir
		}
		return forebay.Explain(s.dir, o)
	}
	var r forebay.Recovery
	if s.err != nil {
		// The log's own words, for a catalog that is lost or damaged.
		rep, err := wal.Inspect(s.dir, &wal.Options{FS: fsys})
		r.Recovery = rep
		return r, err
	}
	rep, err := wal.Inspect(s.dir, &wal.Options{FS: fsys, Catalog: fixedCatalog{s}, OnRecord: func(_ wal.LSN, _ uint64, rec []byte) error {
		r.Replayed++
		r.ReplayedBytes += int64(len(rec))
		return nil
	}})
	r.Recovery = rep
	return r, err
}

// How often a store is looked at before an error is believed, and the pause
// between: a store that is in use removes and renames files.
const (
	looks     = 4
	lookPause = 25 * time.Millisecond
)

// steady loads a store and explains it. An error must come twice in the same
// words.
func (t *tool) steady(dir, logDir string) (s *store, rep forebay.Recovery, err error) {
	last := ""
	for range looks {
		if s, err = t.load(dir, logDir); err != nil {
			return s, rep, err
		}
		if rep, err = t.explain(s); err == nil || err.Error() == last {
			return s, rep, err
		}
		last = err.Error()
		time.Sleep(lookPause)
	}
	return s, rep, err
}

// framed is a framed file that is open for reading.
type framed struct {
	f       vfs.File
	path    string
	size    int64
	head    frame.FileHeader
	headErr error // why there is no header
}

// openFramed opens a file of frames. A header that does not verify is no error
// here.
func (t *tool) openFramed(path string) (*framed, error) {
	f, err := freeze(t.fsys, path)
	if errors.Is(err, vfs.ErrNotRegular) {
		return nil, damaged("%s is not a plain file", path)
	}
	if err != nil {
		return nil, err
	}
	m := &framed{f: f, path: path}
	if m.size, err = f.Size(); err != nil {
		f.Close()
		return nil, err
	}
	m.head, _, err = editlog.ReadHeader(f, path)
	if errors.Is(err, frame.ErrNoHeader) || errors.Is(err, frame.ErrUnsupported) {
		m.headErr, err = err, nil
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return m, nil
}

func (m *framed) close() { m.f.Close() }

// title is the line that heads what is said of a file.
func (m *framed) title() string {
	if m.headErr != nil {
		return fmt.Sprintf("%s: %d bytes, %s", filepath.Base(m.path), m.size, strings.TrimPrefix(m.headErr.Error(), m.path+": "))
	}
	return fmt.Sprintf("%s: %s %d, epoch %d, store %x, salt %016x, %d bytes%s", filepath.Base(m.path), m.head.Kind, m.head.Number, m.head.Epoch, m.head.Store, m.head.Salt, m.size, recycledWord(&m.head))
}

func recycledWord(h *frame.FileHeader) string {
	if h.Recycled() {
		return ", recycled"
	}
	return ""
}

// ending says where the frames of one file end, why, and what lies behind.
type ending struct {
	Offset int64  `json:"offset"`
	Reason string `json:"reason,omitempty"`
	// Frames and Records count what lies before.
	Frames  int    `json:"frames"`
	Records uint64 `json:"records"`
	// Next is the LSN that the next record would have; 0: unknown.
	Next base.LSN `json:"next"`
	// Proof is the highest durable LSN in any frame header of the file that
	// verifies, and ProofAt where that header lies.
	Proof   base.LSN `json:"proof"`
	ProofAt int64    `json:"proof_at,omitempty"`
	// Behind is the number of bytes up to the last one that is not zero, and
	// Stranded says that there are frame headers that verify among them.
	Behind   int64 `json:"behind"`
	Stranded bool  `json:"stranded,omitempty"`
	// Damaged: the proof covers a record that does not verify.
	Damaged bool `json:"damaged"`
	// Stale: what lies behind is of an earlier use of the file.
	Stale bool `json:"stale,omitempty"`
	// Closed: the last frame is a close mark.
	Closed bool `json:"closed,omitempty"`
}

// walk reads the frames that count, calls each for them, and judges the end.
func (m *framed) walk(each func(fr *frame.Frame) error) (*ending, error) {
	e := &ending{}
	r := frame.NewReader(m.f, m.size, m.head)
	if m.head.Kind != frame.FileLog {
		e.Next = 1
	}
	for {
		fr, end, err := r.Next()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", m.path, err)
		}
		if end != nil {
			e.Offset, e.Reason = end.Offset, end.Reason
			break
		}
		e.Frames++
		e.Records += uint64(fr.Count)
		e.Next = fr.Next()
		e.Closed = fr.Flags&frame.FlagClose != 0
		if fr.Durable > e.Proof {
			e.Proof, e.ProofAt = fr.Durable, fr.Offset
		}
		if each != nil {
			if err := each(fr); err != nil {
				return nil, err
			}
		}
	}
	p, err := frame.Search(m.f, m.size, &m.head, e.Offset, nil)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", m.path, err)
	}
	if p.Durable > e.Proof {
		e.Proof, e.ProofAt = p.Durable, p.Offset
	}
	e.Behind, e.Stranded = p.Used, p.Any
	e.Stale = m.head.Recycled() && !p.Any && e.Reason == ""
	// Without any frame the next LSN is unknown; a mark then still proves that
	// the file had been synced.
	e.Damaged = e.Next != 0 && e.Proof >= e.Next || e.Next == 0 && p.Mark
	return e, nil
}

// lines tells an ending in sentences.
func (e *ending) lines(kind frame.FileKind) []string {
	record := "record"
	if kind != frame.FileLog {
		record = "edit"
	}
	reason := e.Reason
	switch {
	case reason != "":
	case e.Closed && e.Behind == 0:
		reason = "a close mark, and nothing behind it"
	case e.Stale && e.Behind > 0:
		reason = "nothing was begun here; behind lie stale bytes of an earlier use of the file"
	case e.Behind == 0:
		reason = "nothing was begun here, and nothing lies behind"
	default:
		reason = "nothing was begun here, but something lies behind"
	}
	out := []string{fmt.Sprintf("the frames end at offset %d (%#x): %s", e.Offset, e.Offset, reason)}
	before := fmt.Sprintf("before: %s, %s", plural(e.Frames, "frame"), plural(e.Records, record))
	if e.Next != 0 {
		before += fmt.Sprintf("; the next LSN is %d, durable through %d is proven in this file", e.Next, e.Proof)
	}
	out = append(out, before)
	switch {
	case e.Damaged && e.Next == 0:
		out = append(out, "behind: a mark proves that this file was synced once, so its first frame is DAMAGED")
	case e.Damaged:
		out = append(out, fmt.Sprintf("behind: the frame header at offset %d proves that LSN %d was durable, so %s %d is DAMAGED, not torn", e.ProofAt, e.Proof, record, e.Next))
	case e.Reason != "" || e.Behind > 0 && !e.Stale:
		out = append(out, fmt.Sprintf("behind: %d bytes, and nothing in this file proves that any of them was durable: torn, as a crash leaves it", e.Behind))
	}
	return out
}

// lsns names a range of LSNs.
func lsns(first, last base.LSN) string {
	if first == last {
		return fmt.Sprintf("LSN %d", first)
	}
	return fmt.Sprintf("LSN %d-%d", first, last)
}

// quote shows bytes as text, or in hex where that is asked for, cut to a length
// that fits on a line unless max is negative.
func quote(b []byte, hex bool, max int) string {
	more := ""
	if max >= 0 && len(b) > max {
		more = fmt.Sprintf("…(%d bytes)", len(b))
		b = b[:max]
	}
	if hex {
		return fmt.Sprintf("%x", b) + more
	}
	return fmt.Sprintf("%q", bytes.Clone(b)) + more
}
