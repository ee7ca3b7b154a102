package segment

import (
	"bytes"
	"encoding/binary"
	"slices"

	"github.com/forebaydb/forebay/internal/base"
)

// restartEvery is the number of entries from one restart point to the next.
const restartEvery = 16

// kindBits is how many low bits of an entry's tag hold the kind.
const kindBits = 3

// entryRoom is a little more than what an entry and the end of its block take
// beside the bytes of the key and the value.
const entryRoom = 48

// dataBuilder encodes one data block; see the package comment.
type dataBuilder struct {
	buf      []byte
	restarts []uint32
	n        int // entries
	base     uint64
	whole    int // length of the key at the last restart point, which ends at wholeTo
	wholeTo  int
}

func (d *dataBuilder) reset() {
	if cap(d.buf) > maxKeptBuffer {
		d.buf = nil // a single large value does not keep its memory for ever
	}
	d.buf, d.restarts, d.n = d.buf[:0], d.restarts[:0], 0
}

// size is the length of the payload if the block ended here.
func (d *dataBuilder) size() int { return len(d.buf) + 4*len(d.restarts) + 4 }

// add appends an entry. The first of a block fixes its base LSN.
func (d *dataBuilder) add(key []byte, lsn base.LSN, kind base.Kind, value []byte) {
	if d.n == 0 {
		d.base = lsn
		d.buf = binary.LittleEndian.AppendUint64(d.buf, lsn)
	}
	restart, shared := d.n%restartEvery == 0, 0
	if restart {
		d.restarts = append(d.restarts, uint32(len(d.buf)))
	} else {
		shared = base.CommonPrefix(d.buf[d.wholeTo-d.whole:d.wholeTo], key)
	}
	b := slices.Grow(d.buf, len(key)-shared+len(value)+entryRoom)
	b = binary.AppendUvarint(b, uint64(shared))
	b = binary.AppendUvarint(b, uint64(len(key)-shared))
	b = binary.AppendUvarint(b, uint64(len(value))<<kindBits|uint64(kind))
	b = binary.AppendUvarint(b, zigzag(lsn-d.base))
	b = append(b, key[shared:]...)
	if restart {
		d.whole, d.wholeTo = len(key), len(b)
	}
	d.buf = append(b, value...)
	d.n++
}

// finish appends the restart points and returns the payload, which stays valid
// until the next reset.
func (d *dataBuilder) finish() []byte {
	for _, r := range d.restarts {
		d.buf = binary.LittleEndian.AppendUint32(d.buf, r)
	}
	d.buf = binary.LittleEndian.AppendUint32(d.buf, uint32(len(d.restarts)))
	return d.buf
}

// openLone takes apart a lone block that was verified. If it was unbound, t has its hash.
// valueLen is that of its version, which has that key and LSN.
func openLone(block, key []byte, lsn base.LSN) (payload []byte, t trailer, valueLen int, ok bool) {
	n := len(block) - trailerSize - loneSize
	if n <= 0 || block[n+loneSize] != byte(kindData) || block[n+loneSize+2] != flagLone ||
		binary.LittleEndian.Uint64(block[n:]) != lsn {
		return nil, t, 0, false
	}
	t = trailer{comp: Compression(block[n+loneSize+1]), rawLen: int(binary.LittleEndian.Uint32(block[n+loneSize+4:])), lone: true,
		hash: binary.LittleEndian.Uint64(block[len(block)-8:]), hashed: true}
	valueLen, ok = loneValue(t.rawLen, len(key))
	ok = ok && (t.comp == S2 || t.comp == Zstd || t.comp == NoCompression && t.rawLen == n)
	return block[:n:n], t, valueLen, ok
}

// loneValue returns how long the value is in a payload of rawLen bytes with one put
// whose key has keyLen bytes: all else in it has a length that these tell.
func loneValue(rawLen, keyLen int) (int, bool) {
	var b [binary.MaxVarintLen64]byte
	// base LSN, shared, unshared, LSN, key, one restart point, and their count
	rest := rawLen - 8 - 1 - binary.PutUvarint(b[:], uint64(keyLen)) - 1 - keyLen - 4 - 4
	for tag := 1; tag <= 5 && tag <= rest; tag++ {
		if n := rest - tag; n <= base.MaxValueSize && binary.PutUvarint(b[:], uint64(n)<<kindBits|uint64(base.KindPut)) == tag {
			return n, true
		}
	}
	return 0, false
}

// zigzag maps a difference modulo 2^64 to a number that is small when the
// difference is, in either direction.
func zigzag(d uint64) uint64   { return d<<1 ^ uint64(int64(d)>>63) }
func unzigzag(z uint64) uint64 { return z>>1 ^ -(z & 1) }

// entryHead is what stands before the bytes of an entry. Its own bytes of the key are
// data[key:val], the value is data[val:end].
type entryHead struct {
	off, key, val, end int
	shared             int
	z                  uint64 // of the LSN
	kind               base.Kind
}

// decodeHead decodes the entry at off. The payload has been verified, but it may
// have been written by an adversary: each length is checked.
func decodeHead(data []byte, off int) (h entryHead, ok bool) {
	shared, unshared, tag, z, p := decodeFields(data, off)
	if p < 0 {
		return h, false
	}
	left := uint64(len(data) - p)
	vlen := tag >> kindBits
	h.kind = base.Kind(tag & (1<<kindBits - 1))
	if unshared > left || vlen > left-unshared || shared > base.MaxKeySize || shared+unshared-1 >= base.MaxKeySize ||
		h.kind != base.KindPut && h.kind != base.KindDelete {
		return h, false
	}
	h.off, h.shared, h.z = off, int(shared), z
	h.key, h.val = p, p+int(unshared)
	h.end = h.val + int(vlen)
	return h, true
}

// decodeFields reads the four numbers at off, and where they end, which is negative
// when it cannot. Nearly all entries have lengths below 128, a tag of one byte or
// two, an LSN of up to four, and room behind them to read whole words.
func decodeFields(data []byte, off int) (shared, unshared, tag, z uint64, p int) {
	if uint(off)+16 > uint(len(data)) {
		return decodeLong(data, off)
	}
	w := binary.LittleEndian.Uint64(data[off:])
	shared, unshared, tag = w&0x7f, w>>8&0x7f, w>>16&0x7f
	p = off + 3
	if w&0x808080 != 0 {
		if w&0x80008080 != 0 {
			return decodeLong(data, off)
		}
		tag |= w >> 17 & (0x7f << 7)
		p++
	}
	w = binary.LittleEndian.Uint64(data[p:])
	z = w & 0x7f
	if w&0x80 == 0 {
		return shared, unshared, tag, z, p + 1
	}
	z |= w >> 1 & (0x7f << 7)
	if w&0x8000 == 0 {
		return shared, unshared, tag, z, p + 2
	}
	z |= w >> 2 & (0x7f << 14)
	if w&0x800000 == 0 {
		return shared, unshared, tag, z, p + 3
	}
	z |= w >> 3 & (0x7f << 21)
	if w&0x80000000 == 0 {
		return shared, unshared, tag, z, p + 4
	}
	return decodeLong(data, off)
}

func decodeLong(data []byte, off int) (shared, unshared, tag, z uint64, p int) {
	shared, p = uvarint(data, off)
	unshared, p = uvarint(data, p)
	tag, p = uvarint(data, p)
	z, p = uvarint(data, p)
	return shared, unshared, tag, z, p
}

// uvarint reads one at data[p:]; the next place is negative when it cannot.
func uvarint(data []byte, p int) (uint64, int) {
	if uint(p) < uint(len(data)) && data[p] < 0x80 {
		return uint64(data[p]), p + 1
	}
	return uvarintLong(data, p)
}

func uvarintLong(data []byte, p int) (uint64, int) {
	if p < 0 || p >= len(data) {
		return 0, -1
	}
	v, n := binary.Uvarint(data[p:])
	if n <= 0 {
		return 0, -1
	}
	return v, p + n
}

// blockIter stands in one data block. It holds no memory of its own but the key
// and, going backwards, the places of one interval between restart points. What
// does not hold together in the block sets bad, which the caller turns into an
// error.
type blockIter struct {
	held     *cachedBlock // in which it is, nil: in none
	dir      *directory   // nil: there is none
	data     []byte       // the payload up to the restart points, or the directory's area
	restarts []byte
	base     uint64
	valid    bool
	bad      bool

	n     int    // which entry of the block it is, from 0
	off   int    // where it begins; with a directory nothing
	next  int    // where the next one does; with a directory nothing
	key   []byte // in room, or in the block
	room  []byte // of its own
	value []byte
	lsn   base.LSN
	kind  base.Kind

	whole []byte // the key of the restart point before, of which the keys share
	same  int    // leading bytes of key that are those of whole

	// Going backwards: the entries of one interval up to the present one.
	back []entryHead

	// Of the last run: where its entries are, the keys that are not in the block
	// in one piece, and its direction.
	*runRoom // nil until there was a run
	runsBack bool
	foreseen bool   // the next block was asked for
	ahead    []byte // what is still to be prefetched of it
}

// runRoom is memory for a run, which one iterator leaves to the next.
type runRoom struct {
	places []int
	keys   []byte
}

// hold takes over a cached block, which is released when another is held. What the
// iterator has shown of the one before is not good any more.
func (b *blockIter) hold(c *cachedBlock) {
	b.held.Release()
	b.held = c
}

// init points the iterator at a payload and keeps its buffers.
func (b *blockIter) init(payload []byte) bool {
	b.valid, b.bad, b.back, b.dir = false, true, b.back[:0], nil
	b.off, b.next = 0, 0
	n := len(payload) - 4
	if n <= 8 {
		return false
	}
	count := int(binary.LittleEndian.Uint32(payload[n:]))
	if count < 1 || count > (n-9)/4 {
		return false
	}
	end := n - 4*count
	b.restarts = payload[end:n]
	b.data = payload[:end:end]
	b.base = binary.LittleEndian.Uint64(payload)
	if b.restart(0) != 8 {
		return false
	}
	b.bad = false
	return true
}

// initBy is init for a block that has a directory, and so was walked: it looks at
// nothing of it.
func (b *blockIter) initBy(d *directory) {
	b.valid, b.bad, b.back, b.dir = false, false, b.back[:0], d
	b.foreseen, b.ahead = false, nil
	b.data, b.restarts = d.b[d.area:], nil
}

// initLone is init for a block of one put that stays packed.
func (b *blockIter) initLone(key []byte, lsn base.LSN, block []byte) {
	b.valid, b.bad, b.back, b.dir = false, false, b.back[:0], nil
	b.data, b.restarts, b.n, b.off, b.next = nil, nil, 0, 0, 0
	b.key, b.lsn, b.kind, b.value = key, lsn, base.KindPacked, block
}

func (b *blockIter) numRestarts() int { return len(b.restarts) / 4 }

func (b *blockIter) restart(i int) int {
	return int(binary.LittleEndian.Uint32(b.restarts[4*i:]))
}

// fail leaves the iterator nowhere, with bad set.
func (b *blockIter) fail() bool {
	b.valid, b.bad = false, true
	return false
}

// restartHead decodes restart point i: its key is whole.
func (b *blockIter) restartHead(i int) (h entryHead, ok bool) {
	off := b.restart(i)
	if off < 8 {
		return h, false
	}
	h, ok = decodeHead(b.data, off)
	return h, ok && h.shared == 0
}

// take stands on entry n. b.whole is that of the restart point before, unless it
// is one itself.
func (b *blockIter) take(n int, h *entryHead) bool {
	own := b.data[h.key:h.val]
	switch {
	case n%restartEvery == 0:
		if !b.restartsAt(n, h) {
			return b.fail()
		}
		b.whole, b.same = own, len(own)
		b.room = append(b.room[:0], own...)
	case h.shared <= b.same:
		b.room = append(b.room[:h.shared], own...)
		b.same = h.shared
	case h.shared <= len(b.whole):
		b.room = append(append(b.room[:b.same], b.whole[b.same:h.shared]...), own...)
		b.same = h.shared
	default:
		return b.fail()
	}
	b.key = b.room
	b.value = b.data[h.val:h.end:h.end]
	b.lsn, b.kind = b.base+unzigzag(h.z), h.kind
	b.n, b.off, b.next = n, h.off, h.end
	b.valid = true
	return true
}

// at decodes entry n at off and stands on it.
func (b *blockIter) at(n, off int) bool {
	if off >= len(b.data) {
		b.valid = false
		return false
	}
	h, ok := decodeHead(b.data, off)
	if !ok {
		return b.fail()
	}
	return b.take(n, &h)
}

func (b *blockIter) first() bool {
	b.back = b.back[:0]
	if b.dir != nil {
		return b.reach(0)
	}
	return b.at(0, 8)
}

func (b *blockIter) nextEntry() bool {
	b.back = b.back[:0]
	if b.dir != nil {
		return b.reach(b.n + 1)
	}
	return b.at(b.n+1, b.next)
}

// findRestart returns the last restart point whose version is before (key, lsn),
// or 0 if there is none.
func (b *blockIter) findRestart(key []byte, lsn base.LSN) (int, bool) {
	lo, hi := 0, b.numRestarts() // all up to lo are before, none from hi on
	for hi-lo > 1 {
		mid := int(uint(lo+hi) / 2)
		h, ok := b.restartHead(mid)
		if !ok {
			return 0, b.fail()
		}
		if base.Compare(b.data[h.key:h.val], b.base+unzigzag(h.z), key, lsn) < 0 {
			lo = mid
		} else {
			hi = mid
		}
	}
	return lo, true
}

// search finds the first version at or after (key, lsn): its number, -1 when there
// is none, and whether it is one of key. b.whole is then that of the restart point
// before, and b.key is not touched.
//
// It builds no key. common is how many bytes key shares with the restart point,
// and what an entry shares with it decides most comparisons:
//
//	shared > common  it differs from key where the restart point does
//	shared < common  it rose at a byte that the restart point has from key: after
//	shared = common  compare the bytes that follow
func (b *blockIter) search(key []byte, lsn base.LSN) (n int, h entryHead, of, ok bool) {
	r, ok := b.findRestart(key, lsn)
	if !ok {
		return -1, h, false, false
	}
	if h, ok = b.restartHead(r); !ok {
		return -1, h, false, b.fail()
	}
	end := len(b.data)
	if r+1 < b.numRestarts() {
		end = b.restart(r + 1)
	}
	b.whole, b.same = b.data[h.key:h.val], 0
	common := base.CommonPrefix(b.whole, key)
	first := bytes.Compare(b.whole[common:], key[common:])
	c := first
	for n = r * restartEvery; ; {
		if c > 0 || c == 0 && b.base+unzigzag(h.z) <= lsn {
			return n, h, c == 0, true
		}
		if n++; h.end >= end || n%restartEvery == 0 {
			break
		}
		if h, ok = decodeHead(b.data, h.end); !ok || h.shared > len(b.whole) {
			return -1, h, false, b.fail()
		}
		switch {
		case h.shared > common:
			c = first
		case h.shared < common:
			c = 1
		default:
			c = bytes.Compare(b.data[h.key:h.val], key[common:])
		}
	}
	switch {
	case h.end != end:
		return -1, h, false, b.fail() // the next restart point would have come by now
	case end == len(b.data):
		return -1, h, false, true
	}
	if h, ok = b.restartHead(r + 1); !ok {
		return -1, h, false, b.fail()
	}
	return (r + 1) * restartEvery, h, bytes.Equal(b.data[h.key:h.val], key), true
}

// seekGE moves to the first version at or after (key, lsn).
func (b *blockIter) seekGE(key []byte, lsn base.LSN) bool {
	b.back, b.valid = b.back[:0], false
	if b.dir != nil {
		return b.reach(b.dir.search(key, lsn))
	}
	n, h, _, ok := b.search(key, lsn)
	return ok && n >= 0 && b.take(n, &h)
}

// seekLT moves to the last version before (key, lsn).
func (b *blockIter) seekLT(key []byte, lsn base.LSN) bool {
	b.back, b.valid = b.back[:0], false
	if b.dir != nil {
		return b.reach(b.dir.search(key, lsn) - 1)
	}
	switch n, _, _, ok := b.search(key, lsn); {
	case !ok || n == 0:
		return false
	case n < 0:
		return b.last()
	default:
		return b.before(n)
	}
}

// reach stands on entry n by the directory, if there is one of that number.
func (b *blockIter) reach(n int) bool {
	d := b.dir
	if b.valid = n >= 0 && n < int(d.n); !b.valid {
		return false
	}
	e := d.entryAt(d.entry(n))
	if b.key = e.own; d.lead > 0 {
		b.room = append(append(b.room[:0], d.b[:d.lead]...), e.own...)
		b.key = b.room
	}
	b.value, b.lsn, b.kind, b.n = e.value, e.lsn, e.kind, n
	return true
}

func (b *blockIter) last() bool {
	if b.dir != nil {
		return b.reach(int(b.dir.n) - 1)
	}
	return b.fill(b.numRestarts()-1, restartEvery) && b.takeBack()
}

// before moves to the entry before number n, which is not 0.
func (b *blockIter) before(n int) bool {
	r := (n - 1) / restartEvery
	return b.fill(r, n-r*restartEvery) && b.takeBack()
}

// prevEntry moves one entry back.
func (b *blockIter) prevEntry() bool {
	switch {
	case !b.valid:
		return false
	case b.dir != nil:
		return b.reach(b.n - 1)
	case len(b.back) > 1:
		b.back = b.back[:len(b.back)-1]
		return b.takeBack()
	case b.n == 0:
		b.valid = false
		return false
	}
	return b.before(b.n)
}

// fill decodes the first most entries from restart point r on into back, or those
// up to the next restart point or the end, if there are not so many.
func (b *blockIter) fill(r, most int) bool {
	b.back = b.back[:0]
	end := len(b.data)
	if r+1 < b.numRestarts() {
		end = b.restart(r + 1)
	}
	h, ok := b.restartHead(r)
	for ; ok; h, ok = decodeHead(b.data, h.end) {
		if len(b.back) == 0 {
			b.whole, b.same = b.data[h.key:h.val], 0
		}
		if b.back = append(b.back, h); len(b.back) == most || h.end >= end {
			b.n = r*restartEvery + len(b.back)
			if len(b.back) == restartEvery && h.end < end {
				return b.fail() // the next restart point would have come by now
			}
			return true
		}
	}
	return b.fail()
}

// takeBack stands on the last entry of back, which is the one before the present
// one.
func (b *blockIter) takeBack() bool {
	return b.take(b.n-1, &b.back[len(b.back)-1])
}
