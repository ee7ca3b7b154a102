package compaction

import (
	"context"
	"math"
	"sync"
	"sync/atomic"
	"time"
)

// Pacer says how fast writers may go, and how hard compactions work, so that
// neither ever has to stop for the other. It looks at two backlogs, both in units
// of a memtable:
//
//   - memory: what is in memtables and not yet settled,
//   - level 0: what is settled and not yet merged into a level, and what the
//     levels have above their sizes.
//
// Below a free part nobody waits. From there on the
// rate is the measured drain times a factor that falls without a step from
// infinity, through 1 where the backlog is what is aimed at, to a floor: writers
// and drain meet where the factor makes them equal.
//
// The clock is a parameter of every call. All methods may be called at once from
// many goroutines; Admit takes no lock.
type Pacer struct {
	o PacerOptions

	// interval is the time that a mebibyte takes, in ns; 0: as fast as you can.
	interval atomic.Int64
	// next is when the next byte may go, in ns since began: that is not the wall
	// clock's time, which may jump.
	next  atomic.Int64
	began time.Time

	mu       sync.Mutex // guards all that follows
	state    Backlog
	done     int64 // bytes of level 0 that running compactions have dealt with
	settle   meter
	drain    meter
	relation float64 // bytes of a segment for one of a memtable
}

// PacerOptions shape a Pacer. The zero value is the default.
type PacerOptions struct {
	// MemtableSize is the size at which memtables are frozen; default 64 MiB.
	MemtableSize int64
	// Memtables is how many may be in memory, the active one among them; default
	// 3. Writers are to be slowed so that the last is never full.
	Memtables int
	// Level0 is how many memtables' worth in level 0, and above the levels'
	// sizes, is aimed at under load; default 48.
	Level0 int
	// Free is the share of Level0 up to which nobody waits for it; default 0.5.
	Free float64
	// Floor is the least factor; default 0.3.
	Floor float64
	// MinRate is the least rate for writers in bytes a second; default 1 MiB.
	MinRate int64
	// Idle is the share of its time that a compaction works when there is no
	// backlog; default 0.25.
	Idle float64
}

func (o PacerOptions) withDefaults() PacerOptions {
	if o.MemtableSize <= 0 {
		o.MemtableSize = 64 << 20
	}
	if o.Memtables < 2 {
		o.Memtables = 3
	}
	if o.Level0 <= 0 {
		o.Level0 = 48
	}
	if o.Free <= 0 || o.Free >= 1 {
		o.Free = 0.5
	}
	if o.Floor <= 0 || o.Floor > 1 {
		o.Floor = 0.3
	}
	if o.MinRate <= 0 {
		o.MinRate = 1 << 20
	}
	if o.Idle <= 0 || o.Idle > 1 {
		o.Idle = 0.25
	}
	return o
}

// Backlog is what waits, in bytes.
type Backlog struct {
	// Memory is what memtables hold, the active one and the frozen ones.
	Memory int64
	// Level0 is the size of all segments of level 0.
	Level0 int64
	// Debt is what levels have above their sizes; see Debt.
	Debt int64
}

// NewPacer returns a Pacer that lets everybody go.
func NewPacer(o PacerOptions) *Pacer {
	p := &Pacer{o: o.withDefaults(), relation: 1, began: time.Now()}
	p.next.Store(longAgo)
	return p
}

// longAgo is before all times of Pacer.next.
const longAgo = math.MinInt64 / 2

const (
	// slack is how far writers may run ahead of their rate without a sleep,
	// which is never shorter than some tens of microseconds.
	slack = 2 * time.Millisecond
	// longest bounds what can be reserved ahead, and so a sleep.
	longest = 10 * time.Second
	// hard is the share of PacerOptions.Level0 from which on compactions work as hard
	// as they can: before anybody waits for them.
	hard = 1.0 / 3
	// slice is how long Wait sleeps before it looks whether it still has to.
	slice = 50 * time.Millisecond
)

// Wait is Admit and the sleep after it, on the system's clock. It ends early
// when there is nothing to wait for any more, and with ctx, whose error it then
// returns; what it reserved stays taken. It also returns how long it slept.
func (p *Pacer) Wait(ctx context.Context, n int64) (slept time.Duration, err error) {
	now := time.Now()
	left := p.Admit(n, now)
	if left == 0 {
		return 0, nil
	}
	defer func() { slept = time.Since(now) }()
	until := now.Add(left)
	timer := time.NewTimer(min(left, slice))
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-timer.C:
		}
		left = time.Until(until)
		if left <= 0 || !p.Limits() {
			return 0, nil
		}
		timer.Reset(min(left, slice))
	}
}

// Admit reserves n bytes of a writer and returns how long he has to sleep
// before he goes on; nearly always 0 while there is no backlog. Who does not
// sleep as told has still taken what he asked for: others sleep longer.
func (p *Pacer) Admit(n int64, now time.Time) time.Duration {
	interval := p.interval.Load()
	if interval == 0 {
		return 0
	}
	at := int64(now.Sub(p.began))
	cost := int64(float64(n) * float64(interval) / (1 << 20))
	for {
		next := p.next.Load()
		mine := max(next, at)
		if p.next.CompareAndSwap(next, min(mine+cost, at+int64(longest))) {
			wait := time.Duration(mine + cost - at)
			if wait <= slack {
				return 0
			}
			return min(wait, longest)
		}
	}
}

// Limits says whether writers have a rate at present.
func (p *Pacer) Limits() bool { return p.interval.Load() != 0 }

// Rate returns the present rate for writers in bytes a second; 0 is no limit.
func (p *Pacer) Rate() int64 {
	i := p.interval.Load()
	if i == 0 {
		return 0
	}
	return int64(float64(time.Second) / float64(i) * (1 << 20))
}

// Update says what waits now. It is called whenever the list of segments or of
// memtables changes, and some times a second under load, since the active
// memtable grows.
func (p *Pacer) Update(b Backlog, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if b.Level0 != p.state.Level0 {
		p.done = 0
	}
	p.state = b
	p.set()
}

// Grew adds n bytes to the active memtable, between two calls of Update.
func (p *Pacer) Grew(n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.state.Memory += n
	p.set()
}

// Settling says that a checkpoint begins, Settled that it ended and made a
// segment of so many bytes, 0 if none, from a memtable of so many.
func (p *Pacer) Settling(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.settle.start(now)
}

// Settled: see Settling.
func (p *Pacer) Settled(memtable, segment int64, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.settle.add(memtable, now)
	p.settle.stop(now)
	if memtable > 0 {
		p.relation += 0.3 * (min(max(float64(segment)/float64(memtable), 0.05), 2) - p.relation)
	}
	p.set()
}

// Begin says that a compaction begins, when none is running; End that the last
// one ended. In between Done says that n bytes of inputs were dealt with, of
// which zero bytes come out of level 0.
func (p *Pacer) Begin(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.drain.start(now)
}

// Done: see Begin.
func (p *Pacer) Done(zero int64, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done += zero
	p.drain.add(zero, now)
	p.set()
}

// End: see Begin.
func (p *Pacer) End(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.drain.stop(now)
	p.set()
}

// Rest returns how long a compaction that worked for so long without a break
// sleeps now: the less waits for it, the more. The sleep does not count as time
// in which it could have done something.
func (p *Pacer) Rest(worked time.Duration) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	share := min(1, p.o.Idle+(1-p.o.Idle)*p.settled()/(hard*float64(p.o.Level0)))
	rest := time.Duration(float64(worked) * (1 - share) / share)
	p.drain.last = p.drain.last.Add(rest)
	return rest
}

// Slows says whether so much waits to be merged that writers are slowed for it.
func (p *Pacer) Slows() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.settled() > p.o.Free*float64(p.o.Level0)
}

// settled is the backlog behind the checkpoints, in memtables; mu is held.
func (p *Pacer) settled() float64 {
	return float64(max(0, p.state.Level0-p.done)+p.state.Debt) / (float64(p.o.MemtableSize) * p.relation)
}

// set computes the rate anew; mu is held.
func (p *Pacer) set() {
	memory := float64(p.state.Memory) / float64(p.o.MemtableSize)
	// The active memtable fills while the others are settled: up to one and a
	// half nobody waits, at one below the last the rate is that of settling.
	full := float64(p.o.Memtables)
	rate := min(
		p.settle.rate(firstSettle)*factor(memory, 0.5*full, full-0.5, p.o.Floor),
		p.drain.rate(firstDrain)/p.relation*factor(p.settled(), p.o.Free*float64(p.o.Level0), float64(p.o.Level0), p.o.Floor))
	if math.IsInf(rate, 1) {
		if p.interval.Swap(0) != 0 {
			p.next.Store(longAgo) // old reservations bind nobody who comes later
		}
		return
	}
	rate = max(rate, float64(p.o.MinRate))
	p.interval.Store(max(1, int64(float64(time.Second)*(1<<20)/rate)))
}

// Rates before anything was measured, in bytes a second.
const (
	firstSettle = 64 << 20
	firstDrain  = 24 << 20
)

// factor is infinite up to free, 1 at aim, and falls to floor where the backlog
// is as far above aim again.
func factor(b, free, aim, floor float64) float64 {
	switch {
	case b <= free:
		return math.Inf(1)
	case b <= aim:
		return (aim - free) / (b - free)
	}
	return max(floor, 1-(b-aim)/(aim-free)*(1-floor))
}

// meter measures a rate over the last seconds in which there was work.
type meter struct {
	busy        bool
	last        time.Time
	bytes, secs float64
}

// memory is the time after which what was measured counts a third.
const meterMemory = 10.0

func (m *meter) start(now time.Time) { m.busy, m.last = true, now }

func (m *meter) add(n int64, now time.Time) {
	if !m.busy {
		return
	}
	dt := max(0, now.Sub(m.last).Seconds())
	keep := math.Exp(-dt / meterMemory)
	m.bytes, m.secs, m.last = m.bytes*keep+float64(n), m.secs*keep+dt, now
}

func (m *meter) stop(now time.Time) {
	m.add(0, now)
	m.busy = false
}

// rate returns bytes a second; first is a guess, which counts less the longer
// there was something to measure.
func (m *meter) rate(first float64) float64 {
	w := 1 / (1 + 4*m.secs)
	return (m.bytes + first*w) / (m.secs + w)
}
