package segment

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"math/bits"
	"sort"

	"github.com/cespare/xxhash/v2"

	"github.com/forebaydb/forebay/internal/base"
)

// directory leads into a data block that was asked for again, and so was laid out
// anew in memory: to look at the entry that is wanted and at no other, and to walk
// without decoding. A search by restart points misses the processor's cache at each
// step, and what an entry is would be known only from another one.
//
// Nothing of it changes once it is in the cache. The zero value is of a block that
// has none.
type directory struct {
	// b is
	//
	//	prefix   the shared bytes, zeros up to a multiple of 8
	//	heads    for each entry, in order, the four bytes of its key that follow
	//	         the shared ones: they decide nearly every comparison
	//	places   for each entry 2 bytes: where it is in the area
	//	table    for each of slots 4 bytes, 0 free: 16 bits of the hash of an
	//	         entry's key << 16 | the entry's place; all versions of a key in the
	//	         order of the block
	//	area     which begins 8 bytes before what is in it, so that no place is 0
	//
	// In the area are the entries: a number (see entryAt), the key without the first
	// lead bytes, the value.
	b      []byte
	base   uint64 // the least LSN
	area   uint32
	n      uint16
	slots  uint16
	shared uint16 // how many first bytes all keys have in common
	lead   uint16 // 0 or shared
	// Where in an entry's number the length of the value begins, and the LSN.
	valueAt, lsnAt uint8
}

const (
	// directoryMax is the largest payload that has a directory, and the largest area.
	directoryMax = 1 << 16
	// Keys lie whole, and need no copy when they are shown, where that takes at most
	// one of so many bytes more.
	wholeShare = 7
	// directoryMore is how much more memory an entry may take in a directory than
	// twice that in the payload: keys of which neighbours alone share much would
	// take many times as much.
	directoryMore = 64
)

// The low bits of an entry's number.
const (
	entryDeletes = 1 << iota // else it puts
	entrySame                // its key is that of the entry before it
	entryBits    = iota
)

// slotsOf is how large a table of n entries is: more than a fifth is free.
func slotsOf(n int) int { return n + n/4 + 1 }

// laidOut gives a cached block that the caller holds a directory, if it has none and
// nobody tried, and returns the block to hold in its place. One that does not decode
// gets none: the search then tells.
func (r *Reader) laidOut(c *cachedBlock) *cachedBlock {
	if c.Side.n > 0 || !c.Claim() {
		return c
	}
	var b *cachedBlock
	d, ok := layOut(c.Data, func(n int) []byte {
		b = r.cache.Anew(c, n)
		return b.Data
	})
	if !ok {
		return c
	}
	b.Side = d
	return r.cache.Replace(c, b)
}

// layOut makes the directory of a payload, if it decodes and there is one, in memory
// that room returns, whatever is in it.
func layOut(payload []byte, room func(n int) []byte) (d directory, ok bool) {
	var b blockIter
	if len(payload) > directoryMax || !b.init(payload) {
		return directory{}, false
	}
	var first []byte
	var high base.LSN
	n, shared, keys, values, longest, widest := 0, base.MaxKeySize, 0, 0, 0, 0
	for ok := b.first(); ok; ok = b.nextEntry() {
		if n == 0 {
			first, d.base = b.whole, b.lsn
		}
		shared = min(shared, base.CommonPrefix(first, b.key))
		keys, longest = keys+len(b.key), max(longest, len(b.key))
		values, widest = values+len(b.value), max(widest, len(b.value))
		d.base, high = min(d.base, b.lsn), max(high, b.lsn)
		n++
	}
	if b.bad {
		return directory{}, false
	}
	// From here on nothing of the block can be wrong: all of it was decoded.
	lead := 0
	if shared*n > len(payload)/wholeShare {
		lead = shared
	}
	area := 8 + n*8 + keys - n*lead + values
	valueAt := entryBits + bits.Len(uint(longest-lead))
	lsnAt := valueAt + bits.Len(uint(widest))
	if shared >= directoryMax || area > directoryMax || lsnAt+bits.Len64(high-d.base) > 64 {
		return directory{}, false
	}
	d.shared, d.lead, d.n, d.slots = uint16(shared), uint16(lead), uint16(n), uint16(slotsOf(n))
	d.valueAt, d.lsnAt = uint8(valueAt), uint8(lsnAt)
	d.area = uint32(d.tableAt() + 4*int(d.slots) - 8)
	size := int(d.area) + area
	if size > 2*len(payload)+directoryMore*n {
		return directory{}, false
	}
	d.b = room(size)
	d.fill(&b, first)
	return d, true
}

// fill lays out the entries of a block that has been walked.
func (d *directory) fill(b *blockIter, first []byte) {
	clear(d.b[:d.area+8])
	copy(d.b, first[:d.shared])
	heads, places, table, in := d.b[d.headsAt():], d.b[d.placesAt():], d.b[d.tableAt():], d.b[d.area:]
	off := 8
	var last []byte // in the area
	for ok := b.first(); ok; ok = b.nextEntry() {
		own := b.key[d.lead:]
		w := (b.lsn-d.base)<<d.lsnAt | uint64(len(b.value))<<d.valueAt | uint64(len(own))<<entryBits
		if b.kind == base.KindDelete {
			w |= entryDeletes
		}
		if b.n > 0 && bytes.Equal(last, own) {
			w |= entrySame
		}
		binary.LittleEndian.PutUint64(in[off:], w)
		last = in[off+8 : off+8+len(own)]
		copy(last, own)
		copy(in[off+8+len(own):], b.value)

		binary.LittleEndian.PutUint32(heads[4*b.n:], head4(b.key[d.shared:]))
		binary.LittleEndian.PutUint16(places[2*b.n:], uint16(off))
		at, tag := d.place(xxhash.Sum64(b.key))
		for binary.LittleEndian.Uint32(table[at:]) != 0 {
			at = d.after(at)
		}
		binary.LittleEndian.PutUint32(table[at:], tag<<16|uint32(off))
		off += 8 + len(own) + len(b.value)
	}
}

func (d *directory) headsAt() int  { return (int(d.shared) + 7) &^ 7 }
func (d *directory) placesAt() int { return d.headsAt() + 4*int(d.n) }
func (d *directory) tableAt() int  { return d.placesAt() + 2*int(d.n) }

// place returns where in the table a key with that hash begins to be looked for, and
// its bits there.
func (d *directory) place(hash uint64) (at int, tag uint32) {
	return int(hash>>32*uint64(d.slots)>>32) * 4, uint32(hash & 0xffff)
}

// after returns the slot behind another.
func (d *directory) after(at int) int {
	if at += 4; at == 4*int(d.slots) {
		return 0
	}
	return at
}

// head4 is base.Head of four bytes.
func head4(k []byte) uint32 { return uint32(base.Head(k) >> 32) }

// entry returns the bytes from where entry i begins.
func (d *directory) entry(i int) []byte {
	return d.b[d.area:][binary.LittleEndian.Uint16(d.b[d.placesAt()+2*i:]):]
}

// laid is an entry: its own bytes of the key, the value, and the rest.
type laid struct {
	own, value []byte
	lsn        base.LSN
	kind       base.Kind
}

// entryAt reads the entry at the beginning of e. Its number is, from the lowest bits
// on: two that say what it is, the length of its own bytes of the key, of the value,
// and by how much its LSN is above base.
func (d *directory) entryAt(e []byte) laid {
	w := binary.LittleEndian.Uint64(e)
	val := 8 + int(w&(1<<(d.valueAt&63)-1)>>entryBits)
	end := val + int(w&(1<<(d.lsnAt&63)-1)>>(d.valueAt&63))
	return laid{
		own: e[8:val:val], value: e[val:end:end],
		lsn: d.base + w>>(d.lsnAt&63), kind: base.KindPut + base.Kind(w&entryDeletes),
	}
}

// under says whether key begins as all of the block do.
func (d *directory) under(key []byte) bool {
	n := int(d.shared)
	return len(key) >= n && string(key[:n]) == string(d.b[:n])
}

// get is blockIter.get by the directory. hash is that of key.
func (d *directory) get(key []byte, lsn base.LSN, hash uint64) (l lookup) {
	if d.lead > 0 && !d.under(key) {
		return l
	}
	own := key[d.lead:]
	table, in := d.b[d.tableAt():], d.b[d.area:]
	at, tag := d.place(hash)
	for range d.slots {
		s := binary.LittleEndian.Uint32(table[at:])
		if s == 0 {
			return l
		}
		at = d.after(at)
		if s>>16 != tag {
			continue
		}
		if e := d.entryAt(in[s&0xffff:]); e.lsn <= lsn && string(e.own) == string(own) {
			return lookup{value: e.value, lsn: e.lsn, kind: e.kind, found: true}
		}
	}
	return l
}

// search returns the number of the first entry at or after (key, lsn), n when there
// is none.
func (d *directory) search(key []byte, lsn base.LSN) int {
	n := int(d.n)
	if !d.under(key) {
		if bytes.Compare(key, d.b[:d.shared]) < 0 {
			return 0
		}
		return n
	}
	head := head4(key[d.shared:])
	heads := d.b[d.headsAt():d.placesAt()]
	lo, hi := 0, n // heads below lo are less, from hi on not
	for lo < hi {
		mid := int(uint(lo+hi) / 2)
		if binary.LittleEndian.Uint32(heads[4*mid:]) < head {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	// Few have the same head: one step mostly tells.
	for step := 1; lo < n; {
		if binary.LittleEndian.Uint32(heads[4*lo:]) != head || d.compare(lo, key, lsn) >= 0 {
			return lo
		}
		if lo++; step > restartEvery {
			break
		}
		step++
	}
	return lo + sort.Search(n-lo, func(i int) bool { return d.compare(lo+i, key, lsn) >= 0 })
}

// compare compares entry i with (key, lsn), where key begins as all keys do.
func (d *directory) compare(i int, key []byte, lsn base.LSN) int {
	e := d.entryAt(d.entry(i))
	if c := bytes.Compare(e.own, key[d.lead:]); c != 0 {
		return c
	}
	return cmp.Compare(lsn, e.lsn) // newer versions come first
}
