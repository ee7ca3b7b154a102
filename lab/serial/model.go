package serial

import (
	"fmt"
	"slices"
	"strings"

	"github.com/anishathalye/porcupine"
)

// A store here has two keyspaces of a few keys each.
const (
	maxKeys = 8
	spaces  = 2
)

// state is all of a store: the number under each key, 0 for none. last is the
// place in the log of the last operation of which it is known.
type state struct {
	keys [spaces * maxKeys]uint32
	last int
}

func slot(space, key int) int { return space*maxKeys + key }

// kind is what one step of an operation does.
type kind uint8

const (
	kGet      kind = iota // read val under key
	kPut                  // write val under key
	kDelete               // delete key
	kDelRange             // delete [lo, hi)
	kScan                 // saw found in [lo, hi), at most limit of them, from the end if reverse
	kOpen                 // an iterator was opened: what it shows is as of here
	kMove                 // kScan as the iterator shows it
)

// step is one read or write with what it returned.
type step struct {
	kind          kind
	space, key    int
	lo, hi, limit int
	reverse       bool
	val           uint32
	found         []pair
}

type pair struct {
	key int
	val uint32
}

// op is one operation of a history: all its steps happen at one moment.
type op struct {
	name string
	// place says that it is that much behind the first in the log; 0: unknown, or
	// it writes nothing.
	place int
	// maybe: it ended in a way that does not tell whether it was committed.
	maybe bool
	// failed: a transaction whose function returned an error; it reads and writes nothing.
	failed bool
	steps  []step
}

// apply returns the state after the op, and whether it might have seen what it
// saw in s.
func (o *op) apply(s state) (state, bool) {
	if o.place > 0 {
		if o.place != s.last+1 {
			return s, false
		}
		s.last = o.place
	}
	first, snap := s, s
	for i := range o.steps {
		t := &o.steps[i]
		switch t.kind {
		case kGet:
			if s.keys[slot(t.space, t.key)] != t.val {
				return s, false
			}
		case kPut:
			s.keys[slot(t.space, t.key)] = t.val
		case kDelete:
			s.keys[slot(t.space, t.key)] = 0
		case kDelRange:
			for k := t.lo; k < t.hi; k++ {
				s.keys[slot(t.space, k)] = 0
			}
		case kOpen:
			snap = s
		case kScan:
			if !t.matches(&s) {
				return s, false
			}
		case kMove:
			if !t.matches(&snap) {
				return s, false
			}
		}
	}
	if o.failed {
		return first, true
	}
	return s, true
}

// writes says whether the op may change anything.
func (o *op) writes() bool {
	return !o.failed && slices.ContainsFunc(o.steps, func(t step) bool {
		return t.kind == kPut || t.kind == kDelete || t.kind == kDelRange
	})
}

// matches says whether a scan of s finds what t found.
func (t *step) matches(s *state) bool {
	n := 0
	for i := range t.hi - t.lo {
		k := t.lo + i
		if t.reverse {
			k = t.hi - 1 - i
		}
		v := s.keys[slot(t.space, k)]
		if v == 0 {
			continue
		}
		if n == t.limit {
			return true
		}
		if n >= len(t.found) || t.found[n] != (pair{k, v}) {
			return false
		}
		n++
	}
	return n == len(t.found)
}

func (t *step) String() string {
	where := [...]string{"", "other:"}[t.space]
	switch t.kind {
	case kGet:
		return fmt.Sprintf("%sget %d=%d", where, t.key, t.val)
	case kPut:
		return fmt.Sprintf("%sput %d=%d", where, t.key, t.val)
	case kDelete:
		return fmt.Sprintf("%sdel %d", where, t.key)
	case kDelRange:
		return fmt.Sprintf("%sdel [%d,%d)", where, t.lo, t.hi)
	case kOpen:
		return where + "iter"
	}
	word := "scan"
	if t.kind == kMove {
		word = "move"
	}
	if t.reverse {
		word += " back"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s%s [%d,%d)", where, word, t.lo, t.hi)
	if t.limit < maxKeys {
		fmt.Fprintf(&b, " limit %d", t.limit)
	}
	for _, p := range t.found {
		fmt.Fprintf(&b, " %d=%d", p.key, p.val)
	}
	return b.String()
}

func (o *op) String() string {
	parts := make([]string, len(o.steps))
	for i := range o.steps {
		parts[i] = o.steps[i].String()
	}
	name := o.name
	if o.failed {
		name += " failed"
	}
	if o.maybe {
		name += " abandoned"
	}
	if o.place > 0 {
		name += fmt.Sprintf(" #%d", o.place)
	}
	return name + ": " + strings.Join(parts, "; ")
}

// survivors returns the values that are in the store right after the op.
func (o *op) survivors() map[uint32]bool {
	left := map[int]uint32{}
	for _, t := range o.steps {
		switch t.kind {
		case kPut:
			left[slot(t.space, t.key)] = t.val
		case kDelete:
			delete(left, slot(t.space, t.key))
		case kDelRange:
			for k := t.lo; k < t.hi; k++ {
				delete(left, slot(t.space, k))
			}
		}
	}
	out := map[uint32]bool{}
	for _, v := range left {
		out[v] = true
	}
	return out
}

// model is the store as porcupine sees it: one thing, which takes the operations
// that write in the order of the log.
var model = porcupine.Model{
	Init: func() any { return state{} },
	Step: func(st, in, _ any) (bool, any) {
		next, ok := in.(*op).apply(st.(state))
		return ok, next
	},
	Equal:             func(a, b any) bool { return a.(state) == b.(state) },
	DescribeOperation: func(in, _ any) string { return in.(*op).String() },
	DescribeState:     func(st any) string { return fmt.Sprint(st.(state).keys) },
}
