package memtable

import (
	"unsafe"

	"github.com/forebaydb/forebay/internal/base"
	"github.com/forebaydb/forebay/internal/publish"
)

const (
	leafSize  = int(unsafe.Sizeof(leaf{}))
	innerSize = int(unsafe.Sizeof(inner{}))
)

// skipStep is by how many bytes the common prefix of a node's bounds must
// have grown before it is made use of: up to there the heads still tell keys
// apart, and need not be read again from the entries.
const skipStep = 4

// skipFor returns the skip of a node from lo to hi that replaces one with
// another skip and wider bounds.
func (a *arena) skipFor(old, lo, hi uint32) uint32 {
	if lo == 0 || hi == 0 {
		return old
	}
	n := uint32(base.CommonPrefix(a.at(lo).key(), a.at(hi).key()))
	if n < old+skipStep {
		return old
	}
	return n
}

// run is what a full node and the entry that does not fit in it hold, in
// order.
type run struct {
	heads [fan + 1]uint64
	addrs [fan + 1]uint32
}

// collect takes the elements of k, and at pos that of an entry, which has that head in k.
func (r *run) collect(k *keys, pos int, head uint64, addr uint32) {
	order := k.order.Load()
	for i, from := 0, 0; i <= fan; i++ {
		if i == pos {
			r.heads[i], r.addrs[i] = head, addr
			continue
		}
		at := place(order, from)
		r.heads[i], r.addrs[i] = k.heads[at], k.addrs[at]
		from++
	}
}

// fill makes k a new node of r's elements from i to before j. Nobody has seen
// k yet.
func (k *keys) fill(a *arena, r *run, i, j int, old, skip uint32) {
	k.skip = skip
	order := uint64(j - i)
	for at := range j - i {
		k.heads[at], k.addrs[at] = r.heads[i+at], r.addrs[i+at]
		if skip != old {
			k.heads[at] = headOf(a.at(k.addrs[at]).key(), skip)
		}
		order |= uint64(at) << (4 + 4*at)
	}
	publish.Uint64(&k.order, order)
}

// cut returns how many of a full leaf's entries and a new one at pos should
// stay on the left. Places are filled in the order of the inserts, so that the
// highest tell where the last ones went: beside a run of rising or of falling
// entries the leaf is cut where the run goes on, and is left full behind it.
func cut(order uint64, pos int) int {
	at := func(pos int) int { // The age of a position: 1 is the newest.
		if pos < 0 || pos >= fan {
			return fan
		}
		return fan - place(order, pos)
	}
	switch {
	case at(pos-1) == 1 && at(pos-2) == 2:
		return min(pos+1, fan)
	case at(pos) == 1 && at(pos+1) == 2:
		return max(pos, 1)
	}
	return (fan + 1) / 2
}

// splitLeaf replaces the leaf of path, which is full, by two that hold addr
// too, at pos. A half that is just the old leaf goes on being it. Both inherit
// its max: to know better, all LSNs would have to be looked up.
func (x *index) splitLeaf(a *arena, pos int, addr, stamp uint32) {
	s := x.path[x.height-1]
	old := x.leaves.at(s.ref)
	order := old.order.Load()
	var r run
	r.collect(&old.keys, pos, headOf(a.at(addr).key(), old.skip), addr)
	n := cut(order, pos)
	sep := r.addrs[n]
	prev, next := old.prev.Load(), old.next.Load()

	leftMax, rightMax := old.max.Load(), old.max.Load()
	switch {
	case n == 1 && pos == 0:
		leftMax = stamp // It is alone there.
	case n == fan && pos == fan:
		rightMax = stamp
	case pos < n:
		leftMax = max(leftMax, stamp)
	default:
		rightMax = max(rightMax, stamp)
	}
	left, right := s.ref, s.ref
	leftSkip, rightSkip := a.skipFor(old.skip, s.lo, sep), a.skipFor(old.skip, sep, s.hi)
	if n != fan || pos != fan || leftSkip != old.skip {
		var l *leaf
		left, l = x.leaves.add(&a.memory)
		l.fill(a, &r, 0, n, old.skip, leftSkip)
		publish.Uint32(&l.max, leftMax)
		publish.Uint32(&l.prev, prev)
	}
	if n != 1 || pos != 0 || rightSkip != old.skip {
		var l *leaf
		right, l = x.leaves.add(&a.memory)
		l.fill(a, &r, n, fan+1, old.skip, rightSkip)
		publish.Uint32(&l.max, rightMax)
		publish.Uint32(&l.prev, left)
		publish.Uint32(&l.next, next)
	}
	if left != s.ref {
		publish.Uint32(&x.leaves.at(left).next, right)
	}

	inner := x.inner
	x.publish(a, x.height-2, left, right, sep, &r)
	if x.inner != inner {
		x.height = 0
	} else { // the path still leads to the half that the entry is in
		leaf := &x.path[x.height-1]
		if pos < n {
			leaf.ref, leaf.hi = left, sep
		} else {
			leaf.ref, leaf.lo = right, sep
			x.path[x.height-2].kid++
		}
	}

	switch {
	case left == s.ref:
		publish.Uint32(&old.next, right)
	case prev != 0:
		publish.Uint32(&x.leaves.at(prev).next, left)
	}
	switch {
	case right == s.ref:
		publish.Uint32(&old.prev, left)
	case next != 0:
		publish.Uint32(&x.leaves.at(next).prev, right)
	}
}

// publish puts left, and right from sep on, in place of the child that path
// takes at depth d; at depth -1 it makes a new root of them. r is what the old node held.
func (x *index) publish(a *arena, d int, left, right, sep uint32, r *run) {
	if d < 0 {
		x.inner++
		ref, n := x.inners.add(&a.memory)
		publish.Uint32(&n.first, left)
		publish.Uint32(&n.kids[0], right)
		publish.Uint32(&n.max, x.maxOf(left, right))
		n.skip, n.edge = a.edgeFor(r)
		n.put(0, n.headOf(a, a.at(sep).key()), sep)
		publish.Uint64(&x.root, uint64(x.height+1)<<32|uint64(ref))
		return
	}
	n := x.inners.at(x.path[d].ref)
	kid := x.path[d].kid
	order := n.order.Load()
	if free := count(order); free < fan {
		publish.Uint32(&n.kids[free], right)
		n.put(kid, n.headOf(a, a.at(sep).key()), sep) // Step 1.
		publish.Uint32(n.slot(order, kid), left)      // Step 2.
		return
	}
	x.splitInner(a, d, left, right, sep)
}

// splitInner replaces the inner node of path at depth d, which is full, by two
// that hold left and right in place of the child that path takes. The
// separator in the middle moves up.
func (x *index) splitInner(a *arena, d int, left, right, sep uint32) {
	x.inner++
	s := x.path[d]
	old := x.inners.at(s.ref)
	order := old.order.Load()
	var r run
	r.collect(&old.keys, s.kid, old.headOf(a, a.at(sep).key()), sep)
	var kids [fan + 2]uint32
	for i, from := 0, 0; i < len(kids); i, from = i+1, from+1 {
		if from == s.kid {
			kids[i], kids[i+1] = left, right
			i++
			continue
		}
		kids[i] = old.slot(order, from).Load()
	}

	mid := fan / 2
	switch {
	case s.kid == fan && s.hi == 0: // Rising inserts at the end of all.
		mid = fan - 1
	case s.kid == 0 && s.lo == 0: // Falling ones at the beginning.
		mid = 1
	}
	up := r.addrs[mid]
	leftRef := x.newInner(a, &r, kids[:], 0, mid, old, s.lo, up)
	rightRef := x.newInner(a, &r, kids[:], mid+1, fan+1, old, up, s.hi)
	x.publish(a, d-1, leftRef, rightRef, up, &r)
}

// maxOf returns a max for the parent of the two nodes that replace the root.
func (x *index) maxOf(left, right uint32) uint32 {
	if x.height == 1 {
		return max(x.leaves.at(left).max.Load(), x.leaves.at(right).max.Load())
	}
	return max(x.inners.at(left).max.Load(), x.inners.at(right).max.Load())
}

// newInner makes an inner node of the separators i to before j of the old one, r, and the
// children around them, from lo to hi. It inherits the max of the old one.
func (x *index) newInner(a *arena, r *run, kids []uint32, i, j int, old *inner, lo, hi uint32) uint32 {
	ref, n := x.inners.add(&a.memory)
	publish.Uint32(&n.max, old.max.Load())
	publish.Uint32(&n.first, kids[i])
	for at := i; at < j; at++ {
		publish.Uint32(&n.kids[at-i], kids[at+1])
	}
	switch {
	case lo == 0 || hi == 0:
		n.skip, n.edge = a.edgeFor(r)
	case old.edge != 0: // its skip says nothing of this one
		n.skip = a.skipFor(0, lo, hi)
	default:
		n.skip = a.skipFor(old.skip, lo, hi)
	}
	if old.edge != 0 || n.edge != 0 || n.skip != old.skip {
		for at := i; at < j; at++ {
			r.heads[at] = n.headOf(a, a.at(r.addrs[at]).key())
		}
	}
	n.fill(a, r, i, j, n.skip, n.skip)
	return ref
}

// edgeFor returns skip and edge of an inner node that has a bound less and is made of what
// r has, or some of it.
func (a *arena) edgeFor(r *run) (skip, edge uint32) {
	lo, hi := r.addrs[0], r.addrs[fan]
	if n := base.CommonPrefix(a.at(lo).key(), a.at(hi).key()); n >= skipStep {
		return uint32(n), lo
	}
	return 0, 0
}
