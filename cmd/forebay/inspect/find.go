package inspect

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/forebaydb/forebay/internal/base"
	"github.com/forebaydb/forebay/internal/batch"
	"github.com/forebaydb/forebay/internal/keyspace"
	"github.com/forebaydb/forebay/manifest"
	"github.com/forebaydb/forebay/segment"
	"github.com/forebaydb/forebay/wal/frame"
)

func (t *tool) findCommand() *cobra.Command {
	f := &finder{}
	var hexed bool
	var logDir string
	c := &cobra.Command{
		Use:   "find DIR KEY",
		Short: "Every place in a store's files that holds a key, and which one a reader sees",
		Long: `Prints every version of a key that the files of a store hold, and every range
delete that covers it, newest first: records of the log with file and frame,
segments with level and block. An arrow shows what decides for a reader. Versions
that are settled stand in the log as well until its file goes.

Exit code 1: no file holds anything of the key, or the store is damaged.` + readsOnly,
		Example: `  forebay find /tmp/s greeting
  forebay find /tmp/s ann --keyspace users
  forebay find /tmp/s ff00 --hex --json`,
	}
	c.Args = func(_ *cobra.Command, args []string) error {
		if len(args) != 2 {
			return usage("find takes two arguments, a directory and a key; it got %d", len(args))
		}
		return nil
	}
	c.Flags().StringVar(&f.space, "keyspace", "", "the `name` of a keyspace; default: the one without a name")
	c.Flags().BoolVar(&hexed, "hex", false, "the key is hexadecimal, and values are printed so")
	c.Flags().BoolVar(&f.json, "json", false, "print JSON, one object a line")
	c.Flags().StringVar(&logDir, "log-dir", "", "where the log files are, if not in DIR")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		f := *f
		f.t, f.hex, f.key = t, hexed, []byte(args[1])
		if hexed {
			var err error
			if f.key, err = hex.DecodeString(args[1]); err != nil {
				return usage("key %q is not hexadecimal (--hex)", args[1])
			}
		}
		return run(func(_ *cobra.Command, w *bufio.Writer, dir string) error {
			f.w = w
			return f.find(dir, logDir)
		})(cmd, args)
	}
	return c
}

type finder struct {
	t         *tool
	w         io.Writer
	key       []byte
	space     string
	hex, json bool

	s     *store
	files []chainFile
	last  base.LSN // what an open would show ends here
}

// place is one version of a key, or one range delete that covers it.
type place struct {
	LSN    base.LSN `json:"lsn"`
	Kind   string   `json:"kind"`
	File   string   `json:"file"`
	Offset int64    `json:"offset"` // of the frame, or of the block; -1: none
	// Level of a segment; -1: a log file.
	Level int    `json:"level"`
	Note  string `json:"note,omitempty"`
	// Seen: it decides for a reader.
	Seen  bool     `json:"seen"`
	Value *string  `json:"value,omitempty"`
	Lo    *jsonKey `json:"lo,omitempty"`
	Hi    *jsonKey `json:"hi,omitempty"`

	kind   base.Kind
	counts bool // a reader looks here
	value  []byte
	lo, hi []byte
}

// find looks again when a store that is in use took a file away meanwhile.
func (f *finder) find(dir, logDir string) error {
	if len(f.key) == 0 {
		return usage("a key has at least one byte")
	}
	var err error
	for range looks {
		var places []place
		var id uint64
		places, id, err = f.look(dir, logDir)
		if err == nil {
			return f.print(places, id)
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		time.Sleep(lookPause)
	}
	return err
}

func (f *finder) look(dir, logDir string) ([]place, uint64, error) {
	if is, err := f.t.isDir(dir); err != nil {
		return nil, 0, err
	} else if !is {
		return nil, 0, usage("%s is a file; find takes a directory", dir)
	}
	s, rep, err := f.t.steady(dir, logDir)
	if err != nil {
		return nil, 0, err
	}
	if !s.engine {
		return nil, 0, damaged("%s holds a log that is used alone, and no keys; see wal dump --records", dir)
	}
	r := &story{Log: newLogReport(&rep, nil), OK: true}
	if err := f.t.chain(s, r, &rep); err != nil {
		return nil, 0, err
	}
	f.s, f.files, f.last = s, r.Files, rep.Last
	id := keyspace.Default
	if f.space != "" {
		if id, err = f.spaceID(); err != nil {
			return nil, 0, err
		}
	}
	places, err := f.places(append(keyspace.AppendPrefix(nil, id), f.key...))
	return places, id, err
}

// spaceID finds the keyspace with the name, or the last that had it.
func (f *finder) spaceID() (uint64, error) {
	places, err := f.places(keyspace.NameKey(f.space))
	if err != nil {
		return 0, err
	}
	if i := slices.IndexFunc(places, func(p place) bool { return p.Seen }); i >= 0 && places[i].kind == base.KindPut {
		return keyspace.DecodeID(places[i].value)
	}
	found := uint64(0)
	for id, name := range f.t.names(f.s) {
		if name == f.space {
			found = max(found, id)
		}
	}
	if found == 0 {
		return 0, damaged("no keyspace %q in %s, and none that was dropped; `forebay keyspaces DIR` lists them", f.space, f.s.dir)
	}
	return found, nil
}

// places returns all places of a stored key, newest first, and marks the one that
// a reader sees.
func (f *finder) places(key []byte) ([]place, error) {
	var out []place
	for i := range f.files {
		found, err := f.inLog(&f.files[i], key)
		if err != nil {
			return nil, err
		}
		out = append(out, found...)
	}
	for i := range f.s.state.Segments {
		g := &f.s.state.Segments[i]
		if bytes.Compare(key, g.Lo) < 0 || bytes.Compare(key, g.Hi) >= 0 {
			continue
		}
		found, err := f.inSegment(g, key)
		if err != nil {
			return nil, err
		}
		out = append(out, found...)
	}
	// A range delete hides what is below its own LSN alone; so it comes behind a
	// version of its own batch.
	slices.SortStableFunc(out, func(a, b place) int {
		return cmp.Or(cmp.Compare(b.LSN, a.LSN), cmp.Compare(a.kind, b.kind), cmp.Compare(a.Level, b.Level))
	})
	for i := range out {
		if out[i].counts {
			out[i].Seen = true
			break
		}
	}
	return out, nil
}

// inLog finds a key in one log file.
func (f *finder) inLog(c *chainFile, key []byte) (out []place, err error) {
	if c.Role == "unused" || c.Role == "missing" {
		return nil, nil
	}
	m, err := f.t.openFramed(filepath.Join(f.s.logDir, c.Name))
	if err != nil {
		return nil, err
	}
	defer m.close()
	if m.headErr != nil {
		return nil, m.headErr
	}
	r := frame.NewReader(m.f, m.size, m.head)
	defer r.Release()
	for {
		fr, end, err := r.Next()
		if err != nil || end != nil {
			return out, err
		}
		if fr.Kind != frame.KindData {
			continue
		}
		if err := fr.EachRecord(func(lsn frame.LSN, _ uint64, rec []byte) error {
			b, err := batch.Decode(rec)
			if err != nil {
				return nil // no batch holds the key
			}
			for b.Next() {
				if p, ok := f.match(&b, key); ok {
					p.LSN, p.File, p.Offset, p.Level = lsn, c.Name, fr.Offset, -1
					p.counts, p.Note = f.logNote(c, lsn)
					out = append(out, p)
				}
			}
			return nil
		}); err != nil {
			return out, err
		}
	}
}

func (f *finder) match(b *batch.Reader, key []byte) (p place, ok bool) {
	p.kind = b.Kind()
	if p.kind == base.KindRangeDelete {
		if bytes.Compare(b.Key(), key) > 0 || bytes.Compare(key, b.Value()) >= 0 {
			return p, false
		}
		p.lo, p.hi = bytes.Clone(b.Key()), bytes.Clone(b.Value())
		return p, true
	}
	p.value = bytes.Clone(b.Value())
	return p, bytes.Equal(b.Key(), key)
}

// logNote says whether a reader gets to see a record of the log, and why not.
func (f *finder) logNote(c *chainFile, lsn base.LSN) (counts bool, note string) {
	switch {
	case c.Role == "retained" && lsn >= c.First && lsn <= c.Last:
		return false, "settled; the file is retained"
	case c.Role != "chain" || lsn < c.First || lsn > c.Last || lsn > f.last:
		return false, "does not count: the history went on elsewhere"
	case lsn < f.s.state.ReplayStart:
		return false, "settled"
	}
	return true, ""
}

// inSegment finds a key in one segment.
func (f *finder) inSegment(g *manifest.Segment, key []byte) (out []place, err error) {
	name := segment.FileName(g.Number)
	s, err := f.t.openParts(filepath.Join(f.s.dir, name))
	if err != nil {
		return nil, err
	}
	defer s.Close()
	set, err := s.RangeDeletes()
	if err != nil {
		return nil, err
	}
	if set != nil {
		for _, d := range set.Ranges() {
			if bytes.Compare(d.Lo, key) <= 0 && bytes.Compare(key, d.Hi) < 0 {
				out = append(out, place{LSN: d.LSN, kind: base.KindRangeDelete, File: name, Offset: s.parts[3].Offset, Level: g.Level, counts: true, lo: d.Lo, hi: d.Hi})
			}
		}
	}
	if len(s.index) == 0 {
		return out, nil
	}
	it := s.NewIter()
	defer it.Close()
	block := 0
	for ok := it.SeekGE(key, base.MaxLSN); ok && bytes.Equal(it.Key(), key); ok = it.Next() {
		block = s.block(block, key, it.LSN())
		out = append(out, place{LSN: it.LSN(), kind: it.Kind(), File: name, Offset: s.index[block].Offset, Level: g.Level, counts: true, value: bytes.Clone(it.Value())})
	}
	return out, it.Err()
}

func (f *finder) print(places []place, id uint64) error {
	names := f.t.names(f.s)
	show := names.label(id) + quote(f.key, f.hex, 64)
	if len(places) == 0 {
		return damaged("no file in %s holds %s, nor a range delete that covers it", f.s.dir, show)
	}
	for i := range places {
		p := &places[i]
		p.Kind = p.kind.String()
		if f.json {
			p.fill(names, f.hex)
			if err := jsonLine(f.w, p); err != nil {
				return err
			}
			continue
		}
		if err := f.line(p, names); err != nil {
			return err
		}
	}
	if f.json {
		return nil
	}
	_, err := fmt.Fprintf(f.w, "%s: %s\n", show, verdict(places))
	return err
}

func (p *place) fill(names spaces, hex bool) {
	switch p.kind {
	case base.KindPut:
		v := quote(p.value, hex, -1)
		p.Value = &v
	case base.KindRangeDelete:
		lo, hi := names.jsonKey(p.lo), names.jsonKey(p.hi)
		p.Lo, p.Hi = &lo, &hi
	}
}

func (f *finder) line(p *place, names spaces) error {
	arrow, where, what := "  ", fmt.Sprintf("%s level %d, block at %d", p.File, p.Level, p.Offset), ""
	if p.Seen {
		arrow = "→ "
	}
	if p.Level < 0 {
		where = fmt.Sprintf("%s frame at %d", p.File, p.Offset)
	}
	switch p.kind {
	case base.KindPut:
		what = fmt.Sprintf("%d bytes %s", len(p.value), quote(p.value, f.hex, 40))
	case base.KindRangeDelete:
		what = names.bounds(p.lo, p.hi, f.hex, 32)
	}
	if p.Note != "" {
		what += "  (" + p.Note + ")"
	}
	_, err := fmt.Fprintf(f.w, "%sLSN %-9d %-12s  %-38s  %s\n", arrow, p.LSN, p.Kind, where, what)
	return err
}

// verdict says what a reader sees, in words.
func verdict(places []place) string {
	for _, p := range places {
		if !p.Seen {
			continue
		}
		switch p.kind {
		case base.KindPut:
			return fmt.Sprintf("a reader sees the value of LSN %d, %s", p.LSN, plural(len(p.value), "byte"))
		case base.KindDelete:
			return fmt.Sprintf("a reader sees nothing: it was deleted at LSN %d", p.LSN)
		}
		return fmt.Sprintf("a reader sees nothing: the range delete at LSN %d hides what is older", p.LSN)
	}
	return "a reader sees nothing: no place that counts holds it"
}
