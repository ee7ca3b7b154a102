package adversary

import (
	"bytes"
	"encoding/binary"
	"maps"
	"math"
	"slices"
	"sync"

	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"

	"github.com/forebaydb/forebay/internal/base"
	"github.com/forebaydb/forebay/manifest"
	"github.com/forebaydb/forebay/segment"
	"github.com/forebaydb/forebay/wal"
	"github.com/forebaydb/forebay/wal/frame"
)

// script is what a fuzzer writes: a byte says what is next. It never ends: behind
// its end all bytes are 0.
type script struct{ b []byte }

func (s *script) next() byte {
	if len(s.b) == 0 {
		return 0
	}
	c := s.b[0]
	s.b = s.b[1:]
	return c
}

func (s *script) n(limit int) int {
	if limit <= 0 {
		return 0
	}
	n := int(s.next())
	if limit > 256 {
		n = n<<8 | int(s.next())
	}
	return n % limit
}

// values are the numbers that break things.
var values = []uint64{0, 1, 2, 3, math.MaxUint64, math.MaxUint64 - 1, 1 << 63, 1<<63 - 1, 1 << 62, 1 << 53, 1<<53 + 1, 1 << 32, 1<<32 - 1, 1 << 31, 64 << 20, 64<<20 + 20, 64<<20 + 21, 256 << 10, 256<<10 + 1, 4096, 512, 65}

// number returns another number than v, or a neighbour of it.
func (s *script) number(v uint64) uint64 {
	switch c := s.next(); {
	case int(c) < len(values):
		return values[c]
	case c < 64:
		return v + 1
	case c < 96:
		return v - 1
	case c < 128:
		return v ^ 1<<(s.next()%64)
	case c < 192:
		return uint64(s.next())
	default:
		return v + uint64(int64(int8(s.next())))
	}
}

func (s *script) number32(v uint32) uint32 { return uint32(s.number(uint64(v))) }

// pick returns a key of a map, "" when it is empty.
func pick[V any](s *script, m map[string]V) string {
	if len(m) == 0 {
		return ""
	}
	return slices.Sorted(maps.Keys(m))[s.n(len(m))]
}

// mutate changes a directory as the script says, a few times, and seals it.
func (st *store) mutate(s *script) {
	mend := s.next()%4 != 3
	for range 8 {
		if len(s.b) == 0 {
			break
		}
		switch op := s.next() % 16; op {
		default:
			st.frameField(s)
		case 3, 4:
			st.payload(s)
		case 5:
			st.frameOrder(s)
		case 6:
			st.fileHeader(s)
		case 7:
			st.fileNames(s)
		case 8, 9:
			st.segmentByte(s)
		case 10, 11, 12:
			st.edit(s)
		case 13:
			st.pack(s)
		case 14:
			st.tail(s)
		}
	}
	if mend {
		st.mend()
	}
}

func (st *store) frame(s *script) (*framed, int) {
	f := st.framed[pick(s, st.framed)]
	if f == nil || len(f.frames) == 0 {
		return nil, 0
	}
	return f, s.n(len(f.frames))
}

func (st *store) frameField(s *script) {
	f, i := st.frame(s)
	if f == nil {
		return
	}
	fr := f.frames[i]
	switch s.next() % 12 {
	case 0:
		fr.kind = s.next() % 6
	case 1:
		fr.flags ^= 1 << (s.next() % 6)
	case 2:
		fr.raw = s.number32(fr.raw)
	case 3:
		fr.count = s.number32(fr.count)
	case 4:
		fr.first = s.number(fr.first)
	case 5:
		fr.durable = s.number(fr.durable)
	case 6:
		fr.lie = s.number32(0)
	case 7:
		fr.chain = s.number(0)
	default: // links are few, and each field of one matters
		for _, fr := range f.frames {
			if fr.kind == byte(frame.KindLink) && len(fr.payload) == frame.LinkSize {
				at := 8 * s.n(6)
				le.PutUint64(fr.payload[at:], s.number(le.Uint64(fr.payload[at:])))
				if at == 8 && s.next()%2 == 0 { // kept, and what follows from it
					kept := le.Uint64(fr.payload[8:])
					le.PutUint64(fr.payload[24:], kept)
					for i, next := 0, kept+1; i < len(f.frames); i++ {
						f.frames[i].first = next
						next += uint64(f.frames[i].count)
					}
				}
				return
			}
		}
	}
}

// payload changes bytes, or a uvarint, of a payload.
func (st *store) payload(s *script) {
	f, i := st.frame(s)
	if f == nil || len(f.frames[i].payload) == 0 {
		return
	}
	fr := f.frames[i]
	fr.payload = slices.Clone(fr.payload)
	at := s.n(len(fr.payload))
	switch s.next() % 4 {
	case 0:
		fr.payload[at] ^= s.next()
	case 1:
		fr.payload = slices.Delete(fr.payload, at, min(len(fr.payload), at+1+int(s.next())))
	case 2:
		fr.payload = slices.Insert(fr.payload, at, bytes.Repeat([]byte{s.next()}, 1+int(s.next()))...)
	case 3:
		if v, w := binary.Uvarint(fr.payload[at:]); w > 0 {
			fr.payload = slices.Replace(fr.payload, at, at+w, binary.AppendUvarint(nil, s.number(v))...)
		}
	}
	if fr.flags&3 == 0 && s.next()%4 != 3 {
		fr.raw = uint32(len(fr.payload))
	}
}

// frameOrder drops, doubles, swaps and moves frames.
func (st *store) frameOrder(s *script) {
	f, i := st.frame(s)
	if f == nil {
		return
	}
	fr := *f.frames[i]
	switch s.next() % 5 {
	case 0:
		f.frames = slices.Delete(f.frames, i, i+1)
	case 1:
		f.frames = slices.Insert(f.frames, i, &fr)
	case 2:
		j := s.n(len(f.frames))
		f.frames[i], f.frames[j] = f.frames[j], f.frames[i]
	case 3:
		if g, j := st.frame(s); g != nil {
			g.frames = slices.Insert(g.frames, j, &fr)
		}
	case 4: // many of them, in their order
		for range 64 {
			c := fr
			c.first = f.frames[len(f.frames)-1].first + uint64(f.frames[len(f.frames)-1].count)
			f.frames = append(f.frames, &c)
		}
	}
}

func (st *store) fileHeader(s *script) {
	f := st.framed[pick(s, st.framed)]
	if f == nil {
		return
	}
	h := f.head[:]
	switch s.next() % 8 {
	case 0:
		h[10] = s.next() % 5
	case 1:
		h[11] = []byte{3, 12, 0, 13, 63, 255}[s.n(6)]
	case 2:
		h[16] ^= 1
	case 3, 4, 5:
		at := []int{36, 44, 52}[s.n(3)]
		le.PutUint64(h[at:], s.number(le.Uint64(h[at:])))
	case 6:
		h[8+s.n(8)] ^= 1 << (s.next() % 8) // version, required features
	case 7:
		h[20+s.n(16)]++ // store id
	}
}

// fileNames removes files, and puts them where others should be.
func (st *store) fileNames(s *script) {
	switch s.next() % 5 {
	case 0:
		delete(st.framed, pick(s, st.framed))
	case 1:
		delete(st.segs, pick(s, st.segs))
	case 2, 3:
		from, to := pick(s, st.framed), pick(s, st.framed)
		if s.next()%2 == 0 {
			n := s.number(1) & (1<<53 - 1)
			to = []string{wal.FileName(n), "MANIFEST-000009", "000009.log"}[s.n(3)]
		}
		if f := st.framed[from]; f != nil {
			c := *f
			c.frames = nil
			for _, fr := range f.frames {
				g := *fr
				c.frames = append(c.frames, &g)
			}
			if n, ok := wal.ParseFileName(to); ok && s.next()%2 == 0 {
				le.PutUint64(c.head[36:], n)
			}
			st.framed[to] = &c
		}
	case 4:
		if b := st.segs[pick(s, st.segs)]; b != nil {
			st.segs[segment.FileName(1+s.number(3)&(1<<53-1))] = slices.Clone(b)
		}
	}
}

func (st *store) segmentByte(s *script) {
	name := pick(s, st.segs)
	b := st.segs[name]
	if len(b) < footer {
		return
	}
	f := b[len(b)-footer:]
	switch s.next() % 6 {
	case 0:
		at := []int{40, 48, 56, 64, 72, 80, 104, 112}[s.n(8)]
		le.PutUint64(f[at:], s.number(le.Uint64(f[at:])))
	case 1:
		at := []int{8, 12, 16, 20, 96, 100}[s.n(6)]
		le.PutUint32(f[at:], s.number32(le.Uint32(f[at:])))
	case 2:
		b[s.n(len(b))] ^= 1 << (s.next() % 8)
	case 3: // in a block: what a checksum protects
		var all [][]byte
		eachBlock(b, func(_ uint64, _ byte, k []byte) { all = append(all, k) })
		if len(all) > 0 {
			k := all[s.n(len(all))]
			at := s.n(len(k) - 8)
			copy(k[at:len(k)-8], binary.AppendUvarint(nil, s.number(uint64(k[at]))))
		}
	case 4:
		st.segs[name] = b[:s.n(len(b))]
	case 5:
		at := s.n(len(b))
		copy(b[at:], bytes.Repeat([]byte{s.next()}, min(64, len(b)-at)))
	}
}

// edit changes what the manifest says.
func (st *store) edit(s *script) {
	skip := int(s.next() % 4)
	st.edits(func(e *manifest.Edit) *manifest.Edit {
		if skip--; skip == -1 {
			mutateEdit(e, s)
		}
		return e
	})
}

func mutateEdit(e *manifest.Edit, s *script) {
	switch s.next() % 12 {
	case 0:
		e.ReplayStart = s.number(e.ReplayStart)
	case 1:
		e.LastSegment = s.number(e.LastSegment)
	case 2:
		e.Remove = append(e.Remove, s.number(1))
	case 3, 4, 5:
		if len(e.Add) == 0 || s.next()%8 == 0 {
			e.Add = append(e.Add, manifest.Segment{Number: s.number(1), Lo: []byte{1}, Hi: []byte{1, 2}})
		}
		g := &e.Add[s.n(len(e.Add))]
		if s.next()%4 == 0 {
			key := []*[]byte{&g.Lo, &g.Hi}[s.n(2)]
			*key = bytes.Repeat([]byte{s.next()}, int(s.number(3)%100_000))
			return
		}
		if s.next()%4 == 0 {
			g.Level = s.n(80)
			return
		}
		v := []*uint64{&g.Number, &g.Size, &g.Count, &g.Tombstones, &g.RangeDeletes, &g.MinLSN, &g.MaxLSN, &g.Hash}[s.n(8)]
		*v = s.number(*v)
	default:
		if e.Log == nil {
			e.Log = &base.LogEdit{}
		}
		mutateLogEdit(e.Log, s)
	}
}

func mutateLogEdit(l *base.LogEdit, s *script) {
	switch s.next() % 8 {
	case 0:
		l.Epoch = s.number(l.Epoch)
	case 1:
		l.Number = s.number(l.Number)
	case 2:
		l.Remove = append(l.Remove, s.number(1))
	case 3:
		if l.Floor == nil {
			l.Floor = &base.LogFloor{}
		}
		v := []*uint64{&l.Floor.File, &l.Floor.LSN, &l.Floor.Hash, &l.Floor.Epoch}[s.n(4)]
		*v = s.number(*v)
	case 4:
		l.Pin = map[string]base.LSN{"../../pin": s.number(1)}
	default:
		if len(l.Put) == 0 || s.next()%8 == 0 {
			l.Put = append(l.Put, base.LogFile{Number: s.number(1)})
		}
		m := &l.Put[s.n(len(l.Put))]
		switch s.next() % 4 {
		case 0:
			m.Retained = !m.Retained
		case 1:
			m.Cut = !m.Cut
		default:
			index := uint64(m.Index)
			v := []*uint64{&m.Number, &m.Salt, &m.Epoch, &m.First, &m.Last, &m.Hash, &m.Keep, &m.CutLSN, &m.CutHash, &index}[s.n(10)]
			*v = s.number(*v)
			m.Index = int64(index &^ (1 << 63))
		}
	}
}

// pack puts something small in the place of a payload that becomes large, or says
// that it does.
func (st *store) pack(s *script) {
	f, i := st.frame(s)
	if f == nil {
		return
	}
	fr := f.frames[i]
	n := []int{1 << 10, 256 << 10, 1 << 20, 8 << 20}[s.n(4)]
	plain := make([]byte, n)
	value := n - 64
	b := binary.AppendUvarint(nil, uint64(n))
	b = append(b, 0)        // the record's keep-count
	b = append(b, 1, 0, 1)  // a batch of one operation
	b = append(b, 1, 2, 1)  // put, a key of two bytes, of keyspace 1
	b = append(b, s.next()) // the key
	b = binary.AppendUvarint(b, uint64(value))
	plain = append(b, plain[:value]...)
	if s.next()%2 == 0 { // else the length is wrong, and it is no record
		rest := len(plain) - len(binary.AppendUvarint(nil, uint64(n))) - 1
		plain = append(binary.AppendUvarint(nil, uint64(rest)), plain[len(plain)-rest-1:]...)
	}
	fr.raw, fr.count = uint32(len(plain)), 1
	fr.kind = byte(frame.KindData)
	fr.flags = fr.flags&^3 | 1
	if s.next()%2 == 0 {
		fr.payload = s2.Encode(nil, plain)
	} else {
		fr.payload, fr.flags = packer().EncodeAll(plain, nil), fr.flags&^3|2
	}
	if s.next()%2 == 0 {
		fr.raw = s.number32(fr.raw)
	}
}

var packer = sync.OnceValue(func() *zstd.Encoder {
	e, _ := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(64<<10))
	return e
})

// tail is what a file has behind its frames.
func (st *store) tail(s *script) {
	f := st.framed[pick(s, st.framed)]
	if f == nil {
		return
	}
	switch s.next() % 4 {
	case 0:
		f.behind = make([]byte, 600)
	case 1: // the tag, again and again
		_, tag := bind(f.head[:])
		f.behind = bytes.Repeat(le.AppendUint32(nil, tag), 1<<10)
	case 2:
		f.behind = bytes.Repeat([]byte{s.next()}, 1+int(s.next()))
	case 3:
		f.cut = s.n(4096)
	}
}
