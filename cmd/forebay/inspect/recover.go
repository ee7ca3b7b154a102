package inspect

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/internal/base"
	"github.com/forebaydb/forebay/segment"
	"github.com/forebaydb/forebay/wal"
	"github.com/forebaydb/forebay/wal/frame"
)

func (t *tool) recoverCommand() *cobra.Command {
	var explain, asJSON bool
	var logDir string
	c := &cobra.Command{
		Use:   "recover --explain DIR",
		Short: "Tell what an open would find and do, and change nothing",
		Long: `Tells as a story what an open of the store, or of the log, in DIR would find and
do: the manifest, the segments, the log's files, the verdict on the log's end and
its reason, what is proven durable, what would be copied forward, removed, and
lost. Nothing is changed.

There is no recover without --explain: Open recovers by itself.

Exit code 1: the store is damaged, or there is none.` + readsOnly,
		Example: `  forebay recover --explain /tmp/s`,
		Args:    one("a directory"),
	}
	c.Flags().BoolVar(&explain, "explain", false, "tell, and change nothing")
	c.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	c.Flags().StringVar(&logDir, "log-dir", "", "where the log files are, if not in DIR")
	c.RunE = run(func(_ *cobra.Command, w *bufio.Writer, path string) error {
		if !explain {
			return usage("Open recovers a store by itself; to be told what it would find and do, use: forebay recover --explain %s", path)
		}
		if dir, err := t.isDir(path); err != nil {
			return err
		} else if !dir {
			return usage("%s is a file; recover --explain takes a directory", path)
		}
		r, err := t.story(path, logDir)
		if r == nil {
			return err
		}
		if asJSON {
			if e := jsonLine(w, r); e != nil {
				return e
			}
		} else {
			r.print(w)
		}
		return err
	})
	return c
}

// logReport is the end of a log in JSON.
type logReport struct {
	Verdict string        `json:"verdict"` // clean, torn or corrupt
	Closed  bool          `json:"closed"`
	Floor   base.LSN      `json:"floor"`
	Last    base.LSN      `json:"last"`
	Proven  base.LSN      `json:"proven"`
	Epoch   uint64        `json:"epoch"`
	File    string        `json:"file,omitempty"`
	Offset  int64         `json:"offset"`
	Reason  string        `json:"reason,omitempty"`
	Dropped int64         `json:"dropped_bytes"`
	Copied  uint64        `json:"copied_records"`
	Damage  *damageReport `json:"damage,omitempty"`
}

type damageReport struct {
	File   string `json:"file"`
	Offset int64  `json:"offset"` // -1: the whole file
	Reason string `json:"reason"`
}

func newLogReport(rep *forebay.Recovery, err error) *logReport {
	r := &logReport{
		Verdict: rep.Verdict.String(), Closed: rep.Closed, Floor: rep.Floor, Last: rep.Last, Proven: rep.Proven, Epoch: rep.Epoch,
		Offset: rep.Offset, Reason: rep.Reason, Dropped: rep.Dropped, Copied: rep.Copied,
	}
	if rep.File != "" {
		r.File = filepath.Base(rep.File)
	}
	if err != nil {
		r.Verdict, r.Damage = "corrupt", newDamage(err)
	}
	return r
}

func newDamage(err error) *damageReport {
	var c *base.CorruptionError
	if !errors.As(err, &c) {
		return &damageReport{Offset: -1, Reason: err.Error()}
	}
	reason := c.Reason
	if c.Err != nil {
		reason += ": " + c.Err.Error()
	}
	return &damageReport{c.File, c.Offset, reason}
}

// endOfLog tells the end of a log in one sentence.
func endOfLog(rep *forebay.Recovery, err error) string {
	if err != nil {
		return "CORRUPT: " + strings.TrimPrefix(err.Error(), "corruption: ")
	}
	s := fmt.Sprintf("%s. It ends behind LSN %d", rep.Verdict, rep.Last)
	if rep.File != "" {
		s += fmt.Sprintf(", in %s at offset %d (%#x)", filepath.Base(rep.File), rep.Offset, rep.Offset)
	}
	switch {
	case rep.Closed:
		s += ": a close mark, nothing was cut"
	case rep.Reason != "":
		s += ": " + rep.Reason
	case rep.Dropped > 0:
		s += ": no frame begins there, but something lies behind"
	case rep.File == "":
		s += ": no file was written to"
	default:
		s += ": nothing was begun there"
	}
	return s + fmt.Sprintf("; proven durable through LSN %d", rep.Proven)
}

// chainFile is one listed log file.
type chainFile struct {
	Name   string   `json:"name"`
	Role   string   `json:"role"` // chain, retained, unused, void or missing
	Epoch  uint64   `json:"epoch"`
	First  base.LSN `json:"first"`
	Last   base.LSN `json:"last"` // below First: no record
	Copies base.LSN `json:"copies_through,omitempty"`
	Pred   uint64   `json:"follows,omitempty"`

	kept base.LSN
}

// story is what recover --explain tells.
type story struct {
	Dir         string      `json:"dir"`
	Kind        string      `json:"kind"` // store or log
	OK          bool        `json:"ok"`
	List        string      `json:"list"` // MANIFEST-… or CATALOG-…
	ListProven  bool        `json:"list_proven"`
	Store       string      `json:"store"`
	Segments    []string    `json:"segments"`
	ReplayStart base.LSN    `json:"replay_start"`
	Files       []chainFile `json:"log_files"`
	Log         *logReport  `json:"log"`
	Replayed    uint64      `json:"would_replay_records"`
	ReplayBytes int64       `json:"would_replay_bytes"`
	// What an open does at once, and what it leaves for the first commit.
	Create      []string `json:"would_create"`
	Remove      []string `json:"would_remove"`
	RemoveLater []string `json:"would_remove_later"`
	Advice      []string `json:"advice,omitempty"`

	edits     uint64
	segments  int
	nextEpoch uint64
}

// story looks at a directory. It returns nil where there is nothing to tell of,
// and a story and an error for what is damaged.
func (t *tool) story(dir, logDir string) (*story, error) {
	s, rep, err := t.steady(dir, logDir)
	if errors.Is(err, errNoStore) {
		return nil, fmt.Errorf("%w; an open would make a new one", err)
	}
	var c *base.CorruptionError
	if s == nil || err != nil && !errors.As(err, &c) {
		return nil, err
	}
	if err == nil && (rep.Created || s.loaded.Number == 0) {
		return nil, fmt.Errorf("%s holds no complete store, only what a create that was cut short leaves; an open would make a new one", s.dir)
	}
	r := &story{
		Dir: s.dir, Kind: "store", OK: err == nil, Store: fmt.Sprintf("%x", s.id), ReplayStart: s.state.ReplayStart,
		Log: newLogReport(&rep, err), Replayed: rep.Replayed, ReplayBytes: rep.ReplayedBytes, segments: rep.Segments, nextEpoch: s.state.Log.Epoch + 1,
		Segments: []string{}, Files: []chainFile{}, Create: []string{}, Remove: []string{}, RemoveLater: []string{},
	}
	if !s.engine {
		r.Kind = "log"
	}
	if s.loaded != nil {
		r.List, r.ListProven, r.edits = s.loaded.Name, !s.loaded.Dirty, s.loaded.Records
	}
	for i := range s.state.Segments {
		r.Segments = append(r.Segments, segment.FileName(s.state.Segments[i].Number))
	}
	if e := t.chain(s, r, &rep); e != nil && err == nil {
		return nil, e
	}
	if err == nil {
		r.plan(s, &rep)
	} else {
		r.advise(s, c)
	}
	return r, err
}

// chain describes the listed log files.
func (t *tool) chain(s *store, r *story, rep *forebay.Recovery) error {
	for _, f := range s.state.Log.Files {
		c := chainFile{Name: wal.FileName(f.Number), Role: "chain", Epoch: f.Epoch}
		if f.Retained {
			c.Role, c.First, c.Last = "retained", f.First, f.Last
			r.Files = append(r.Files, c)
			continue
		}
		m, err := t.openFramed(filepath.Join(s.logDir, c.Name))
		if errors.Is(err, fs.ErrNotExist) {
			c.Role = "missing"
			r.Files = append(r.Files, c)
			continue
		}
		if err != nil {
			return err
		}
		e := &ending{}
		if m.headErr == nil {
			e, err = m.walk(func(fr *frame.Frame) error { return c.link(fr) })
		}
		m.close()
		if err != nil {
			return err
		}
		if e.Frames > 0 {
			c.Last = e.Next - 1
		}
		if slices.Contains(rep.Void, c.Name) {
			c.Role = "void"
			if e.Frames == 0 && e.Reason == "" && !e.Stranded {
				c.Role = "unused"
			}
		}
		r.Files = append(r.Files, c)
	}
	// A file counts up to where its successor takes over.
	for i := range r.Files {
		n, _ := wal.ParseFileName(r.Files[i].Name)
		for _, next := range r.Files {
			if next.Role == "chain" && next.Pred == n && r.Files[i].Role == "chain" {
				r.Files[i].Last = min(r.Files[i].Last, next.kept)
			}
		}
		if r.OK && r.Files[i].Role == "chain" {
			r.Files[i].Last = min(r.Files[i].Last, rep.Last)
		}
	}
	return nil
}

func (c *chainFile) link(fr *frame.Frame) error {
	if fr.Kind != frame.KindLink {
		return nil
	}
	l, err := frame.DecodeLink(fr.Payload)
	if err != nil {
		return nil // the frame verified: the decode cannot fail
	}
	c.kept, c.First, c.Pred = l.Kept, l.Kept+1, l.Pred
	if l.Copies > l.Kept {
		c.Copies = l.Copies
	}
	return nil
}

// plan says which files an open would make and remove. It mirrors the order of
// wal.Open and recovery.Open; a test holds it against them.
func (r *story) plan(s *store, rep *forebay.Recovery) {
	copies := rep.Copied > 0
	for _, f := range r.Files {
		switch {
		case f.Role == "retained" || f.Role == "chain" && f.First <= rep.Proven:
		case copies:
			r.Remove = append(r.Remove, f.Name)
		default:
			r.RemoveLater = append(r.RemoveLater, f.Name)
		}
	}
	highest := s.state.Log.Number
	for _, name := range s.logFiles() {
		n, _ := wal.ParseFileName(name)
		highest = max(highest, n)
		if _, ok := s.listed(n); !ok {
			r.Remove = append(r.Remove, name)
		}
	}
	for _, name := range s.names {
		if _, ok := segment.ParseFileName(name); ok && s.engine && !slices.Contains(r.Segments, name) {
			r.Remove = append(r.Remove, name)
		}
	}
	if s.loaded.Dirty || copies {
		r.Create = append(r.Create, s.kind.Name(s.loaded.Highest+1))
		r.Remove = append(r.Remove, s.loaded.Name)
		r.Remove = append(r.Remove, s.loaded.Others...)
	}
	if copies {
		r.Create = append(r.Create, wal.FileName(highest+1))
	}
}

// advise says what to do about damage.
func (r *story) advise(s *store, c *base.CorruptionError) {
	r.Advice = []string{"Copy the whole directory elsewhere before anything else; nothing has been changed, and Open refuses to."}
	base := filepath.Base(c.File)
	_, isLog := wal.ParseFileName(base)
	_, isList := s.kind.Parse(base)
	switch {
	case (isLog || isList) && c.Offset >= 0:
		r.Advice = append(r.Advice, fmt.Sprintf("See the bytes, field by field: forebay wal hex %s --from %d", c.File, c.Offset&^511))
	case c.Offset < 0 && base != "" && strings.Contains(c.Reason, "missing"):
		r.Advice = append(r.Advice, "Look for the missing file: in a backup, in another directory (--log-dir), in lost+found.")
	}
	r.Advice = append(r.Advice,
		"Ask the device: kernel log, SMART. Bytes that had been synced were changed or lost below the engine.",
		"Restore from a backup, or put an intact copy of the damaged file in its place.",
		"If a process has the store open and writes to it, look again: a file that moves while it is read can look damaged.")
	if s.engine {
		r.Advice = append(r.Advice, fmt.Sprintf("See all that is damaged: forebay check %s. Without a backup, make a new store of what can be read: forebay salvage %s DST.", s.dir, s.dir))
	}
}

func (r *story) print(w io.Writer) {
	var step say = func(name, format string, args ...any) {
		fmt.Fprintf(w, "%-10s  %s\n", name, fmt.Sprintf(format, args...))
	}
	fmt.Fprintf(w, "What an open of the %s in %s would find and do. Nothing is changed, no lock is taken.\n\n", r.Kind, r.Dir)
	if r.List == "" {
		step("list", "no intact manifest or catalog could be read")
	} else {
		proven := "all proven durable"
		if !r.ListProven {
			proven = "its end not proven durable, so that it is written anew first"
		}
		step(strings.ToLower(strings.Split(r.List, "-")[0]), "%s of store %s: %s, %s", r.List, r.Store, plural(r.edits, "edit"), proven)
	}
	if r.Kind == "store" && r.List != "" {
		step("segments", "%d listed, %d opened and found to be the ones listed; the log is replayed from LSN %d", len(r.Segments), r.segments, r.ReplayStart)
	}
	step("log", "%s listed, the floor is LSN %d", plural(len(r.Files), "file"), r.Log.Floor)
	for _, f := range r.Files {
		step("", "  %s", f.text())
	}
	if !r.OK {
		r.printDamage(step)
		return
	}
	step("end", "%s", r.endText())
	step("proven", "durable through LSN %d%s", r.Log.Proven, r.provenText())
	r.printPlan(step)
	r.printLost(step)
}

func (f *chainFile) text() string {
	what := "no record"
	if f.Last >= f.First && f.First > 0 {
		what = lsns(f.First, f.Last)
	}
	s := fmt.Sprintf("%s  epoch %d, ", f.Name, f.Epoch)
	switch f.Role {
	case "retained":
		return s + what + ", retained below the floor, not replayed"
	case "missing":
		return s + "MISSING"
	case "unused":
		return s + "listed and not used yet"
	case "void":
		return s + "no part of the history"
	}
	if f.Pred != 0 {
		what += fmt.Sprintf(", follows %s", wal.FileName(f.Pred))
	}
	if f.Copies != 0 {
		what += fmt.Sprintf(", of which an open copied %s", lsns(f.First, f.Copies))
	}
	return s + what
}

func (r *story) endText() string {
	l := r.Log
	s := l.Verdict
	if l.File == "" {
		return s + ": nothing was written yet"
	}
	s += fmt.Sprintf(": behind LSN %d, in %s at offset %d (%#x)", l.Last, l.File, l.Offset, l.Offset)
	switch {
	case l.Closed:
		return s + "; the log was closed in order"
	case l.Reason != "":
		return s + "; " + l.Reason
	case l.Dropped > 0:
		return s + "; no frame begins there, but something lies behind"
	}
	return s + "; nothing was begun there"
}

func (r *story) provenText() string {
	switch l := r.Log; {
	case l.Proven == l.Last:
		return ", which is all there is"
	default:
		return fmt.Sprintf("; %s behind it verifies, but nothing proves that it was ever durable", lsns(l.Proven+1, l.Last))
	}
}

// say prints one step of the story, or one more line of it.
type say func(name, format string, args ...any)

func (r *story) printPlan(step say) {
	name := "an open"
	do := func(format string, args ...any) {
		step(name, format, args...)
		name = ""
	}
	if r.Replayed > 0 {
		do("replays %s, %s, into memory: %s", plural(r.Replayed, "record"), plural(r.ReplayBytes, "byte"), lsns(r.Log.Last-r.Replayed+1, r.Log.Last))
	} else {
		do("replays nothing")
	}
	if r.Log.Copied > 0 {
		do("copies forward %s, %s: synced in a new file of epoch %d before anything is shown", plural(r.Log.Copied, "record"), lsns(r.Log.Proven+1, r.Log.Last), r.nextEpoch)
	} else {
		do("copies nothing forward: all that it shows is durable already")
	}
	for _, x := range []struct {
		what  string
		names []string
	}{{"makes", r.Create}, {"removes", r.Remove}, {"removes with the first commit", r.RemoveLater}} {
		if len(x.names) > 0 {
			do("%s %s", x.what, strings.Join(x.names, ", "))
		}
	}
	if len(r.Create)+len(r.Remove) == 0 {
		do("writes and removes nothing")
	}
}

func (r *story) printLost(step say) {
	if r.Log.Verdict == "clean" {
		step("lost", "nothing")
		return
	}
	step("lost", "%s behind the end, which no proof covers. They are of a write that a crash cut short, or of", plural(r.Log.Dropped, "byte"))
	step("", "commits below Durable: nothing that was acknowledged as durable. (Damage by the disk to the last")
	step("", "synced group, before a mark proved it, would look the same.)")
}

func (r *story) printDamage(step say) {
	d := r.Log.Damage
	where := ""
	if d.Offset >= 0 {
		where = fmt.Sprintf(" at offset %d (%#x)", d.Offset, d.Offset)
	}
	step("DAMAGED", "%s%s", d.File, where)
	step("", "%s", d.Reason)
	step("an open", "refuses with this error, and changes nothing")
	for i, a := range r.Advice {
		name := ""
		if i == 0 {
			name = "what to do"
		}
		step(name, "%d. %s", i+1, a)
	}
}
