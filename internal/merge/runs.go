package merge

import (
	"bytes"
	"sync"

	"github.com/forebaydb/forebay/internal/base"
)

const (
	// runMin and runMax are how many versions a Visible asks for at once, at first
	// and when it has gone far.
	runMin = 8
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
	at       int

	size, wait, waited int
}

// runRoom is memory for a run, which one walk leaves to the next.
type runRoom struct {
	run []base.Version
	// shown are the numbers in run of what the reader sees; at is which of them
	// is cur. Backward, behind has for each the number of the first version that
	// is not of its key.
	shown, behind []int
}

var runRooms = sync.Pool{New: func() any { return new(runRoom) }}

// close gives the memory back.
func (r *runs) close() {
	r.cur, r.from = nil, nil
	if r.runRoom != nil {
		clear(r.run[:cap(r.run)]) // it names the bytes of blocks
		runRooms.Put(r.runRoom)
		r.runRoom = nil
	}
}

// start forgets the run, and how far the walk has gone.
func (r *runs) start() {
	r.cur = nil
	r.size, r.wait, r.waited = runMin, 1, 1
}

// next goes on in the run, if there is more of it in that direction.
func (r *runs) next(reverse bool) bool {
	if r.cur == nil || r.reverse != reverse || r.at+1 == len(r.shown) {
		return false
	}
	r.at++
	r.cur = &r.run[r.shown[r.at]]
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
	r.shown, r.behind = r.shown[:0], r.behind[:0]
	if v.reverse {
		v.seenBackward()
	} else {
		v.seenForward()
	}
	if len(r.shown) == 0 {
		r.waited = min(2*r.waited, runWait)
		r.wait, r.size = r.waited, runMin
		return false
	}
	r.size, r.waited = min(2*r.size, runMax), 1
	r.at, r.cur = 0, &r.run[r.shown[0]]
	return true
}

// seenForward finds what the reader sees behind the first version of the run,
// which is the one that is shown now.
func (v *Visible) seenForward() {
	r := &v.runs
	n := len(r.run)
	if n == 0 {
		return
	}
	bounded := v.hi == nil || bytes.Compare(r.run[n-1].Key, v.hi) < 0
	decided := r.run[0].Key
	for i := 1; i < n; i++ {
		e := &r.run[i]
		if v.hidden(e.LSN) || bytes.Equal(e.Key, decided) {
			continue
		}
		if !bounded && bytes.Compare(e.Key, v.hi) >= 0 {
			return
		}
		if decided = e.Key; e.Kind == base.KindPut {
			r.shown = append(r.shown, i)
		}
	}
}

// seenBackward finds what the reader sees in the run, which begins with the
// oldest version of a key. Of a key that the run may not have whole nothing is
// known.
func (v *Visible) seenBackward() {
	r := &v.runs
	n := len(r.run)
	for i := 0; i < n; {
		key, newest, j := r.run[i].Key, -1, i
		for ; j < n && (j == i || bytes.Equal(r.run[j].Key, key)); j++ {
			if !v.hidden(r.run[j].LSN) {
				newest = j
			}
		}
		if j == n || v.lo != nil && bytes.Compare(key, v.lo) < 0 {
			return
		}
		if newest >= 0 && r.run[newest].Kind == base.KindPut {
			r.shown, r.behind = append(r.shown, newest), append(r.behind, j)
		}
		i = j
	}
}

// leaveRun moves the iterator below to where it would be without the run.
func (v *Visible) leaveRun() {
	r := &v.runs
	if r.cur == nil {
		return
	}
	n := r.shown[r.at]
	if r.reverse {
		n = r.behind[r.at]
		v.key, v.version = append(v.key[:0], r.cur.Key...), r.cur.LSN
		if cap(v.value) > keepMax {
			v.value = nil
		}
		v.value = append(v.value[:0], r.cur.Value...)
	}
	r.cur = nil
	r.from.Advance(n)
}
