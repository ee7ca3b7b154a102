package workload

import (
	"errors"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// worker is one goroutine of a load.
type worker struct {
	id   int
	rng  rng
	hist *hdrhistogram.Histogram // nanoseconds
	ops  int64
	secs []int64 // operations of each second
	err  error
	_    [64]byte // workers do not share a line of the processor's cache
}

// loop says how operations are repeated.
type loop struct {
	goroutines int
	warm       time.Duration // not counted
	length     time.Duration
	// every: the time of one operation in so many is taken. Reading the clock costs
	// some 70 ns on a virtual machine: loads that take less than some microseconds
	// and cannot stall are timed by samples. 1 sees every stall.
	every int
	// ops, if not 0, ends the load after so many operations of each goroutine.
	ops int64
	// enough, if set, is asked when length is over; while it says no the load goes
	// on, at most until limit.
	enough func(ops int64) bool
	limit  time.Duration
	// most, if not 0, is how many operations of each goroutine end a load early.
	most int64
	// rate, if not 0, is the number of arrivals a second of an open loop: latencies
	// count from when an operation was due.
	rate float64
	// start makes the operation of a worker; end, if not nil, is called behind it.
	start func(w *worker) (op func() error, end func() error, err error)
}

// measured is what a loop gave.
type measured struct {
	ops     int64
	elapsed time.Duration
	hist    *hdrhistogram.Histogram
	worst   *float64 // operations in the worst whole second, if there was one
	every   int
}

func (m measured) rate() float64 { return float64(m.ops) / m.elapsed.Seconds() }

func newHist() *hdrhistogram.Histogram {
	return hdrhistogram.New(1, int64(10*time.Minute), 3)
}

// run runs the loop. during, if not nil, is called when the counted part begins,
// and again when it ends.
func (l loop) run(during func(begin bool)) (measured, error) {
	l.every = max(l.every, 1)
	workers := make([]worker, l.goroutines)
	ops := make([]func() error, l.goroutines)
	ends := make([]func() error, l.goroutines)
	var errs []error
	for i := range workers {
		w := &workers[i]
		w.id, w.rng, w.hist = i, rng(mix(uint64(i+1))), newHist()
		op, end, err := l.start(w)
		if end != nil {
			ends[i] = end
		}
		if ops[i] = op; err != nil {
			errs = append(errs, err)
			break
		}
	}
	var out measured
	if len(errs) == 0 {
		if l.warm > 0 {
			warm := l
			warm.length, warm.limit, warm.enough, warm.ops, warm.rate = l.warm, l.warm, nil, 0, 0
			_, err := warm.phase(workers, ops)
			errs = append(errs, err)
			for i := range workers {
				workers[i].hist.Reset()
				workers[i].ops, workers[i].secs = 0, nil
			}
		}
		if during != nil {
			during(true)
		}
		var err error
		out, err = l.phase(workers, ops)
		errs = append(errs, err)
		if during != nil {
			during(false)
		}
	}
	for _, end := range ends {
		if end != nil {
			errs = append(errs, end())
		}
	}
	return out, errors.Join(errs...)
}

func (l loop) phase(workers []worker, ops []func() error) (measured, error) {
	var (
		wg   sync.WaitGroup
		stop atomic.Bool
	)
	start := time.Now()
	for i := range workers {
		wg.Go(func() {
			w := &workers[i]
			if l.rate > 0 {
				w.err = l.open(w, ops[i], start, &stop)
			} else {
				w.err = l.closed(w, ops[i], start, &stop)
			}
			if w.err != nil {
				stop.Store(true)
			}
		})
	}
	wg.Wait()
	m := measured{elapsed: time.Since(start), hist: newHist(), every: l.every}
	var errs []error
	var secs []int64
	for i := range workers {
		w := &workers[i]
		m.ops += w.ops
		m.hist.Merge(w.hist)
		errs = append(errs, w.err)
		for s, n := range w.secs {
			if s == len(secs) {
				secs = append(secs, 0)
			}
			secs[s] += n
		}
	}
	if whole := int(m.elapsed / time.Second); l.every == 1 && whole >= 1 && l.rate == 0 {
		least := int64(math.MaxInt64)
		for s := range whole {
			n := int64(0) // a second that nobody reached
			if s < len(secs) {
				n = secs[s]
			}
			least = min(least, n)
		}
		f := float64(least)
		m.worst = &f
	}
	return m, errors.Join(errs...)
}

// closed does one operation after the other.
func (l loop) closed(w *worker, op func() error, start time.Time, stop *atomic.Bool) error {
	last := time.Since(start)
	for {
		for range l.every - 1 {
			if err := op(); err != nil {
				return err
			}
		}
		if l.every > 1 {
			last = time.Since(start)
		}
		if err := op(); err != nil {
			return err
		}
		now := time.Since(start)
		w.ops += int64(l.every)
		if err := w.hist.RecordValue(int64(now - last)); err != nil {
			return err
		}
		if l.every == 1 {
			w.second(now)
		}
		last = now
		switch {
		case stop.Load(), l.most > 0 && w.ops >= l.most:
			return nil
		case l.ops > 0:
			if w.ops >= l.ops {
				return nil
			}
		case now < l.length:
		case l.enough == nil || now >= l.limit || l.enough(w.ops):
			return nil
		}
	}
}

func (w *worker) second(now time.Duration) {
	s := int(now / time.Second)
	for len(w.secs) <= s {
		w.secs = append(w.secs, 0)
	}
	w.secs[s]++
}

// open does operations when they are due: arrivals of each worker are a Poisson
// process, and so are those of all together. One that is late is begun at once,
// and its latency counts from when it was due.
func (l loop) open(w *worker, op func() error, start time.Time, stop *atomic.Bool) error {
	mean := float64(time.Second) * float64(l.goroutines) / l.rate
	due := time.Duration(0)
	for {
		due += time.Duration(-math.Log(w.rng.float()) * mean)
		// An engine that cannot follow is not waited for without end.
		if due >= l.length || stop.Load() || time.Since(start) > 3*l.length {
			return nil
		}
		if wait := due - time.Since(start); wait > 0 {
			time.Sleep(wait)
		}
		if err := op(); err != nil {
			return err
		}
		now := time.Since(start)
		w.ops++
		if err := w.hist.RecordValue(max(int64(now-due), 1)); err != nil {
			return err
		}
	}
}
