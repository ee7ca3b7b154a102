package inspect

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/forebaydb/forebay/internal/base"
	"github.com/forebaydb/forebay/segment"
	"github.com/forebaydb/forebay/vfs"
)

func (t *tool) segmentCommand() *cobra.Command {
	d := &segmentDump{}
	c := &cobra.Command{
		Use:   "dump FILE",
		Short: "What is in a segment: properties, parts, blocks, range deletes, versions",
		Long: `Prints the properties of a segment, where its parts lie, its range deletes, and one
line for each data block; with --versions, each version. Every block that is
printed was verified; --verify verifies also the filter, the order across blocks
and the properties, which reads the file twice.

Exit code 1: it is damaged; what could be read before is printed.` + readsOnly,
		Example: `  forebay segment dump /tmp/s/000007.seg
  forebay segment dump /tmp/s/000007.seg --versions --json | jq -r .key`,
		Args: one("a segment file"),
	}
	c.Flags().BoolVar(&d.versions, "versions", false, "print each version")
	c.Flags().BoolVar(&d.verify, "verify", false, "verify the whole file first")
	c.Flags().BoolVar(&d.hex, "hex", false, "print keys and values in hex")
	c.Flags().BoolVar(&d.json, "json", false, "print JSON, one object a line")
	c.RunE = run(func(cmd *cobra.Command, w *bufio.Writer, path string) error {
		if dir, err := t.isDir(path); err != nil || dir {
			if dir {
				return usage("%s is a directory; segment dump takes one file", path)
			}
			return err
		}
		d := *d
		d.t, d.w = t, w
		return d.file(cmd.Context(), path)
	})
	return c
}

type segmentDump struct {
	t                           *tool
	w                           io.Writer
	names                       spaces
	versions, verify, hex, json bool
}

// segmentFile is a segment that is open, with the places of its parts.
type segmentFile struct {
	*segment.Reader
	f     vfs.File
	parts []part
	index []blockRow
	// pages of the filter and the length of one, its trailer included.
	pages, page int64
}

// part is a stretch of a segment's file.
type part struct {
	Name   string `json:"name"`
	Offset int64  `json:"offset"`
	Length int64  `json:"length"`
}

// blockRow is one data block.
type blockRow struct {
	Block    int      `json:"block"`
	Offset   int64    `json:"offset"`
	Length   int64    `json:"length"`
	Versions int      `json:"versions"`
	Deletes  int      `json:"tombstones"`
	MinLSN   base.LSN `json:"min_lsn"`
	MaxLSN   base.LSN `json:"max_lsn"`
	First    jsonKey  `json:"first"`
	Last     jsonKey  `json:"last"`

	sep         []byte // what the index says that it begins with
	sepLSN      base.LSN
	first, last []byte
}

// Wire format of package segment, as its comment gives it.
const (
	segmentFooter  = 128
	segmentTrailer = 16
)

// openParts opens a segment and reads where its parts lie. The footer has been
// verified by segment.Open, and so has the index, once bounds were asked for.
func (t *tool) openParts(path string) (*segmentFile, error) {
	f, err := t.fsys.Open(path, vfs.ReadOnly)
	if err != nil {
		return nil, err
	}
	id, err := segment.ReadID(f, path)
	var r *segment.Reader
	if err == nil {
		r, err = segment.Open(f, path, id, segment.Options{})
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	s := &segmentFile{Reader: r, f: f}
	if err := s.read(); err != nil {
		r.Close()
		return nil, err
	}
	return s, nil
}

func (s *segmentFile) read() error {
	b := make([]byte, segmentFooter)
	if err := s.bytes(b, int64(s.Size())-segmentFooter); err != nil {
		return err
	}
	length := func(at int) int64 { return int64(binary.LittleEndian.Uint64(b[at:])) }
	if page := int64(binary.LittleEndian.Uint32(b[96:])); page > 0 {
		s.page = page + segmentTrailer
		s.pages = length(64) / s.page
	}
	at := int64(0)
	for _, p := range []part{{"data", 0, length(56)}, {"filter", 0, length(64)}, {"index", 0, length(72)}, {"range deletes", 0, length(104)}, {"properties", 0, length(80)}, {"footer", 0, segmentFooter}} {
		p.Offset = at
		at += p.Length
		s.parts = append(s.parts, p)
	}
	index := s.parts[2]
	if index.Length <= segmentTrailer {
		return nil
	}
	// The first move reads and verifies the index.
	it := s.NewIter()
	it.First()
	if err := errors.Join(it.Err(), it.Close()); err != nil {
		return err
	}
	payload := make([]byte, index.Length-segmentTrailer)
	if err := s.bytes(payload, index.Offset); err != nil {
		return err
	}
	return s.decodeIndex(payload)
}

func (s *segmentFile) bytes(b []byte, at int64) error {
	if n, err := s.f.ReadAt(b, at); n < len(b) {
		if err == nil || errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return fmt.Errorf("%s: %w", s.Name(), err)
	}
	return nil
}

// decodeIndex reads the index, which verifies: what it does not hold is a bug.
func (s *segmentFile) decodeIndex(b []byte) error {
	bad := damaged("%s: the index verifies and is not understood", s.Name())
	if len(b) < 4 {
		return bad
	}
	count := binary.LittleEndian.Uint32(b)
	b = b[4:]
	at := int64(0)
	for range count {
		var n [3]uint64
		for i := range n {
			v, used := binary.Uvarint(b)
			if used <= 0 {
				return bad
			}
			n[i], b = v, b[used:]
		}
		if n[1] > uint64(len(b)) || n[0] > uint64(s.parts[0].Length) {
			return bad
		}
		s.index = append(s.index, blockRow{Block: len(s.index), Offset: at, Length: int64(n[0]), sep: b[:n[1]], sepLSN: base.MaxLSN - n[2]})
		b = b[n[1]:]
		at += int64(n[0])
	}
	return nil
}

// block returns the number of the block that holds a version, which the index
// tells; near is the one of a version before, or 0.
func (s *segmentFile) block(near int, key []byte, lsn base.LSN) int {
	for near+1 < len(s.index) && base.Compare(s.index[near+1].sep, s.index[near+1].sepLSN, key, lsn) <= 0 {
		near++
	}
	return near
}

func (d *segmentDump) file(ctx context.Context, path string) error {
	d.names = d.t.namesBeside(path)
	s, err := d.t.openParts(path)
	if err != nil {
		return err
	}
	defer s.Close()
	d.t.namesInSegment(d.names, path, s.ID())
	props, err := s.Props()
	if err != nil {
		return err
	}
	if d.verify {
		if err := s.Verify(ctx); err != nil {
			return err
		}
	}
	if err := d.head(s, &props); err != nil {
		return err
	}
	if err := d.rangeDeletes(s); err != nil {
		return err
	}
	return d.blocks(ctx, s)
}

func (d *segmentDump) head(s *segmentFile, p *segment.Properties) error {
	perKey := 0.0
	if p.Keys > 0 {
		perKey = 8 * float64(s.pages*max(s.page-segmentTrailer, 0)) / float64(p.Keys)
	}
	if d.json {
		return jsonLine(d.w, map[string]any{
			"file": filepath.Base(s.Name()), "number": s.ID().Number, "store": fmt.Sprintf("%x", s.ID().Store), "size": s.Size(), "hash": fmt.Sprintf("%016x", s.Hash()),
			"verified": d.verify, "versions": p.Count, "tombstones": p.Tombstones, "keys": p.Keys, "range_deletes": p.RangeDeletes, "min_lsn": p.MinLSN, "max_lsn": p.MaxLSN,
			"key_bytes": p.KeyBytes, "value_bytes": p.ValueBytes, "data_bytes": p.DataBytes, "compression": p.Compression.String(),
			"lo": d.names.jsonKey(p.Lo), "hi": d.names.jsonKey(p.Hi), "parts": s.parts, "filter_pages": s.pages, "filter_bits_per_key": perKey, "blocks": len(s.index),
		})
	}
	fmt.Fprintf(d.w, "%s: segment %d of store %x, %d bytes, hash %016x\n", filepath.Base(s.Name()), s.ID().Number, s.ID().Store, s.Size(), s.Hash())
	if d.verify {
		fmt.Fprintln(d.w, "  verified       every byte of it")
	}
	fmt.Fprintf(d.w, "  holds          %s (%s) of %s, %s, %s\n", plural(p.Count, "version"), plural(p.Tombstones, "tombstone"), plural(p.Keys, "key"), plural(p.RangeDeletes, "range delete"), lsns(p.MinLSN, p.MaxLSN))
	fmt.Fprintf(d.w, "  keys           %s\n", d.names.bounds(p.Lo, p.Hi, d.hex, 64))
	stored := s.parts[0].Length
	fmt.Fprintf(d.w, "  bytes          %d of keys, %d of values; %d in blocks, %d packed (%s, %s)\n", p.KeyBytes, p.ValueBytes, p.DataBytes, stored, p.Compression, ratio(float64(p.DataBytes), float64(stored)))
	for i, part := range s.parts {
		if part.Length == 0 {
			continue
		}
		more := ""
		switch i {
		case 0:
			more = ", " + plural(len(s.index), "block")
		case 1:
			more = fmt.Sprintf(", %s of %d bytes, %.1f bits a key", plural(s.pages, "page"), s.page, perKey)
		}
		fmt.Fprintf(d.w, "  %-14s at %d, %s%s\n", part.Name, part.Offset, plural(part.Length, "byte"), more)
	}
	return nil
}

func (d *segmentDump) rangeDeletes(s *segmentFile) error {
	set, err := s.RangeDeletes()
	if err != nil || set == nil {
		return err
	}
	if !d.json {
		fmt.Fprintf(d.w, "range deletes\n")
	}
	for _, r := range set.Ranges() {
		if d.json {
			err = jsonLine(d.w, map[string]any{"range_delete": r.LSN, "lo": d.names.jsonKey(r.Lo), "hi": d.names.jsonKey(r.Hi)})
		} else {
			_, err = fmt.Fprintf(d.w, "  LSN %-10d %s\n", r.LSN, d.names.bounds(r.Lo, r.Hi, d.hex, -1))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// blocks prints the blocks, and the versions in them where that is asked for.
func (d *segmentDump) blocks(ctx context.Context, s *segmentFile) error {
	if len(s.index) == 0 {
		return nil
	}
	if !d.json && d.versions {
		fmt.Fprintln(d.w, "blocks")
	} else if !d.json {
		fmt.Fprintf(d.w, "blocks\n  %5s %10s %8s %8s  %-17s  keys\n", "block", "offset", "length", "versions", "LSN")
	}
	it := s.NewScanIter()
	defer it.Close()
	at, row := 0, s.index[0]
	for ok := it.First(); ok; ok = it.Next() {
		if b := s.block(at, it.Key(), it.LSN()); b != at {
			if err := errors.Join(d.block(&row), ctx.Err()); err != nil {
				return err
			}
			at, row = b, s.index[b]
		}
		row.take(it)
		if !d.versions {
			continue
		}
		if row.Versions == 1 && !d.json {
			fmt.Fprintf(d.w, "  block %d at %d, %d bytes\n", row.Block, row.Offset, row.Length)
		}
		if err := d.version(it, at); err != nil {
			return err
		}
	}
	if err := d.block(&row); err != nil {
		return err
	}
	return it.Err()
}

func (r *blockRow) take(it base.Iterator) {
	if r.Versions == 0 {
		r.first = append([]byte(nil), it.Key()...)
		r.MinLSN = it.LSN()
	}
	r.last = append(r.last[:0], it.Key()...)
	r.Versions++
	if it.Kind() == base.KindDelete {
		r.Deletes++
	}
	r.MinLSN, r.MaxLSN = min(r.MinLSN, it.LSN()), max(r.MaxLSN, it.LSN())
}

// block prints a block; the versions in it were printed before.
func (d *segmentDump) block(r *blockRow) error {
	if r.Versions == 0 {
		return nil // the first one could not be read
	}
	if d.json {
		r.First, r.Last = d.names.jsonKey(r.first), d.names.jsonKey(r.last)
		return jsonLine(d.w, r)
	}
	if d.versions {
		return nil // they were printed, below a line of their own
	}
	_, err := fmt.Fprintf(d.w, "  %5d %10d %8d %8d  %-17s  %s … %s\n", r.Block, r.Offset, r.Length, r.Versions, lsns(r.MinLSN, r.MaxLSN), d.names.key(r.first, d.hex, 32), d.names.key(r.last, d.hex, 32))
	return err
}

func (d *segmentDump) version(it base.Iterator, block int) error {
	if d.json {
		out := map[string]any{"block": block, "lsn": it.LSN(), "kind": it.Kind().String(), "key": d.names.jsonKey(it.Key())}
		if it.Kind() == base.KindPut {
			out["value"] = quote(it.Value(), d.hex, -1)
		}
		return jsonLine(d.w, out)
	}
	value := ""
	if it.Kind() == base.KindPut {
		value = " " + quote(it.Value(), d.hex, -1)
	}
	_, err := fmt.Fprintf(d.w, "    LSN %-10d %-6s %s%s\n", it.LSN(), it.Kind(), d.names.key(it.Key(), d.hex, -1), value)
	return err
}
