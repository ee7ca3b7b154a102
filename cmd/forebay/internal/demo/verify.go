package demo

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/forebaydb/forebay"
)

// state is what the parent knows of one put of the plan.
type state uint8

const (
	open  state = iota // not ordered, or ordered and not known to be there
	shown              // never acknowledged, but a reopened store showed it: it must stay
	acked              // acknowledged
)

// plan is all that is to be in the store at the end: every file once a round.
type plan struct {
	src    *source
	jobs   []job
	states []state
	number map[string]uint32 // by key
}

func newPlan(src *source, rounds int) *plan {
	p := &plan{src: src, number: map[string]uint32{}}
	for round := range rounds {
		for _, f := range src.files {
			n := uint32(len(p.jobs))
			key := fmt.Sprintf("round%d/%s", round+1, slash(f.path))
			p.jobs = append(p.jobs, job{n, key, f.path})
			p.number[key] = n
		}
	}
	p.states = make([]state, len(p.jobs))
	return p
}

// file returns the number of the source file of a put.
func (p *plan) file(n uint32) int { return int(n) % len(p.src.files) }

// open returns the puts that are still to be done, in order.
func (p *plan) open() []job {
	var jobs []job
	for n, s := range p.states {
		if s == open {
			jobs = append(jobs, p.jobs[n])
		}
	}
	return jobs
}

// count returns how many puts are in a state.
func (p *plan) count(s state) int {
	n := 0
	for _, x := range p.states {
		if x == s {
			n++
		}
	}
	return n
}

// findings of a verification.
type findings struct {
	checked int    // keys that had to be there
	missing int    // of these: not there
	wrong   int    // of these: another value
	flight  int    // there, never acknowledged, whole: under way at the kill
	extra   int    // there and never written, or damaged, or more than can have been under way
	first   string // the first thing that is wrong
}

func (f *findings) lost() int { return f.missing + f.wrong }

func (f *findings) say(format string, args ...any) {
	if f.first == "" {
		f.first = fmt.Sprintf(format, args...)
	}
}

// verify looks every put that must be there up and compares it with the source
// tree by content, and then walks all keys of the store, of which none may be
// there that was not written. At most inFlight may be there unacknowledged; they
// are marked as shown.
func (p *plan) verify(db *forebay.DB, inFlight int) (*findings, error) {
	f := &findings{}
	if err := p.lookUp(db, f); err != nil {
		return nil, err
	}
	if err := p.walk(db, f); err != nil {
		return nil, err
	}
	if f.flight > inFlight {
		f.extra += f.flight - inFlight
		f.say("%d keys are there unacknowledged; only %d can have been under way", f.flight, inFlight)
	}
	return f, nil
}

func (p *plan) lookUp(db *forebay.DB, f *findings) error {
	var mu sync.Mutex // guards f and failure
	var failure error
	var next atomic.Int64
	var workers sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			for n := next.Add(1) - 1; int(n) < len(p.jobs); n = next.Add(1) - 1 {
				if p.states[n] == open {
					continue
				}
				key := p.jobs[n].Key
				value, err := db.Get([]byte(key))
				missing, equal := errors.Is(err, forebay.ErrNotFound), false
				if err == nil {
					equal, err = p.src.equal(p.file(uint32(n)), value)
				}
				mu.Lock()
				f.checked++
				switch {
				case missing:
					f.missing++
					f.say("%s was acknowledged and is not there", key)
				case err != nil:
					failure = errors.Join(failure, err)
					next.Store(int64(len(p.jobs)))
				case !equal:
					f.wrong++
					f.say("%s has another value than was written", key)
				}
				mu.Unlock()
			}
		})
	}
	workers.Wait()
	return failure
}

func (p *plan) walk(db *forebay.DB, f *findings) error {
	last := ""
	for e, err := range db.Range(nil, nil) {
		if err != nil {
			return err
		}
		key := string(e.Key)
		n, known := p.number[key]
		if !known || key <= last {
			f.extra++
			f.say("%q is there and was never written, or is out of order", key)
			continue
		}
		last = key
		if p.states[n] != open {
			continue
		}
		equal, err := p.src.equal(p.file(n), e.Value)
		if err != nil {
			return err
		}
		if !equal {
			f.extra++
			f.say("%s was under way at the kill and is there in part", key)
			continue
		}
		f.flight++
		p.states[n] = shown
	}
	return nil
}
