package segment

import (
	"bytes"
	"context"
	"encoding/binary"
	"slices"

	"github.com/cespare/xxhash/v2"

	"github.com/forebaydb/forebay/internal/base"
	"github.com/forebaydb/forebay/internal/rangedel"
)

// unfinished surveys a file without a footer: it was cut off, or never written
// to its end, or the footer is damaged.
func (v *surveyor) unfinished() {
	size, from := v.m.size, uint64(0)
	blocks := v.walk(0, size)
	var last found
	if n := len(blocks); n > 0 {
		last = blocks[n-1]
	}
	body := size // where the footer begins, if it is what is left
	if size-last.end() == footerSize {
		body = last.end()
	}
	what := "unknown"
	if i := slices.IndexFunc(blocks, func(b found) bool { return b.kind == kindIndex }); i >= 0 {
		if x := v.indexIn(blocks[i]); x != nil {
			if what = "range deletes"; size >= footerSize && last.end() <= size-footerSize {
				body = size - footerSize
			}
			v.indexed(x)
			at := blocks[i].off
			blocks = slices.DeleteFunc(blocks, func(b found) bool { return b.off < x.end })
			v.take(slices.DeleteFunc(slices.Clone(blocks), func(b found) bool { return b.off >= at }), x.end, at, "filter")
			blocks, from = slices.DeleteFunc(blocks, func(b found) bool { return b.off < at }), at
		}
	}
	v.take(blocks, from, body, what)
	var dels []base.RangeDelete
	for _, b := range blocks {
		if b.kind != kindDels {
			continue
		}
		payload, _, err := v.r.load(b.off, b.n, kindDels, nil, true)
		if err == nil {
			some, reason := decodeDels(payload)
			if dels = append(dels, some...); reason != "" {
				err = v.r.corrupt(b.off, reason, nil)
			}
		}
		if err != nil {
			v.lose(b.off, b.n, "range deletes", err)
		}
	}
	v.m.Dels = rangedel.New(dels)
	if last.kind == kindProps || last.end() < body { // what was there is told
		what = "footer"
	}
	p := v.lose(body, size-body, what, v.footErr)
	if what == "unknown" && v.m.Count > 0 { // The file was cut where a block ended.
		p.Lo = bytes.Clone(v.lastKey)
	}
}

// indexIn decodes an index that was found, nil when it does not hold together.
// That it covers the data is known of its own lengths alone.
func (v *surveyor) indexIn(b found) *index {
	payload, _, err := v.r.load(b.off, b.n, kindIndex, nil, true)
	if err != nil || len(payload) < 4 {
		return nil
	}
	var sum uint64
	for p, i := 4, binary.LittleEndian.Uint32(payload); i > 0; i-- {
		var n, key uint64
		n, p = uvarint(payload, p)
		key, p = uvarint(payload, p)
		_, p = uvarint(payload, p)
		if p < 0 || key > uint64(len(payload)-p) || n > b.off-sum {
			return nil
		}
		sum, p = sum+n, p+int(key)
	}
	x, _ := decodeIndex(payload, sum)
	return x
}

// take takes in the blocks that were found between from and to, and notes what
// lies between them as lost.
func (v *surveyor) take(blocks []found, from, to uint64, what string) {
	var gap *Part // the last one, while what follows it is not known
	lose := func(off, end uint64, err error) {
		if off == end {
			return
		}
		if gap != nil {
			gap.Length = int64(end) - gap.Offset
			return
		}
		gap = v.lose(off, end-off, what, err)
		if v.m.Count > 0 && (what == "data" || what == "unknown") {
			gap.Lo = bytes.Clone(v.lastKey)
		}
	}
	at := from
	missing := func(to uint64) error { return v.r.corrupt(at, "no block verifies here", nil) }
	for _, b := range blocks {
		if v.ctx.Err() != nil {
			return
		}
		lose(at, b.off, missing(b.off))
		if at = b.end(); b.kind != kindData {
			gap = nil
			continue
		}
		if err := v.data(b.off, b.n); err != nil {
			lose(b.off, at, err)
		} else if gap != nil {
			p := v.m.blocks[len(v.m.blocks)-1]
			gap.Hi, gap = bytes.Clone(v.m.keys[p.keyAt:p.keyTo]), nil
		}
	}
	lose(at, to, missing(to))
}

// found is a block that verifies.
type found struct {
	off, n uint64
	kind   blockKind
}

func (b found) end() uint64 { return b.off + b.n }

// walk finds the blocks between from and to by their trailers.
func (v *surveyor) walk(from, to uint64) (out []found) {
	w := &walker{ctx: v.ctx, r: v.r, pos: from, to: to, budget: 16*int64(v.m.size) + 64<<20}
	for {
		b, ok := w.next()
		if !ok {
			return out
		}
		out = append(out, b)
		w.pos = b.end()
	}
}

// walker looks for blocks without knowing where they begin: at every byte it asks
// whether a trailer stands there, and then where its block begins. That is where
// the last block ended, or, when the block there is damaged, what the trailer
// says: an uncompressed payload has the length that it names, and a compressed
// one begins with what its format begins with.
type walker struct {
	ctx context.Context
	r   *Reader
	// pos is where the last block ended, to where to look.
	pos, to uint64
	// budget bounds, in bytes, what is hashed for beginnings that are guessed:
	// a file made to have many would else take for ever.
	budget int64

	buf   []byte
	bufAt uint64
	win   []byte
}

// knownMax is the longest block for which the end of the last one is tried as
// its beginning. Longer ones are not compressed, and say how long they are.
const knownMax = maxBlock

func (w *walker) next() (found, bool) {
	d, fed := xxhash.New(), w.pos // the hash of the bytes from pos to fed
	for at := w.pos; at+trailerSize <= w.to && w.ctx.Err() == nil; {
		b := w.read(at)
		for i := 0; i+trailerSize <= len(b); i++ {
			t := b[i : i+trailerSize]
			if !trailerLike(t) {
				continue
			}
			p := at + uint64(i)
			if p-w.pos <= knownMax && mayHave(t, p-w.pos) {
				_, _ = d.Write(b[fed-at : i+8])
				fed = p + 8
				if w.matches(d.Sum64(), w.pos, t) {
					return found{w.pos, p + trailerSize - w.pos, blockKind(t[0])}, true
				}
			}
			if off, ok := w.begin(p, t); ok {
				return found{off, p + trailerSize - off, blockKind(t[0])}, true
			}
		}
		end := at + uint64(len(b))
		if end == w.to {
			break
		}
		at = end - trailerSize + 1
		if fed < at && at-w.pos <= knownMax {
			_, _ = d.Write(b[uint64(len(b))-(end-fed) : uint64(len(b))-(end-at)])
			fed = at
		}
	}
	return found{}, false
}

// trailerLike says whether a block's trailer may stand in t.
func trailerLike(t []byte) bool {
	return t[2]&^flagLone|t[3] == 0 && (t[2] == 0 || t[0] == byte(kindData)) && t[0] != 0 && t[0] <= byte(kindDels) && t[0] != byte(kindFooter) && t[1] != 0 && t[1] <= byte(Zstd) &&
		(t[0] == byte(kindData) || t[1] == byte(NoCompression))
}

// between is how many bytes stand between the payload and the trailer t.
func between(t []byte) uint64 { return uint64(t[2]) * loneSize }

// mayHave says whether n bytes of a block may stand before its trailer t.
func mayHave(t []byte, n uint64) bool {
	raw := uint64(binary.LittleEndian.Uint32(t[4:]))
	if n < between(t) {
		return false
	}
	n -= between(t)
	return raw == n || t[1] != byte(NoCompression) && raw > n && raw <= maxPayload
}

// matches says whether sum is that of a block at off with the trailer t.
func (w *walker) matches(sum, off uint64, t []byte) bool {
	return sum^bind(&w.r.foot.id, off, blockKind(t[0])) == binary.LittleEndian.Uint64(t[8:])
}

// begin returns where behind pos the block begins of which t, at p, may be the
// trailer.
func (w *walker) begin(p uint64, t []byte) (uint64, bool) {
	raw := uint64(binary.LittleEndian.Uint32(t[4:])) + between(t)
	var mark []byte
	from := w.pos
	switch Compression(t[1]) {
	case NoCompression:
		if raw > p-w.pos {
			return 0, false
		}
		from = p - raw
	case S2:
		mark = binary.AppendUvarint(nil, raw-between(t))
	case Zstd:
		mark = []byte{0x28, 0xb5, 0x2f, 0xfd}
	}
	if mark != nil {
		if raw > maxPayload+between(t) {
			return 0, false
		}
		from = max(w.pos, p-min(p, raw)) // What was packed is longer than that.
	}
	if w.budget -= int64(p - from); w.budget < 0 {
		return 0, false
	}
	if mark == nil {
		sum, ok := w.hash(from, p+8)
		return from, ok && w.matches(sum, from, t)
	}
	w.win = grow(w.win, int(p+8-from))
	if w.r.readAt(w.win, from) != nil {
		return 0, false
	}
	for i := 0; ; i++ {
		j := bytes.Index(w.win[i:len(w.win)-8], mark)
		if j < 0 {
			return 0, false
		}
		i += j
		if w.budget -= int64(len(w.win) - i); w.budget < 0 {
			return 0, false
		}
		if off := from + uint64(i); w.matches(xxhash.Sum64(w.win[i:]), off, t) {
			return off, true
		}
	}
}

// hash returns the hash of the bytes from from to end.
func (w *walker) hash(from, end uint64) (uint64, bool) {
	d := xxhash.New()
	for from < end {
		w.win = grow(w.win, int(min(end-from, scanRead)))
		if w.r.readAt(w.win, from) != nil {
			return 0, false
		}
		_, _ = d.Write(w.win)
		from += uint64(len(w.win))
	}
	return d.Sum64(), true
}

// read returns the bytes from at on, at least those of a trailer. What cannot be
// read is zero.
func (w *walker) read(at uint64) []byte {
	end := w.bufAt + uint64(len(w.buf))
	if at >= w.bufAt && at < end && (end == w.to || end-at >= trailerSize) {
		return w.buf[at-w.bufAt:]
	}
	w.buf = grow(w.buf, int(min(scanRead, w.to-at)))
	w.bufAt = at
	if w.r.readAt(w.buf, at) != nil {
		clear(w.buf)
	}
	return w.buf
}
