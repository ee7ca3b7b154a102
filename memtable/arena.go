package memtable

import (
	"encoding/binary"
	"errors"
	"sync/atomic"

	"github.com/forebaydb/forebay/internal/base"
	"github.com/forebaydb/forebay/internal/huge"
)

// ErrFull says that a Table has used up its addresses, at 8 GiB or more. The
// table is as it was before the call.
var ErrFull = errors.New("memtable: full")

const (
	// unit is the alignment of entries: an address counts units.
	unit = 8
	// unitBits is the part of an address that counts units in a chunk; the
	// rest is the chunk's number.
	unitBits = 17

	// chunkFirst is the size of the first chunk: a transaction that writes a
	// few keys has a table too. Up to chunkMin chunks grow with what is added.
	chunkFirst = 512
	chunkMin   = 4 << 10
	chunkMax   = 1 << 20 // unit<<unitBits

	// blockMax bounds the blocks from which chunks of chunkMax are cut.
	blockMax = 8 << 20

	// entryHead is LSN (8 bytes), key length (3), kind (1), value length (4).
	entryHead = 16
)

// arena holds the entries. An entry is written once, before its address is
// published, and never changes. Chunks are found by number through a table
// that is replaced as a whole when it grows; they hold no pointers.
//
// Address 0 is none. One goroutine adds; any number read. A reader that met an address loads the
// table after it, and so finds the chunk.
type arena struct {
	memory memory // of the index, too
	chunks atomic.Pointer[[][]byte]
	cur    int // number of the chunk that is being filled
	used   int // bytes of it in use
	size   int // bytes of all chunks
	max    int // largest chunk that is shared by several entries
	// blocks is the size of the blocks from which chunks of chunkMax are cut, and
	// block what is left of the present one.
	blocks int
	block  []byte
}

// entry is one version in an arena.
type entry []byte

func (e entry) lsn() base.LSN   { return binary.LittleEndian.Uint64(e) }
func (e entry) kind() base.Kind { return base.Kind(e[11]) }
func (e entry) keyEnd() int {
	return entryHead + int(binary.LittleEndian.Uint32(e[8:])&0xffffff)
}
func (e entry) key() []byte { n := e.keyEnd(); return e[entryHead:n:n] }
func (e entry) value() []byte {
	from := e.keyEnd()
	to := from + int(binary.LittleEndian.Uint32(e[12:]))
	return e[from:to:to]
}

// at returns the entry at an address, with whatever follows it in its chunk.
func (a *arena) at(addr uint32) entry {
	chunks := *a.chunks.Load()
	return entry(chunks[addr>>unitBits][addr&(1<<unitBits-1)*unit:])
}

// compare orders the entry at an address against (key, lsn).
func (a *arena) compare(addr uint32, key []byte, lsn base.LSN) int {
	e := a.at(addr)
	return base.Compare(e.key(), e.lsn(), key, lsn)
}

// add writes an entry and returns its address.
func (a *arena) add(lsn base.LSN, kind base.Kind, key, value []byte) (uint32, error) {
	n := (entryHead + len(key) + len(value) + unit - 1) &^ (unit - 1)
	addr, b, err := a.alloc(n)
	if err != nil {
		return 0, err
	}
	binary.LittleEndian.PutUint64(b, lsn)
	binary.LittleEndian.PutUint32(b[8:], uint32(len(key))|uint32(kind)<<24)
	binary.LittleEndian.PutUint32(b[12:], uint32(len(value)))
	copy(b[entryHead:], key)
	copy(b[entryHead+len(key):], value)
	return addr, nil
}

// alloc returns n bytes, a multiple of unit, and their address.
func (a *arena) alloc(n int) (uint32, []byte, error) {
	if p := a.chunks.Load(); p != nil {
		if c := (*p)[a.cur]; n <= len(c)-a.used {
			at := a.used
			a.used += n
			return uint32(a.cur)<<unitBits | uint32(at/unit), c[at : at+n], nil
		}
	}
	return a.grow(n)
}

// chunk returns n bytes for a chunk: what is in them is not looked at before it is
// written.
func (a *arena) chunk(n int) []byte {
	if n != chunkMax {
		return make([]byte, n)
	}
	if len(a.block) == 0 {
		a.block = room[byte](&a.memory, a.memory.blocks(chunkMax, max(a.blocks, chunkMax)))
	}
	c := a.block[:n:n]
	a.block = a.block[n:]
	return c
}

// grow is alloc in a new chunk. It stands alone because its slice escapes.
func (a *arena) grow(n int) (uint32, []byte, error) {
	var chunks [][]byte
	if p := a.chunks.Load(); p != nil {
		chunks = *p
	}
	if len(chunks) >= 1<<(32-unitBits) {
		return 0, nil, ErrFull
	}
	// Chunks double what there is, up to a limit, which follows a table that
	// outgrows its capacity, so that addresses do not run out before chunkMax
	// is reached. What would waste much of one gets a chunk to itself, and the
	// open one stays open.
	limit := min(max(a.max, a.size/16&^(unit-1)), chunkMax)
	next := min(max(a.size, chunkFirst, min(4*n, chunkMin)), limit)
	own := n > next/4
	if own {
		next = n
	}
	if len(chunks) == 0 {
		// Address 0 is none.
		chunks = append(chunks, make([]byte, next+unit))
		a.chunks.Store(&chunks)
		a.size, a.cur, a.used = next+unit, 0, n+unit
		return 1, chunks[0][unit : unit+n], nil
	}
	// Readers hold shorter slices of the same array, and do not reach the
	// element that append sets.
	chunks = append(chunks, a.chunk(next))
	a.chunks.Store(&chunks)
	a.size += next
	last := len(chunks) - 1
	if !own {
		a.cur, a.used = last, n
	}
	return uint32(last) << unitBits, chunks[last][:n], nil
}

// spoil overwrites all chunks, under the race detector: see huge.Spoil.
func (a *arena) spoil() {
	if p := a.chunks.Load(); p != nil {
		for _, c := range *p {
			huge.Spoil(c)
		}
	}
}
