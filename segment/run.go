package segment

import (
	"bytes"
	"encoding/binary"
	"sync"

	"github.com/forebaydb/forebay/internal/base"
	"github.com/forebaydb/forebay/internal/prefetch"
)

var runRooms = sync.Pool{New: func() any { return new(runRoom) }}

// leave stands nowhere and holds no more than small buffers for what comes next.
func (b *blockIter) leave() {
	if b.runRoom != nil && cap(b.keys) <= maxKeptBuffer {
		runRooms.Put(b.runRoom)
	}
	b.hold(nil)
	*b = blockIter{room: b.room, back: b.back[:0]}
	if cap(b.room) > maxKeptBuffer {
		b.room = nil
	}
}

// Run implements base.Runner. A run goes on into the next block, where that has a
// directory; else it ends with its block at the latest.
func (it *iter) Run(dst []base.Version, most int, back bool) []base.Version {
	if dst = dst[:0]; !it.b.valid {
		return dst
	}
	long := it.b.dir != nil && most >= longRun
	if long {
		it.foresee(&it.b, it.block, back)
	}
	dst = it.b.run(dst, most, back)
	if it.split = len(dst); !long || it.split == most || !it.b.ends(it.split, back) {
		return dst
	}
	i := beside(it.block, back)
	if it.x.peek(i) == nil { // there is none, or it is not in the cache
		return dst
	}
	c := it.x.cached(i)
	if c == nil {
		return dst
	}
	c = it.r.laidOut(c)
	it.behind.hold(c)
	if d := &c.Side; d.n > 0 {
		it.behind.initBy(d)
		it.blockBehind, it.behind.n = i, 0
		if back {
			it.behind.n = int(d.n) - 1
		}
		it.foresee(&it.behind, i, back)
		dst = it.behind.run(dst, most, back)
	}
	return dst
}

// ends says whether a run of n entries has the last one of the block in it.
func (b *blockIter) ends(n int, back bool) bool {
	if back {
		return b.n-n < 0
	}
	return b.n+n >= int(b.dir.n)
}

// foresee prepares a walk in block i to come into the next one, if that is in the
// cache.
func (it *iter) foresee(b *blockIter, i int, back bool) {
	if b.foreseen {
		return
	}
	b.foreseen = true
	if c := it.x.peek(beside(i, back)); c != nil && c.Side.n > 0 {
		d := &c.Side
		prefetch.Bytes(d.b[d.placesAt():d.tableAt()])
		b.ahead = d.b[d.area:]
	}
}

// Advance implements base.Runner.
func (it *iter) Advance(n int) {
	if n >= it.split {
		it.b, it.behind = it.behind, it.b
		it.block = it.blockBehind
		n -= it.split
	}
	it.b.advance(n)
}

// run is Run. Where the block does not hold together the run ends: the move that
// comes there tells.
func (b *blockIter) run(dst []base.Version, most int, back bool) []base.Version {
	if b.runRoom == nil {
		b.runRoom = runRooms.Get().(*runRoom)
	}
	b.places, b.keys, b.runsBack = b.places[:0], b.keys[:0], back
	if cap(dst) < most { // dst is empty
		dst = make([]base.Version, 0, most)
	}
	if b.dir != nil {
		return b.runBy(dst, most, back)
	}
	if back {
		return b.runBack(dst, most)
	}
	whole, n := b.whole, b.n
	for off := b.off; len(dst) < most && off < len(b.data); n++ {
		h, ok := decodeHead(b.data, off)
		if !ok {
			break
		}
		if n%restartEvery == 0 {
			if n > b.n && !b.restartsAt(n, &h) {
				break
			}
			whole = b.data[h.key:h.val]
		} else if h.shared > len(whole) {
			break
		}
		dst = b.show(dst, &h, whole)
		off = h.end
	}
	return dst
}

// longRun is how long a run must be for the walk to be expected to go on into the
// next block.
const longRun = 32

// entrySize is how many bytes of a block are asked for ahead for each entry of a run.
const entrySize = 2 * prefetch.Line

// prefetchStep is how many bytes of the next block are asked for beside each entry of
// this one: somewhat more than most entries have, so that it is there in time.
const prefetchStep = 3 * prefetch.Line

// runBy is run by the directory: no entry waits for the one before it, in either
// direction.
func (b *blockIter) runBy(dst []base.Version, most int, back bool) []base.Version {
	d, area, from := b.dir, b.data, len(dst)
	places := d.b[d.placesAt():d.tableAt()]
	valueAt, lsnAt := d.valueAt&63, d.lsnAt&63
	keyMask, valueMask := uint64(1)<<valueAt-1, uint64(1)<<lsnAt-1
	off, far := int(binary.LittleEndian.Uint16(places[2*b.n:])), most*entrySize
	step, count := 2, min(most-from, int(d.n)-b.n)
	if back {
		step, count = -2, min(most-from, b.n+1)
		prefetch.Bytes(area[max(0, off-far):off])
	} else {
		prefetch.Bytes(area[off:min(off+far, len(area))])
	}
	dst = dst[:from+count]
	out := dst[from:]
	at, same := 2*b.n, false // same: of the entry before this one, going back
	for i := range out {
		e := area[binary.LittleEndian.Uint16(places[at:]):]
		at += step
		w := binary.LittleEndian.Uint64(e)
		val := 8 + int(w&keyMask>>entryBits)
		end := val + int(w&valueMask>>valueAt)
		v := &out[i]
		if v.Key = e[8:val:val]; d.lead > 0 {
			v.Key = b.lend(d.b[:d.lead], e[8:val])
		}
		v.Value = e[val:end:end]
		v.LSN, v.Kind = d.base+w>>lsnAt, base.KindPut+base.Kind(w&entryDeletes)
		if v.Same = w&entrySame != 0; back {
			v.Same, same = same, v.Same
		}
		if len(b.ahead) > 0 {
			b.prefetch(back)
		}
	}
	if count > 0 {
		// What the entry before it in the block says is not of the run.
		out[0].Same = from > 0 && bytes.Equal(dst[from-1].Key, out[0].Key)
	}
	return dst
}

// prefetch asks for more of the next block, from where the walk will come.
func (b *blockIter) prefetch(back bool) {
	n := min(prefetchStep, len(b.ahead))
	if back {
		rest := len(b.ahead) - n
		prefetch.Bytes(b.ahead[rest:])
		b.ahead = b.ahead[:rest]
		return
	}
	prefetch.Bytes(b.ahead[:n])
	b.ahead = b.ahead[n:]
}

// runBack decodes the intervals between restart points one by one, and shows each
// from its end.
func (b *blockIter) runBack(dst []base.Version, most int) []base.Version {
	var heads [restartEvery]entryHead
	for n := b.n; n >= 0 && len(dst) < most; {
		r := n / restartEvery
		whole, ok := b.interval(r, heads[:n-r*restartEvery+1])
		if !ok {
			break
		}
		for i := n - r*restartEvery; i >= 0 && len(dst) < most; i-- {
			dst = b.show(dst, &heads[i], whole)
		}
		n = r*restartEvery - 1
	}
	return dst
}

// restartsAt says whether entry n is the restart point that it should be.
func (b *blockIter) restartsAt(n int, h *entryHead) bool {
	r := n / restartEvery
	return h.shared == 0 && r < b.numRestarts() && b.restart(r) == h.off
}

// interval decodes the entries from restart point r on, as many as heads has.
func (b *blockIter) interval(r int, heads []entryHead) (whole []byte, ok bool) {
	for i := range heads {
		if i == 0 {
			if heads[0], ok = b.restartHead(r); !ok {
				return nil, false
			}
			whole = b.data[heads[0].key:heads[0].val]
			continue
		}
		if heads[i], ok = decodeHead(b.data, heads[i-1].end); !ok || heads[i].shared > len(whole) {
			return nil, false
		}
	}
	return whole, true
}

// show appends an entry to a run, for which there is room.
func (b *blockIter) show(dst []base.Version, h *entryHead, whole []byte) []base.Version {
	n := len(dst)
	dst = dst[:n+1]
	v := &dst[n]
	b.places = append(b.places, h.off)
	v.Key, v.Value = b.data[h.key:h.val:h.val], b.data[h.val:h.end:h.end]
	if h.shared > 0 {
		v.Key = b.lend(whole[:h.shared], b.data[h.key:h.val])
	}
	v.LSN, v.Kind, v.Same = b.base+unzigzag(h.z), h.kind, false
	if n > 0 {
		// Keys that differ mostly do in their last byte.
		if p, last := dst[n-1].Key, len(v.Key)-1; len(p) == last+1 && p[last] == v.Key[last] {
			v.Same = bytes.Equal(p, v.Key)
		}
	}
	return dst
}

const (
	// keyRoom is the least memory for the keys of runs, in bytes.
	keyRoom = 4 << 10
	// Of nearly all keys no more is shared, and no more is their own: a copy of a
	// fixed length takes a few instructions.
	mostShared, mostOwn = 32, 16
)

// lend returns a key of a run that is in the block in two pieces.
func (b *blockIter) lend(shared, own []byte) []byte {
	n, size := len(b.keys), len(shared)+len(own)
	if cap(b.keys)-n < size+mostShared+mostOwn {
		// What is lent already stays where it is.
		b.keys, n = make([]byte, 0, max(2*cap(b.keys), keyRoom, 2*size+mostShared+mostOwn)), 0
	}
	to := b.keys[n : n+size+mostShared+mostOwn]
	b.keys = b.keys[:n+size]
	if len(shared) <= mostShared && len(own) <= mostOwn && cap(shared) >= mostShared && cap(own) >= mostOwn {
		*(*[mostShared]byte)(to) = *(*[mostShared]byte)(shared[:mostShared])
		*(*[mostOwn]byte)(to[len(shared):]) = *(*[mostOwn]byte)(own[:mostOwn])
	} else {
		copy(to[copy(to, shared):], own)
	}
	return to[:size:size]
}

// advance is Advance.
func (b *blockIter) advance(i int) {
	n := b.n + i
	if b.runsBack {
		n = b.n - i
	}
	if b.dir != nil {
		b.reach(n)
		return
	}
	h, ok := b.restartHead(n / restartEvery)
	if !ok {
		b.fail()
		return
	}
	b.back, b.whole, b.same = b.back[:0], b.data[h.key:h.val], 0
	b.at(n, b.places[i])
}
