package adversary

import (
	"encoding/binary"
	"maps"
	"slices"
	"strings"

	"github.com/cespare/xxhash/v2"

	"github.com/forebaydb/forebay/manifest"
	"github.com/forebaydb/forebay/segment"
	"github.com/forebaydb/forebay/wal"
	"github.com/forebaydb/forebay/wal/frame"
)

// This file writes docs/format.md a second time, without a rule: any number may
// stand in any field, and every checksum is made right.

var le = binary.LittleEndian

// A store is a directory, taken apart.
type store struct {
	framed map[string]*framed // log files, manifests, catalogs
	segs   map[string][]byte
	other  map[string][]byte
}

// framed is a file of frames.
type framed struct {
	head   [frame.HeaderSize]byte
	frames []*sealed
	behind []byte // what follows the last frame
	cut    int    // bytes that are missing at the end
}

// sealed is a frame as it stands in the file, but for what follows from the rest.
type sealed struct {
	kind, flags     byte
	raw, count      uint32
	first, durable  uint64
	lie             uint32 // is added to the stored length
	chain           uint64 // is added to the hash of the frame before
	payload         []byte
	offset, closing uint64 // of when it was written last
}

func start(head []byte) int {
	if head[11] == 12 {
		return frame.BlockAlign
	}
	return frame.HeaderSize
}

func align(n, to int) int { return (n + to - 1) &^ (to - 1) }

// takeApart takes a directory apart.
func takeApart(files map[string][]byte) *store {
	s := &store{framed: map[string]*framed{}, segs: map[string][]byte{}, other: map[string][]byte{}}
	for name, b := range files {
		_, isLog := wal.ParseFileName(name)
		_, isSegment := segment.ParseFileName(name)
		isList := strings.HasPrefix(name, "MANIFEST-") || strings.HasPrefix(name, "CATALOG-")
		switch {
		case isSegment:
			s.segs[name] = slices.Clone(b)
		case (isLog || isList) && len(b) >= frame.HeaderSize:
			s.framed[name] = frames(b)
		default:
			s.other[name] = slices.Clone(b)
		}
	}
	return s
}

func frames(b []byte) *framed {
	f := &framed{}
	copy(f.head[:], b)
	_, tag := bind(f.head[:])
	off := start(f.head[:])
	for off+frame.FrameOverhead <= len(b) && le.Uint32(b[off:]) == tag {
		h := b[off:]
		n := int(le.Uint32(h[8:]))
		if off+frame.FrameOverhead+n > len(b) {
			break
		}
		f.frames = append(f.frames, &sealed{
			kind: h[4], flags: h[5], raw: le.Uint32(h[12:]), count: le.Uint32(h[16:]), first: le.Uint64(h[24:]), durable: le.Uint64(h[32:]),
			payload: slices.Clone(h[frame.FrameHeaderSize:][:n]),
		})
		off = f.after(off+frame.FrameOverhead+n, h[5])
	}
	return f
}

// after returns where the frame behind one that ends at end begins.
func (f *framed) after(end int, flags byte) int {
	if flags&byte(frame.FlagGroupEnd) != 0 && f.head[11] == 12 {
		return align(end, frame.BlockAlign)
	}
	return align(end, frame.FrameAlign)
}

// bind returns what ties frames to their file.
func bind(head []byte) (hash uint64, tag uint32) {
	hash = xxhash.Sum64(head[20:60])
	b := le.AppendUint64(nil, hash)
	return hash, uint32(xxhash.Sum64(append(b, "tag"...))) | 1
}

// bytes writes the file, and seals it.
func (f *framed) bytes() []byte {
	le.PutUint64(f.head[frame.HeaderSize-8:], xxhash.Sum64(f.head[:frame.HeaderSize-8]))
	out := make([]byte, start(f.head[:]), 64<<10)
	copy(out, f.head[:])
	hash, tag := bind(f.head[:])
	prev := uint64(0)
	for _, s := range f.frames {
		off := len(out)
		h := make([]byte, frame.FrameHeaderSize)
		le.PutUint32(h, tag)
		h[4], h[5] = s.kind, s.flags
		le.PutUint32(h[8:], uint32(len(s.payload))+s.lie)
		le.PutUint32(h[12:], s.raw)
		le.PutUint32(h[16:], s.count)
		le.PutUint64(h[24:], s.first)
		le.PutUint64(h[32:], s.durable)
		le.PutUint64(h[40:], prev+s.chain)
		sum := xxhash.Sum64(le.AppendUint64(le.AppendUint64(slices.Clone(h[:48]), hash), uint64(off)))
		le.PutUint64(h[48:], sum)
		prev = xxhash.Sum64(le.AppendUint64(le.AppendUint64(nil, xxhash.Sum64(s.payload)), sum))
		s.offset, s.closing = uint64(off), prev
		out = append(append(out, h...), s.payload...)
		out = le.AppendUint64(out, prev)
		out = append(out, make([]byte, f.after(len(out), s.flags)-len(out))...)
	}
	out = append(out, f.behind...)
	return out[:max(0, len(out)-f.cut)]
}

// put writes the directory.
func (s *store) put() map[string][]byte {
	out := maps.Clone(s.other)
	for name, b := range s.segs {
		out[name] = b
	}
	for name, f := range s.framed {
		out[name] = f.bytes()
	}
	return out
}

// size is how many bytes the directory has when all that is compressed in it is
// unpacked, as far as the headers say: what a reader may need room for.
func (s *store) size() (n int64) {
	for _, b := range s.segs {
		n += int64(len(b))
		eachBlock(b, func(_ uint64, _ byte, k []byte) { n += int64(min(le.Uint32(k[len(k)-12:]), 34<<20)) })
	}
	for _, f := range s.framed {
		n += int64(len(f.bytes()))
		for _, fr := range f.frames {
			if fr.flags&3 != 0 {
				n += int64(min(fr.raw, frame.MaxBigPayload))
			}
		}
	}
	for _, b := range s.other {
		n += int64(len(b))
	}
	return n
}

const (
	footer  = 128
	trailer = 16
)

// eachBlock calls fn for the blocks of a segment, as far as footer and index
// lead. A block comes with its trailer.
func eachBlock(b []byte, fn func(off uint64, kind byte, k []byte)) {
	if len(b) < footer {
		return
	}
	f := b[len(b)-footer:]
	at, size := uint64(0), uint64(len(b)-footer)
	block := func(kind byte, n uint64) []byte {
		if n < trailer || n > size || at > size-n {
			return nil
		}
		k := b[at:][:n]
		fn(at, kind, k)
		at += n
		return k
	}
	data, filter, index := le.Uint64(f[56:]), le.Uint64(f[64:]), le.Uint64(f[72:])
	if data > size || filter > size || index > size || data+filter+index > size {
		return
	}
	page := uint64(le.Uint32(f[96:])) + trailer
	at = data
	for filter > 0 && at+page <= data+filter && page < 1<<16 && block(2, page) != nil {
	}
	at = data + filter
	x := block(3, index)
	block(6, le.Uint64(f[104:]))
	block(4, size-at)
	if len(x) < trailer+4 {
		return
	}
	x = x[4 : len(x)-trailer]
	for at = 0; len(x) > 0 && at < data; {
		var v [3]uint64
		for i := range v {
			n := 0
			if v[i], n = binary.Uvarint(x); n <= 0 {
				return
			}
			x = x[n:]
		}
		if v[1] > uint64(len(x)) || block(1, v[0]) == nil {
			return
		}
		x = x[v[1]:]
	}
}

// sealSegment makes all checksums of a segment right.
func sealSegment(b []byte) {
	if len(b) < footer {
		return
	}
	f := b[len(b)-footer:]
	bound := func(off uint64, kind byte) uint64 {
		x := append(slices.Clone(f[24:40]), f[40:48]...)
		return xxhash.Sum64(le.AppendUint64(le.AppendUint64(x, off), uint64(kind)))
	}
	le.PutUint64(f[48:], uint64(len(b)))
	sums := map[uint64][]byte{}
	eachBlock(b, func(off uint64, kind byte, k []byte) {
		t := k[len(k)-trailer:]
		if t[0] = kind; t[1] == 1 {
			le.PutUint32(t[4:], uint32(len(k)-trailer))
		}
		le.PutUint64(t[8:], xxhash.Sum64(k[:len(k)-8])^bound(off, kind))
		sums[off] = t[8:]
	})
	var all []byte
	for _, off := range slices.Sorted(maps.Keys(sums)) {
		all = append(all, sums[off]...)
	}
	le.PutUint64(f[88:], xxhash.Sum64(all))
	le.PutUint64(f[120:], xxhash.Sum64(f[:120])^bound(uint64(len(b)-footer), 5))
}

// edits calls fn for each edit of the manifests; what fn returns takes its place.
func (s *store) edits(fn func(e *manifest.Edit) *manifest.Edit) {
	for _, name := range slices.Sorted(maps.Keys(s.framed)) {
		if !strings.HasPrefix(name, "MANIFEST-") {
			continue
		}
		for _, fr := range s.framed[name].frames {
			if rec, ok := record(fr); ok {
				if e, err := manifest.DecodeEdit(rec); err == nil {
					fr.setRecord(fn(e).Append(nil))
				}
			}
		}
	}
}

// record returns the record of a frame of one that is not compressed.
func record(fr *sealed) ([]byte, bool) {
	n, w := binary.Uvarint(fr.payload)
	if fr.kind != byte(frame.KindData) || fr.count != 1 || w <= 0 {
		return nil, false
	}
	_, v := binary.Uvarint(fr.payload[w:])
	if v <= 0 || n != uint64(len(fr.payload)-w-v) {
		return nil, false
	}
	return fr.payload[w+v:], true
}

func (fr *sealed) setRecord(rec []byte) {
	b := binary.AppendUvarint(nil, uint64(len(rec)))
	fr.payload = append(append(b, 0), rec...)
	fr.flags &^= 3
	fr.raw, fr.count = uint32(len(fr.payload)), 1
}

// mend makes what one file says of another right: links name the hashes of the
// frames that they follow, and the manifest those of segments, floor and log files.
func (s *store) mend() {
	for name, b := range s.segs {
		sealSegment(b)
		s.segs[name] = b
	}
	hash := map[[2]uint64]uint64{} // file, LSN
	for _, name := range slices.Sorted(maps.Keys(s.framed)) {
		n, ok := wal.ParseFileName(name)
		f := s.framed[name]
		if !ok {
			continue
		}
		for _, fr := range f.frames {
			if fr.kind == byte(frame.KindLink) && len(fr.payload) == frame.LinkSize {
				if h := hash[[2]uint64{le.Uint64(fr.payload), le.Uint64(fr.payload[8:])}]; h != 0 {
					le.PutUint64(fr.payload[16:], h)
				}
			}
		}
		f.bytes()
		for _, fr := range f.frames {
			for i := uint64(0); i < uint64(min(fr.count, 1<<10)); i++ {
				hash[[2]uint64{n, fr.first + i}] = fr.closing
			}
		}
	}
	s.edits(func(e *manifest.Edit) *manifest.Edit {
		for i := range e.Add {
			if b := s.segs[segment.FileName(e.Add[i].Number)]; len(b) >= footer {
				e.Add[i].Size, e.Add[i].Hash = uint64(len(b)), le.Uint64(b[len(b)-8:])
			}
		}
		if l := e.Log; l != nil {
			for i := range l.Put {
				m := &l.Put[i]
				if h := hash[[2]uint64{m.Number, m.Last}]; h != 0 && m.Retained {
					m.Hash = h
				}
				if h := hash[[2]uint64{m.Number, m.CutLSN}]; h != 0 && m.Cut {
					m.CutHash = h
				}
			}
			if l.Floor != nil {
				if h := hash[[2]uint64{l.Floor.File, l.Floor.LSN}]; h != 0 {
					l.Floor.Hash = h
				}
			}
		}
		return e
	})
}
