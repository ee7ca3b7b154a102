package memtable

import (
	"sync/atomic"

	"github.com/forebaydb/forebay/internal/base"
	"github.com/forebaydb/forebay/internal/publish"
)

// maxHeight is more levels than a tree can get: splits leave half-full nodes,
// and there are fewer than 1<<32 entries.
const maxHeight = 24

// index is a B+tree of (key, LSN) over the entries of an arena. One goroutine
// inserts; any number read.
//
// An insert into a node with a free place is one atomic store (see keys). A
// full node is replaced by two new ones and then never changes again, so that
// a reader that is still in it has all that was there when it came. The two
// are published in its parent in two steps, each of which leaves the tree
// whole:
//
//  1. a separator with the right one is inserted: who wants the upper half
//     goes there, who wants the lower half still goes to the old node;
//  2. the left one takes the old node's place.
//
// A reader that chose a child by an order from before step 1 and loaded it
// after step 2 would look for the upper half in the left node. Therefore it
// loads the order again after the child, and if that changed chooses anew.
//
// The leaves are linked both ways. The neighbours learn of a split last; until
// then they lead to the old leaf, which leads on.
type index struct {
	// root is the reference of the root with the height of the tree above it:
	// 0 is an empty tree, at height 1 the root is a leaf.
	root   atomic.Uint64
	leaves slab[leaf]
	inners slab[inner]

	// path is where the last insert went, from the root; its leaf is the last
	// element. It is for the inserting goroutine alone.
	path   [maxHeight]step
	height int    // of path; 0 if a split made it void
	near   bool   // inserts tend to go where the one before went
	raised uint32 // the max of every inner node of path is at least this

	// ahead is where the next insert will go, and the one after that; looked is the
	// one of them that was taken last, and inner counts the changes after which they
	// are void. All are for the inserting goroutine alone.
	ahead  [2]ahead
	looked int
	inner  uint64

	// base is the LSN of the first entry, set before the root is.
	base base.LSN
}

// stamp returns an LSN in 32 bits: counted from that of the first entry, and
// cut off at both ends. Of two LSNs the higher never has the lower stamp.
func (x *index) stamp(lsn base.LSN) uint32 {
	if lsn <= x.base {
		return 0
	}
	return uint32(min(lsn-x.base, 1<<32-1))
}

// raiseStep is by how much, less one, the max of an inner node that is above
// other inner nodes is rounded up: so that it changes once in a while, not with
// every commit. Only the parents of leaves have to be told apart well.
const raiseStep = 255

// raise raises the max of the inner node of path at depth d.
func (x *index) raise(n *inner, d, height int, stamp uint32) {
	if n.max.Load() < stamp {
		if d < height-2 {
			stamp |= raiseStep
		}
		publish.Uint32(&n.max, stamp)
	}
}

// step is one node of a path.
type step struct {
	ref uint32
	// kid counts the separators at or before what was looked for.
	kid int
	// lo and hi are the entries that bound the node, from lo to before hi;
	// 0 is none.
	lo, hi uint32
}

func (x *index) size() int { return x.leaves.total*leafSize + x.inners.total*innerSize }

// slot returns the child at a position, counted from 0 for the first.
func (n *inner) slot(order uint64, kid int) *atomic.Uint32 {
	if kid == 0 {
		return &n.first
	}
	return &n.kids[place(order, kid-1)]
}

// find returns the leaf where (key, lsn) belongs, nil in an empty tree.
func (x *index) find(a *arena, key []byte, lsn base.LSN) *leaf {
	root := x.root.Load()
	if root == 0 {
		return nil
	}
	ref := uint32(root)
	for range root>>32 - 1 {
		n := x.inners.at(ref)
		for order := n.order.Load(); ; {
			kid, same := n.search(a, order, key, lsn)
			if same {
				kid++
			}
			ref = n.slot(order, kid).Load()
			again := n.order.Load()
			if again == order {
				break
			}
			order = again
		}
	}
	return x.leaves.at(ref)
}

// edge returns the first or the last leaf, nil in an empty tree.
func (x *index) edge(last bool) *leaf {
	root := x.root.Load()
	if root == 0 {
		return nil
	}
	ref := uint32(root)
	for range root>>32 - 1 {
		n := x.inners.at(ref)
		for order := n.order.Load(); ; {
			kid := 0
			if last {
				kid = count(order)
			}
			ref = n.slot(order, kid).Load()
			again := n.order.Load()
			if again == order {
				break
			}
			order = again
		}
	}
	return x.leaves.at(ref)
}

// ceiling returns the address of the first entry at or after (key, lsn), 0 if
// there is none.
func (x *index) ceiling(a *arena, key []byte, lsn base.LSN) uint32 {
	l := x.find(a, key, lsn)
	if l == nil {
		return 0
	}
	order := l.order.Load()
	pos, _ := l.search(a, order, key, lsn)
	if pos < count(order) {
		return l.addrs[place(order, pos)]
	}
	// The leaf may have been split since it was found, and have kept what is on
	// the left: then its neighbour begins before what is looked for.
	for {
		next := l.next.Load()
		if next == 0 {
			return 0
		}
		l = x.leaves.at(next)
		order = l.order.Load()
		for pos := range count(order) {
			addr := l.addrs[place(order, pos)]
			if e := a.at(addr); base.Compare(e.key(), e.lsn(), key, lsn) >= 0 {
				return addr
			}
		}
	}
}

// insert adds an entry.
func (x *index) insert(a *arena, lsn base.LSN, kind base.Kind, key, value []byte) error {
	if x.root.Load() == 0 {
		addr, err := a.add(lsn, kind, key, value)
		if err != nil {
			return err
		}
		x.base = lsn // Its stamp is 0, as every max still is.
		ref, l := x.leaves.add(&a.memory)
		l.put(0, headOf(key, 0), addr)
		publish.Uint64(&x.root, 1<<32|uint64(ref))
		return nil
	}
	stamp := x.stamp(lsn)
	near, last := x.stays(a, key, lsn)
	switch {
	case !near:
		if !x.follow(a, key, lsn, stamp) && !x.descend(a, key, lsn, stamp) {
			return ErrDuplicate
		}
	case stamp > x.raised:
		for d := range x.height - 1 {
			x.raise(x.inners.at(x.path[d].ref), d, x.height, stamp)
		}
		x.raised = stamp
	}
	l := x.leaves.at(x.path[x.height-1].ref)
	order := l.order.Load()
	pos, same := count(order), false
	if !last {
		if pos, same = l.search(a, order, key, lsn); same {
			return ErrDuplicate
		}
	}
	addr, err := a.add(lsn, kind, key, value)
	if err != nil {
		return err
	}
	if count(order) < fan {
		l.raise(stamp)
		l.put(pos, headOf(key, l.skip), addr)
		return nil
	}
	x.splitLeaf(a, pos, addr, stamp)
	return nil
}

// stays says whether (key, lsn) belongs in the leaf of the last insert, and
// whether there behind all others. That is looked at only when it was so lately:
// it costs a comparison or two.
func (x *index) stays(a *arena, key []byte, lsn base.LSN) (near, last bool) {
	if !x.near || x.height == 0 {
		return false, false
	}
	s := &x.path[x.height-1]
	if s.hi != 0 && a.compare(s.hi, key, lsn) <= 0 {
		return false, false
	}
	l := x.leaves.at(s.ref)
	order := l.order.Load()
	if a.compare(l.addrs[place(order, count(order)-1)], key, lsn) < 0 {
		return true, true
	}
	return s.lo == 0 || a.compare(s.lo, key, lsn) <= 0, false
}

// descend sets path to the leaf where (key, lsn) belongs. It returns false if
// it met just that as a separator. On its way it raises the max of the inner
// nodes.
func (x *index) descend(a *arena, key []byte, lsn base.LSN, stamp uint32) bool {
	var before uint32
	if x.height > 0 {
		before = x.path[x.height-1].ref
	}
	x.height = 0
	root := x.root.Load()
	at, height := step{ref: uint32(root)}, int(root>>32)
	for i := range height - 1 {
		x.path[i] = at
		var same bool
		if at, same = x.below(a, &x.path[i], key, lsn); same {
			return false
		}
		x.raise(x.inners.at(x.path[i].ref), i, height, stamp)
	}
	x.path[height-1] = at
	x.arrive(before, height, stamp)
	return true
}

// below goes from an inner node, of which s has all but kid, to the child in which
// (key, lsn) belongs; same says that the node has just that as a separator.
func (x *index) below(a *arena, s *step, key []byte, lsn base.LSN) (child step, same bool) {
	n := x.inners.at(s.ref)
	order := n.order.Load()
	if s.kid, same = n.search(a, order, key, lsn); same {
		return child, true
	}
	child = step{ref: n.slot(order, s.kid).Load(), lo: s.lo, hi: s.hi}
	if s.kid > 0 {
		child.lo = n.addrs[place(order, s.kid-1)]
	}
	if s.kid < count(order) {
		child.hi = n.addrs[place(order, s.kid)]
	}
	return child, false
}

// arrive says that path leads to a leaf; before is the one of the insert before.
func (x *index) arrive(before uint32, height int, stamp uint32) {
	x.height, x.raised = height, stamp
	if before != 0 {
		x.near = x.path[height-1].ref == before
	}
}
