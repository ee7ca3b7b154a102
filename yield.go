package forebay

import (
	"math/rand/v2"
	"runtime"
)

// A durable commit sleeps while the disk works. If meanwhile others have taken all
// processors, the scheduler lets it run again when one of them has used up its ten
// milliseconds: forty times as long as the sync took. So who reads, or settles, yields
// now and then while somebody waits; those who work for long then take turns of some
// fifty microseconds with who has next to nothing to do.
const (
	// yieldGets and yieldRuns say one in how many gets, and moves of an iterator
	// that take more than a step, yield.
	yieldGets = 64
	yieldRuns = 16
)

// yield lets others run, once in n calls, if a durable commit waits. A store that is
// only read has no log.
func (db *DB) yield(n uint32) {
	if db.log != nil && db.log.Waiting() && (n == 1 || rand.Uint32N(n) == 0) {
		runtime.Gosched()
	}
}
