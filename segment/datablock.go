package segment

import (
	"bytes"
	"encoding/binary"
	"slices"
	"sort"

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
}

func (d *dataBuilder) reset() {
	if cap(d.buf) > maxKeptBuffer {
		d.buf = nil // a single large value does not keep its memory for ever
	}
	d.buf, d.restarts, d.n = d.buf[:0], d.restarts[:0], 0
}

// size is the length of the payload if the block ended here.
func (d *dataBuilder) size() int { return len(d.buf) + 4*len(d.restarts) + 4 }

// add appends an entry that follows one with key prev. The first of a block
// fixes its base LSN.
func (d *dataBuilder) add(prev, key []byte, lsn base.LSN, kind base.Kind, value []byte) {
	if d.n == 0 {
		d.base = lsn
		d.buf = binary.LittleEndian.AppendUint64(d.buf, lsn)
	}
	shared := 0
	if d.n%restartEvery == 0 {
		d.restarts = append(d.restarts, uint32(len(d.buf)))
	} else {
		shared = commonPrefix(prev, key)
	}
	b := slices.Grow(d.buf, len(key)-shared+len(value)+entryRoom)
	b = binary.AppendUvarint(b, uint64(shared))
	b = binary.AppendUvarint(b, uint64(len(key)-shared))
	b = binary.AppendUvarint(b, uint64(len(value))<<kindBits|uint64(kind))
	b = binary.AppendUvarint(b, zigzag(lsn-d.base))
	b = append(b, key[shared:]...)
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

// zigzag maps a difference modulo 2^64 to a number that is small when the
// difference is, in either direction.
func zigzag(d uint64) uint64   { return d<<1 ^ uint64(int64(d)>>63) }
func unzigzag(z uint64) uint64 { return z>>1 ^ -(z & 1) }

func commonPrefix(a, b []byte) int {
	n := min(len(a), len(b))
	i := 0
	for ; i+8 <= n; i += 8 {
		if binary.LittleEndian.Uint64(a[i:]) != binary.LittleEndian.Uint64(b[i:]) {
			break
		}
	}
	for i < n && a[i] == b[i] {
		i++
	}
	return i
}

// blockIter stands in one data block. It holds no memory of its own but the key
// and, going backwards, one interval between restart points. The payload has
// been verified, but it may have been written by an adversary: each length is
// checked, and what does not hold sets bad, which the caller turns into an error.
type blockIter struct {
	data     []byte // the payload up to the restart points
	restarts []byte
	base     uint64
	valid    bool
	bad      bool

	off, next int // where the entry begins and where the next one does
	key       []byte
	value     []byte
	lsn       base.LSN
	kind      base.Kind

	// Going backwards: the entries of one interval up to the present one.
	back    []backEntry
	backKey []byte
}

// backEntry is one decoded entry; its key is backKey[keyStart:keyEnd].
type backEntry struct {
	off, next, keyStart, keyEnd int
	value                       []byte
	lsn                         base.LSN
	kind                        base.Kind
}

// init points the iterator at a payload and keeps its buffers.
func (b *blockIter) init(payload []byte) bool {
	b.valid, b.bad, b.back = false, true, b.back[:0]
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

func (b *blockIter) numRestarts() int { return len(b.restarts) / 4 }

func (b *blockIter) restart(i int) int {
	return int(binary.LittleEndian.Uint32(b.restarts[4*i:]))
}

// fail leaves the iterator nowhere, with bad set.
func (b *blockIter) fail() bool {
	b.valid, b.bad = false, true
	return false
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

// decode reads the entry at off. Its key shares bytes with b.key.
func (b *blockIter) decode(off int) bool {
	data := b.data
	shared, p := uvarint(data, off)
	unshared, p := uvarint(data, p)
	tag, p := uvarint(data, p)
	z, p := uvarint(data, p)
	if p < 0 {
		return b.fail()
	}
	left := uint64(len(data) - p)
	vlen := tag >> kindBits
	if shared > uint64(len(b.key)) || unshared > left || vlen > left-unshared ||
		shared+unshared == 0 || shared+unshared > base.MaxKeySize {
		return b.fail()
	}
	b.kind = base.Kind(tag & (1<<kindBits - 1))
	if b.kind != base.KindPut && b.kind != base.KindDelete {
		return b.fail()
	}
	mid := p + int(unshared)
	end := mid + int(vlen)
	b.key = append(b.key[:shared], data[p:mid]...)
	b.value = data[mid:end:end]
	b.lsn = b.base + unzigzag(z)
	b.off, b.next = off, end
	b.valid = true
	return true
}

// forward decodes the entry at next, or ends.
func (b *blockIter) forward() bool {
	if b.next >= len(b.data) {
		b.valid = false
		return false
	}
	return b.decode(b.next)
}

func (b *blockIter) first() bool {
	b.back, b.key, b.next = b.back[:0], b.key[:0], 8
	return b.forward()
}

func (b *blockIter) nextEntry() bool {
	b.back = b.back[:0]
	return b.forward()
}

// restartKey returns the key and LSN of restart point i, without moving.
func (b *blockIter) restartKey(i int) (key []byte, lsn base.LSN, ok bool) {
	off := b.restart(i)
	if off < 8 {
		return nil, 0, false
	}
	shared, p := uvarint(b.data, off)
	unshared, p := uvarint(b.data, p)
	_, p = uvarint(b.data, p)
	z, p := uvarint(b.data, p)
	if p < 0 || shared != 0 || unshared > uint64(len(b.data)-p) {
		return nil, 0, false
	}
	return b.data[p : p+int(unshared)], b.base + unzigzag(z), true
}

// findRestart returns the last restart point whose version is before (key, lsn),
// or 0 if there is none.
func (b *blockIter) findRestart(key []byte, lsn base.LSN) (int, bool) {
	lo, hi := 0, b.numRestarts() // all up to lo are before, none from hi on
	for hi-lo > 1 {
		mid := int(uint(lo+hi) / 2)
		k, l, ok := b.restartKey(mid)
		if !ok {
			return 0, b.fail()
		}
		if base.Compare(k, l, key, lsn) < 0 {
			lo = mid
		} else {
			hi = mid
		}
	}
	return lo, true
}

// seekGE moves to the first version at or after (key, lsn).
func (b *blockIter) seekGE(key []byte, lsn base.LSN) bool {
	r, ok := b.findRestart(key, lsn)
	if !ok {
		return false
	}
	b.back, b.key, b.next = b.back[:0], b.key[:0], b.restart(r)
	if b.next < 8 {
		return b.fail()
	}
	for n := 0; b.forward(); n++ {
		if n > restartEvery {
			return b.fail() // the next restart point would have come by now
		}
		// This is base.Compare, written out: it is the inner loop of a read.
		c := bytes.Compare(b.key, key)
		if c > 0 || c == 0 && b.lsn <= lsn {
			return true
		}
	}
	return false
}

// seekLT moves to the last version before (key, lsn).
func (b *blockIter) seekLT(key []byte, lsn base.LSN) bool {
	r, ok := b.findRestart(key, lsn)
	if !ok || !b.fill(r, len(b.data)) {
		return false
	}
	n := sort.Search(len(b.back), func(i int) bool {
		e := &b.back[i]
		return base.Compare(b.backKey[e.keyStart:e.keyEnd], e.lsn, key, lsn) >= 0
	})
	b.back = b.back[:n]
	return b.takeBack()
}

func (b *blockIter) last() bool {
	return b.fill(b.numRestarts()-1, len(b.data)) && b.takeBack()
}

// prevEntry moves one entry back.
func (b *blockIter) prevEntry() bool {
	if !b.valid {
		return false
	}
	if len(b.back) > 1 {
		b.back = b.back[:len(b.back)-1]
		return b.takeBack()
	}
	if b.off <= 8 {
		b.valid = false
		return false
	}
	at := b.off
	r := sort.Search(b.numRestarts(), func(i int) bool { return b.restart(i) >= at }) - 1
	if r < 0 {
		return b.fail()
	}
	return b.fill(r, at) && b.takeBack()
}

// fill decodes the interval from restart point r to the next one, or to limit
// if that comes first, into back.
func (b *blockIter) fill(r, limit int) bool {
	b.back, b.backKey, b.key = b.back[:0], b.backKey[:0], b.key[:0]
	if r+1 < b.numRestarts() {
		limit = min(limit, b.restart(r+1))
	}
	b.next = b.restart(r)
	if b.next < 8 {
		return b.fail()
	}
	for b.next < limit {
		if len(b.back) == restartEvery {
			return b.fail() // also bounds what backKey takes
		}
		if !b.decode(b.next) {
			return false
		}
		start := len(b.backKey)
		b.backKey = append(b.backKey, b.key...)
		b.back = append(b.back, backEntry{b.off, b.next, start, len(b.backKey), b.value, b.lsn, b.kind})
	}
	if len(b.back) == 0 {
		return b.fail()
	}
	return true
}

// takeBack stands on the last entry of back.
func (b *blockIter) takeBack() bool {
	n := len(b.back)
	if n == 0 {
		b.valid = false
		return false
	}
	e := &b.back[n-1]
	b.off, b.next, b.value, b.lsn, b.kind = e.off, e.next, e.value, e.lsn, e.kind
	b.key = append(b.key[:0], b.backKey[e.keyStart:e.keyEnd]...)
	b.valid = true
	return true
}
