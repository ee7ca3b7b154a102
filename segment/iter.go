package segment

import (
	"github.com/forebaydb/forebay/internal/base"
	"github.com/forebaydb/forebay/internal/prefetch"
)

// iter walks a segment. It stands in one data block at a time.
type iter struct {
	r     *Reader
	x     *index
	block int // which one b is in, -1 none
	b     blockIter
	scans bool // blocks are read ahead and past the cache
	packs int  // lone blocks stay packed that are longer than this; 0: none
	lone  bool // that in which b is does
	ahead ahead
	s     *scratch
	err   error

	// Of the last run: what of it is in the block behind, and how much is not.
	split, blockBehind int
	behind             blockIter
}

var (
	_ base.Iterator = (*iter)(nil)
	_ base.Runner   = (*iter)(nil)
)

// First implements base.Iterator.
func (it *iter) First() bool {
	return it.start() && it.enter(0, false) && it.check(it.first())
}

// Last implements base.Iterator.
func (it *iter) Last() bool {
	return it.start() && it.enter(len(it.x.blocks)-1, true) && it.check(it.last())
}

// SeekGE implements base.Iterator.
func (it *iter) SeekGE(key []byte, lsn base.LSN) bool {
	if !it.start() || !it.enter(it.x.find(key, lsn), false) {
		return false
	}
	return it.check(it.seekGE(key, lsn)) || it.nextBlock()
}

// SeekLT implements base.Iterator.
func (it *iter) SeekLT(key []byte, lsn base.LSN) bool {
	if !it.start() || !it.enter(it.x.find(key, lsn), true) {
		return false
	}
	return it.check(it.seekLT(key, lsn)) || it.prevBlock()
}

// Next implements base.Iterator.
func (it *iter) Next() bool {
	if !it.b.valid {
		return false
	}
	return it.check(it.b.nextEntry()) || it.nextBlock()
}

// Prev implements base.Iterator.
func (it *iter) Prev() bool {
	if !it.b.valid {
		return false
	}
	return it.check(it.b.prevEntry()) || it.prevBlock()
}

// Valid implements base.Iterator.
func (it *iter) Valid() bool { return it.b.valid }

// Key implements base.Iterator.
func (it *iter) Key() []byte { return it.b.key }

// LSN implements base.Iterator.
func (it *iter) LSN() base.LSN { return it.b.lsn }

// Kind implements base.Iterator.
func (it *iter) Kind() base.Kind { return it.b.kind }

// Value implements base.Iterator.
func (it *iter) Value() []byte { return it.b.value }

// Err implements base.Iterator. A positioning call clears the error.
func (it *iter) Err() error { return it.err }

// Close implements base.Iterator. It may be called more than once; the iterator
// stands nowhere from then on.
func (it *iter) Close() error {
	it.Rest()
	*it = iter{block: -1, err: it.err, b: blockIter{room: it.b.room, back: it.b.back}}
	return nil
}

// Rest leaves the iterator nowhere, and holds no block any more; it may be placed
// again.
func (it *iter) Rest() {
	it.s.release()
	it.s, it.block, it.ahead = nil, -1, ahead{}
	it.b.leave()
	it.behind.leave()
}

// start begins a positioning call.
func (it *iter) start() bool {
	it.b.valid = false
	if it.r == nil {
		return false // closed
	}
	it.err = nil
	if it.x == nil {
		if it.x, it.err = it.r.loadIndex(); it.err != nil {
			it.x = nil
			return false
		}
	}
	return len(it.x.blocks) > 0 // none: range deletes alone
}

// enter makes data block i the present one; it does not position in it. back
// says in which direction it came.
func (it *iter) enter(i int, back bool) bool {
	if i == it.block {
		return true
	}
	if it.lone && it.block >= 0 { // it may be entered again
		off, _ := it.x.block(it.block)
		unbind(it.b.value, &it.r.foot.id, off, kindData)
	}
	it.block, it.b.valid, it.lone = -1, false, false
	off, _ := it.x.block(i)
	var payload []byte
	var c *cachedBlock
	if payload, c, it.err = it.payload(i, back); it.err != nil {
		return false
	}
	it.b.hold(c)
	if c != nil {
		payload = c.Data
	}
	if it.lone {
		it.block = i
		return true
	}
	if c != nil && c.Side.n > 0 {
		it.b.initBy(&c.Side)
	} else if !it.b.init(payload) {
		it.err = it.r.corruptBlock(off)
		return false
	}
	it.block = i
	return true
}

// payload returns data block i: from the cache, to be released, or else its verified
// payload, good until the next call.
func (it *iter) payload(i int, back bool) ([]byte, *cachedBlock, error) {
	if it.scans {
		payload, err := it.scan(i, back)
		return payload, nil, err
	}
	if c := it.x.cached(i); c != nil {
		prefetch.Value(it.x.peek(beside(i, back)))
		return nil, it.r.laidOut(c), nil
	}
	if it.s == nil {
		it.s = getScratch()
	}
	return it.r.loadData(it.x, i, it.s)
}

// beside returns the number of the block that comes behind i, or before it.
func beside(i int, back bool) int {
	if back {
		return i - 1
	}
	return i + 1
}

// first, last, seekGE and seekLT are those of b, of which a packed version has none.

func (it *iter) first() bool {
	if it.lone {
		it.b.valid = true
		return true
	}
	return it.b.first()
}

func (it *iter) last() bool {
	if it.lone {
		return it.first()
	}
	return it.b.last()
}

func (it *iter) seekGE(key []byte, lsn base.LSN) bool {
	if it.lone {
		it.b.valid = base.Compare(it.b.key, it.b.lsn, key, lsn) >= 0
		return it.b.valid
	}
	return it.b.seekGE(key, lsn)
}

func (it *iter) seekLT(key []byte, lsn base.LSN) bool {
	if it.lone {
		it.b.valid = base.Compare(it.b.key, it.b.lsn, key, lsn) < 0
		return it.b.valid
	}
	return it.b.seekLT(key, lsn)
}

// check passes on what the block's iterator said, and notes damage.
func (it *iter) check(ok bool) bool {
	if !ok && it.b.bad {
		off, _ := it.x.block(it.block)
		it.err = it.r.corruptBlock(off)
		it.block = -1
	}
	return ok
}

// nextBlock moves to the first version of the block after the present one.
func (it *iter) nextBlock() bool {
	if it.err != nil || it.block+1 == len(it.x.blocks) {
		return false
	}
	return it.enter(it.block+1, false) && it.check(it.first())
}

// prevBlock moves to the last version of the block before the present one.
func (it *iter) prevBlock() bool {
	if it.err != nil || it.block == 0 {
		return false
	}
	return it.enter(it.block-1, true) && it.check(it.last())
}
