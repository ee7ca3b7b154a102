package merge

import (
	"bytes"
	"sync"

	"github.com/forebaydb/forebay/internal/base"
)

const (
	// runMin and runMax are how many versions a Visible asks for at once, at first
	// and when it has gone far.
	runMin = 16
	runMax = 128
	// runWait is the most steps from a run that was of no use to the next try.
	runWait = 64
)

// runs shows versions of a base.Runner without a move of it for each. While cur
// is set, it is what is shown, and the Visible's own state is as it was when the
// run was taken, until leaveRun.
type runs struct {
	from base.Runner // nil: there is none
	cur  *base.Version

	*runRoom // nil until there was a run
	reverse  bool
	list     []base.Version // what the reader sees of the run, in it; cur is list[at]
	at       int

	size, wait, waited int
}

// runRoom is memory for a run, which one walk leaves to the next.
type runRoom struct {
	run []base.Version
	// steps has for each of list the number in the run of where the iterator below
	// would be without it: forward of itself, backward of the first version that is
	// not of its key. While both are each behind the other it has none.
	steps []int
	used  int // how much of run ever was
}

var runRooms = sync.Pool{New: func() any { return new(runRoom) }}

// rest gives the memory back.
func (r *runs) rest() {
	r.cur = nil
	if r.runRoom != nil {
		clear(r.run[:r.used]) // they name the bytes of blocks
		r.used, r.list = 0, nil
		runRooms.Put(r.runRoom)
		r.runRoom = nil
	}
}

// start forgets the run, and how far the walk has gone.
func (r *runs) start() {
	r.cur = nil
	r.size, r.wait, r.waited = runMin, 0, 1
}

// next goes on in the run, if there is more of it in that direction.
func (r *runs) next(reverse bool) bool {
	at := r.at + 1
	if r.cur == nil || r.reverse != reverse || at >= len(r.list) {
		return false
	}
	r.at, r.cur = at, &r.list[at]
	return true
}

// takeRun asks for a run and shows the first of it that follows what is shown
// now. It is false when that is not in it, or it is not worth the while.
func (v *Visible) takeRun() bool {
	r := &v.runs
	switch {
	case r.from == nil:
		return false
	case r.wait > 0:
		r.wait--
		return false
	}
	if r.runRoom == nil {
		r.runRoom = runRooms.Get().(*runRoom)
	}
	r.run, r.reverse = r.from.Run(r.run, r.size, v.reverse), v.reverse
	r.used, r.steps = max(r.used, min(r.size, cap(r.run))), r.steps[:0] // who cut the run has seen more
	if v.reverse {
		v.seenBackward()
	} else {
		v.seenForward()
	}
	if len(r.list) == 0 {
		r.waited = min(2*r.waited, runWait)
		r.wait, r.size = r.waited, runMin
		return false
	}
	// Where another source has cut the run it will cut the next ones, too, about as
	// long: what lies beyond was decoded for nothing.
	if n := 2 * len(r.run); n < r.size {
		r.size = max(n, runMin)
	} else {
		r.size = min(2*r.size, runMax)
	}
	r.waited = 1
	r.at, r.cur = 0, &r.list[0]
	return true
}

// seenForward finds what the reader sees behind the first version of the run,
// which is the one that is shown now.
func (v *Visible) seenForward() {
	r := &v.runs
	n := len(r.run)
	if n == 0 {
		r.list = nil
		return
	}
	bounded := v.hi == nil || bytes.Compare(r.run[n-1].Key, v.hi) < 0
	to, decided := 1, true
	for i := 1; i < n; i++ {
		e := &r.run[i]
		decided = decided && e.Same
		if decided || v.hidden(e.LSN) {
			continue
		}
		if !bounded && bytes.Compare(e.Key, v.hi) >= 0 {
			break
		}
		if decided = true; e.Kind == base.KindPut {
			r.keep(1, to, i, i)
			to++
		}
	}
	r.list = r.run[1:to]
}

// keep puts version i of the run at to, among those from first on that the reader
// sees, and notes its step.
func (r *runs) keep(first, to, i, step int) {
	if to != i {
		r.run[to] = r.run[i]
	}
	if len(r.steps) == 0 && step == to-first+1 {
		return
	}
	for k := len(r.steps); k < to-first; k++ {
		r.steps = append(r.steps, k+1)
	}
	r.steps = append(r.steps, step)
}

// seenBackward finds what the reader sees in the run, which begins with the
// oldest version of a key. Of a key that the run may not have whole nothing is
// known.
func (v *Visible) seenBackward() {
	r := &v.runs
	n, to := len(r.run), 0
	for i := 0; i < n; {
		newest, j := -1, i
		for ; j < n && (j == i || r.run[j].Same); j++ {
			if !v.hidden(r.run[j].LSN) {
				newest = j
			}
		}
		if j == n || v.lo != nil && bytes.Compare(r.run[i].Key, v.lo) < 0 {
			break
		}
		if newest >= 0 && r.run[newest].Kind == base.KindPut {
			r.keep(0, to, newest, j)
			to++
		}
		i = j
	}
	r.list = r.run[:to]
}

// leaveRun moves the iterator below to where it would be without the run.
func (v *Visible) leaveRun() {
	r := &v.runs
	if r.cur == nil {
		return
	}
	n := r.at + 1
	if len(r.steps) > 0 {
		n = r.steps[r.at]
	}
	if r.reverse {
		v.key, v.version = append(v.key[:0], r.cur.Key...), r.cur.LSN
		if cap(v.value) > keepMax {
			v.value = nil
		}
		v.value = append(v.value[:0], r.cur.Value...)
	}
	r.cur = nil
	r.from.Advance(n)
}
