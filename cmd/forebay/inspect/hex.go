package inspect

import (
	"bufio"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/forebaydb/forebay/wal/frame"
)

func (t *tool) hexCommand() *cobra.Command {
	h := &hexer{}
	var from, to, colour string
	c := &cobra.Command{
		Use:   "hex FILE",
		Short: "Name every byte of a log file, a manifest or a catalog",
		Long: `Prints every byte of a framed file with the name and the meaning of the field
that it belongs to. All hashes are recomputed: each is said to match or not, and
where one flipped bit explains a wrong one, the bit is named. Long runs of zeros
are collapsed. At the end: where and why the frames end, and whether anything
behind proves that more was durable.

Exit code 1: the file's header does not verify, or something that was durable is
damaged.` + readsOnly,
		Example: `  forebay wal hex /tmp/s/000003.log --from 0x200 --to 0x400
  forebay wal hex /tmp/s/MANIFEST-000001 --color always | less -R`,
		Args: one("a file"),
	}
	c.Flags().StringVar(&from, "from", "0", "first offset to show, decimal or 0x…")
	c.Flags().StringVar(&to, "to", "", "offset to stop before; default: the end of the file")
	c.Flags().StringVar(&colour, "color", "auto", colourHelp)
	c.Flags().BoolVar(&h.json, "json", false, "print JSON, one object for each field")
	c.RunE = run(func(cmd *cobra.Command, w *bufio.Writer, path string) error {
		h := *h
		var err error
		if h.colours, err = wantColours(colour, cmd.OutOrStdout()); err != nil {
			return err
		}
		if h.from, err = offset("from", from, 0); err != nil {
			return err
		}
		if h.to, err = offset("to", to, 1<<62); err != nil {
			return err
		}
		if h.to <= h.from {
			return usage("--to is %d, which is not above --from, %d", h.to, h.from)
		}
		if dir, err := t.isDir(path); err != nil || dir {
			if dir {
				return usage("%s is a directory; wal hex takes one file", path)
			}
			return err
		}
		h.m, err = t.openFramed(path)
		if err != nil {
			return err
		}
		defer h.m.close()
		h.w, h.names = w, t.namesBeside(path)
		return h.file()
	})
	return c
}

func offset(flag, s string, none int64) (int64, error) {
	if s == "" {
		return none, nil
	}
	n, err := strconv.ParseInt(s, 0, 64)
	if err != nil || n < 0 {
		return 0, usage("--%s is %q, which is no offset", flag, s)
	}
	return n, nil
}

type hexer struct {
	m        *framed
	w        *bufio.Writer
	json     bool
	colours  colours
	from, to int64
	names    spaces

	section int64 // the frame whose heading was printed; -1: file header
	part    frame.Part
	begun   bool
}

// hexField is a field in JSON.
type hexField struct {
	Offset int64  `json:"offset"`
	Length int64  `json:"length"`
	Part   string `json:"part"`
	Frame  *int64 `json:"frame,omitempty"`
	Field  string `json:"field"`
	Value  string `json:"value,omitempty"`
	Hex    string `json:"hex,omitempty"` // of fields of up to 4096 bytes; zeros are left out
	OK     bool   `json:"ok"`
	Reason string `json:"reason,omitempty"`
}

const jsonHexMax = 4096

func (h *hexer) file() error {
	if !h.json {
		fmt.Fprintln(h.w, h.colours.paint(bold, h.m.title()))
	}
	walked, err := frame.Layout(h.m.f, h.m.size, h.field)
	if err != nil {
		return err
	}
	if !walked.HeadOK {
		return h.noHeader(&walked)
	}
	e, err := h.m.walk(nil)
	if err != nil {
		return err
	}
	if h.json {
		err = jsonLine(h.w, map[string]any{"end": e})
	} else {
		code := ""
		if e.Damaged {
			code = red
		}
		fmt.Fprintln(h.w)
		for _, line := range e.lines(h.m.head.Kind) {
			fmt.Fprintln(h.w, h.colours.paint(code, line))
		}
		if h.m.head.Kind == frame.FileLog {
			_, err = fmt.Fprintln(h.w, "(this file alone; `forebay recover --explain DIR` judges the whole log)")
		}
	}
	if err == nil && e.Damaged {
		err = damaged("%s is damaged at offset %d", h.m.path, e.Offset)
	}
	return err
}

func (h *hexer) noHeader(walked *frame.Walked) error {
	text := "the file header does not verify: nothing in this file counts"
	if walked.Bound {
		text += "; the frames above are shown as they would read with the header mended"
	}
	if h.json {
		if err := jsonLine(h.w, map[string]any{"end": map[string]any{"offset": 0, "reason": text, "damaged": true}}); err != nil {
			return err
		}
	} else {
		fmt.Fprintf(h.w, "\n%s\n", h.colours.paint(red, text))
	}
	return damaged("%w", h.m.headErr)
}

func (h *hexer) field(f frame.Field) error {
	if f.Offset+f.Len <= h.from || f.Offset >= h.to {
		return nil
	}
	if f.Name == frame.FieldRecord && f.Len <= maxShownRecord {
		rec := make([]byte, f.Len)
		if err := h.read(rec, f.Offset); err != nil {
			return err
		}
		f.Value += ": " + strings.Join(h.names.describe(h.kind(), rec, false, 24), "; ")
	}
	if h.json {
		return h.jsonField(&f)
	}
	h.heading(&f)
	return h.rows(&f)
}

// maxShownRecord is the size in bytes up to which a record is read whole to say
// what is in it.
const maxShownRecord = 1 << 20

func (h *hexer) kind() frame.FileKind {
	if h.m.headErr != nil {
		return frame.FileLog
	}
	return h.m.head.Kind
}

func (h *hexer) read(b []byte, at int64) error {
	if n, err := h.m.f.ReadAt(b, at); n < len(b) {
		if err == nil || err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return fmt.Errorf("%s: %w", h.m.path, err)
	}
	return nil
}

func (h *hexer) jsonField(f *frame.Field) error {
	out := hexField{Offset: f.Offset, Length: f.Len, Part: f.Part.String(), Field: f.Name, Value: f.Value, OK: f.OK, Reason: f.Reason}
	if f.Frame >= 0 {
		out.Frame = &f.Frame
	}
	if f.Len <= jsonHexMax && f.Name != frame.FieldZeros {
		b := make([]byte, f.Len)
		if err := h.read(b, f.Offset); err != nil {
			return err
		}
		out.Hex = fmt.Sprintf("%x", b)
	}
	return jsonLine(h.w, out)
}

// heading prints what begins here, where something new does.
func (h *hexer) heading(f *frame.Field) {
	if h.begun && h.section == f.Frame && h.part == f.Part {
		return
	}
	h.begun, h.section, h.part = true, f.Frame, f.Part
	var kind [5]byte
	name := "frame"
	if f.Frame >= 0 && h.read(kind[:], f.Frame) == nil {
		name = frame.Kind(kind[4]).String() + " frame"
	}
	text := map[frame.Part]string{
		frame.PartHeader:   "file header",
		frame.PartFrame:    fmt.Sprintf("%s at %d", name, f.Frame),
		frame.PartBroken:   fmt.Sprintf("%s at %d, which does not count: the frames end here", name, f.Frame),
		frame.PartStranded: fmt.Sprintf("%s at %d, behind the end", name, f.Frame),
		frame.PartLoose:    "in no frame",
	}[f.Part]
	code := bold
	if f.Part == frame.PartBroken || f.Part == frame.PartStranded {
		code = red
	}
	fmt.Fprintf(h.w, "\n%s\n", h.colours.paint(code, text))
}

const perRow = 16

// rows prints the bytes of a field, 16 a line, its name and meaning beside the
// first. Runs of zeros are collapsed.
func (h *hexer) rows(f *frame.Field) error {
	from, to := max(f.Offset, h.from), min(f.Offset+f.Len, h.to)
	side := fmt.Sprintf("%-24s  %s", f.Name, h.meaning(f))
	if from > f.Offset {
		side = "… " + f.Name
	}
	code := paintOf(f)
	var buf [4096]byte
	zeros := int64(0)
	for at := from; at < to; {
		b := buf[:min(int64(len(buf)), to-at)]
		if err := h.read(b, at); err != nil {
			return err
		}
		for i := 0; i < len(b); i += perRow {
			line := b[i:min(i+perRow, len(b))]
			if isZero(line) && (at+int64(i) > from || to-from > 4*perRow) && at+int64(i+len(line)) <= to && to-from > 2*perRow {
				zeros += int64(len(line))
				continue
			}
			if err := h.collapsed(&zeros, at+int64(i), side); err != nil {
				return err
			}
			if at+int64(i) > from {
				side = ascii(line)
			}
			if _, err := fmt.Fprintf(h.w, "%s  %s  %s\n", h.colours.paint(dim, fmt.Sprintf("%08x", at+int64(i))), h.colours.paint(code, fmt.Sprintf("%-47x", spaced(line))), strings.TrimRight(side, " ")); err != nil {
				return err
			}
			side = ""
		}
		at += int64(len(b))
	}
	return h.collapsed(&zeros, to, side)
}

// collapsed prints the line that stands for zeros which end at offset end. side
// is the name of the field where they are its first bytes.
func (h *hexer) collapsed(zeros *int64, end int64, side string) error {
	n := *zeros
	if *zeros = 0; n == 0 {
		return nil
	}
	what := fmt.Sprintf("00 …  %d zero bytes", n)
	_, err := fmt.Fprintln(h.w, strings.TrimRight(fmt.Sprintf("%s  %s  %s", h.colours.paint(dim, fmt.Sprintf("%08x", end-n)), h.colours.paint(dim, fmt.Sprintf("%-47s", what)), side), " "))
	return err
}

// spaced makes %x print bytes apart.
type spaced []byte

// Format implements fmt.Formatter.
func (b spaced) Format(s fmt.State, _ rune) {
	w, _ := s.Width()
	fmt.Fprintf(s, "%-*s", w, fmt.Sprintf("% x", []byte(b)))
}

func ascii(b []byte) string {
	out := make([]byte, 0, len(b)+2)
	out = append(out, '|')
	for _, c := range b {
		if c < ' ' || c > '~' {
			c = '.'
		}
		out = append(out, c)
	}
	return string(append(out, '|'))
}

func isZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

// meaning tells value and judgement of a field.
func (h *hexer) meaning(f *frame.Field) string {
	s := f.Value
	switch {
	case !f.OK:
		if s != "" {
			s += "  "
		}
		s += h.colours.paint(red, "BAD: "+f.Reason)
	case f.Name == "header hash" || f.Name == "closing hash":
		s += "  " + h.colours.paint(green, "matches")
	}
	return s
}

func paintOf(f *frame.Field) string {
	switch {
	case !f.OK:
		return red
	case f.Name == frame.FieldZeros || f.Name == "zero" || f.Name == "padding":
		return dim
	case strings.Contains(f.Name, "hash"):
		return green
	case strings.Contains(f.Name, "LSN") || strings.Contains(f.Name, "through") || f.Name == "epoch":
		return cyan
	case f.Name == frame.FieldRecord || strings.HasPrefix(f.Name, "payload"):
		return yellow
	case strings.HasPrefix(f.Name, "link") || strings.HasPrefix(f.Name, "index"):
		return magenta
	case f.Part == frame.PartLoose:
		return ""
	}
	return blue
}
