package main

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/cespare/xxhash/v2"

	"github.com/forebaydb/forebay/wal/frame"
)

var le = binary.LittleEndian

// place is one frame of a file.
type place struct {
	off, stored int
	end         int // behind padding
	kind        byte
}

// binding is what every hash in a framed file is bound to, from the bytes of its
// header.
func binding(b []byte) (hash uint64, tag uint32) {
	var t [40]byte
	copy(t[:16], b[20:36])
	copy(t[16:], b[36:60]) // number, salt, epoch
	hash = xxhash.Sum64(t[:])
	var k [11]byte
	le.PutUint64(k[:], hash)
	copy(k[8:], "tag")
	return hash, uint32(xxhash.Sum64(k[:])) | 1
}

// places walks the frames of a file that is intact.
func places(b []byte) (out []place) {
	off, align := 512, 8
	if b[11] == 12 {
		off, align = 4096, 4096
	}
	_, tag := binding(b)
	for off+64 <= len(b) && le.Uint32(b[off:]) == tag {
		n := int(le.Uint32(b[off+8:]))
		a := 8
		if b[off+5]&8 != 0 {
			a = align
		}
		end := (off + 64 + n + a - 1) / a * a
		out = append(out, place{off, n, end, b[off+4]})
		off = end
	}
	return out
}

// reseal makes the hashes right from frame i on. The chain of frame i itself
// stays as it is.
func reseal(b []byte, ps []place, i int) {
	hash, _ := binding(b)
	prev := uint64(0)
	for k := i; k < len(ps); k++ {
		p := ps[k]
		if k > i {
			le.PutUint64(b[p.off+40:], prev)
		}
		var t [64]byte
		copy(t[:48], b[p.off:])
		le.PutUint64(t[48:], hash)
		le.PutUint64(t[56:], uint64(p.off))
		sum := xxhash.Sum64(t[:])
		le.PutUint64(b[p.off+48:], sum)
		n := int(le.Uint32(b[p.off+8:]))
		if n > len(b)-p.off-64 || n < 0 {
			n = p.stored // it does not fit: nobody comes to its end
		}
		var c [16]byte
		le.PutUint64(c[:], xxhash.Sum64(b[p.off+56:p.off+56+n]))
		le.PutUint64(c[8:], sum)
		prev = xxhash.Sum64(c[:])
		le.PutUint64(b[p.off+56+n:], prev)
	}
}

// framed forges a log or a manifest; with linked its first frame alone.
func framed(name string, b []byte, linked bool, put putter) {
	ps := places(b)
	if linked {
		for at := range 48 {
			if len(ps) > 0 && !put(fmt.Sprintf("crafted byte %d of the link", at), func() ([]byte, map[string][]byte) {
				c := slices.Clone(b)
				c[ps[0].off+56+at]++
				reseal(c, ps, 0)
				return c, nil
			}) {
				return
			}
		}
		return
	}
	header(b, put)
	kinds := map[byte]int{}
	for i, p := range ps {
		if kinds[p.kind]++; kinds[p.kind] > 2 && i < len(ps)-2 {
			continue
		}
		change := func(how string, f func(b []byte)) bool {
			return put(fmt.Sprintf("frame %d at %d, %s", i, p.off, how), func() ([]byte, map[string][]byte) {
				c := slices.Clone(b)
				f(c)
				reseal(c, ps, i)
				return c, nil
			})
		}
		for at := range 48 {
			for _, v := range values(b[p.off+at]) {
				if !change(fmt.Sprintf("header byte %d = %#x", at, v), func(b []byte) { b[p.off+at] = v }) {
					return
				}
			}
		}
		for _, at := range []int{8, 12, 16} {
			for _, v := range []uint32{0, 1, 255 << 10, 257 << 10, 1 << 20, 63 << 20, 64<<20 + 21, 1 << 31, 1<<32 - 1} {
				if !change(fmt.Sprintf("header field %d = %d", at, v), func(b []byte) { le.PutUint32(b[p.off+at:], v) }) {
					return
				}
				if !change(fmt.Sprintf("both lengths = %d", v), func(b []byte) { le.PutUint32(b[p.off+8:], v); le.PutUint32(b[p.off+12:], v) }) {
					return
				}
			}
		}
		for _, at := range []int{24, 32} {
			for _, v := range []uint64{0, 1, 2, 1 << 32, 1 << 62, 1<<64 - 2, 1<<64 - 1} {
				if !change(fmt.Sprintf("header field %d = %d", at, v), func(b []byte) { le.PutUint64(b[p.off+at:], v) }) {
					return
				}
			}
		}
		most := p.stored
		if p.kind == 2 {
			most = min(most, 200)
		}
		for at := range most {
			vs := values(b[p.off+56+at])
			if at > 60 {
				vs = few(b[p.off+56+at])
			}
			for _, v := range vs {
				if !change(fmt.Sprintf("payload byte %d = %#x", at, v), func(b []byte) { b[p.off+56+at] = v }) {
					return
				}
			}
		}
		for at := p.off + 64 + p.stored; at < min(p.end, p.off+64+p.stored+3); at++ {
			if !change("padding", func(b []byte) { b[at] = 1 }) {
				return
			}
		}
		if b[p.off+5]&3 != 0 {
			for _, n := range []uint64{1 << 30, 1 << 33} {
				if !change(fmt.Sprintf("crafted, unpacked it has %d bytes", n), func(b []byte) { binary.PutUvarint(b[p.off+56:], n) }) {
					return
				}
			}
		} else if b[11] == 3 && p.kind == 2 && !put(fmt.Sprintf("frame %d, crafted, bytes behind the records", i), func() ([]byte, map[string][]byte) { return longer(b, ps, i), nil }) {
			return
		}
		// The whole frame is gone, and the chain is right.
		if i > 0 && p.end-p.off <= 4096 && i+1 < len(ps) {
			if !put(fmt.Sprintf("frame %d is gone", i), func() ([]byte, map[string][]byte) {
				c := slices.Clone(b)
				copy(c[p.off:], c[p.end:])
				return c, nil
			}) {
				return
			}
		}
	}
	records(name, b, ps, put)
}

// longer puts eight bytes behind the records of frame i, which is not packed.
func longer(b []byte, ps []place, i int) []byte {
	p := ps[i]
	end := p.off + 56 + p.stored
	c := slices.Insert(slices.Clone(b), end, make([]byte, 8)...)
	le.PutUint32(c[p.off+8:], uint32(p.stored+8))
	le.PutUint32(c[p.off+12:], uint32(p.stored+8))
	moved := slices.Clone(ps)
	moved[i].stored += 8
	for k := i + 1; k < len(moved); k++ {
		moved[k].off += 8
	}
	reseal(c, moved, i)
	return c
}

// header forges the header of the file.
func header(b []byte, put putter) {
	for at := range 80 {
		for _, v := range values(b[at]) {
			change := func(bound bool) func() ([]byte, map[string][]byte) {
				return func() ([]byte, map[string][]byte) {
					c := slices.Clone(b)
					c[at] = v
					le.PutUint64(c[504:], xxhash.Sum64(c[:504]))
					if bound {
						rebind(b, c)
					}
					return c, nil
				}
			}
			if !put(fmt.Sprintf("file header byte %d = %#x", at, v), change(false)) {
				return
			}
			if at >= 20 && !put(fmt.Sprintf("file header byte %d = %#x, and all frames are bound to it", at, v), change(true)) {
				return
			}
		}
	}
	for _, n := range []int{0, 7, 100, 511, 512, 513, 575} {
		if n < len(b) && !put(fmt.Sprintf("file of %d bytes", n), func() ([]byte, map[string][]byte) { return b[:n], nil }) {
			return
		}
	}
}

// rebind makes the frames of c, which are those of b, right under c's header.
func rebind(b, c []byte) {
	ps := places(b)
	_, tag := binding(c)
	for _, p := range ps {
		le.PutUint32(c[p.off:], tag)
	}
	if len(ps) > 0 {
		reseal(c, ps, 0)
	}
}

// records forges what is in the records, whose lengths may change: the file is
// laid out anew.
func records(name string, b []byte, ps []place, put putter) {
	head, err := frame.DecodeFileHeader(b[:512])
	must(err)
	type rec struct {
		lsn  uint64
		data []byte
		at   int // index of its frame
	}
	var all []rec
	var link *frame.Link
	r := frame.NewReader(reader(b), int64(len(b)), head)
	for i := 0; ; i++ {
		fr, end, err := r.Next()
		must(err)
		if end != nil {
			break
		}
		switch fr.Kind {
		case frame.KindLink:
			l, err := frame.DecodeLink(fr.Payload)
			must(err)
			link = &l
		case frame.KindData:
			must(fr.EachRecord(func(lsn uint64, _ uint64, data []byte) error {
				all = append(all, rec{lsn, slices.Clone(data), i})
				return nil
			}))
		}
	}
	if len(all) == 0 || link != nil && link.Copies != link.Kept {
		return
	}
	build := func(k int, to []byte) []byte {
		var bl frame.Builder
		bl.Reset(&head, frame.CodecNone, head.Start(), 0)
		durable := all[0].lsn - 1
		out := slices.Clone(b[:head.Start()])
		if link != nil {
			bl.Link(*link, durable)
		}
		for i, r := range all {
			data := r.data
			if i == k {
				data = to
			}
			bl.Record(r.lsn, 0, data, durable, 0)
			out = append(out, bl.Bytes()...)
			bl.Advance()
			bl.Mark(r.lsn+1, r.lsn, 0)
			out = append(out, bl.Bytes()...)
			bl.Advance()
			durable = r.lsn
		}
		return append(out, make([]byte, max(8192, len(b)-len(out)))...)
	}
	for k, r := range all {
		if k > 1 && k < len(all)-1 {
			continue
		}
		try := func(how string, to []byte) bool {
			return put(fmt.Sprintf("record %d of LSN %d, %s", k, r.lsn, how), func() ([]byte, map[string][]byte) { return build(k, to), nil })
		}
		for n := 0; n < len(r.data); n++ {
			if n > 40 && n%16 != 0 && n < len(r.data)-4 {
				continue
			}
			if !try(fmt.Sprintf("cut to %d bytes", n), r.data[:n]) {
				return
			}
			for _, in := range [][]byte{{0}, {1}, {0x80, 0}, {0xff, 0xff, 0xff, 0xff, 0x0f}, {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01}, {0x81, 0x80, 0x80, 0x80, 0x10}} {
				if !try(fmt.Sprintf("%x put in at %d", in, n), slices.Insert(slices.Clone(r.data), n, in...)) {
					return
				}
				to := slices.Clone(r.data)
				if !try(fmt.Sprintf("%x in place of byte %d", in, n), slices.Replace(to, n, n+1, in...)) {
					return
				}
			}
		}
		for _, more := range [][]byte{{0}, {1}, {0xff}, make([]byte, 40), {99, 0}, {7, 1, 65}, {6, 1, 1}, {2, 1, 3}} {
			if !try(fmt.Sprintf("%x behind it", more), append(slices.Clone(r.data), more...)) {
				return
			}
		}
		if name[0] == 'M' && k != 1 {
			for _, to := range edits() {
				if !try(fmt.Sprintf("a crafted edit behind it, of %d bytes, %x…", len(to), to[:min(12, len(to))]), slices.Concat(r.data, to)) {
					return
				}
			}
		}
		if name[0] != 'M' { // a batch
			for _, to := range batches() {
				if !try(fmt.Sprintf("a crafted batch of %d bytes, %x…", len(to), to[:min(12, len(to))]), to) {
					return
				}
			}
		}
	}
}

// edits are edits of a manifest with one thing wrong.
func edits() (out [][]byte) {
	field := func(tag byte, p []byte) []byte {
		return append(binary.AppendUvarint([]byte{tag}, uint64(len(p))), p...)
	}
	over := overflow(11)
	for _, log := range [][]byte{
		{}, {0x80}, over, {2, 0x80}, append([]byte{2}, over...), {2, 5, 1}, {2, 1, 0x80}, {2, 2, 1, 1}, {2, 0}, {99, 1, 0}, {0, 1, 0}, {8, 1, 1}, {4, 1, 1}, {4, 2, 1, 1}, {5, 1, 1}, {6, 0}, {6, 1, 0x80},
		field(1, uvarints(70, 1, 1, 8, 0, 0, 0, 0, 0, 0, 0)), field(1, uvarints(70, 1, 1, 0, 0, 0, 0, 1<<63, 0, 0, 0)), field(1, uvarints(70, 1, 1, 1, 0, 0, 0, 1<<62+1, 0, 0, 0)),
		field(1, uvarints(70, 1, 1, 0, 0, 0, 0, 0, 0, 0)), field(1, uvarints(70, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0)), field(3, uvarints(1, 2, 3)), field(3, uvarints(1, 2, 3, 4, 5)), field(3, []byte{1, 2, 3, 0x80}),
	} {
		out = append(out, field(1, log))
	}
	segment := func(level uint64, lo, hi string) []byte {
		p := uvarints(90, level, 200, 1, 0, 0, 1, 1, 7)
		p = append(binary.AppendUvarint(p, uint64(len(lo))), lo...)
		return append(binary.AppendUvarint(p, uint64(len(hi))), hi...)
	}
	short := segment(0, "a", "b")
	return append(out, []byte{0x80}, over, []byte{9, 1, 1}, []byte{3, 0}, []byte{3, 1, 0x80}, []byte{3, 2, 1, 1}, []byte{4, 1, 0x80}, []byte{4, 2, 1, 1}, []byte{5, 2, 1, 1}, []byte{1, 0x80}, []byte{3, 9, 1},
		field(2, segment(64, "a", "b")), field(2, segment(65, "a", "b")), field(2, segment(1<<40, "a", "b")), field(2, segment(1<<63, "a", "b")), field(2, segment(0, "b", "a")), field(2, segment(0, "", "")),
		field(2, append(short, 0)), field(2, short[:len(short)-1]), field(2, short[:4]), field(2, uvarints(90, 0, 200, 1, 0, 0, 1, 1, 7, 1<<62)))
}

// batches are encoded batches with one thing wrong.
func batches() [][]byte {
	op := func(kind byte, parts ...[]byte) []byte {
		out := []byte{kind}
		for _, p := range parts {
			out = append(binary.AppendUvarint(out, uint64(len(p))), p...)
		}
		return out
	}
	whole := func(ops ...[]byte) []byte {
		return append(binary.AppendUvarint([]byte{1, 0}, uint64(len(ops))), slices.Concat(ops...)...)
	}
	key := func(n int) []byte { return append([]byte{1}, make([]byte, n-1)...) }
	return [][]byte{
		whole(), whole(op(1, key(3), []byte("v"))), whole(op(1, nil, []byte("v"))), whole(op(2, key(3))), whole(op(2, nil)),
		whole(op(1, key(65552), nil)), whole(op(1, key(65553), nil)), whole(op(2, key(65553))), whole(op(2, key(70000))),
		whole(op(3, []byte{1, 'a'}, []byte{1, 'b'})), whole(op(3, []byte{1, 'b'}, []byte{1, 'a'})), whole(op(3, []byte{1, 'a'}, []byte{1, 'a'})),
		whole(op(3, []byte{1, 'c'}, []byte{1, 'd'}), op(3, []byte{1, 'a'}, []byte{1, 'b'})),
		whole(op(3, []byte{1, 'a'}, []byte{1, 'c'}), op(3, []byte{1, 'b'}, []byte{1, 'd'})),
		whole(op(3, []byte{1, 'a'}, []byte{1, 'b'}), op(3, []byte{1, 'b'}, []byte{1, 'd'})),
		whole(op(1, key(3), nil), op(3, []byte{1, 'a'}, []byte{1, 'b'})),
		whole(op(3, []byte{1, 'a'}, append([]byte{2}, make([]byte, 65552)...))), whole(op(3, []byte{1, 'a'}, append([]byte{2}, make([]byte, 65600)...))),
		whole(op(0, key(3), nil)), whole(op(4, key(3), nil)), whole(op(255, key(3), nil)),
		{1, 0, 0xff, 0xff, 0xff, 0x7f}, {1, 0, 0xff, 0xff, 0xff, 0xff, 0x7f}, {1, 0, 0x80, 0x00}, {1}, {}, {2, 0, 0}, {1, 1, 0},
		append([]byte{1, 0, 1, 1}, 0xff, 0xff, 0xff, 0x7f), append([]byte{1, 0, 1, 1, 1, 'k'}, 0xff, 0xff, 0xff, 0x7f), append([]byte{1, 0, 1, 1, 1, 'k'}, 0x80, 0x80, 0x80, 0x10),
		append(whole(op(1, key(3), nil)), 0),
	}
}

type bytesAt []byte

func reader(b []byte) bytesAt { return b }

func (b bytesAt) ReadAt(p []byte, off int64) (int, error) {
	n := copy(p, b[min(off, int64(len(b))):])
	if n < len(p) {
		return n, errShort
	}
	return n, nil
}
