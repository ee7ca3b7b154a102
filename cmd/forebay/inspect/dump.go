package inspect

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/forebaydb/forebay/internal/base"
	"github.com/forebaydb/forebay/internal/batch"
	"github.com/forebaydb/forebay/wal/frame"
)

func (t *tool) dumpCommand() *cobra.Command {
	d := &dump{}
	var logDir string
	c := &cobra.Command{
		Use:   "dump FILE|DIR",
		Short: "One line for each frame of a log file, or of all log files of a store",
		Long: `Prints one line for each frame: offset, kind, flags, LSNs, the durable LSN
that it carries, length, closing hash, and whether it verifies; then where and
why the frames end. For a directory, the verdict on the whole log follows.

Exit code 1: something that was durable is damaged, or a file has no header.` + readsOnly,
		Example: `  forebay wal dump /tmp/s
  forebay wal dump /tmp/s/000003.log --records`,
		Args: one("a log file or a directory"),
	}
	c.Flags().BoolVar(&d.records, "records", false, "print each record, decoded as a batch where it is one")
	c.Flags().BoolVar(&d.hex, "hex", false, "print keys, values and records in hex")
	c.Flags().BoolVar(&d.json, "json", false, "print JSON, one object a line")
	c.Flags().StringVar(&logDir, "log-dir", "", "where the log files are, if not in DIR")
	c.RunE = run(func(_ *cobra.Command, w *bufio.Writer, path string) error {
		d := *d
		d.t, d.w = t, w
		dir, err := t.isDir(path)
		if err != nil {
			return err
		}
		if dir {
			return d.dir(path, logDir)
		}
		if d.records {
			d.names = t.namesBeside(path)
		}
		return d.file(path, "")
	})
	return c
}

type dump struct {
	t                  *tool
	w                  io.Writer
	records, hex, json bool
	names              spaces
}

// row is one frame.
type row struct {
	File    string   `json:"file"`
	Offset  int64    `json:"offset"`
	Part    string   `json:"part"` // frame, broken or stranded
	Kind    string   `json:"kind"`
	Flags   string   `json:"flags"`
	First   base.LSN `json:"first"`
	Count   uint32   `json:"count"`
	Durable base.LSN `json:"durable"`
	Stored  uint32   `json:"stored"`
	Raw     uint32   `json:"raw"`
	Hash    string   `json:"hash"`
	OK      bool     `json:"ok"`
	Why     string   `json:"why,omitempty"`
	Link    *linkRow `json:"link,omitempty"`
}

type linkRow struct {
	Pred      uint64   `json:"pred"`
	Kept      base.LSN `json:"kept"`
	Hash      string   `json:"hash"`
	Copies    base.LSN `json:"copies"`
	CopyEpoch uint64   `json:"copy_epoch"`
	PredIndex int64    `json:"pred_index"`
}

func newRow(file string, off int64, part frame.Part, h *frame.Header, hash uint64) row {
	return row{
		File: filepath.Base(file), Offset: off, Part: part.String(), Kind: h.Kind.String(), Flags: h.Flags.String(),
		First: h.First, Count: h.Count, Durable: h.Durable, Stored: h.Stored, Raw: h.Raw, Hash: fmt.Sprintf("%016x", hash),
	}
}

// dir dumps every log file of a directory, and judges the whole.
func (d *dump) dir(dir, logDir string) error {
	s, rep, err := d.t.steady(dir, logDir)
	if errors.Is(err, errNoStore) {
		return err
	}
	if s == nil {
		return err
	}
	if d.records {
		d.names = d.t.names(s)
	}
	var bad []error
	for _, name := range s.logFiles() {
		// A file that is gone was removed by a process that has the store open.
		if e := d.file(filepath.Join(s.logDir, name), s.status(name)); e != nil && !errors.Is(e, fs.ErrNotExist) {
			bad = append(bad, e)
		}
	}
	if d.json {
		if e := jsonLine(d.w, map[string]any{"log": newLogReport(&rep, err)}); e != nil {
			return e
		}
	} else {
		fmt.Fprintf(d.w, "the log: %s\n", endOfLog(&rep, err))
	}
	if err != nil {
		return err
	}
	// What a single file cannot know (that it was superseded, or is a spare) the
	// whole log knows: without damage there nothing here is damage.
	for _, e := range bad {
		var x *ExitError
		if !errors.As(e, &x) {
			return e
		}
	}
	return nil
}

// file dumps one file.
func (d *dump) file(path, status string) error {
	m, err := d.t.openFramed(path)
	if err != nil {
		return err
	}
	defer m.close()
	if !d.json {
		title := m.title()
		if status != "" {
			title += ", " + status
		}
		fmt.Fprintln(d.w, title)
	}
	if m.headErr != nil {
		if d.json {
			if err := jsonLine(d.w, map[string]any{"file": filepath.Base(path), "error": m.headErr.Error()}); err != nil {
				return err
			}
		}
		return damaged("%w", m.headErr)
	}
	if !d.json {
		fmt.Fprintf(d.w, "%10s  %-5s  %-10s  %-17s  %9s  %9s  hash\n", "offset", "kind", "flags", "LSN", "durable", "length")
	}
	e, err := m.walk(func(fr *frame.Frame) error { return d.frame(m, fr) })
	if err != nil {
		return err
	}
	if e.Reason != "" || e.Stranded {
		if err := d.behind(m); err != nil {
			return err
		}
	}
	if err := d.ending(m, e); err != nil {
		return err
	}
	if e.Damaged {
		return damaged("%s is damaged at offset %d", path, e.Offset)
	}
	return nil
}

func (d *dump) ending(m *framed, e *ending) error {
	if d.json {
		return jsonLine(d.w, map[string]any{"file": filepath.Base(m.path), "end": e})
	}
	for _, line := range e.lines(m.head.Kind) {
		fmt.Fprintln(d.w, "  "+line)
	}
	_, err := fmt.Fprintln(d.w)
	return err
}

// frame prints a frame that counts.
func (d *dump) frame(m *framed, fr *frame.Frame) error {
	r := newRow(m.path, fr.Offset, frame.PartFrame, &fr.Header, fr.Hash)
	r.OK = true
	if fr.Kind == frame.KindLink {
		if l, err := frame.DecodeLink(fr.Payload); err == nil {
			r.Link = &linkRow{l.Pred, l.Kept, fmt.Sprintf("%016x", l.Hash), l.Copies, l.CopyEpoch, l.PredIndex}
		}
	}
	if err := d.row(&r); err != nil || !d.records || fr.Kind != frame.KindData {
		return err
	}
	return fr.EachRecord(func(lsn frame.LSN, keep uint64, rec []byte) error { return d.record(m, lsn, keep, rec) })
}

func (d *dump) row(r *row) error {
	if d.json {
		return jsonLine(d.w, r)
	}
	lsn := fmt.Sprintf("next %d", r.First)
	if r.Count == 1 {
		lsn = fmt.Sprint(r.First)
	} else if r.Count > 1 {
		lsn = fmt.Sprintf("%d-%d", r.First, r.First+base.LSN(r.Count)-1)
	}
	length := fmt.Sprint(r.Stored)
	if r.Stored != r.Raw {
		length = fmt.Sprintf("%d<%d", r.Stored, r.Raw)
	}
	said := "ok"
	if !r.OK {
		said = "BAD: " + r.Why
	}
	if r.Part == "stranded" {
		said += " (behind the end)"
	}
	_, err := fmt.Fprintf(d.w, "%10d  %-5s  %-10s  %-17s  %9d  %9s  %16s  %s%s\n", r.Offset, r.Kind, r.Flags, lsn, r.Durable, length, r.Hash, said, r.Link.text())
	return err
}

func (l *linkRow) text() string {
	switch {
	case l == nil:
		return ""
	case l.Pred == 0:
		return fmt.Sprintf("  begins the log behind LSN %d", l.Kept) + l.copied()
	}
	return fmt.Sprintf("  follows file %d, kept through LSN %d", l.Pred, l.Kept) + l.copied()
}

func (l *linkRow) copied() string {
	if l.Copies == l.Kept {
		return ""
	}
	return fmt.Sprintf(", copies %s of epoch %d", lsns(l.Kept+1, l.Copies), l.CopyEpoch)
}

// behind prints the frames that do not count, from the first that does not
// verify on.
func (d *dump) behind(m *framed) error {
	var r *row
	flush := func() error {
		if r == nil {
			return nil
		}
		r.OK = r.Why == ""
		err := d.row(r)
		r = nil
		return err
	}
	_, err := frame.Layout(m.f, m.size, func(f frame.Field) error {
		if r != nil && r.Offset != f.Frame {
			if err := flush(); err != nil {
				return err
			}
		}
		if f.Part != frame.PartBroken && f.Part != frame.PartStranded {
			return nil
		}
		if r == nil {
			r = &row{File: filepath.Base(m.path), Offset: f.Frame, Part: f.Part.String()}
		}
		r.take(&f)
		return nil
	})
	if err != nil {
		return err
	}
	return flush()
}

// take notes what a field says.
func (r *row) take(f *frame.Field) {
	switch f.Name {
	case "kind":
		r.Kind = f.Value
	case "flags":
		r.Flags = f.Value
	case "first LSN":
		fmt.Sscan(f.Value, &r.First)
	case "record count":
		fmt.Sscan(f.Value, &r.Count)
	case "durable LSN":
		fmt.Sscan(f.Value, &r.Durable)
	case "stored length":
		fmt.Sscan(f.Value, &r.Stored)
	case "raw length":
		fmt.Sscan(f.Value, &r.Raw)
	case "closing hash":
		r.Hash = f.Value
	}
	if !f.OK {
		if r.Why != "" {
			r.Why += "; "
		}
		r.Why += f.Name + ": " + f.Reason
	}
}

// record prints a record, as a batch where it is one.
func (d *dump) record(m *framed, lsn base.LSN, keep uint64, rec []byte) error {
	what := "record"
	if m.head.Kind != frame.FileLog {
		what = "edit"
	}
	if d.json {
		out := map[string]any{"file": filepath.Base(m.path), what: lsn, "bytes": len(rec), "keep": keep}
		if b, err := batch.Decode(rec); err == nil && what == "record" {
			ops := []operation{}
			for b.Next() {
				ops = append(ops, d.names.operation(&b, d.text))
			}
			out["ops"] = ops
		} else {
			out["data"] = d.text(rec)
		}
		return jsonLine(d.w, out)
	}
	for i, line := range d.names.describe(m.head.Kind, rec, d.hex, -1) {
		label := ""
		if i == 0 {
			label = fmt.Sprint(lsn)
		}
		if _, err := fmt.Fprintf(d.w, "%28s  %s\n", label, line); err != nil {
			return err
		}
	}
	return nil
}

// text gives bytes to JSON: as they are, or in hex where that is asked for.
func (d *dump) text(b []byte) string {
	if d.hex {
		return fmt.Sprintf("%x", b)
	}
	return strings.ToValidUTF8(string(b), "\uFFFD")
}

// describe tells what a record says: a batch, an edit, or bytes. max bounds what
// is shown of each key and value; negative: all.
func (n spaces) describe(kind frame.FileKind, rec []byte, hex bool, max int) []string {
	if kind != frame.FileLog {
		e, err := decodeEdit(kind, rec)
		if err != nil {
			return []string{"no edit (" + err.Error() + "): " + quote(rec, true, max)}
		}
		return n.editLines(e)
	}
	b, err := batch.Decode(rec)
	if err != nil {
		return []string{fmt.Sprintf("%d bytes %s", len(rec), quote(rec, hex, max))}
	}
	out := []string{}
	for b.Next() {
		out = append(out, n.op(&b, hex, max))
	}
	if len(out) == 0 {
		out = append(out, "empty batch")
	}
	return out
}
