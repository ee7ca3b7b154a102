package rangedel

import (
	"slices"

	"github.com/forebaydb/forebay/internal/base"
)

// list holds the LSNs of the range deletes that apply at one place, descending,
// while New goes over the keys. What it published stays as it is: the list goes
// on in the same memory where it only loses one at its ends or gets a new
// highest one, and else in a copy. So nested range deletes, and those of which
// each begins behind the one before, take up memory in proportion to their
// number, though each of their spans has a long list.
type list struct {
	buf       []base.LSN
	from, to  int // the list is buf[from:to]
	low       int // buf[low:] was published
	allocated int // elements of all bufs
}

// publish returns the list as it is now, for good.
func (l *list) publish() []base.LSN {
	if l.from == l.to {
		return nil
	}
	l.low = min(l.low, l.from)
	return l.buf[l.from:l.to:l.to]
}

// find returns where lsn is in buf, or belongs.
func (l *list) find(lsn base.LSN) int {
	i, _ := slices.BinarySearchFunc(l.buf[l.from:l.to], lsn, func(a, b base.LSN) int {
		switch {
		case a > b:
			return -1
		case a < b:
			return 1
		}
		return 0
	})
	return l.from + i
}

func (l *list) add(lsn base.LSN) {
	i := l.find(lsn)
	if i == l.from && i > 0 && i <= l.low {
		l.from--
		l.buf[l.from] = lsn
		return
	}
	before, after := l.buf[l.from:i], l.buf[i:l.to]
	l.renew(len(before) + 1 + len(after))
	n := copy(l.buf[l.from:], before)
	l.buf[l.from+n] = lsn
	copy(l.buf[l.from+n+1:], after)
}

func (l *list) remove(lsn base.LSN) {
	switch i := l.find(lsn); {
	case i == l.from:
		l.from++
	case i == l.to-1:
		l.to--
	default:
		before, after := l.buf[l.from:i], l.buf[i+1:l.to]
		l.renew(len(before) + len(after))
		n := copy(l.buf[l.from:], before)
		copy(l.buf[l.from+n:], after)
	}
}

// renew begins a new buf for n elements, with as much room in front of them.
func (l *list) renew(n int) {
	room := max(2, n)
	l.buf = make([]base.LSN, room+n)
	l.from, l.to, l.low = room, room+n, room+n
	l.allocated += len(l.buf)
}
