package main

import (
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/cespare/xxhash/v2"

	"github.com/forebaydb/forebay/internal/base"
	"github.com/forebaydb/forebay/manifest"
	"github.com/forebaydb/forebay/segment"
	"github.com/forebaydb/forebay/wal/frame"
)

var errShort = io.EOF

// block is one block of a segment, trailer included.
type block struct {
	off, n int
	kind   byte
}

const (
	footSize  = 128
	trailSize = 16
)

// bindSeg is what a checksum of a segment is bound to; id are the 24 bytes of
// store and number.
func bindSeg(id []byte, off int, kind byte) uint64 {
	var b [40]byte
	copy(b[:24], id)
	le.PutUint64(b[24:], uint64(off))
	le.PutUint64(b[32:], uint64(kind))
	return xxhash.Sum64(b[:])
}

// blocks finds the blocks of an intact segment, in the order of the file.
func blocks(b []byte) (out []block) {
	f := b[len(b)-footSize:]
	data, filter, index, props, dels := int(le.Uint64(f[56:])), int(le.Uint64(f[64:])), int(le.Uint64(f[72:])), int(le.Uint64(f[80:])), int(le.Uint64(f[104:]))
	if index > 0 {
		x := b[data+filter : data+filter+index-trailSize]
		off, p := 0, 4
		for off < data {
			n, w := binary.Uvarint(x[p:])
			p += w
			k, w := binary.Uvarint(x[p:])
			p += w
			_, w = binary.Uvarint(x[p:])
			p += w + int(k)
			out = append(out, block{off, int(n), 1})
			off += int(n)
		}
	}
	if page := int(le.Uint32(f[96:])) + trailSize; filter > 0 {
		for off := data; off < data+filter; off += page {
			out = append(out, block{off, page, 2})
		}
	}
	at := data + filter
	for _, part := range []block{{0, index, 3}, {0, dels, 6}, {0, props, 4}} {
		if part.n > 0 {
			out = append(out, block{at, part.n, part.kind})
			at += part.n
		}
	}
	return out
}

// sealSeg makes all checksums right.
func sealSeg(b []byte, bs []block) {
	f := b[len(b)-footSize:]
	id := f[24:48]
	content := xxhash.New()
	for _, k := range bs {
		end := k.off + k.n
		sum := xxhash.Sum64(b[k.off:end-8]) ^ bindSeg(id, k.off, k.kind)
		le.PutUint64(b[end-8:], sum)
		_, _ = content.Write(b[end-8 : end])
	}
	le.PutUint64(f[88:], content.Sum64())
	sealFoot(b)
}

func sealFoot(b []byte) {
	f := b[len(b)-footSize:]
	le.PutUint64(f[120:], xxhash.Sum64(f[:120])^bindSeg(f[24:48], len(b)-footSize, 5))
}

// manifest reads the manifest of the store.
func (f *forgedImage) manifest() (name string, raw []byte, head frame.FileHeader, state manifest.State) {
	for n, b := range f.Files {
		if strings.HasPrefix(n, "MANIFEST") {
			name, raw = n, b
		}
	}
	head, err := frame.DecodeFileHeader(raw[:512])
	must(err)
	r := frame.NewReader(reader(raw), int64(len(raw)), head)
	for {
		fr, end, err := r.Next()
		must(err)
		if end != nil {
			return name, raw, head, state
		}
		must(fr.EachRecord(func(_, _ uint64, rec []byte) error {
			e, err := manifest.DecodeEdit(rec)
			if err == nil {
				state.Apply(e)
			}
			return err
		}))
	}
}

// listing makes a manifest that lists the segment as it is now: the adversary has
// that, too.
func (f *forgedImage) listing() (name string, list func(number uint64, b []byte) []byte) {
	name, raw, head, state := f.manifest()
	return name, func(number uint64, b []byte) []byte {
		s := state.Clone()
		for i := range s.Segments {
			if g := &s.Segments[i]; g.Number == number {
				g.Hash, g.Size = le.Uint64(b[len(b)-8:]), uint64(len(b))
				if len(b) >= footSize { // what the footer says
					g.Size = le.Uint64(b[len(b)-footSize+48:])
				}
			}
		}
		return layManifest(&head, raw[:head.Start()], s.Snapshot().Append(nil))
	}
}

// layManifest lays edits out as a manifest, or a catalog, the first of them the
// snapshot.
func layManifest(head *frame.FileHeader, start []byte, edits ...[]byte) []byte {
	var bl frame.Builder
	bl.Reset(head, frame.CodecNone, head.Start(), 0)
	for i, e := range edits {
		bl.Record(uint64(i)+1, 0, e, uint64(i), 0)
		bl.Mark(uint64(i)+2, uint64(i)+1, 0)
	}
	return slices.Concat(start, bl.Bytes(), make([]byte, 8192))
}

// segment forges a segment, and the manifest with it.
func (f *forgedImage) segment(name string, b []byte, put putter) {
	number, ok := segment.ParseFileName(name)
	if !ok || len(b) < footSize {
		return
	}
	man, list := f.listing()
	bs := blocks(b)
	send := func(how string, make func() []byte) bool {
		return put(how, func() ([]byte, map[string][]byte) {
			c := make()
			return c, map[string][]byte{man: list(number, c)}
		})
	}
	for _, k := range bs { // whole in itself, and not the one that the manifest lists
		if !put(fmt.Sprintf("crafted block at %d, and the manifest lists another", k.off), func() ([]byte, map[string][]byte) {
			c := slices.Clone(b)
			c[k.off] ^= 1
			sealSeg(c, bs)
			return c, nil
		}) {
			return
		}
	}
	for i, k := range bs {
		name := fmt.Sprintf("block %d of kind %d", i, k.kind)
		change := func(how string, f func(p []byte)) bool {
			return send(name+", "+how, func() []byte {
				c := slices.Clone(b)
				f(c[k.off : k.off+k.n])
				sealSeg(c, bs)
				return c
			})
		}
		size := k.n - 8 // all but the checksum
		for at := range size {
			vs := values(b[k.off+at])
			switch {
			case size-at < 30: // trailer, restarts
			case k.kind == 2, k.kind == 1 && at > 120:
				if at%7 != 0 {
					continue
				}
				vs = few(b[k.off+at])
			}
			for _, v := range vs {
				if !change(fmt.Sprintf("byte %d = %#x", at, v), func(p []byte) { p[at] = v }) {
					return
				}
			}
		}
		// Whole numbers, wherever they may be.
		for at := 0; at+4 <= size; at++ {
			if at > 12 && at < size-40 || k.kind == 2 {
				continue
			}
			for _, v := range []uint32{0, 1, 1 << 10, 1 << 24, 1 << 31, 1<<32 - 1} {
				if !change(fmt.Sprintf("number at %d = %d", at, v), func(p []byte) { le.PutUint32(p[at:], v) }) {
					return
				}
			}
		}
		if !f.resized(b, bs, i, send) {
			return
		}
	}
	f.footers(b, send)
	f.craftSegment(b, bs, number, put, send)
}

// resized makes a block's payload shorter or longer, with all lengths right.
func (f *forgedImage) resized(b []byte, bs []block, i int, send func(string, func() []byte) bool) bool {
	k := bs[i]
	payload := b[k.off : k.off+k.n-trailSize]
	try := func(how string, to []byte) bool {
		return send(fmt.Sprintf("block %d of kind %d, %s", i, k.kind, how), func() []byte { return relay(b, bs, i, to) })
	}
	for n := range len(payload) {
		if n > 40 && n < len(payload)-30 && n%19 != 0 || k.kind == 2 {
			continue
		}
		if !try(fmt.Sprintf("cut to %d bytes", n), payload[:n]) {
			return false
		}
		for _, in := range [][]byte{{0}, {1}, {0xff, 0xff, 0xff, 0xff, 0x0f}, {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01}} {
			if !try(fmt.Sprintf("%x put in at %d", in, n), slices.Insert(slices.Clone(payload), n, in...)) ||
				!try(fmt.Sprintf("%x in place of byte %d", in, n), slices.Replace(slices.Clone(payload), n, n+1, in...)) {
				return false
			}
		}
	}
	packed := func(comp byte, raw int, to []byte) bool {
		return send(fmt.Sprintf("block %d of kind %d, crafted, packed by %d to %d bytes of %d", i, k.kind, comp, len(to), raw), func() []byte {
			c := slices.Clone(b)
			le.PutUint32(c[k.off+k.n-trailSize+4:], uint32(raw))
			c[k.off+k.n-trailSize+1] = comp
			return relay(c, bs, i, to)
		})
	}
	for _, p := range packings(payload) {
		if !packed(p.comp, p.raw, p.to) {
			return false
		}
	}
	for _, n := range []int{1, 3, 40} {
		if !try(fmt.Sprintf("%d bytes more", n), append(slices.Clone(payload), make([]byte, n)...)) {
			return false
		}
	}
	if k.kind == 3 || k.kind == 6 {
		for _, to := range odd(payload, k.kind, le.Uint64(b[len(b)-footSize+56:])) {
			if !try(fmt.Sprintf("crafted payload %x…", to[:min(len(to), 10)]), to) {
				return false
			}
		}
	}
	return true
}

// literal is S2 for bytes as they are.
func literal(b []byte) []byte {
	out := binary.AppendUvarint(nil, uint64(len(b)))
	if len(b) == 0 {
		return out
	}
	out = append(out, 61<<2, byte(len(b)-1), byte((len(b)-1)>>8))
	return append(out, b...)
}

// odd are payloads of range deletes, and of an index, with one thing wrong.
func odd(payload []byte, kind byte, data uint64) [][]byte {
	count := func(n uint32, rest ...[]byte) []byte {
		return append(le.AppendUint32(nil, n), slices.Concat(rest...)...)
	}
	if kind == 3 {
		entry := func(length uint64, key string) []byte {
			out := binary.AppendUvarint(nil, length)
			out = binary.AppendUvarint(out, uint64(len(key)))
			return append(binary.AppendUvarint(out, 0), key...)
		}
		var wrapped [][]byte // lengths whose sum is right, and two of which are not
		for _, n := range []uint64{1 << 63, 1 << 40, 36 << 20, 1, 36} {
			wrapped = append(wrapped, count(2, entry(n, ""), entry(data-n, "\x01m")))
		}
		return append(wrapped, [][]byte{count(0), count(1), {}, payload[:3], count(1<<32-1, payload[4:])}...)
	}
	del := func(lo, hi string, lsn uint64) []byte {
		out := append(binary.AppendUvarint(nil, uint64(len(lo))+2), lo...)
		out = append(binary.AppendUvarint(out, uint64(len(hi))), hi...)
		return binary.AppendUvarint(out, lsn)
	}
	long := strings.Repeat("a", base.MaxKeySize+2)
	return [][]byte{
		count(0), count(1), {}, {1, 0, 0}, count(1, []byte{0, 1, 'b', 5}), count(1, []byte{1, 1, 'b', 5}),
		count(1, del("\x01a", "\x01b", 0)), count(1, del("\x01a", "\x01b", 1<<64-1)), count(1, del("\x01b", "\x01a", 5)), count(1, del("\x01a", "\x01a", 5)),
		count(2, del("\x01c", "\x01d", 5), del("\x01a", "\x01b", 5)), count(2, del("\x01a", "\x01b", 5), del("\x01a", "\x01c", 6)),
		count(1, del("\x01a", long, 5)), count(1, del("\x01a", "\x01b", 5), []byte{0}), count(1<<20, del("\x01a", "\x01b", 5)), count(1<<32-1, del("\x01a", "\x01b", 5)),
	}
}

// relay replaces the payload of a block by another of any length.
func relay(b []byte, bs []block, i int, to []byte) []byte {
	k := bs[i]
	d := len(to) - (k.n - trailSize)
	trailer := slices.Clone(b[k.off+k.n-trailSize : k.off+k.n])
	if trailer[1] == 1 { // not packed
		le.PutUint32(trailer[4:], uint32(len(to)))
	}
	c := slices.Concat(b[:k.off], to, trailer, b[k.off+k.n:])
	f := c[len(c)-footSize:]
	grow := func(at int) { le.PutUint64(f[at:], uint64(int(le.Uint64(f[at:]))+d)) }
	grow(48)
	moved := slices.Clone(bs)
	moved[i].n += d
	for j := i + 1; j < len(moved); j++ {
		moved[j].off += d
	}
	switch k.kind {
	case 1: // the index must say so, and that may change its length
		grow(56)
		x := slices.IndexFunc(moved, func(b block) bool { return b.kind == 3 })
		p := c[moved[x].off : moved[x].off+moved[x].n-trailSize]
		at := 4
		for range i {
			_, w := binary.Uvarint(p[at:])
			at += w
			n, w := binary.Uvarint(p[at:])
			at += w
			_, w = binary.Uvarint(p[at:])
			at += w + int(n)
		}
		_, w := binary.Uvarint(p[at:])
		entry := binary.AppendUvarint(nil, uint64(moved[i].n))
		if len(entry) != w {
			return relay(c, moved, x, slices.Concat(p[:at], entry, p[at+w:]))
		}
		copy(p[at:], entry)
	case 3:
		grow(72)
	case 6:
		grow(104)
	case 4:
		grow(80)
	}
	sealSeg(c, moved)
	return c
}

// footers forges the footer.
func (f *forgedImage) footers(b []byte, send func(string, func() []byte) bool) {
	at := len(b) - footSize
	change := func(how string, f func(foot []byte)) bool {
		return send("footer, "+how, func() []byte {
			c := slices.Clone(b)
			f(c[at:])
			sealFoot(c)
			return c
		})
	}
	for i := range 120 {
		for _, v := range values(b[at+i]) {
			if !change(fmt.Sprintf("byte %d = %#x", i, v), func(f []byte) { f[i] = v }) {
				return
			}
		}
	}
	field := func(i int) uint64 { return le.Uint64(b[at+i:]) }
	for _, i := range []int{48, 56, 64, 72, 80, 104, 112} {
		old := field(i)
		for _, v := range []uint64{0, 1, old + 1, old - 1, old + 16, old - 16, old + 128, 1 << 31, 1 << 32, 1 << 40, 1 << 63, 1<<64 - 1} {
			if !change(fmt.Sprintf("field %d = %d", i, v), func(f []byte) { le.PutUint64(f[i:], v) }) {
				return
			}
		}
	}
	// Two lengths that are wrong together.
	parts := []int{56, 64, 72, 80, 104}
	for _, i := range parts {
		for _, j := range parts {
			for _, d := range []uint64{1, 16, 20, field(i)} {
				if i == j || field(i) < d {
					continue
				}
				move := func(f []byte) {
					le.PutUint64(f[i:], field(i)-d)
					le.PutUint64(f[j:], field(j)+d)
				}
				if !change(fmt.Sprintf("%d bytes of part %d are of part %d", d, i, j), move) ||
					!change(fmt.Sprintf("%d bytes of part %d are of part %d, and the feature", d, i, j), func(f []byte) { move(f); f[12] ^= 1 }) {
					return
				}
			}
		}
	}
	for _, n := range []int{8, 100, 127, 128, 129, 160, 200} {
		if n > len(b) {
			continue
		}
		if !send(fmt.Sprintf("the last %d bytes alone", n), func() []byte {
			c := slices.Clone(b[len(b)-n:])
			if n >= footSize {
				le.PutUint64(c[len(c)-footSize+48:], uint64(n))
				sealFoot(c)
			}
			return c
		}) {
			return
		}
	}
}
