package inspect

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/forebaydb/forebay/internal/base"
	"github.com/forebaydb/forebay/internal/editlog"
	"github.com/forebaydb/forebay/manifest"
	"github.com/forebaydb/forebay/segment"
	"github.com/forebaydb/forebay/wal"
	"github.com/forebaydb/forebay/wal/frame"
)

func (t *tool) manifestCommand() *cobra.Command {
	var edits, asJSON bool
	c := &cobra.Command{
		Use:   "dump DIR|FILE",
		Short: "What a store's manifest, or a log's catalog, lists as live",
		Long: `Prints the state that a manifest (or, for a log that is used alone, a catalog)
describes: segments, log files, floor, pins, replay start, epoch. With --edits,
each edit that led there.

Exit code 1: it is damaged; what could be read is printed.` + readsOnly,
		Example: `  forebay manifest dump /tmp/s
  forebay manifest dump /tmp/s/MANIFEST-000001 --edits`,
		Args: one("a directory or a MANIFEST or CATALOG file"),
	}
	c.Flags().BoolVar(&edits, "edits", false, "print each edit")
	c.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	c.RunE = run(func(_ *cobra.Command, w *bufio.Writer, path string) error {
		names := spaces{}
		dir, err := t.isDir(path)
		if err != nil {
			return err
		}
		var s *store
		if dir {
			if s, err = t.load(path, ""); err == nil {
				names = t.names(s)
			}
		} else if s, err = t.loadFile(path); err == nil {
			names = t.namesBeside(path)
		}
		if err != nil {
			return err
		}
		if asJSON {
			err = jsonLine(w, newManifestReport(s, names, edits))
		} else {
			err = printManifest(w, s, names, edits)
		}
		if err != nil {
			return err
		}
		return s.err
	})
	return c
}

// loadFile reads one manifest or catalog by itself.
func (t *tool) loadFile(path string) (*store, error) {
	m, err := t.openFramed(path)
	if err != nil {
		return nil, err
	}
	defer m.close()
	if m.headErr != nil {
		return nil, m.headErr
	}
	s := &store{dir: filepath.Dir(path), kind: manifestKind, engine: true, id: m.head.Store}
	switch m.head.Kind {
	case frame.FileManifest:
	case frame.FileCatalog:
		s.kind, s.engine = catalogKind, false
	default:
		return nil, usage("%s is a %s file, neither manifest nor catalog; see wal dump", path, m.head.Kind)
	}
	s.loaded = &editlog.Loaded{Store: m.head.Store, Name: filepath.Base(path), Number: m.head.Number}
	marked := false
	e, err := m.walk(func(fr *frame.Frame) error {
		marked = fr.Kind == frame.KindMark && fr.Durable+1 == fr.First
		if fr.Kind != frame.KindData {
			return nil
		}
		return fr.EachRecord(func(_ frame.LSN, _ uint64, rec []byte) error {
			e, err := decodeEdit(m.head.Kind, rec)
			if err != nil {
				return damaged("%s: edit at offset %d is not understood: %w", path, fr.Offset, err)
			}
			s.edits = append(s.edits, *e)
			s.state.Apply(e)
			return nil
		})
	})
	if err != nil {
		return nil, err
	}
	s.loaded.Records, s.loaded.Size = e.Records, e.Offset
	s.loaded.Dirty = !marked || e.Behind > 0
	if e.Damaged {
		s.err = &base.CorruptionError{File: path, Offset: e.Offset, Reason: fmt.Sprintf("edit %d was durable and does not verify", e.Next)}
	}
	return s, nil
}

// manifestReport is a manifest in JSON.
type manifestReport struct {
	File        string              `json:"file"`
	Store       string              `json:"store"`
	Edits       uint64              `json:"edits"`
	Proven      bool                `json:"proven"`
	Others      []string            `json:"others,omitempty"`
	ReplayStart base.LSN            `json:"replay_start,omitempty"`
	LastSegment uint64              `json:"last_segment,omitempty"`
	Segments    []jsonSegment       `json:"segments,omitempty"`
	Epoch       uint64              `json:"highest_epoch"`
	Number      uint64              `json:"highest_file"`
	Floor       jsonFloor           `json:"floor"`
	Pins        map[string]base.LSN `json:"pins,omitempty"`
	Files       []jsonLogFile       `json:"log_files"`
	EditList    [][]string          `json:"edit_list,omitempty"`
	Error       string              `json:"error,omitempty"`
}

type jsonSegment struct {
	Name       string   `json:"name"`
	Level      int      `json:"level"`
	Size       uint64   `json:"size"`
	Count      uint64   `json:"versions"`
	Tombstones uint64   `json:"tombstones"`
	Dels       uint64   `json:"range_deletes"`
	MinLSN     base.LSN `json:"min_lsn"`
	MaxLSN     base.LSN `json:"max_lsn"`
	Hash       string   `json:"hash"`
	Lo         jsonKey  `json:"lo"` // inclusive
	Hi         jsonKey  `json:"hi"` // exclusive
}

type jsonLogFile struct {
	Name     string   `json:"name"`
	Epoch    uint64   `json:"epoch"`
	Salt     string   `json:"salt"`
	Retained bool     `json:"retained,omitempty"`
	Archived bool     `json:"archived,omitempty"`
	First    base.LSN `json:"first,omitempty"`
	Last     base.LSN `json:"last,omitempty"`
	Hash     string   `json:"hash,omitempty"`
	Index    int64    `json:"index,omitempty"`
	Keep     uint64   `json:"keep,omitempty"`
	Cut      *jsonCut `json:"cut,omitempty"`
}

type jsonCut struct {
	LSN  base.LSN `json:"lsn"`
	Hash string   `json:"hash"`
}

type jsonFloor struct {
	File  uint64   `json:"file"`
	LSN   base.LSN `json:"lsn"`
	Epoch uint64   `json:"epoch"`
	Hash  string   `json:"hash"`
}

func newManifestReport(s *store, names spaces, edits bool) *manifestReport {
	l := &s.state.Log
	hex := func(v uint64) string { return fmt.Sprintf("%016x", v) }
	r := &manifestReport{
		Store: fmt.Sprintf("%x", s.id), ReplayStart: s.state.ReplayStart, LastSegment: s.state.LastSegment,
		Epoch: l.Epoch, Number: l.Number, Pins: l.Pins, Edits: uint64(len(s.edits)),
		Floor: jsonFloor{l.Floor.File, l.Floor.LSN, l.Floor.Epoch, hex(l.Floor.Hash)}, Files: []jsonLogFile{},
	}
	for _, g := range s.state.Segments {
		r.Segments = append(r.Segments, jsonSegment{
			segment.FileName(g.Number), g.Level, g.Size, g.Count, g.Tombstones, g.RangeDeletes, g.MinLSN, g.MaxLSN, hex(g.Hash),
			names.jsonKey(g.Lo), names.jsonKey(g.Hi),
		})
	}
	for _, f := range l.Files {
		j := jsonLogFile{Name: wal.FileName(f.Number), Epoch: f.Epoch, Salt: hex(f.Salt), Retained: f.Retained, Archived: f.Archived}
		if f.Retained {
			j.First, j.Last, j.Hash, j.Index, j.Keep = f.First, f.Last, hex(f.Hash), f.Index, f.Keep
		}
		if f.Cut {
			j.Cut = &jsonCut{f.CutLSN, hex(f.CutHash)}
		}
		r.Files = append(r.Files, j)
	}
	if s.loaded != nil {
		r.File, r.Others, r.Proven = s.loaded.Name, s.loaded.Others, !s.loaded.Dirty
	}
	if s.err != nil {
		r.Error = s.err.Error()
	}
	if edits {
		for i := range s.edits {
			r.EditList = append(r.EditList, names.editLines(&s.edits[i]))
		}
	}
	return r
}

func printManifest(w io.Writer, s *store, names spaces, edits bool) error {
	if s.err != nil && len(s.edits) == 0 {
		return nil
	}
	if s.loaded != nil {
		proven := "all proven durable"
		switch {
		case s.err != nil:
			proven = "DAMAGED behind them"
		case s.loaded.Dirty:
			proven = "the end is not proven durable: the next open writes it anew before acting on it"
		}
		fmt.Fprintf(w, "%s: store %x, %s in %d bytes, %s\n", s.loaded.Name, s.id, plural(s.loaded.Records, "edit"), s.loaded.Size, proven)
		if len(s.loaded.Others) > 0 {
			fmt.Fprintf(w, "beside it, superseded: %s\n", strings.Join(s.loaded.Others, " "))
		}
	} else {
		fmt.Fprintf(w, "DAMAGED; what %s say:\n", plural(len(s.edits), "intact edit"))
	}
	if edits {
		fmt.Fprintln(w, "edits")
		for i := range s.edits {
			for j, line := range names.editLines(&s.edits[i]) {
				label := ""
				if j == 0 {
					label = fmt.Sprint(i + 1)
				}
				fmt.Fprintf(w, "%6s  %s\n", label, line)
			}
		}
		fmt.Fprintln(w, "state")
	}
	if s.engine {
		fmt.Fprintf(w, "  replay start   LSN %d\n  last segment   %d\n", s.state.ReplayStart, s.state.LastSegment)
	}
	l := &s.state.Log
	fmt.Fprintf(w, "  highest epoch  %d\n  highest file   %d\n  floor          %s\n", l.Epoch, l.Number, floorText(&l.Floor))
	for _, name := range slices.Sorted(maps.Keys(l.Pins)) {
		fmt.Fprintf(w, "  pin            %q at LSN %d\n", name, l.Pins[name])
	}
	for i := range s.state.Segments {
		fmt.Fprintf(w, "  segment        %s\n", names.segmentText(&s.state.Segments[i]))
	}
	for i := range l.Files {
		fmt.Fprintf(w, "  log file       %s\n", logFileText(&l.Files[i]))
	}
	return nil
}

func floorText(f *base.LogFloor) string {
	if *f == (base.LogFloor{}) {
		return "the beginning"
	}
	return fmt.Sprintf("behind LSN %d of file %d, epoch %d, hash %016x", f.LSN, f.File, f.Epoch, f.Hash)
}

func (n spaces) segmentText(g *manifest.Segment) string {
	dels := ""
	if g.RangeDeletes > 0 {
		dels = ", " + plural(g.RangeDeletes, "range delete")
	}
	return fmt.Sprintf("%s level %d, %d bytes, %s (%s)%s, %s, keys %s, hash %016x", segment.FileName(g.Number), g.Level, g.Size,
		plural(g.Count, "version"), plural(g.Tombstones, "tombstone"), dels, lsns(g.MinLSN, g.MaxLSN), n.bounds(g.Lo, g.Hi, false, 32), g.Hash)
}

func logFileText(f *base.LogFile) string {
	s := fmt.Sprintf("%s epoch %d, salt %016x", wal.FileName(f.Number), f.Epoch, f.Salt)
	if f.Retained {
		s += fmt.Sprintf(", retained %s, hash %016x, index at %d, keep %d", lsns(f.First, f.Last), f.Hash, f.Index, f.Keep)
	}
	if f.Archived {
		s += ", archived"
	}
	if f.Cut {
		s += fmt.Sprintf(", cut behind LSN %d, hash %016x", f.CutLSN, f.CutHash)
	}
	return s
}

// editLines tells what an edit changes, one thing a line.
func (n spaces) editLines(e *manifest.Edit) []string {
	var out []string
	add := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	if l := e.Log; l != nil {
		for i := range l.Put {
			add("log file %s", logFileText(&l.Put[i]))
		}
		for _, n := range l.Remove {
			add("remove log file %s", wal.FileName(n))
		}
		if l.Floor != nil {
			add("floor %s", floorText(l.Floor))
		}
		if l.Epoch != 0 {
			add("highest epoch %d", l.Epoch)
		}
		if l.Number != 0 {
			add("highest file %d", l.Number)
		}
		for _, name := range slices.Sorted(maps.Keys(l.Pin)) {
			add("pin %q at LSN %d", name, l.Pin[name])
		}
		for _, name := range l.Unpin {
			add("unpin %q", name)
		}
	}
	for i := range e.Add {
		add("segment %s", n.segmentText(&e.Add[i]))
	}
	for _, n := range e.Remove {
		add("remove segment %s", segment.FileName(n))
	}
	if e.ReplayStart != 0 {
		add("replay start LSN %d", e.ReplayStart)
	}
	if e.LastSegment != 0 {
		add("last segment %d", e.LastSegment)
	}
	if out == nil {
		out = append(out, "nothing")
	}
	return out
}
