package wal

import (
	"runtime"
	"sync/atomic"

	"github.com/forebaydb/forebay/internal/publish"
)

// looks is how those who commit while somebody leads find out that he has ended. As a
// rule they join a group and sleep, and he who leads commits it for them: what a commit
// touches stays with his processor. Where they do other things between their commits,
// reads, say, that costs more than it saves: a goroutine is put to sleep and woken for
// a microsecond's wait. There who comes looks for a while before he joins.
//
// Which of both it is shows in how many find somebody who leads while it is looked: of
// those who do nothing but commit, nearly all do. Then nobody looks for a while, which
// is longer each time, and it is tried again.
type looks struct {
	// who leads, as those see it who hold no lock.
	who atomic.Uint32
	on  atomic.Bool // who comes looks

	// guarded by the log's mu
	n, found int // commits of the window, and those that found somebody who led
	rest     int // windows until it is tried again
	last     int // how many that were the last time
	windows  int // for which it has been on
}

// Values of looks.who.
const (
	leadsNobody = iota
	leadsAlone  // and nobody waits
	leadsJoined // somebody waits
)

const (
	// lookWindow is how many commits are counted before it is decided.
	lookWindow = 256
	// A window of which more than lookMost of 8 found a leader ends it.
	lookMost = 6
	// minRest and maxRest bound for how many windows nobody looks then.
	minRest, maxRest = 8, 1024
	// lookLong is how many windows it has to last for what came before to be forgotten.
	lookLong = 64
	// maxLooks bounds how often one looks, and lookPause is how many locked
	// instructions, of some 20 cycles each, he does between two looks: in all about the
	// time of a few commits.
	maxLooks, lookPause = 100, 8
)

// look waits a moment for who leads to end, if that is worth while now, and says whether
// it found somebody.
func (l *Log) look() (found bool) {
	s := &l.looks
	if s.who.Load() == leadsNobody {
		return false
	}
	if !s.on.Load() {
		return true
	}
	var idle atomic.Uint32
	for range maxLooks {
		for range lookPause {
			idle.Add(1)
		}
		if s.who.Load() != leadsAlone {
			break
		}
	}
	return true
}

// count counts a commit that waits for no disk; mu is held.
func (s *looks) count(found bool) {
	s.n++
	if found {
		s.found++
	}
	if s.n < lookWindow {
		return
	}
	most := s.found*8 > s.n*lookMost
	s.n, s.found = 0, 0
	if !s.on.Load() {
		if s.rest--; s.rest <= 0 && runtime.GOMAXPROCS(0) > 1 {
			s.on.Store(true)
			s.windows = 0
		}
		return
	}
	s.windows++
	switch {
	case most && s.windows > 1: // the first is of those who were asleep, too
		s.on.Store(false)
		s.last = min(max(2*s.last, minRest), maxRest)
		s.rest = s.last
	case s.windows == lookLong:
		s.last = 0
	}
}

// leads says who leads; mu is held.
func (l *Log) leads(who uint32) { publish.Uint32(&l.looks.who, who) }
