package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"slices"

	"github.com/klauspost/compress/zstd"

	"github.com/forebaydb/forebay/internal/base"
)

// overflow is a number of n bytes: of more than ten it is none.
func overflow(n int) []byte { return bytes.Repeat([]byte{0xff}, n) }

// version is one entry of a data block.
type version struct {
	key   []byte
	lsn   uint64
	kind  byte
	value []byte
}

// versions decodes a data block that is intact and not packed.
func versions(payload []byte) (out []version) {
	n := len(payload) - 4
	data := payload[:n-4*int(le.Uint32(payload[n:]))]
	var whole []byte
	for p := 8; p < len(data); {
		var v [4]uint64
		for i := range v {
			x, w := binary.Uvarint(data[p:])
			v[i], p = x, p+w
		}
		key := slices.Concat(whole[:v[0]], data[p:p+int(v[1])])
		p += int(v[1])
		if len(out)%16 == 0 {
			whole = key
		}
		value := data[p : p+int(v[2]>>3)]
		p += len(value)
		out = append(out, version{key, le.Uint64(data) + (v[3]>>1 ^ -(v[3] & 1)), byte(v[2] & 7), value})
	}
	return out
}

// laid is an entry as a block has it: four numbers, or head in their place.
type laid struct {
	shared, unshared, tag, z uint64
	head, own, value         []byte
}

// lay is how a writer lays out versions: every sixteenth is a restart point.
func lay(vs []version, from uint64) (out []laid) {
	var whole []byte
	for i, v := range vs {
		shared := 0
		if i%16 == 0 {
			whole = v.key
		} else {
			for shared < min(len(whole), len(v.key)) && whole[shared] == v.key[shared] {
				shared++
			}
		}
		d := v.lsn - from
		own := v.key[shared:]
		out = append(out, laid{uint64(shared), uint64(len(own)), uint64(len(v.value))<<3 | uint64(v.kind), d<<1 ^ uint64(int64(d)>>63), nil, own, v.value})
	}
	return out
}

// pour makes a payload of entries; restarts changes where the restart points are.
func pour(from uint64, ls []laid, restarts func(at []uint32, data int) []uint32) []byte {
	out := le.AppendUint64(nil, from)
	var at []uint32
	for i, l := range ls {
		if i%16 == 0 {
			at = append(at, uint32(len(out)))
		}
		head := l.head
		if head == nil {
			for _, v := range []uint64{l.shared, l.unshared, l.tag, l.z} {
				head = binary.AppendUvarint(head, v)
			}
		}
		out = slices.Concat(out, head, l.own, l.value)
	}
	if restarts != nil {
		at = restarts(at, len(out))
	}
	for _, r := range at {
		out = le.AppendUint32(out, r)
	}
	return le.AppendUint32(out, uint32(len(at)))
}

// oddity is a payload with one thing wrong, in words.
type oddity struct {
	how string
	to  []byte
}

// layouts are the payload of a data block with one thing wrong.
func layouts(payload []byte) (out []oddity) {
	vs := versions(payload)
	from := vs[0].lsn
	add := func(how string, to []byte) { out = append(out, oddity{how, to}) }
	at := func(i int, how string, change func(l *laid)) {
		ls := lay(vs, from)
		change(&ls[i])
		add(fmt.Sprintf("entry %d, %s", i, how), pour(from, ls, nil))
	}
	for i := range vs {
		if i > 2 && i != 15 && i != 16 && i != 17 && i < len(vs)-2 {
			continue
		}
		for k := range 4 {
			at(i, fmt.Sprintf("number %d is none", k), func(l *laid) { l.head = slices.Concat([]byte{0, 1, 9, 0}[:k], overflow(11)) })
		}
		for _, n := range []uint64{0, 1 << 14, 1 << 20, 1 << 62, 1 << 63, 1<<64 - 1} {
			at(i, fmt.Sprintf("%d bytes of the key", n), func(l *laid) { l.unshared = n })
			at(i, fmt.Sprintf("%d bytes of the value", n), func(l *laid) { l.tag = n<<3 | l.tag&7 })
		}
		for _, n := range []uint64{uint64(len(vs[i/16*16].key)) + 1, 1000, base.MaxKeySize, base.MaxKeySize + 1, 1 << 63, 1<<64 - 1} {
			at(i, fmt.Sprintf("%d bytes shared", n), func(l *laid) { l.shared = n })
		}
		at(i, "a byte shared, and no other key", func(l *laid) {
			if l.shared == 0 && len(l.own) > 1 {
				l.shared, l.unshared, l.own = 1, l.unshared-1, l.own[1:]
			}
		})
		for _, kind := range []uint64{0, 3, 4, 7} {
			at(i, fmt.Sprintf("kind %d", kind), func(l *laid) { l.tag = l.tag&^7 | kind })
		}
		at(i, "a key that is too long", func(l *laid) {
			l.own = append(slices.Clone(l.own), make([]byte, base.MaxKeySize)...)
			l.unshared = uint64(len(l.own))
		})
	}
	ls := lay(vs, from)
	for k := 1; k < 5; k++ {
		cut := slices.Clone(ls)
		cut[len(cut)-1] = laid{head: slices.Concat([]byte{0, 1, 9}[:k-1], []byte{0x80})}
		add(fmt.Sprintf("ends within number %d of an entry", k-1), pour(from, cut, nil))
	}
	starts := func(how string, change func(at []uint32, data int) []uint32) { add(how, pour(from, ls, change)) }
	starts("no restart points", func([]uint32, int) []uint32 { return nil })
	starts("one restart point more", func(at []uint32, _ int) []uint32 { return append(at, at[len(at)-1]) })
	starts("one restart point less", func(at []uint32, _ int) []uint32 { return at[:len(at)-1] })
	for r := range (len(vs) + 15) / 16 {
		next := entryAt(ls, r*16+1)
		for _, to := range []uint32{0, 1, 4, 7, 8, 9, next, math.MaxUint32, 1 << 31} {
			starts(fmt.Sprintf("restart point %d is %d", r, to), func(at []uint32, _ int) []uint32 { at[r] = to; return at })
		}
		starts(fmt.Sprintf("restart point %d is the end", r), func(at []uint32, n int) []uint32 { at[r] = uint32(n); return at })
		if r == 0 && len(ls) > 1 { // of the second entry, which shares nothing
			second := slices.Clone(ls)
			second[1].own, second[1].shared, second[1].unshared = vs[1].key, 0, uint64(len(vs[1].key))
			next := entryAt(second, 1)
			add("the first restart point is the second entry", pour(from, second, func(at []uint32, _ int) []uint32 { at[0] = next; return at }))
		}
	}
	if len(vs) > 17 {
		late := slices.Clone(ls)
		late[17].own, late[17].shared, late[17].unshared = vs[17].key, 0, uint64(len(vs[17].key))
		second := entryAt(late, 17)
		add("17 entries up to the second restart point", pour(from, late, func(at []uint32, _ int) []uint32 { at[1] = second; return at }))
		// A restart point within the number in front, which is a whole entry.
		odd := uint64(1)<<48 | uint64(1)<<56
		add("a restart point in front of the first entry", pour(odd, lay(vs, odd), func(at []uint32, _ int) []uint32 { at[1] = 5; return at }))
	}
	for _, n := range []uint32{1 << 20, 1 << 31, math.MaxUint32} {
		to := slices.Clone(payload)
		le.PutUint32(to[len(to)-4:], n)
		add(fmt.Sprintf("%d restart points", n), to)
	}
	return out
}

// entryAt returns where an entry is.
func entryAt(ls []laid, i int) uint32 {
	i = min(i, len(ls)-1)
	return uint32(len(pour(0, ls[:i], func([]uint32, int) []uint32 { return nil })) - 4)
}

// untrue are payloads that decode, and that Verify alone can refuse.
func untrue(payload []byte) (out []oddity) {
	vs := versions(payload)
	from := vs[0].lsn
	add := func(how string, to []byte) { out = append(out, oddity{how, to}) }
	for i := range vs[:min(len(vs)-1, 12)] {
		if i%16 == 0 || i+1 == len(vs)-1 {
			continue
		}
		swapped := slices.Clone(vs)
		swapped[i], swapped[i+1] = vs[i+1], vs[i]
		add(fmt.Sprintf("entries %d and %d changed", i, i+1), pour(from, lay(swapped, from), nil))
	}
	del := slices.Clone(vs)
	del[len(del)/2].kind = 2
	del[len(del)/2].value = []byte("v")
	add("a delete with a value", pour(from, lay(del, from), nil))
	add("a restart point more than entries need", pour(from, lay(vs, from), func(at []uint32, _ int) []uint32 { return append(at, at[len(at)-1]) }))
	return out
}

// reprops makes the properties true of the data blocks as they are, as far as they
// decode, but for the bounds.
func reprops(c []byte) []byte {
	bs := blocks(c)
	x := slices.IndexFunc(bs, func(b block) bool { return b.kind == 4 })
	p := c[bs[x].off:]
	var v [8]uint64
	v[3] = math.MaxUint64
	var last []byte
	for _, b := range bs {
		if b.kind != 1 {
			continue
		}
		payload := c[b.off : b.off+b.n-trailSize]
		v[7] += uint64(len(payload))
		for _, e := range versions(payload) {
			if e.kind > 2 {
				continue
			}
			if v[0] == 0 || !bytes.Equal(last, e.key) {
				v[2]++
			}
			v[0]++
			if e.kind == 2 {
				v[1]++
			}
			v[3], v[4] = min(v[3], e.lsn), max(v[4], e.lsn)
			v[5] += uint64(len(e.key))
			v[6] += uint64(len(e.value))
			last = e.key
		}
	}
	for i, n := range v {
		le.PutUint64(p[8*i:], n)
	}
	sealSeg(c, bs)
	return c
}

// sep is one entry of an index.
type sep struct {
	length, below uint64
	key           []byte
}

func separators(payload []byte) (out []sep) {
	for p := 4; p < len(payload); {
		var v [3]uint64
		for i := range v {
			x, w := binary.Uvarint(payload[p:])
			v[i], p = x, p+w
		}
		out = append(out, sep{v[0], v[2], payload[p : p+int(v[1])]})
		p += int(v[1])
	}
	return out
}

func layIndex(seps []sep) []byte {
	out := le.AppendUint32(nil, uint32(len(seps)))
	for _, s := range seps {
		out = binary.AppendUvarint(out, s.length)
		out = binary.AppendUvarint(out, uint64(len(s.key)))
		out = append(binary.AppendUvarint(out, s.below), s.key...)
	}
	return out
}

// oddIndex are indexes of several blocks with one thing wrong. firsts are the first
// keys of the blocks, and lasts the last.
func oddIndex(payload []byte, firsts, lasts [][]byte) (out []oddity) {
	seps := separators(payload)
	with := func(how string, i int, s sep) {
		c := slices.Clone(seps)
		c[i] = s
		out = append(out, oddity{how, layIndex(c)})
	}
	for i := 1; i < len(seps); i++ {
		s := seps[i]
		with(fmt.Sprintf("separator %d is the first key of the block before", i), i, sep{s.length, s.below, append(slices.Clone(firsts[i-1]), 0)})
		with(fmt.Sprintf("separator %d is the last key of the block before", i), i, sep{s.length, 0, lasts[i-1]})
		with(fmt.Sprintf("separator %d is above the first key", i), i, sep{s.length, 0, append(slices.Clone(firsts[i]), 0)})
		with(fmt.Sprintf("separator %d is that before", i), i, sep{s.length, seps[i-1].below, seps[i-1].key})
		with(fmt.Sprintf("separator %d is too long", i), i, sep{s.length, s.below, append(slices.Clone(s.key), make([]byte, base.MaxKeySize)...)})
		with(fmt.Sprintf("separator %d is below that before", i), i, sep{s.length, s.below, []byte{1}})
		// What follows does not decode.
		front := layIndex(seps[:i])
		le.PutUint32(front, uint32(len(seps)))
		for _, n := range []uint64{uint64(len(s.key)) + 1, 1 << 14, 1 << 40, 1 << 63, 1<<64 - 1} {
			to := binary.AppendUvarint(slices.Clone(front), s.length)
			to = binary.AppendUvarint(to, n)
			to = append(binary.AppendUvarint(to, s.below), s.key...)
			out = append(out, oddity{fmt.Sprintf("separator %d of %d bytes", i, n), slices.Concat(to, layIndex(seps[i+1:])[4:])})
		}
		for k := range 3 {
			to := binary.AppendUvarint(slices.Clone(front), s.length)
			to = binary.AppendUvarint(to, uint64(len(s.key)))
			to = to[:len(front)+min(k, len(to)-len(front))]
			out = append(out, oddity{fmt.Sprintf("number %d of separator %d is none", k, i), slices.Concat(to, overflow(11), s.key, layIndex(seps[i+1:])[4:])})
		}
	}
	return out
}

// packing is a payload that says that it is packed.
type packing struct {
	comp byte
	raw  int // what it says that it has when unpacked
	to   []byte
}

func packings(payload []byte) []packing {
	n := len(payload)
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithSingleSegment(true))
	must(err)
	packed := enc.EncodeAll(payload, nil)
	wrong := slices.Clone(packed)
	wrong[len(wrong)-1] ^= 1        // its own checksum
	tiny := func(b []byte) []byte { // S2, longer than it must be
		out := []byte{byte(len(b)) | 0x80, 0x80, 0x80, 0x80, 0}
		for _, c := range b {
			out = append(out, 63<<2, 0, 0, 0, 0, c)
		}
		return out
	}
	long := func(n uint64) []byte { return append(binary.AppendUvarint(nil, n), make([]byte, len(payload))...) }
	return []packing{
		{2, n, literal(payload)}, {3, n, literal(payload)}, {2, n + 1, literal(payload)}, {2, n - 1, literal(payload)},
		{2, 1 << 30, binary.AppendUvarint(nil, 1<<30)}, {2, 40 << 20, binary.AppendUvarint(nil, 40<<20)},
		{2, 700 << 20, long(700 << 20)}, {2, 40 << 20, long(40 << 20)},
		{2, 3, tiny([]byte{1, 0, 0})}, {2, 4, tiny([]byte{1, 0, 0, 0})},
		{3, n, packed}, {3, n + 1, packed}, {3, n - 1, packed}, {3, n, wrong}, {3, n, append(slices.Clone(packed), 1, 2, 3, 4, 5, 6, 7, 8)},
	}
}

// craftSegment makes forgeries for one check each of a segment that is not packed.
func (f *forgedImage) craftSegment(b []byte, bs []block, number uint64, put putter, send func(string, func() []byte) bool) {
	man, raw, head, state := f.manifest()
	for i := range state.Segments {
		if state.Segments[i].Number != number {
			continue
		}
		for _, level := range []int{16, 64, math.MinInt} {
			s := state.Clone()
			s.Segments[i].Level = level
			if !put(fmt.Sprintf("crafted level %d", level), func() ([]byte, map[string][]byte) {
				return b, map[string][]byte{man: layManifest(&head, raw[:head.Start()], s.Snapshot().Append(nil))}
			}) {
				return
			}
		}
	}
	if at := len(b) - footSize; b[at+12]&1 != 0 {
		for _, n := range []uint64{0, 1, le.Uint64(b[at+112:]) + 1, le.Uint64(b[at+112:]) - 1} {
			if !send(fmt.Sprintf("footer, crafted, highest LSN of a version %d", n), func() []byte {
				c := slices.Clone(b)
				le.PutUint64(c[at+112:], n)
				sealFoot(c)
				return c
			}) {
				return
			}
		}
	}
	var firsts, lasts [][]byte
	for i, k := range bs {
		payload := b[k.off : k.off+k.n-trailSize]
		try := func(o oddity, props bool) bool {
			return send(fmt.Sprintf("block %d of kind %d, crafted, %s", i, k.kind, o.how), func() []byte {
				c := relay(b, bs, i, o.to)
				if props {
					c = reprops(c)
				}
				return c
			})
		}
		end := k.off + k.n - trailSize
		for _, c := range []struct{ at, n int }{{0, 1}, {1, 1}, {2, 1}, {3, 1}, {4, 1}, {4, -1}, {7, 1}} {
			if !send(fmt.Sprintf("block %d of kind %d, crafted, byte %d of its trailer is %d more", i, k.kind, c.at, c.n), func() []byte {
				to := slices.Clone(b)
				to[end+c.at] += byte(c.n)
				sealSeg(to, bs)
				return to
			}) {
				return
			}
		}
		switch {
		case k.kind == 1 && b[k.off+k.n-trailSize+1] != 1:
			return // packed
		case k.kind == 1:
			vs := versions(payload)
			firsts, lasts = append(firsts, vs[0].key), append(lasts, vs[len(vs)-1].key)
			if i > 0 { // one block of each segment is enough
				continue
			}
			for _, o := range layouts(payload) {
				if !try(o, false) {
					return
				}
			}
			for _, o := range untrue(payload) {
				if !try(o, true) {
					return
				}
			}
		case k.kind == 3:
			for _, o := range oddIndex(payload, firsts, lasts) {
				if !try(o, false) {
					return
				}
			}
		}
	}
}
