package segment

import (
	"bytes"
	"encoding/binary"
	"sort"

	"github.com/forebaydb/forebay/internal/base"
)

// index is the decoded index block: where each data block is, and the
// separators by which one is found. It is immutable.
type index struct {
	blocks []indexEntry
	end    uint64 // of the last data block
	heap   []byte // the payload, in which the keys lie

	// heads has, for each block but the first, the eight bytes of the separator
	// after prefix, which all of these have in common, as a big-endian number:
	// a search then compares numbers that lie together, and keys seldom.
	prefix []byte
	heads  []uint64

	// slots, without a cache none, are those of the data blocks and behind them
	// those of the filter's pages. What is in them changes.
	slots []slot
}

type indexEntry struct {
	off          uint64
	lsn          base.LSN
	keyAt, keyTo uint32
}

func (x *index) key(i int) []byte { return x.heap[x.blocks[i].keyAt:x.blocks[i].keyTo] }

// block returns where data block i lies, trailer included.
func (x *index) block(i int) (off, n uint64) {
	off = x.blocks[i].off
	if i+1 < len(x.blocks) {
		return off, x.blocks[i+1].off - off
	}
	return off, x.end - off
}

// memory is what the index keeps, in bytes.
func (x *index) memory() int64 {
	return int64(len(x.heap)) + int64(len(x.blocks))*24 + int64(len(x.heads)+len(x.slots))*8
}

// slot returns that of data block i, nil without a cache.
func (x *index) slot(i int) *slot {
	if i >= len(x.slots) {
		return nil
	}
	return &x.slots[i]
}

// pageSlot returns that of page i of the filter, nil without a cache.
func (x *index) pageSlot(i uint64) *slot { return x.slot(len(x.blocks) + int(i)) }

// cached returns data block i if it is in the cache, page the filter's page.
func (x *index) cached(i int) *cachedBlock {
	if i >= len(x.slots) {
		return nil
	}
	return x.slots[i].Get()
}

// peek is cached for who only may come to want the block.
func (x *index) peek(i int) *cachedBlock {
	if i < 0 || i >= len(x.blocks) || i >= len(x.slots) {
		return nil
	}
	return x.slots[i].Peek()
}

func (x *index) page(i uint64) *cachedBlock { return x.cached(len(x.blocks) + int(i)) }

// evict empties all slots.
func (x *index) evict(r *Reader) {
	for i := range x.blocks {
		r.cache.Evict(x.slot(i), r.file, x.blocks[i].off)
	}
	for i := range r.foot.pages() {
		off, _ := r.foot.page(i)
		r.cache.Evict(x.pageSlot(i), r.file, off)
	}
}

// find returns the last block whose separator is at or before (key, lsn).
func (x *index) find(key []byte, lsn base.LSN) int {
	if len(x.heads) == 0 {
		return 0
	}
	p := len(x.prefix)
	if len(key) < p || !bytes.Equal(key[:p], x.prefix) {
		if bytes.Compare(key, x.prefix) < 0 {
			return 0
		}
		return len(x.heads)
	}
	h := base.HeadBehind(key, p)
	lo, hi := 0, len(x.heads) // heads below lo are less, from hi on not
	for lo < hi {
		mid := int(uint(lo+hi) / 2)
		if x.heads[mid] < h {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	if lo == len(x.heads) || x.heads[lo] != h {
		return lo
	}
	same := sort.Search(len(x.heads)-lo, func(i int) bool { return x.heads[lo+i] > h })
	return lo + sort.Search(same, func(i int) bool {
		return base.Compare(x.key(lo+i+1), x.blocks[lo+i+1].lsn, key, lsn) > 0
	})
}

// decodeIndex reads a verified payload and checks all that a search relies on:
// blocks lie one after the other and fill dataLen, separators rise. The reason
// is empty when all is well. payload is kept.
func decodeIndex(payload []byte, dataLen uint64) (x *index, reason string) {
	if len(payload) < 4 {
		return nil, "index is too short"
	}
	n := uint64(binary.LittleEndian.Uint32(payload))
	// Both bounds are known before anything is allocated by n.
	if n == 0 || n > dataLen/minData || n > uint64(len(payload)-4)/3 {
		return nil, "index has an impossible number of blocks"
	}
	x = &index{blocks: make([]indexEntry, n), heap: payload}
	p := 4
	for i := range x.blocks {
		e := &x.blocks[i]
		var length, keyLen, below uint64
		length, p = uvarint(payload, p)
		keyLen, p = uvarint(payload, p)
		below, p = uvarint(payload, p)
		if p < 0 || keyLen > uint64(len(payload)-p) || keyLen > base.MaxKeySize {
			return nil, "index entry does not fit"
		}
		if length < minData || length > maxBlock || length > dataLen-x.end {
			return nil, "index names a block that does not fit"
		}
		e.off, e.lsn = x.end, base.MaxLSN-below
		e.keyAt, e.keyTo = uint32(p), uint32(p)+uint32(keyLen)
		x.end += length
		p += int(keyLen)
		switch {
		case (i == 0) != (keyLen == 0):
			return nil, "index has an empty separator in the wrong place"
		case i > 0 && base.Compare(x.key(i-1), x.blocks[i-1].lsn, x.key(i), e.lsn) >= 0:
			return nil, "index separators do not rise"
		}
	}
	if p != len(payload) || x.end != dataLen {
		return nil, "index does not cover the data"
	}
	x.makeHeads()
	return x, ""
}

func (x *index) makeHeads() {
	n := len(x.blocks)
	if n < 2 {
		return
	}
	// The separators rise, so what the first and the last share all share.
	first := x.key(1)
	x.prefix = first[:base.CommonPrefix(first, x.key(n-1))]
	x.heads = make([]uint64, n-1)
	for i := range x.heads {
		x.heads[i] = base.Head(x.key(i + 1)[len(x.prefix):])
	}
}

// indexBuilder encodes the index while the data is written.
type indexBuilder struct {
	buf []byte
	n   uint32
}

// add appends a block of length bytes, trailer included, with its separator.
func (b *indexBuilder) add(length int, key []byte, lsn base.LSN) {
	if b.n == 0 {
		b.buf = append(b.buf, 0, 0, 0, 0) // the count
	}
	b.n++
	b.buf = binary.AppendUvarint(b.buf, uint64(length))
	b.buf = binary.AppendUvarint(b.buf, uint64(len(key)))
	b.buf = binary.AppendUvarint(b.buf, base.MaxLSN-lsn)
	b.buf = append(b.buf, key...)
}

func (b *indexBuilder) finish() []byte {
	binary.LittleEndian.PutUint32(b.buf, b.n)
	return b.buf
}

// separator returns the least a block can be known by: above the version before
// it, at or below its first. It aliases firstKey.
func separator(lastKey, firstKey []byte, firstLSN base.LSN) ([]byte, base.LSN) {
	n := base.CommonPrefix(lastKey, firstKey)
	if n == len(firstKey) { // the same key, an older version
		return firstKey, firstLSN
	}
	return firstKey[:n+1], base.MaxLSN
}
