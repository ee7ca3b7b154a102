package segment

import (
	"bytes"
	"encoding/binary"
	"math/bits"
	"sync/atomic"

	"github.com/cespare/xxhash/v2"

	"github.com/forebaydb/forebay/internal/base"
)

// lookup is what a point read finds in one data block.
type lookup struct {
	value []byte
	lsn   base.LSN
	kind  base.Kind
	found bool
}

func (b *blockIter) lookup(h *entryHead) lookup {
	return lookup{value: b.data[h.val:h.end:h.end], lsn: b.base + unzigzag(h.z), kind: h.kind, found: true}
}

// get finds the first version at or after (key, lsn), if it is one of key. ok is
// false when the block does not decode.
func (b *blockIter) get(key []byte, lsn base.LSN) (l lookup, ok bool) {
	n, h, of, ok := b.search(key, lsn)
	if ok && n >= 0 && of {
		l = b.lookup(&h)
	}
	return l, ok
}

// directory names the entries of a cached data block by a byte of their keys'
// hashes, so that a point read looks at the entry that it wants and at no other:
// a search by restart points misses the processor's cache at each step. It is
// made when the block is asked for the second time, and lives in memory alone.
type directory struct {
	state atomic.Uint32
	// Set before state is ready, and not changed afterwards: for n entries n tags,
	// zeros up to a multiple of 8, and the n places of the entries, 2 bytes each.
	n    int
	b    []byte
	end  int // of the entries in the payload
	base uint64
}

const (
	directoryMade  = 1 // or somebody makes it
	directoryReady = 2
)

// directoryMax is the largest payload that has a directory.
const directoryMax = 1 << 16

// directoryRoom is what a directory takes at most, in bytes.
func directoryRoom(payload []byte) int {
	if len(payload) < 4 || len(payload) > directoryMax {
		return 0
	}
	restarts := min(uint64(binary.LittleEndian.Uint32(payload[len(payload)-4:])), uint64(len(payload)/4))
	return int(restarts) * restartEvery * 3
}

func tagOf(hash uint64) byte { return byte(hash) }

// ready says whether the directory may be used, and makes it if nobody did. One
// of a block that does not decode is never ready: the search then tells.
func (d *directory) ready(payload []byte) bool {
	s := d.state.Load()
	if s == directoryReady {
		return true
	}
	return s == 0 && d.make(payload)
}

func (d *directory) make(payload []byte) bool {
	room := directoryRoom(payload)
	if room == 0 || !d.state.CompareAndSwap(0, directoryMade) {
		return false
	}
	var b blockIter
	if !b.init(payload) {
		return false
	}
	tags := make([]byte, 0, room/3)
	places := make([]uint16, 0, room/3)
	for ok := b.first(); ok; ok = b.nextEntry() {
		tags = append(tags, tagOf(xxhash.Sum64(b.key)))
		places = append(places, uint16(b.off))
	}
	if b.bad {
		return false
	}
	d.n, d.end, d.base = len(tags), len(b.data), b.base
	padded := (d.n + 7) &^ 7
	d.b = make([]byte, padded+2*d.n)
	copy(d.b, tags)
	for i, p := range places {
		binary.LittleEndian.PutUint16(d.b[padded+2*i:], p)
	}
	d.state.Store(directoryReady)
	return true
}

// get is blockIter.get by the directory, which is ready. hash is that of key.
func (d *directory) get(payload, key []byte, lsn base.LSN, hash uint64) (l lookup, ok bool) {
	const low, high = 0x0101010101010101, 0x8080808080808080
	want := uint64(tagOf(hash)) * low
	padded := (d.n + 7) &^ 7
	places := d.b[padded:]
	data := payload[:d.end:d.end]
	for at := 0; at < padded; at += 8 {
		// Bytes that are zero mark entries with this tag. (A borrow may mark one
		// too many above a true one, which is then looked at in vain.)
		w := binary.LittleEndian.Uint64(d.b[at:]) ^ want
		for m := (w - low) & ^w & high; m != 0; m &= m - 1 {
			i := at + bits.TrailingZeros64(m)/8
			if i >= d.n {
				break
			}
			h, ok := decodeHead(data, int(binary.LittleEndian.Uint16(places[2*i:])))
			if !ok {
				return l, false
			}
			if h.shared+h.val-h.key != len(key) || !bytes.Equal(data[h.key:h.val], key[h.shared:]) {
				continue
			}
			if h.shared > 0 {
				r, ok := decodeHead(data, int(binary.LittleEndian.Uint16(places[2*(i&^(restartEvery-1)):])))
				if !ok || r.shared != 0 || h.shared > r.val-r.key {
					return l, false
				}
				if !bytes.Equal(data[r.key:r.key+h.shared], key[:h.shared]) {
					continue
				}
			}
			if v := d.base + unzigzag(h.z); v <= lsn {
				return lookup{value: data[h.val:h.end:h.end], lsn: v, kind: h.kind, found: true}, true
			}
		}
	}
	return l, true
}
