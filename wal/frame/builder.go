package frame

import (
	"encoding/binary"
	"unsafe"

	"github.com/forebaydb/forebay/internal/base"
	"github.com/forebaydb/forebay/internal/prefetch"
)

// Builder lays records and other frames out as the bytes of one or more groups
// that follow each other in one file. It does no I/O: Bytes is what to write,
// Offset is where. A Builder is used by one goroutine at a time.
type Builder struct {
	bind  Binding
	align int64
	codec Codec

	off  int64  // file offset of buf[0]
	prev uint64 // closing hash of the last closed frame
	buf  []byte // starts at an address that is a multiple of BlockAlign

	open    bool // a data frame has been begun and not closed
	start   int  // index in buf of the open or last frame
	first   LSN  // first LSN of the open frame
	count   uint32
	flags   Flags  // of the open frame
	durable LSN    // for the open frame
	data    uint64 // closing hash of the last data frame
	frames  []IndexEntry
	scratch []byte
}

// MostKept is how many bytes of memory are kept for what is built next: not those of
// one huge record.
const MostKept = 8 << 20

// Reset points the builder at offset off of a file, behind a frame with the
// closing hash prev. Memory is kept for reuse.
func (b *Builder) Reset(h *FileHeader, codec Codec, off int64, prev uint64) {
	*b = Builder{
		bind: h.Bind(), align: h.Align, codec: codec,
		off: off, prev: prev, buf: b.buf[:0], frames: b.frames[:0], scratch: b.scratch,
	}
}

// Len returns the length in bytes of what is built so far, the open frame
// included.
func (b *Builder) Len() int { return len(b.buf) }

// Open returns the length in bytes of the open frame, and 0 when there is none.
func (b *Builder) Open() int {
	if !b.open {
		return 0
	}
	return len(b.buf) - b.start
}

// Empty says that nothing is built.
func (b *Builder) Empty() bool { return len(b.buf) == 0 }

// Offset returns the file offset of the first byte of Bytes.
func (b *Builder) Offset() int64 { return b.off }

// Prev returns the closing hash of the last closed frame.
func (b *Builder) Prev() uint64 { return b.prev }

// LastData returns the closing hash of the last closed data frame since Reset,
// and 0 when there was none.
func (b *Builder) LastData() uint64 { return b.data }

// Frames returns first LSN and offset of each frame built since the last
// Advance; it is valid until then.
func (b *Builder) Frames() []IndexEntry { return b.frames }

// RecordSize bounds what a record of n bytes adds to a group, in bytes, frames
// and padding of the group's end not counted.
func RecordSize(n int) int64 { return int64(n) + recordOverhead }

// GroupSize bounds the size in bytes of a group in a file of the given
// alignment whose records have the given sum of RecordSize.
func GroupSize(records, align int64) int64 {
	return records + (records/(MaxPayload/2)+2)*(FrameOverhead+FrameAlign) + align
}

// Record appends one record. keep is the owner's count of bytes in it that are
// to be kept. durable is the log's durable LSN now. The bytes are copied.
func (b *Builder) Record(lsn LSN, keep uint64, rec []byte, durable LSN, flags Flags) {
	need := len(rec) + recordOverhead
	if b.open && (len(b.buf)-b.start-FrameHeaderSize+need > MaxPayload || b.flags != flags) {
		b.CloseFrame(false)
	}
	if !b.open {
		b.begin(lsn, flags, need)
	}
	b.durable = durable
	b.grow(need)
	b.buf = binary.AppendUvarint(b.buf, uint64(len(rec)))
	b.buf = binary.AppendUvarint(b.buf, keep)
	b.buf = append(b.buf, rec...)
	b.count++
	if at := len(b.buf) + ahead; need <= ahead && at+need <= cap(b.buf) {
		prefetch.Room(b.buf[at : at+need])
	}
}

// ahead is how far before it is written the room of a record is asked for. The write of
// the buffer before has given its lines to another processor.
const ahead = 512

func (b *Builder) begin(lsn LSN, flags Flags, need int) {
	b.grow(FrameHeaderSize + need + FrameOverhead)
	b.start = len(b.buf)
	b.buf = b.buf[:b.start+FrameHeaderSize]
	b.open, b.first, b.count, b.flags = true, lsn, 0, flags
}

// CloseFrame ends the open frame, if there is one. With groupEnd, what was
// built last is the end of a group and is padded to the file's alignment.
func (b *Builder) CloseFrame(groupEnd bool) {
	if !b.open {
		return
	}
	b.open = false
	payload := b.buf[b.start+FrameHeaderSize:]
	h := Header{Kind: KindData, Flags: b.flags, Count: b.count, First: b.first, Durable: b.durable}
	b.finish(h, payload, groupEnd)
}

// Link appends a link frame; next is the LSN of the next record (Kept+1).
func (b *Builder) Link(l Link, durable LSN) {
	b.CloseFrame(false)
	b.begin(l.Kept+1, 0, LinkSize)
	b.open = false
	var p [LinkSize]byte
	l.encode(p[:])
	b.buf = append(b.buf, p[:]...)
	b.finish(Header{Kind: KindLink, First: l.Kept + 1, Durable: durable}, b.buf[b.start+FrameHeaderSize:], false)
}

// Mark appends a mark as a group of its own: durable is proven, next is the
// LSN of the next record.
func (b *Builder) Mark(next, durable LSN, flags Flags) {
	b.CloseFrame(true)
	b.begin(next, flags, 0)
	b.open = false
	b.finish(Header{Kind: KindMark, Flags: flags, First: next, Durable: durable}, nil, true)
}

// Index appends an index frame as a group of its own.
func (b *Builder) Index(next, durable LSN, entries []IndexEntry) {
	b.CloseFrame(true)
	b.begin(next, 0, len(entries)*2*binary.MaxVarintLen64)
	b.open = false
	b.buf = AppendIndex(b.buf, entries)
	b.finish(Header{Kind: KindIndex, First: next, Durable: durable}, b.buf[b.start+FrameHeaderSize:], true)
}

// finish compresses and seals the frame that begins at b.start and whose raw
// payload is the rest of b.buf.
func (b *Builder) finish(h Header, payload []byte, groupEnd bool) {
	h.Raw, h.Stored, h.Prev = uint32(len(payload)), uint32(len(payload)), b.prev
	if b.codec != CodecNone && h.Kind == KindData {
		if out := b.codec.compress(b.scratch, payload); out != nil {
			b.scratch = out[:cap(out)]
			b.buf = append(b.buf[:b.start+FrameHeaderSize], out...)
			payload = b.buf[b.start+FrameHeaderSize:]
			h.Stored = uint32(len(out))
			h.Flags |= Flags(b.codec)
		}
	}
	align := int64(FrameAlign)
	if groupEnd {
		h.Flags |= FlagGroupEnd
		align = b.align
	}
	b.grow(8 + int(align))
	sum := h.encode(b.buf[b.start:], b.bind, b.off+int64(b.start))
	b.prev = closingHash(payload, sum)
	if h.Kind == KindData {
		b.data = b.prev
	}
	b.buf = binary.LittleEndian.AppendUint64(b.buf, b.prev)
	b.frames = append(b.frames, IndexEntry{h.First, b.off + int64(b.start)})
	pad := int(alignUp(b.off+int64(len(b.buf)), align) - b.off - int64(len(b.buf)))
	n := len(b.buf)
	b.buf = b.buf[:n+pad]
	clear(b.buf[n:])
}

// Bytes ends the group and returns its bytes, which begin at an address that
// is a multiple of BlockAlign; they are valid until the builder is used again.
func (b *Builder) Bytes() []byte {
	b.CloseFrame(true)
	return b.buf
}

// Advance forgets the built bytes, which were written: the next frame begins
// behind them.
func (b *Builder) Advance() {
	b.off += int64(len(b.buf))
	b.buf = b.buf[:0]
	b.frames = b.frames[:0]
	if cap(b.buf) > MostKept {
		b.buf = nil
	}
}

// Detach ends the group and returns its bytes, as Bytes does. They stay valid: what
// follows is built in other memory, that of an earlier Detach, which may be nil.
func (b *Builder) Detach(memory []byte) []byte {
	out := b.Bytes()
	b.off += int64(len(out))
	b.buf = memory[:0]
	b.frames = b.frames[:0]
	return out
}

// grow makes room for n more bytes. The memory keeps its alignment, which
// direct writes need.
func (b *Builder) grow(n int) {
	if cap(b.buf)-len(b.buf) >= n {
		return
	}
	size := max(2*cap(b.buf), len(b.buf)+n, 4096)
	nb := alignedBuf(size)[:len(b.buf)]
	copy(nb, b.buf)
	b.buf = nb
}

// alignedBuf returns size bytes of memory at an address that is a multiple of
// BlockAlign, rounded up to whole blocks.
func alignedBuf(size int) []byte {
	size = int(alignUp(int64(size), BlockAlign))
	raw := make([]byte, size+BlockAlign)
	shift := 0
	if rest := int(uintptr(unsafe.Pointer(unsafe.SliceData(raw))) % BlockAlign); rest != 0 {
		shift = BlockAlign - rest
	}
	return raw[shift : shift+size : shift+size]
}

// EachRecord decodes the records of a decompressed data payload, in order,
// and checks their count and lengths. The bytes given to fn alias payload.
func EachRecord(h *Header, payload []byte, fn func(lsn LSN, keep uint64, rec []byte) error) error {
	b := payload
	lsn := h.First
	for i := uint32(0); i < h.Count; i++ {
		n, w := binary.Uvarint(b)
		if w <= 0 || n > base.MaxRecordSize {
			return errRecords
		}
		keep, v := binary.Uvarint(b[w:])
		if v <= 0 || uint64(len(b)-w-v) < n {
			return errRecords
		}
		b = b[w+v:]
		if fn != nil {
			if err := fn(lsn, keep, b[:n:n]); err != nil {
				return err
			}
		}
		b = b[n:]
		lsn++
	}
	if len(b) != 0 {
		return errRecords
	}
	return nil
}
