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
	at := step{ref: uint32(root)}
	for i := range n.height - 1 {
		n.path[i] = at
		var same bool
		if at, same = x.below(a, &n.path[i], key, lsn); same {
			return
		}
	}
	prefetch.Value(x.leaves.at(at.ref))
	n.n = copy(n.key[:], key)
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
	leaf, same := x.below(a, &x.path[n.height-2], key, lsn)
	if same {
		x.height = 0
		return false
	}
	x.path[n.height-1] = leaf
	x.arrive(before, n.height, stamp)
	return true
}
