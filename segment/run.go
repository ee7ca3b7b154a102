package segment

import (
	"sync"

	"github.com/forebaydb/forebay/internal/base"
)

var runRooms = sync.Pool{New: func() any { return new(runRoom) }}

// leave gives the memory of runs back.
func (b *blockIter) leave() {
	if b.runRoom != nil && cap(b.keys) <= maxKeptBuffer {
		runRooms.Put(b.runRoom)
	}
	b.runRoom = nil
}

// Run implements base.Runner. A run ends with its block at the latest.
func (it *iter) Run(dst []base.Version, most int, back bool) []base.Version {
	if dst = dst[:0]; !it.b.valid {
		return dst
	}
	return it.b.run(dst, most, back)
}

// Advance implements base.Runner.
func (it *iter) Advance(n int) { it.b.advance(n) }

// run is Run. Where the block does not hold together the run ends: the move that
// comes there tells.
func (b *blockIter) run(dst []base.Version, most int, back bool) []base.Version {
	if b.runRoom == nil {
		b.runRoom = runRooms.Get().(*runRoom)
	}
	b.places, b.keys, b.runsBack = b.places[:0], b.keys[:0], back
	if !back {
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
			dst = b.lend(dst, &h, whole)
			off = h.end
		}
		return dst
	}
	var heads [restartEvery]entryHead
	for n := b.n; n >= 0 && len(dst) < most; {
		r := n / restartEvery
		whole, ok := b.interval(r, heads[:n-r*restartEvery+1])
		if !ok {
			break
		}
		for i := n - r*restartEvery; i >= 0 && len(dst) < most; i-- {
			dst = b.lend(dst, &heads[i], whole)
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

// lend appends an entry to a run. Its key is in the block if it is there in one
// piece.
func (b *blockIter) lend(dst []base.Version, h *entryHead, whole []byte) []base.Version {
	key := b.data[h.key:h.val:h.val]
	if h.shared > 0 {
		n := len(b.keys)
		b.keys = append(append(b.keys, whole[:h.shared]...), key...)
		key = b.keys[n:len(b.keys):len(b.keys)]
	}
	b.places = append(b.places, h.off)
	return append(dst, base.Version{Key: key, Value: b.data[h.val:h.end:h.end], LSN: b.base + unzigzag(h.z), Kind: h.kind})
}

// advance is Advance.
func (b *blockIter) advance(i int) {
	n := b.n + i
	if b.runsBack {
		n = b.n - i
	}
	h, ok := b.restartHead(n / restartEvery)
	if !ok {
		b.fail()
		return
	}
	b.back, b.whole, b.same = b.back[:0], b.data[h.key:h.val], 0
	b.at(n, b.places[i])
}
