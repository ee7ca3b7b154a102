package frame

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
)

var errRecords = errors.New("records do not fill their frame")

// Frame is one verified frame of a file. It is valid until its reader moves.
type Frame struct {
	Header
	// Offset is where the frame begins, End where the next one may begin:
	// padding is included.
	Offset, End int64
	// Hash is the closing hash.
	Hash uint64
	// Payload is decompressed.
	Payload []byte
}

// EachRecord calls fn for each record of a data frame, in LSN order. rec is
// valid until the reader moves; keep is the owner's count of bytes to keep.
func (f *Frame) EachRecord(fn func(lsn LSN, keep uint64, rec []byte) error) error {
	return EachRecord(&f.Header, f.Payload, fn)
}

// End says where and why the frames of a file end.
type End struct {
	Offset int64
	// Reason is empty where nothing was begun: zeros, stale bytes of a
	// recycled file, or the end of the file.
	Reason string
}

// Reader walks the frames of one file from front to back and verifies all of
// each: tag, header hash, chain, LSN order, payload, records, padding. It is
// used by one goroutine at a time. Its memory is bounded by one window and one
// frame.
type Reader struct {
	r     io.ReaderAt
	size  int64
	head  FileHeader
	bind  Binding
	off   int64
	prev  uint64
	next  LSN // 0: any
	win   []byte
	winAt int64
	raw   []byte
	frame Frame
}

// windows keeps the memory of readers: a store that is opened and closed again
// at once would else spend most of its time on clearing it.
var windows sync.Pool

// Release gives the reader's memory back; no payload may be used after it. A
// released reader can be Reset.
func (r *Reader) Release() {
	if cap(r.win) > 0 {
		w := r.win[:0]
		windows.Put(&w)
	}
	r.win = nil
}

const readWindow = 256 << 10

// NewReader reads the frames of a file of size bytes from its start.
func NewReader(r io.ReaderAt, size int64, head FileHeader) *Reader {
	fr := &Reader{}
	fr.Reset(r, size, head)
	return fr
}

// Reset points the reader at another file and keeps its memory.
func (r *Reader) Reset(src io.ReaderAt, size int64, head FileHeader) {
	*r = Reader{r: src, size: size, head: head, bind: head.Bind(), off: head.Start(), win: r.win[:0], raw: r.raw}
	if head.Kind != FileLog {
		r.next = 1
	}
}

// SeekTo makes the frame at offset off the next one, without knowledge of the
// one before it: its chain and its LSN are taken as they stand.
func (r *Reader) SeekTo(off int64) {
	r.off, r.prev, r.next = off, 0, 0
}

// Limit sets how many bytes of the file may be read from now on: a file that
// grows is read again behind its old end.
func (r *Reader) Limit(size int64) {
	r.size = size
	r.win = r.win[:0]
}

// Offset returns where the next frame is expected.
func (r *Reader) Offset() int64 { return r.off }

// Next reads the next frame. At the end of the frames it returns a nil Frame
// and the End. An error is one of the file below, never damage.
func (r *Reader) Next() (*Frame, *End, error) {
	end := func(reason string) (*Frame, *End, error) { return nil, &End{r.off, reason}, nil }
	if r.off+FrameOverhead > r.size {
		return end("")
	}
	b, err := r.read(r.off, FrameHeaderSize)
	if err != nil {
		return nil, nil, err
	}
	h, sum, reason := decodeHeader(b, r.bind, r.off)
	if reason != "" {
		if r.blank(b) {
			reason = ""
		}
		return end(reason)
	}
	first := r.off == r.head.Start()
	switch {
	case first && h.Prev != 0, !first && r.next != 0 && h.Prev != r.prev:
		return end("chain to the frame before is broken")
	case r.next != 0 && h.First != r.next:
		return end(fmt.Sprintf("LSN %d where %d is due", h.First, r.next))
	case r.head.Kind == FileLog && first != (h.Kind == KindLink):
		return end("link frame out of place")
	}
	tail := r.off + FrameHeaderSize + int64(h.Stored)
	align := int64(FrameAlign)
	if h.Flags&FlagGroupEnd != 0 {
		align = r.head.Align
	}
	stop := alignUp(tail+8, align)
	if stop > r.size {
		return end("frame longer than the file")
	}
	if b, err = r.read(r.off, int(stop-r.off)); err != nil {
		return nil, nil, err
	}
	payload := b[FrameHeaderSize : FrameHeaderSize+h.Stored]
	rest := b[FrameHeaderSize+h.Stored:]
	hash := binary.LittleEndian.Uint64(rest)
	if hash != closingHash(payload, sum) {
		return end("payload hash does not match")
	}
	if !allZero(rest[8:]) {
		return end("padding is not zero")
	}
	if c := h.Flags.Codec(); c != CodecNone {
		if payload, err = c.decompress(r.raw, payload, int(h.Raw)); err != nil {
			return end(err.Error())
		}
		r.raw = payload[:0]
	}
	if reason := checkPayload(&h, payload); reason != "" {
		return end(reason)
	}
	r.frame = Frame{Header: h, Offset: r.off, End: stop, Hash: hash, Payload: payload}
	r.off, r.prev, r.next = stop, hash, h.Next()
	return &r.frame, nil, nil
}

func checkPayload(h *Header, payload []byte) string {
	var err error
	switch h.Kind {
	case KindData:
		err = EachRecord(h, payload, nil)
	case KindLink:
		_, err = DecodeLink(payload)
	case KindIndex:
		_, err = DecodeIndex(payload)
	}
	if err != nil {
		return err.Error()
	}
	return ""
}

// blank says whether a place without a frame holds nothing that was begun
// there in this use of the file.
func (r *Reader) blank(b []byte) bool {
	if r.head.Recycled() {
		return binary.LittleEndian.Uint32(b) != r.bind.tag
	}
	return allZero(b)
}

// read returns n bytes at off; they are valid until the next read. A short
// file is an error here: the caller has checked the size.
func (r *Reader) read(off int64, n int) ([]byte, error) {
	if off >= r.winAt && off+int64(n) <= r.winAt+int64(len(r.win)) {
		return r.win[off-r.winAt:][:n], nil
	}
	want := int(min(max(int64(n), readWindow), r.size-off))
	if cap(r.win) < want {
		if w, ok := windows.Get().(*[]byte); ok && cap(*w) >= want {
			r.win = *w
		} else {
			r.win = make([]byte, want)
		}
	}
	r.win = r.win[:want]
	r.winAt = off
	got, err := r.r.ReadAt(r.win, off)
	if got < want {
		r.win = r.win[:0]
		if err == nil || err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return nil, fmt.Errorf("read %d bytes at offset %d: %w", want, off, err)
	}
	return r.win[:n], nil
}

// Proof is what a search behind the end of a log found.
type Proof struct {
	// Durable is the highest durable LSN in any frame header that verifies;
	// Offset is where that header lies. 0: there is none.
	Durable LSN
	Offset  int64
	// Any says that a frame header was found, and LastAt where the last one
	// lies.
	Any    bool
	LastAt int64
	// Mark says that a mark was among them; MarkAt is the offset of the first.
	Mark   bool
	MarkAt int64
	// Used is the length in bytes from the start of the search to the last
	// byte that is not zero.
	Used int64
}

// Search looks at every byte offset of a file from off on for frame headers
// that verify, whatever surrounds them. buf is memory to use, or nil.
func Search(src io.ReaderAt, size int64, head *FileHeader, off int64, buf []byte) (Proof, error) {
	var p Proof
	bind := head.Bind()
	var tag [4]byte
	binary.LittleEndian.PutUint32(tag[:], bind.tag)
	if n := min(size-off, readWindow); int64(cap(buf)) < n {
		buf = make([]byte, n)
	}
	for at := off; at < size; {
		want := int(min(int64(cap(buf)), size-at))
		b := buf[:want]
		if got, err := src.ReadAt(b, at); got < want {
			if err == nil || err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return p, fmt.Errorf("read %d bytes at offset %d: %w", want, at, err)
		}
		if last := lastNonZero(b); last >= 0 {
			p.Used = at + int64(last) + 1 - off
			p.scan(b, at, tag[:], bind)
		}
		if at+int64(want) == size || want <= FrameHeaderSize {
			break
		}
		at += int64(want) - FrameHeaderSize + 1
	}
	return p, nil
}

func (p *Proof) scan(b []byte, at int64, tag []byte, bind Binding) {
	for i := 0; i+FrameHeaderSize <= len(b); i++ {
		j := bytes.Index(b[i:], tag)
		if j < 0 {
			return
		}
		i += j
		if i+FrameHeaderSize > len(b) {
			return
		}
		h, _, reason := decodeHeader(b[i:], bind, at+int64(i))
		if reason != "" {
			continue
		}
		p.Any, p.LastAt = true, at+int64(i)
		if h.Durable > p.Durable {
			p.Durable, p.Offset = h.Durable, at+int64(i)
		}
		if h.Kind == KindMark && !p.Mark {
			p.Mark, p.MarkAt = true, at+int64(i)
		}
	}
}

var zeros [4096]byte

func allZero(b []byte) bool {
	for len(b) > len(zeros) {
		if !bytes.Equal(b[:len(zeros)], zeros[:]) {
			return false
		}
		b = b[len(zeros):]
	}
	return bytes.Equal(b, zeros[:len(b)])
}

// lastNonZero returns the index of the last byte of b that is not zero, or -1.
func lastNonZero(b []byte) int {
	for len(b) > 0 {
		n := min(len(b), len(zeros))
		tail := b[len(b)-n:]
		if !bytes.Equal(tail, zeros[:n]) {
			for i := len(b) - 1; ; i-- {
				if b[i] != 0 {
					return i
				}
			}
		}
		b = b[:len(b)-n]
	}
	return -1
}
