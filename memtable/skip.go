package memtable

import (
	"bytes"

	"github.com/forebaydb/forebay/internal/base"
)

// SkipBelow moves forward from where the iterator stands to the first version
// whose key is at or after until or whose LSN is at or above lsn; it stays if
// it stands on one. nil is no bound. It says whether there is one; an iterator
// that stands nowhere stays there. Versions that it passes over are not looked
// at one by one: for a run of n of them it takes about n/100 steps, or as many
// as the tree has levels if the newest of them is some 256 LSNs below lsn.
//
// Of versions that are added while the iterator is used it may miss some, and
// no others.
func (i *iter) SkipBelow(until []byte, lsn base.LSN) bool {
	if i.leaf == nil {
		return false
	}
	s := skipper{t: i.t, until: until, lsn: lsn, stamp: i.t.index.stamp(lsn)}
	// Mostly the end is near: in this leaf or the next.
	for range 2 {
		if s.scan(i.leaf, i.order, i.pos) {
			return i.stand(&s)
		}
		i.entry = i.t.arena.at(i.leaf.addrs[place(i.order, count(i.order)-1)])
		s.after = i.entry
		i.pos = count(i.order)
		if !i.load() {
			return false
		}
	}
	root := i.t.index.root.Load()
	switch {
	case root>>32 > 1 && s.inner(uint32(root), int(root>>32), true) && s.leaf != nil:
		return i.stand(&s)
	case until == nil:
		i.leaf, i.entry = nil, nil
		return false
	}
	return i.SeekGE(until, base.MaxLSN)
}

func (i *iter) stand(s *skipper) bool {
	i.leaf, i.order, i.pos = s.leaf, s.order, s.pos
	return i.load()
}

// skipper looks for the version that SkipBelow wants.
type skipper struct {
	t     *Table
	until []byte
	lsn   base.LSN
	stamp uint32 // of lsn: a node with a lower max has nothing of interest
	after entry  // it is behind this one

	leaf  *leaf // where it is, or nil
	order uint64
	pos   int
}

func (s *skipper) reached(key []byte) bool {
	return s.until != nil && bytes.Compare(key, s.until) >= 0
}

// scan looks for it in a leaf from a position on.
func (s *skipper) scan(l *leaf, order uint64, pos int) bool {
	a, n := &s.t.arena, count(order)
	if pos >= n {
		return false
	}
	ends := s.reached(a.at(l.addrs[place(order, n-1)]).key())
	if !ends && l.max.Load() < s.stamp {
		return false
	}
	for ; pos < n; pos++ {
		if e := a.at(l.addrs[place(order, pos)]); e.lsn() >= s.lsn || ends && s.reached(e.key()) {
			s.leaf, s.order, s.pos = l, order, pos
			return true
		}
	}
	return false
}

// inner looks for it below an inner node of a tree of that height; within says
// that s.after belongs there, and does not lie before all of it. The result is
// false if it must lie behind the node. It is true with s.leaf nil if the node
// has only lower LSNs up to until.
//
// As in find, a child counts only if the node's order did not change until it
// was loaded. What was passed over stays so: a child that was split later had
// all that matters when it was looked at.
func (s *skipper) inner(ref uint32, height int, within bool) bool {
	n := s.t.index.inners.at(ref)
	order := n.order.Load()
	kid, end := s.bounds(n, order, within)
	for ; ; kid, within = kid+1, false {
		ref := n.slot(order, kid).Load()
		for again := n.order.Load(); again != order; again = n.order.Load() {
			from, to := s.bounds(n, again, within)
			if !within && kid > 0 {
				from = locate(again, place(order, kid-1)) + 1
			}
			kid, end, order = from, to, again
			ref = n.slot(order, kid).Load()
		}
		if s.child(ref, height-1, within) {
			return true
		}
		if kid == end {
			return end < count(order)
		}
	}
}

// locate returns the position of a place that has one.
func locate(order uint64, at int) int {
	pos := 0
	for place(order, pos) != at {
		pos++
	}
	return pos
}

// bounds returns the first and the last child of a node that come into
// question, by an order of it.
func (s *skipper) bounds(n *inner, order uint64, within bool) (kid, end int) {
	a := &s.t.arena
	if within {
		var same bool
		if kid, same = n.search(a, order, s.after.key(), s.after.lsn()); same {
			kid++
		}
	}
	end = count(order)
	if s.reached(a.at(n.addrs[place(order, end-1)]).key()) {
		// until is within the bounds of the node: it may be searched for.
		end, _ = n.search(a, order, s.until, base.MaxLSN)
	}
	return kid, end
}

// child is inner for a node of any height.
func (s *skipper) child(ref uint32, height int, within bool) bool {
	x := &s.t.index
	if height > 1 {
		return x.inners.at(ref).max.Load() >= s.stamp && s.inner(ref, height, within)
	}
	l := x.leaves.at(ref)
	if l.max.Load() < s.stamp {
		return false
	}
	order := l.order.Load()
	pos := 0
	if within {
		var same bool
		if pos, same = l.search(&s.t.arena, order, s.after.key(), s.after.lsn()); same {
			pos++
		}
	}
	return s.scan(l, order, pos)
}
