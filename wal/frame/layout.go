package frame

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"math/bits"
	"strings"

	"github.com/cespare/xxhash/v2"
)

// Part says where in a framed file a Field lies.
type Part uint8

const (
	// PartHeader is the file header, with its padding.
	PartHeader Part = iota
	// PartFrame is a frame that counts: it verifies, and so do all before it.
	PartFrame
	// PartBroken is the frame at which the frames of the file end, because
	// something of it does not verify.
	PartBroken
	// PartStranded is a frame behind the end of the frames.
	PartStranded
	// PartLoose is bytes that belong to no frame.
	PartLoose
)

// String returns the part's name.
func (p Part) String() string {
	return [...]string{"header", "frame", "broken", "stranded", "loose"}[p]
}

// Names of fields that a reader of a layout asks for by name.
const (
	FieldRecord = "record"
	FieldZeros  = "zeros"
	FieldLoose  = "bytes in no frame"
)

// Field is one stretch of a framed file, with its name and what it says. The
// fields of a file tile it: each byte is in exactly one.
type Field struct {
	Offset, Len int64
	Part        Part
	// Frame is the offset of the frame that the field is part of, or -1.
	Frame int64
	Name  string
	// Value is what the bytes say, as text.
	Value string
	// LSN is set for records alone.
	LSN LSN
	// OK is false where the field breaks a rule of the format, a recomputed
	// hash among them; Reason then says which.
	OK     bool
	Reason string
}

// Walked says how far the frames of a file go.
type Walked struct {
	// Head is the file header. HeadOK is false when it does not verify; Head is
	// then what its bytes say, one flipped bit set right where that helps, and
	// is of use only if Bound.
	Head   FileHeader
	HeadOK bool
	// Bound says that frames could be looked for at all.
	Bound bool
	// End is where and why the frames end.
	End End
	// Next is the LSN that the next record would have; 0: unknown.
	Next LSN
}

// Layout names every byte of a framed file of size bytes, from front to back,
// and gives the fields to fn, whose error ends it. All hashes are recomputed.
// The frames end where Reader says; what lies behind is named as far as frame
// headers that verify are found in it, at any offset. Memory is bounded by one
// frame. Layout is for people who look at a file: nothing that decides what
// counts may rest on it.
func Layout(src io.ReaderAt, size int64, fn func(Field) error) (Walked, error) {
	l := &layout{fn: fn, tries: layoutTries}
	l.r.Reset(src, size, FileHeader{Align: FrameAlign})
	at := l.fileHeader()
	if l.err != nil || !l.walked.Bound {
		l.gap(at, size)
		return l.walked, l.err
	}
	l.bind = l.walked.Head.Bind()
	l.r.Reset(src, size, l.walked.Head)
	l.frames()
	return l.walked, l.err
}

// Fields is Layout of a file in memory.
func Fields(b []byte) []Field {
	var out []Field
	// Neither the reader nor the callback can fail.
	_, _ = Layout(bytes.NewReader(b), int64(len(b)), func(f Field) error {
		out = append(out, f)
		return nil
	})
	return out
}

// layoutTries bounds the bytes that are hashed in search of flipped bits.
const layoutTries = 512 << 20

type layout struct {
	fn     func(Field) error
	err    error
	r      Reader // gives its window, and decides where the frames end
	bind   Binding
	walked Walked
	tries  int
}

func (l *layout) put(f Field) {
	if l.err == nil && f.Len > 0 {
		f.OK = f.Reason == ""
		l.err = l.fn(f)
	}
}

// read returns up to n bytes at off: fewer at the end of the file, none after
// an error. They are valid until the next read.
func (l *layout) read(off, n int64) []byte {
	n = min(n, l.r.size-off)
	if l.err != nil || n <= 0 {
		return nil
	}
	b, err := l.r.read(off, int(n))
	if err != nil {
		l.err = err
	}
	return b
}

// chunk returns what the window holds from off on, at least n bytes unless the
// file ends before that.
func (l *layout) chunk(off, n int64) []byte {
	b := l.read(off, n)
	if len(b) == 0 {
		return nil
	}
	return l.r.win[off-l.r.winAt:]
}

// piece names the bytes of one header or frame from front to back.
type piece struct {
	l     *layout
	b     []byte // as far as the file has them
	i     int
	at    int64 // file offset of b[0]
	part  Part
	frame int64
	flip  int // index in b of a byte with one flipped bit, or -1
	bit   int
}

// take names the next n bytes. say gives their value, and why it is wrong; it is
// not asked where the file ends within them.
func (p *piece) take(n int, name string, say func(b []byte) (value, reason string)) {
	f := Field{Offset: p.at + int64(p.i), Len: int64(n), Part: p.part, Frame: p.frame, Name: name}
	b := p.b[p.i:]
	if len(b) >= n {
		f.Value, f.Reason = say(b[:n])
	} else {
		f.Len, f.Reason = int64(len(b)), fmt.Sprintf("the file ends %d bytes too soon", n-len(b))
	}
	if p.flip >= p.i && p.flip < p.i+n {
		f.Reason = fmt.Sprintf("bit %d of byte %#x is flipped: set right, the hash matches", p.bit, p.at+int64(p.flip))
	}
	p.i += int(f.Len)
	p.l.put(f)
}

// flipped looks for the one bit of b whose change makes ok true, and notes
// where it is if b begins at index i of the piece.
func (p *piece) flipped(b []byte, i int, ok func() bool) bool {
	if p.l.tries -= 8 * len(b) * (len(b) + 64); p.l.tries < 0 {
		return false
	}
	for bit := range 8 * len(b) {
		b[bit/8] ^= 1 << (bit % 8)
		if ok() {
			p.flip, p.bit = i+bit/8, bit%8
			return true
		}
		b[bit/8] ^= 1 << (bit % 8)
	}
	return false
}

func number(b []byte) uint64 {
	var t [8]byte
	copy(t[:], b)
	return binary.LittleEndian.Uint64(t[:])
}

// Ways to say what bytes mean. due gives a reason for a number, or "".

func sayNumber(due func(v uint64) string) func([]byte) (string, string) {
	return func(b []byte) (string, string) {
		v := number(b)
		if due == nil {
			return fmt.Sprint(v), ""
		}
		return fmt.Sprint(v), due(v)
	}
}

func sayHash(want uint64, what string) func([]byte) (string, string) {
	return func(b []byte) (string, string) {
		if v := number(b); v != want {
			return fmt.Sprintf("%016x", v), fmt.Sprintf("%s is %016x", what, want)
		}
		return fmt.Sprintf("%016x", number(b)), ""
	}
}

func sayHex(b []byte) (string, string) { return hex.EncodeToString(b), "" }

func sayZero(b []byte) (string, string) {
	if !allZero(b) {
		return "", "not zero"
	}
	return "0", ""
}

func sayBytes(text string) func([]byte) (string, string) {
	return func([]byte) (string, string) { return text, "" }
}

// wrong makes a reason of a condition.
func wrong(bad bool, reason string) string {
	if bad {
		return reason
	}
	return ""
}

// fileHeader names the file header and returns where the frames begin.
func (l *layout) fileHeader() int64 {
	b := bytes.Clone(l.read(0, HeaderSize))
	p := &piece{l: l, b: b, part: PartHeader, frame: -1, flip: -1}
	if len(b) < HeaderSize || bits.OnesCount64(number(b[:8])^number([]byte(magic))) > 8 {
		return 0 // nothing like a header
	}
	w := &l.walked
	head, err := DecodeFileHeader(b)
	w.Head, w.HeadOK, w.Bound = head, err == nil, err == nil
	want := xxhash.Sum64(b[:headerChecksum])
	if err != nil && want != number(b[headerChecksum:]) {
		l.mendHeader(p)
	}
	p.take(8, "magic", func(b []byte) (string, string) {
		return fmt.Sprintf("%q", b), wrong(string(b) != magic, fmt.Sprintf("want %q", magic))
	})
	p.take(2, "format version", sayNumber(func(v uint64) string {
		return wrong(v != Version, fmt.Sprintf("this version knows %d", Version))
	}))
	p.take(1, "file kind", func(b []byte) (string, string) {
		k := FileKind(b[0])
		return k.String(), wrong(k < FileLog || k > FileCatalog, "unknown")
	})
	p.take(1, "alignment of groups", func(b []byte) (string, string) {
		if b[0] != 3 && b[0] != 12 {
			return fmt.Sprintf("2^%d", b[0]), "neither 2^3 nor 2^12"
		}
		return fmt.Sprintf("2^%d = %d bytes", b[0], 1<<b[0]), ""
	})
	p.take(4, "required features", func(b []byte) (string, string) {
		v := uint32(number(b))
		return fmt.Sprintf("%#x", v), wrong(v&^uint32(requiredFeature) != 0, "unknown bits")
	})
	p.take(4, "compatible features", func(b []byte) (string, string) {
		v := uint32(number(b))
		return fmt.Sprintf("%#x", v) + wrong(v&CompatRecycled != 0, " recycled"), ""
	})
	p.take(16, "store id", sayHex)
	p.take(8, "file number", sayNumber(nil))
	p.take(8, "salt", func(b []byte) (string, string) { return fmt.Sprintf("%016x", number(b)), "" })
	p.take(8, "epoch", sayNumber(nil))
	p.take(4, "key id", sayZero)
	p.take(16, "key check tag", sayZero)
	p.take(headerChecksum-headerUsed, "zero", sayZero)
	p.take(8, "header hash", sayHash(want, "the hash of bytes 0-503"))
	if !w.Bound || w.Head.Start() == HeaderSize {
		return HeaderSize
	}
	rest := &piece{l: l, b: bytes.Clone(l.read(HeaderSize, BlockAlign-HeaderSize)), at: HeaderSize, part: PartHeader, frame: -1, flip: -1}
	rest.take(BlockAlign-HeaderSize, "zero", sayZero)
	return min(BlockAlign, l.r.size)
}

// mendHeader looks for a reading of a damaged header under which frames can be
// found: one bit set right, or its numbers as they stand.
func (l *layout) mendHeader(p *piece) {
	w := &l.walked
	mend := bytes.Clone(p.b)
	if p.flipped(mend, 0, func() bool {
		return binary.LittleEndian.Uint64(mend[headerChecksum:]) == xxhash.Sum64(mend[:headerChecksum])
	}) {
		var err error
		w.Head, err = DecodeFileHeader(mend)
		w.Bound = err == nil
		return
	}
	copy(mend, magic)
	binary.LittleEndian.PutUint16(mend[8:], Version)
	binary.LittleEndian.PutUint32(mend[12:], requiredFeature)
	for _, align := range []byte{3, 12} {
		mend[11] = align
		binary.LittleEndian.PutUint64(mend[headerChecksum:], xxhash.Sum64(mend[:headerChecksum]))
		h, err := DecodeFileHeader(mend)
		b := bytes.Clone(l.read(h.Start(), FrameHeaderSize))
		if err != nil || len(b) < FrameHeaderSize {
			continue
		}
		if _, _, reason := decodeHeader(b, h.Bind(), h.Start()); reason == "" {
			w.Head, w.Bound = h, true
			return
		}
	}
}

// due is what the chain asks of the next frame.
type due struct {
	first bool
	prev  uint64
	next  LSN
}

// frames names the frames up to their end, and what lies behind.
func (l *layout) frames() {
	r := Reader{}
	r.Reset(l.r.r, l.r.size, l.walked.Head)
	for l.err == nil {
		d := &due{r.off == r.head.Start(), r.prev, r.next}
		fr, end, err := r.Next()
		if err != nil {
			l.err = err
			return
		}
		l.walked.Next = r.next
		if end != nil {
			l.walked.End = *end
			l.behind(end, d)
			return
		}
		l.frame(fr.Offset, PartFrame, d)
	}
}

// behind names what lies behind the last frame that counts.
func (l *layout) behind(end *End, d *due) {
	pos := end.Offset
	if stop := l.frame(pos, PartBroken, d); stop > pos {
		pos = stop
	}
	for l.err == nil && pos < l.r.size {
		next := l.nextHeader(pos)
		l.gap(pos, next)
		if next == l.r.size {
			return
		}
		pos = l.frame(next, PartStranded, nil)
	}
}

// nextHeader returns the offset at or behind pos of the next frame header that
// verifies, or the size of the file.
func (l *layout) nextHeader(pos int64) int64 {
	var tag [4]byte
	binary.LittleEndian.PutUint32(tag[:], l.bind.tag)
	for pos+FrameHeaderSize <= l.r.size && l.err == nil {
		b := l.chunk(pos, FrameHeaderSize)
		i := 0
		for i+FrameHeaderSize <= len(b) {
			j := bytes.Index(b[i:], tag[:])
			if j < 0 {
				i = len(b) - FrameHeaderSize + 1
				break
			}
			if i += j; i+FrameHeaderSize > len(b) {
				break
			}
			if _, _, reason := decodeHeader(b[i:], l.bind, pos+int64(i)); reason == "" {
				return pos + int64(i)
			}
			i++
		}
		pos += int64(max(i, 1))
	}
	return l.r.size
}

// looseUnit is the granularity in bytes at which zeros are told from other
// loose bytes.
const looseUnit = 64

// gap names bytes that belong to no frame.
func (l *layout) gap(from, to int64) {
	run := Field{Offset: from, Part: PartLoose, Frame: -1}
	flush := func(next string) {
		if run.Name == FieldLoose && !(l.walked.Bound && l.walked.Head.Recycled()) {
			run.Reason = "neither zero nor a frame that verifies"
		}
		if run.Name != "" {
			l.put(run)
		}
		run = Field{Offset: run.Offset + run.Len, Part: PartLoose, Frame: -1, Name: next}
	}
	for at := from; at < to && l.err == nil; {
		n := min(looseUnit-at%looseUnit, to-at)
		name := FieldLoose
		if allZero(l.read(at, n)) {
			name = FieldZeros
		}
		if name != run.Name {
			flush(name)
		}
		run.Len += n
		at += n
	}
	flush("")
}

// headerReasons says of which field a reason of Header.check speaks.
var headerReasons = map[string]string{
	"link of a wrong size":               "raw length",
	"data frame without records":         "record count",
	"mark with a payload":                "raw length",
	"index with records":                 "record count",
	"unknown frame kind":                 "kind",
	"unknown frame flags":                "flags",
	"lengths differ without compression": "stored length",
	"payload longer than the limit":      "stored length",
	"LSN out of range":                   "first LSN",
}

// String names the flags that are set, as in "copy+end"; "-" for none.
func (f Flags) String() string {
	var s []string
	if c := f.Codec(); c != CodecNone {
		s = append(s, c.String())
	}
	for _, x := range []struct {
		flag Flags
		name string
	}{{FlagCopy, "copy"}, {FlagGroupEnd, "end"}, {FlagClose, "close"}} {
		if f&x.flag != 0 {
			s = append(s, x.name)
		}
	}
	if x := f &^ flagsKnown; x != 0 {
		s = append(s, fmt.Sprintf("%#x", uint8(x)))
	}
	if s == nil {
		return "-"
	}
	return strings.Join(s, "+")
}
