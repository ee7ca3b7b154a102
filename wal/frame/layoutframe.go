package frame

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/bits"
)

// frame names the frame at off and returns where it ends. It returns off where
// there is nothing like a frame.
func (l *layout) frame(off int64, part Part, d *due) int64 {
	b := bytes.Clone(l.read(off, FrameHeaderSize))
	if len(b) < 4 || len(b) < FrameHeaderSize && uint32(number(b[:4])) != l.bind.tag {
		return off
	}
	p := &piece{l: l, b: b, at: off, part: part, frame: off, flip: -1}
	if len(b) < FrameHeaderSize {
		l.frameHeader(p, &Header{}, d, "")
		return off + int64(p.i)
	}
	head := bytes.Clone(b)
	if number(b[48:56]) != headerHash(b, l.bind, off) {
		if !p.flipped(head, 0, func() bool {
			return number(head[48:56]) == headerHash(head, l.bind, off)
		}) {
			if uint32(number(b[:4])) != l.bind.tag {
				return off
			}
			l.frameHeader(p, &Header{}, d, "")
			return off + FrameHeaderSize
		}
	}
	sum := number(head[48:56])
	h := Header{Kind: Kind(head[4]), Flags: Flags(head[5])}
	h.Stored, h.Raw, h.Count = uint32(number(head[8:12])), uint32(number(head[12:16])), uint32(number(head[16:20]))
	h.First, h.Durable, h.Prev = number(head[24:32]), number(head[32:40]), number(head[40:48])
	reason := h.check()
	if h.Stored > MaxBigPayload {
		l.frameHeader(p, &h, d, reason)
		return off + FrameHeaderSize
	}
	align := int64(FrameAlign)
	if h.Flags&FlagGroupEnd != 0 {
		align = l.walked.Head.Align
	}
	tail := off + FrameHeaderSize + int64(h.Stored) + 8
	stop := alignUp(tail, align)
	p.b = bytes.Clone(l.read(off, stop-off))
	l.frameHeader(p, &h, d, reason)
	want, whole := uint64(0), len(p.b) >= int(tail-off)
	if whole {
		want = l.closing(p, &h, sum)
	}
	l.payload(p, &h, whole && want == number(p.b[tail-8-off:tail-off]))
	p.take(8, "closing hash", sayHash(want, "the hash of payload and header"))
	if p.i < len(p.b) {
		p.take(int(stop-tail), "padding", sayZero)
	}
	return off + int64(p.i)
}

// frameHeader names the 56 bytes of a frame header, as far as there are.
func (l *layout) frameHeader(p *piece, h *Header, d *due, reason string) {
	bad := func(name string) string { return wrong(headerReasons[reason] == name, reason) }
	align := int64(FrameAlign)
	if h.Flags&FlagGroupEnd != 0 {
		align = l.walked.Head.Align
	}
	full := len(p.b) >= FrameHeaderSize
	p.take(4, "tag", func(b []byte) (string, string) {
		v := uint32(number(b))
		if !full {
			return fmt.Sprintf("%08x", v), "the file ends within the header of the frame"
		}
		return fmt.Sprintf("%08x", v), wrong(v != l.bind.tag, fmt.Sprintf("the tag of this file is %08x", l.bind.tag))
	})
	p.take(1, "kind", func(b []byte) (string, string) {
		k := Kind(b[0])
		if d != nil && full && l.walked.Head.Kind == FileLog && d.first != (k == KindLink) {
			return k.String(), "link frame out of place"
		}
		return k.String(), bad("kind")
	})
	p.take(1, "flags", func(b []byte) (string, string) { return Flags(b[0]).String(), bad("flags") })
	p.take(2, "zero", sayZero)
	p.take(4, "stored length", func(b []byte) (string, string) {
		v := int64(number(b))
		if reason := bad("stored length"); reason != "" {
			return fmt.Sprint(v), reason
		}
		return fmt.Sprint(v), wrong(alignUp(p.at+FrameOverhead+v, align) > l.r.size, "frame longer than the file")
	})
	p.take(4, "raw length", sayNumber(func(uint64) string { return bad("raw length") }))
	p.take(4, "record count", sayNumber(func(uint64) string { return bad("record count") }))
	p.take(4, "zero", sayZero)
	p.take(8, "first LSN", sayNumber(func(v uint64) string {
		if d != nil && d.next != 0 && v != d.next {
			return fmt.Sprintf("%d is due", d.next)
		}
		return bad("first LSN")
	}))
	p.take(8, "durable LSN", sayNumber(nil))
	p.take(8, "hash of the frame before", func(b []byte) (string, string) {
		v := number(b)
		switch {
		case d != nil && d.first && v != 0:
			return fmt.Sprintf("%016x", v), "the first frame of a file has 0"
		case d != nil && !d.first && d.next != 0 && v != d.prev:
			return fmt.Sprintf("%016x", v), fmt.Sprintf("the frame before has %016x", d.prev)
		}
		return fmt.Sprintf("%016x", v), ""
	})
	want := uint64(0)
	if full {
		want = headerHash(p.b, l.bind, p.at)
	}
	p.take(8, "header hash", sayHash(want, "the hash of header, binding and offset"))
}

// closing returns the closing hash that a whole frame should have. Where it has
// another, a flipped bit is looked for.
func (l *layout) closing(p *piece, h *Header, sum uint64) uint64 {
	payload := p.b[FrameHeaderSize:][:h.Stored]
	have := number(p.b[FrameHeaderSize+int(h.Stored):][:8])
	want := closingHash(payload, sum)
	switch {
	case have == want:
	case bits.OnesCount64(have^want) == 1:
		bit := bits.TrailingZeros64(have ^ want)
		p.flip, p.bit = FrameHeaderSize+int(h.Stored)+bit/8, bit%8
	default:
		mend := bytes.Clone(payload)
		p.flipped(mend, FrameHeaderSize, func() bool { return closingHash(mend, sum) == have })
	}
	return want
}

// payload names the stored payload; intact says that its hash matches.
func (l *layout) payload(p *piece, h *Header, intact bool) {
	n := int(h.Stored)
	switch {
	case h.Flags.Codec() != CodecNone:
		p.take(n, "payload, "+h.Flags.Codec().String(), func(b []byte) (string, string) {
			text := fmt.Sprintf("%d records in %d bytes, unpacked %d", h.Count, n, h.Raw)
			if !intact || h.check() != "" {
				return text, ""
			}
			raw, err := h.Flags.Codec().decompress(nil, b, int(h.Raw))
			if err != nil {
				return text, err.Error()
			}
			return text, checkPayload(h, raw)
		})
	case h.Kind == KindLink && n == LinkSize:
		l.linkFields(p)
	case h.Kind == KindData:
		l.recordFields(p, h)
	case h.Kind == KindIndex:
		l.indexFields(p, n)
	default:
		p.take(n, "payload", sayBytes(""))
	}
}

func (l *layout) linkFields(p *piece) {
	var link Link
	if b := p.b[p.i:]; len(b) >= LinkSize {
		link.Kept, link.Copies = number(b[8:16]), number(b[24:32])
	}
	p.take(8, "link: file before", func(b []byte) (string, string) {
		if number(b) == 0 {
			return "0, the log begins here", ""
		}
		return fmt.Sprint(number(b)), ""
	})
	p.take(8, "link: kept through", sayNumber(nil))
	p.take(8, "link: hash there", func(b []byte) (string, string) { return fmt.Sprintf("%016x", number(b)), "" })
	p.take(8, "link: copies through", sayNumber(func(v uint64) string {
		return wrong(v < link.Kept, fmt.Sprintf("below %d, which is kept", link.Kept))
	}))
	p.take(8, "link: epoch of copies", sayNumber(nil))
	p.take(8, "link: index frame there", sayNumber(func(v uint64) string {
		return wrong(int64(v) < 0, "impossible offset")
	}))
}

// uvarint names one uvarint within the n bytes that end at index stop, and says
// whether it is one.
func (p *piece) uvarint(stop int, name string, say func(v uint64) (string, string)) (uint64, bool) {
	stop = min(stop, len(p.b))
	v, w := binary.Uvarint(p.b[min(p.i, stop):stop])
	if w <= 0 {
		return 0, false
	}
	p.take(w, name, func([]byte) (string, string) { return say(v) })
	return v, true
}

func (l *layout) recordFields(p *piece, h *Header) {
	stop := p.i + int(h.Stored)
	for i := range h.Count {
		lsn := h.First + LSN(i)
		n, ok := p.uvarint(stop, "record length", func(v uint64) (string, string) {
			return fmt.Sprint(v), wrong(v > uint64(stop-p.i), "longer than its frame")
		})
		if !ok || n > uint64(stop-p.i) {
			break
		}
		if _, ok = p.uvarint(stop, "keep-count", func(v uint64) (string, string) { return fmt.Sprint(v), "" }); !ok || n > uint64(stop-p.i) {
			break
		}
		f := p.l.fn
		p.l.fn = func(r Field) error { r.LSN = lsn; return f(r) }
		p.take(int(n), FieldRecord, sayBytes(fmt.Sprintf("LSN %d", lsn)))
		p.l.fn = f
	}
	if p.i < stop {
		p.take(stop-p.i, "rest of the payload", func([]byte) (string, string) { return "", "records do not fill their frame" })
	}
}

func (l *layout) indexFields(p *piece, n int) {
	stop := p.i + n
	var e IndexEntry
	for p.i < min(stop, len(p.b)) {
		if _, ok := p.uvarint(stop, "index: LSN", func(v uint64) (string, string) {
			e.LSN += v
			return fmt.Sprintf("+%d = %d", v, e.LSN), ""
		}); !ok {
			break
		}
		if _, ok := p.uvarint(stop, "index: offset", func(v uint64) (string, string) {
			e.Offset += int64(v)
			return fmt.Sprintf("+%d = %d", v, e.Offset), ""
		}); !ok {
			break
		}
	}
	if p.i < stop {
		p.take(stop-p.i, "rest of the payload", func([]byte) (string, string) { return "", "not an index entry" })
	}
}
