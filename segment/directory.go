package segment

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"sort"
	"sync/atomic"

	"github.com/cespare/xxhash/v2"

	"github.com/forebaydb/forebay/internal/base"
)

// directory leads into a cached data block: to look at the entry that is wanted and
// at no other. A search by restart points misses the processor's cache at each step.
// It is made when the block is asked for the second time, and lives in memory alone.
//
// It has the first bytes that all keys of the block share, a hash table of the
// entries, and for each entry, in order, its place and the four bytes of its key that
// follow the shared ones: they decide nearly every comparison.
type directory struct {
	state atomic.Uint32
	// Set before state is ready, and not changed afterwards. b is
	//
	//	prefix    shared bytes, zeros up to a multiple of 8
	//	table     for each of slots 8 bytes, 0 free: head of an entry's key << 32,
	//	          16 bits of the key's hash << 16, the entry's place; all versions of
	//	          a key in the order of the block
	//	order     for each entry 8 bytes: head of its key << 32 | its place
	b      []byte
	data   []byte // the payload up to the restart points
	base   uint64
	n      uint16
	slots  uint16
	shared uint8
}

const (
	directoryMade  = 1 // or somebody makes it
	directoryReady = 2
)

const (
	// directoryMax is the largest payload that has a directory.
	directoryMax = 1 << 16
	// prefixMax is how much of what all keys share a directory has.
	prefixMax = 64
)

// slotsOf is how large a table of n entries is: more than a fifth is free.
func slotsOf(n int) int { return n + n/4 + 1 }

// directoryRoom is what a directory takes at most, in bytes.
func directoryRoom(payload []byte) int {
	if len(payload) < 4 || len(payload) > directoryMax {
		return 0
	}
	restarts := min(uint64(binary.LittleEndian.Uint32(payload[len(payload)-4:])), uint64(len(payload)/4))
	n := int(restarts) * restartEvery
	return prefixMax + 8*slotsOf(n) + 8*n
}

// isReady says whether the directory may be used.
func (d *directory) isReady() bool { return d.state.Load() == directoryReady }

// ready says whether the directory may be used, and makes it if nobody did. One
// of a block that does not decode is never ready: the search then tells.
func (d *directory) ready(payload []byte) bool {
	return d.isReady() || d.state.Load() == 0 && d.make(payload)
}

func (d *directory) make(payload []byte) bool {
	if directoryRoom(payload) == 0 || !d.state.CompareAndSwap(0, directoryMade) {
		return false
	}
	var b blockIter
	if !b.init(payload) {
		return false
	}
	var first []byte
	n, shared := 0, prefixMax
	for ok := b.first(); ok; ok = b.nextEntry() {
		if n == 0 {
			first = b.whole
		}
		shared = min(shared, base.CommonPrefix(first, b.key))
		n++
	}
	if b.bad {
		return false
	}
	// From here on nothing of the block can be wrong: all of it was decoded.
	d.shared, d.n, d.slots = uint8(shared), uint16(n), uint16(slotsOf(n))
	d.data, d.base = b.data, b.base
	d.b = make([]byte, d.orderAt()+8*n)
	copy(d.b, first[:d.shared])
	table, order := d.b[d.tableAt():d.orderAt()], d.b[d.orderAt():]
	for ok := b.first(); ok; ok = b.nextEntry() {
		head := uint64(head4(b.key[d.shared:])) << 32
		binary.LittleEndian.PutUint64(order[8*b.n:], head|uint64(b.off))
		at, tag := d.place(xxhash.Sum64(b.key))
		for binary.LittleEndian.Uint64(table[at:]) != 0 {
			at = d.after(at)
		}
		binary.LittleEndian.PutUint64(table[at:], head|tag|uint64(b.off))
	}
	d.state.Store(directoryReady)
	return true
}

func (d *directory) tableAt() int { return int(d.shared+7) &^ 7 }
func (d *directory) orderAt() int { return d.tableAt() + 8*int(d.slots) }

// place returns where in the table a key with that hash begins to be looked for, and
// its bits there.
func (d *directory) place(hash uint64) (at int, tag uint64) {
	return int(hash>>32*uint64(d.slots)>>32) * 8, hash & 0xffff << 16
}

// after returns the slot behind another.
func (d *directory) after(at int) int {
	if at += 8; at == 8*int(d.slots) {
		return 0
	}
	return at
}

// head4 is head of four bytes.
func head4(k []byte) uint32 { return uint32(head(k) >> 32) }

// entry returns entry i: where it begins, and the head of its key.
func (d *directory) entry(i int) (off int, head uint32) {
	e := binary.LittleEndian.Uint64(d.b[d.orderAt()+8*i:])
	return int(uint32(e)), uint32(e >> 32)
}

// restart returns the key of the restart point of entry i.
func (d *directory) restart(i int) []byte {
	off, _ := d.entry(i &^ (restartEvery - 1))
	h, _ := decodeHead(d.data, off)
	return d.data[h.key:h.val]
}

// under says whether key begins as all of the block do.
func (d *directory) under(key []byte) bool {
	n := int(d.shared)
	return len(key) >= n && string(key[:n]) == string(d.b[:n])
}

// get is blockIter.get by the directory, which is ready. hash is that of key.
func (d *directory) get(key []byte, lsn base.LSN, hash uint64) (l lookup) {
	if !d.under(key) {
		return l
	}
	table := d.b[d.tableAt():d.orderAt()]
	at, tag := d.place(hash)
	want := uint64(head4(key[d.shared:]))<<16 | tag>>16
	for range d.slots {
		s := binary.LittleEndian.Uint64(table[at:])
		if s == 0 {
			return l
		}
		at = d.after(at)
		if s>>16 != want {
			continue
		}
		h, _ := decodeHead(d.data, int(s&0xffff))
		if h.shared+h.val-h.key != len(key) || !bytes.Equal(d.data[h.key:h.val], key[h.shared:]) {
			continue
		}
		if known := int(d.shared) + 4; h.shared > known {
			// What prefix and head do not tell the restart point does.
			if whole := d.restart(d.number(h.off)); !bytes.Equal(whole[known:h.shared], key[known:h.shared]) {
				continue
			}
		}
		if v := d.base + unzigzag(h.z); v <= lsn {
			return lookup{value: d.data[h.val:h.end:h.end], lsn: v, kind: h.kind, found: true}
		}
	}
	return l
}

// number returns which entry it is that begins at off.
func (d *directory) number(off int) int {
	return sort.Search(int(d.n)-1, func(i int) bool {
		at, _ := d.entry(i)
		return at >= off
	})
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
	order := d.b[d.orderAt():]
	lo, hi := 0, n // heads below lo are less, from hi on not
	for lo < hi {
		mid := int(uint(lo+hi) / 2)
		if binary.LittleEndian.Uint32(order[8*mid+4:]) < head {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	// Few have the same head: one step mostly tells.
	for step := 1; lo < n; {
		if _, its := d.entry(lo); its != head || d.compare(lo, key, lsn) >= 0 {
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
	off, head := d.entry(i)
	if its := head4(key[d.shared:]); head != its {
		return cmp.Compare(head, its)
	}
	h, _ := decodeHead(d.data, off)
	if h.shared > 0 {
		if c := bytes.Compare(d.restart(i)[:h.shared], key[:min(h.shared, len(key))]); c != 0 {
			return c
		}
	}
	if c := bytes.Compare(d.data[h.key:h.val], key[h.shared:]); c != 0 {
		return c
	}
	return cmp.Compare(lsn, d.base+unzigzag(h.z)) // newer versions come first
}
