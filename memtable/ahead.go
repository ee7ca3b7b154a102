package memtable

import (
	"bytes"

	"github.com/forebaydb/forebay/internal/base"
	"github.com/forebaydb/forebay/internal/prefetch"
)

// ahead is the path to the leaf of an insert that is still to come. Its inner nodes are
// in the processor's cache when it comes, and the leaf, which mostly is not, is on its
// way meanwhile.
type ahead struct {
	n      int // length of the key; 0: there is no path
	key    [aheadKey]byte
	lsn    base.LSN
	inner  uint64 // index.inner when it was taken
	height int
	path   [maxHeight]step // of inner nodes
}

// aheadKey is the length in bytes of the longest key for which it is done. A key is
// copied: who looked ahead may come with another one, in the same memory.
const aheadKey = 64

// leads says whether it leads to (key, lsn).
func (n *ahead) leads(key []byte, lsn base.LSN) bool {
	return n.n > 0 && n.lsn == lsn && bytes.Equal(n.key[:n.n], key)
}

// look takes the path to where (key, lsn) belongs, and asks for the leaf.
func (x *index) look(a *arena, key []byte, lsn base.LSN) {
	x.looked ^= 1
	n := &x.ahead[x.looked]
	n.n = 0
	root := x.root.Load()
	if root>>32 < 2 || x.near || len(key) > aheadKey {
		return
	}
	n.lsn, n.inner, n.height = lsn, x.inner, int(root>>32)
	ref, lo, hi := uint32(root), uint32(0), uint32(0)
	for i := range n.height - 1 {
		in := x.inners.at(ref)
		n.path[i] = step{ref: ref, lo: lo, hi: hi}
		var same bool
		if ref, same = x.below(a, &n.path[i], in, key, lsn, &lo, &hi); same {
			return
		}
	}
	prefetch.Value(x.leaves.at(ref))
	n.n = copy(n.key[:], key)
}

// below goes from an inner node, of which s has all but kid, to the child in which
// (key, lsn) belongs, and returns it with its bounds; same says that there is just that.
func (x *index) below(a *arena, s *step, n *inner, key []byte, lsn base.LSN, lo, hi *uint32) (ref uint32, same bool) {
	order := n.order.Load()
	s.kid, same = n.search(a, order, key, lsn)
	if same {
		return 0, true
	}
	*lo, *hi = s.lo, s.hi
	if s.kid > 0 {
		*lo = n.addrs[place(order, s.kid-1)]
	}
	if s.kid < count(order) {
		*hi = n.addrs[place(order, s.kid)]
	}
	return n.slot(order, s.kid).Load(), false
}

// follow sets path as descend does, by the path that was taken ahead. It returns false
// if there is none for (key, lsn), or it is void.
func (x *index) follow(a *arena, key []byte, lsn base.LSN, stamp uint32) bool {
	n := &x.ahead[x.looked^1]
	if !n.leads(key, lsn) {
		if n = &x.ahead[x.looked]; !n.leads(key, lsn) {
			return false
		}
	}
	n.n = 0
	if n.inner != x.inner {
		return false
	}
	var before uint32
	if x.height > 0 {
		before = x.path[x.height-1].ref
	}
	copy(x.path[:], n.path[:n.height-1])
	for d := range n.height - 1 {
		x.raise(x.inners.at(x.path[d].ref), d, n.height, stamp)
	}
	// The last of them may have got separators since.
	last := &x.path[n.height-2]
	leaf := &x.path[n.height-1]
	ref, same := x.below(a, last, x.inners.at(last.ref), key, lsn, &leaf.lo, &leaf.hi)
	if same {
		x.height = 0
		return false
	}
	leaf.ref = ref
	x.height, x.raised = n.height, stamp
	if before != 0 {
		x.near = ref == before
	}
	return true
}
