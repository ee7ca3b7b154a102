package compaction

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// paced lets one writer, one settling goroutine and one compaction run beside
// each other on a simulated clock.
type paced struct {
	*sim
	p                       *Pacer
	now                     time.Time
	write, settling, merges float64 // bytes a second that each can do

	frozen    []map[uint64]simVersion
	sizes     []int64
	settleEnd time.Time
	plan      *Plan
	left      float64 // of the plan, in bytes
	last      time.Time
	resting   time.Time
	stops     int
	perSecond []int64
	start     time.Time
}

func newPaced(t testing.TB, o PacerOptions) *paced {
	s := newSim(t)
	o.MemtableSize, o.MinRate = s.o.MemtableSize, 1<<10
	now := time.Unix(1000, 0)
	return &paced{sim: s, p: NewPacer(o), now: now, last: now, start: now, write: 45 << 10, settling: 90 << 10, merges: 120 << 10}
}

func (d *paced) put(k uint64) {
	s := d.sim
	s.lsn++
	v := simVersion{k, s.lsn, false}
	n := v.size() + 20
	d.now = d.now.Add(time.Duration(float64(n) / d.write * 1e9))
	d.now = d.now.Add(d.p.Admit(n, d.now))
	s.mem[k], s.truth[k] = v, s.lsn
	s.memSize += n
	s.user += v.size()
	d.p.Grew(n)
	d.background()
	if s.memSize >= s.o.MemtableSize {
		if len(d.frozen) >= d.p.o.Memtables-1 {
			d.stops++
			d.now = d.settleEnd
			d.background()
		}
		d.frozen, d.sizes = append(d.frozen, s.mem), append(d.sizes, s.memSize)
		s.mem, s.memSize = map[uint64]simVersion{}, 0
		d.beginSettle()
	}
	for sec := int(d.now.Sub(d.start) / time.Second); len(d.perSecond) <= sec; {
		d.perSecond = append(d.perSecond, 0)
	}
	d.perSecond[len(d.perSecond)-1] += n
}

func (d *paced) beginSettle() {
	if len(d.frozen) > 0 && d.settleEnd.IsZero() {
		d.p.Settling(d.now)
		d.settleEnd = d.now.Add(time.Duration(float64(d.sizes[0]) / d.settling * 1e9))
	}
}

func (d *paced) update() {
	b := Backlog{Memory: d.memSize, Debt: Debt(d.segs, d.o)}
	for _, n := range d.sizes {
		b.Memory += n
	}
	zero := 0
	for i := range d.segs {
		if d.segs[i].Level == 0 {
			b.Level0 += int64(d.segs[i].Size)
			zero++
		}
	}
	d.peak0 = max(d.peak0, zero)
	d.p.Update(b, d.now)
}

func (d *paced) background() {
	if !d.settleEnd.IsZero() && !d.now.Before(d.settleEnd) {
		size := d.settle(d.frozen[0], nil)
		d.p.Settled(d.sizes[0], size, d.settleEnd)
		d.frozen, d.sizes, d.settleEnd = d.frozen[1:], d.sizes[1:], time.Time{}
		d.beginSettle()
		d.update()
	}
	dt := d.now.Sub(d.last).Seconds()
	if dt < 0.005 {
		return
	}
	d.last = d.now
	if d.plan == nil {
		if d.plan = Pick(d.segs, d.o, nil); d.plan == nil {
			return
		}
		d.left = float64(d.plan.Bytes())
		if d.plan.Move || d.plan.Drop {
			d.left = 0
		}
		d.p.Begin(d.now)
	}
	// What it does in dt, at the share that Rest leaves.
	if d.now.Before(d.resting) {
		return
	}
	speed := d.merges
	if !d.settleEnd.IsZero() {
		speed *= 0.6
	}
	done := min(d.left, speed*dt)
	if d.left -= done; d.plan.Bytes() > 0 {
		d.p.Done(int64(done*float64(d.plan.Level0Bytes())/float64(d.plan.Bytes())), d.now)
	}
	d.resting = d.now.Add(d.p.Rest(time.Duration(dt * 1e9)))
	if d.left <= 0 {
		d.p.End(d.now)
		d.apply(d.plan)
		d.plan = nil
		d.update()
	}
}

// worst returns the worst full second by the mean of all.
func (d *paced) worst() (worst, mean float64) {
	full := d.perSecond[:len(d.perSecond)-1]
	worst = 1e18
	for _, n := range full {
		mean += float64(n) / float64(len(full))
		worst = min(worst, float64(n))
	}
	return worst / mean, mean
}

// TestPacerUnderLoad: random puts faster than compactions can follow are slowed
// and never stopped, and no second is much worse than the others.
func TestPacerUnderLoad(t *testing.T) {
	for _, n := range []int{20_000, 60_000} {
		for _, merges := range []float64{60 << 10, 120 << 10, 240 << 10} {
			t.Run(fmt.Sprint(n, merges/1024), func(t *testing.T) {
				rng := rand.New(rand.NewPCG(3, 4))
				d := newPaced(t, PacerOptions{})
				d.merges = merges
				for range n {
					d.put(rng.Uint64() >> 1)
				}
				worst, mean := d.worst()
				t.Logf("worst second %.2f of the mean of %.0fK/s in %d s, stops %d, level 0 at most %d", worst, mean/1024, len(d.perSecond), d.stops, d.peak0)
				if testing.Verbose() {
					var line string
					for i := 0; i < len(d.perSecond); i += max(1, len(d.perSecond)/40) {
						line += fmt.Sprintf(" %d", d.perSecond[i]>>10)
					}
					t.Log(line)
				}
				d.report("paced")
				require.Zero(t, d.stops)
				if n == 20_000 {
					require.Greater(t, worst, 0.5)
				}
			})
		}
	}
}

// TestFactorHasNoCliff: a small change of the backlog changes the factor little.
func TestFactorHasNoCliff(t *testing.T) {
	before := factor(4.2, 4, 16, 0.3)
	for b := 4.21; b < 40; b += 0.01 {
		f := factor(b, 4, 16, 0.3)
		require.LessOrEqual(t, f, before)
		require.Greater(t, f, 0.9*before)
		require.GreaterOrEqual(t, f, 0.3)
		before = f
	}
	require.InDelta(t, 1, factor(16, 4, 16, 0.3), 1e-9)
	require.True(t, math.IsInf(factor(4, 4, 16, 0.3), 1))
}

func TestNoBacklogNoWait(t *testing.T) {
	p := NewPacer(PacerOptions{})
	now := time.Unix(1, 0)
	require.Zero(t, p.Admit(1<<30, now))
	p.Update(Backlog{Memory: 64 << 20, Level0: 128 << 20}, now)
	require.Zero(t, p.Admit(1<<30, now))
	require.Zero(t, p.Rate())
	require.InDelta(t, float64(time.Second), float64(p.Rest(time.Second)), float64(2*time.Second))
}

// TestAdmitKeepsTheRate: many writers together get what the rate says, and a new
// rate counts soon.
func TestAdmitKeepsTheRate(t *testing.T) {
	p := NewPacer(PacerOptions{})
	now := time.Unix(1, 0)
	p.Update(Backlog{Memory: 160 << 20, Level0: 1 << 30}, now)
	rate := p.Rate()
	require.Positive(t, rate)
	const writers, n = 256, 20_000
	ready := make([]time.Time, writers)
	for i := range ready {
		ready[i] = now
	}
	var sum int64
	for at := now; at.Sub(now) < 10*time.Second; at = at.Add(time.Millisecond) {
		for i := range ready {
			for !ready[i].After(at) {
				ready[i] = at.Add(time.Microsecond + p.Admit(n, at))
				sum += n
				if ready[i].Sub(at) < time.Millisecond {
					break
				}
			}
		}
	}
	require.InEpsilon(t, rate*10, sum, 0.1)
	end := now.Add(10 * time.Second)
	require.LessOrEqual(t, p.Admit(1<<40, end), longest)
	p.Update(Backlog{}, end)
	require.Zero(t, p.Admit(n, end))
	p.Update(Backlog{Memory: 160 << 20, Level0: 1 << 30}, end)
	require.Zero(t, p.Admit(n, end), "old reservations bind nobody")
}

func TestWaitEndsWithItsContext(t *testing.T) {
	p := NewPacer(PacerOptions{})
	slept, err := p.Wait(context.Background(), 1<<30)
	require.NoError(t, err)
	require.Zero(t, slept)
	p.Update(Backlog{Memory: 160 << 20, Level0: 1 << 30}, time.Now())
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err = p.Wait(ctx, 1<<30)
	require.ErrorIs(t, err, context.Canceled)
	// Nothing to wait for any more: who sleeps is let go.
	done := make(chan error)
	go func() {
		_, err := p.Wait(context.Background(), 1<<30)
		done <- err
	}()
	p.Update(Backlog{}, time.Now())
	require.NoError(t, <-done)
}

// TestPacerAtOnce is for the race detector.
func TestPacerAtOnce(t *testing.T) {
	p := NewPacer(PacerOptions{})
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for k := range 1000 {
				now := time.Unix(int64(k), 0)
				p.Admit(100, now)
				switch i {
				case 0:
					p.Update(Backlog{Memory: int64(k) << 20, Level0: int64(k) << 21}, now)
				case 1:
					p.Begin(now)
					p.Done(1<<20, now)
					p.Rest(time.Second)
					p.End(now)
				case 2:
					p.Settling(now)
					p.Settled(1<<20, 1<<19, now)
				}
			}
		})
	}
	wg.Wait()
}
