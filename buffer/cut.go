package buffer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/forebaydb/forebay"
)

// intakeRows and intakeBytes are how many rows are read ahead of the cutter.
const (
	intakeRows  = 1024
	intakeBytes = 1 << 20
)

// patience is how long a cut whose time has come waits for the next of rows whose time
// has come as well.
const patience = 10 * time.Millisecond

// intake has the rows that were read and are in no cut yet.
type intake struct {
	ctx   context.Context
	mu    sync.Mutex // guards what follows
	space *sync.Cond
	rows  []row
	bytes int64
}

func (in *intake) init(ctx context.Context) { in.ctx, in.space = ctx, sync.NewCond(&in.mu) }

func (in *intake) wakeAll() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.space.Broadcast()
}

// push waits for space; false: until the end.
func (in *intake) push(r row) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	for len(in.rows) >= intakeRows || in.bytes >= intakeBytes {
		if in.ctx.Err() != nil {
			return false
		}
		in.space.Wait()
	}
	in.rows = append(in.rows, r)
	in.bytes += r.size
	return in.ctx.Err() == nil
}

// moveTo moves rows into a cut until it is full.
func (in *intake) moveTo(f *filling, now time.Time) {
	in.mu.Lock()
	defer in.mu.Unlock()
	n := 0
	for n < len(in.rows) && f.add(in.rows[n], now) {
		in.bytes -= in.rows[n].size
		n++
	}
	if n > 0 {
		f.grew = now
		in.rows = slices.Delete(in.rows, 0, n)
		in.space.Signal()
	}
}

// filling is the cut that is being made.
type filling struct {
	o      *Options
	number uint64
	rows   []row
	lanes  []held
	full   bool
	oldest time.Time
	due    time.Time // when its first row has waited long enough
	grew   time.Time // when it got its last row
}

func newFilling(o *Options, number uint64) *filling {
	return &filling{o: o, number: number, lanes: make([]held, o.Lanes)}
}

// add takes a row, or says that it is full.
func (f *filling) add(r row, now time.Time) bool {
	l := &f.lanes[laneOf(&r, f.number, len(f.lanes))]
	if f.full = f.full || l.rows > 0 && l.bytes+r.size > f.o.Bytes; f.full {
		return false
	}
	l.rows++
	l.bytes += r.size
	f.full = l.rows >= int64(f.o.Items) || l.bytes >= f.o.Bytes
	// A row does not wait longer because the clock went back.
	due := now.Add(f.o.Age - min(max(now.Sub(r.Time), 0), f.o.Age))
	if len(f.rows) == 0 || due.Before(f.due) {
		f.due = due
	}
	if len(f.rows) == 0 || r.Time.Before(f.oldest) {
		f.oldest = r.Time
	}
	f.rows = append(f.rows, r)
	return true
}

// laneOf is the lane of a row in a cut. It is the same for ever: a cut that was begun
// before a crash is divided again.
func laneOf(r *row, cut uint64, lanes int) int {
	if lanes == 1 {
		return 0
	}
	if len(r.Key) == 0 {
		return int(cut % uint64(lanes))
	}
	h := uint64(14695981039346656037) // FNV-1a
	for _, c := range r.Key {
		h = (h ^ uint64(c)) * 1099511628211
	}
	return int(h % uint64(lanes))
}

// cutAll brings the cuts of before into their lanes, and then makes new ones.
func (b *Buffer) cutAll() {
	if err := b.cutThem(); err != nil {
		b.fail(err)
	}
}

func (b *Buffer) cutThem() error {
	for _, c := range b.recovered {
		for !b.mayRun(c.lanes) {
			if b.sleepUntil(nil) != nil {
				return nil
			}
		}
		if err := b.loadCut(c); err != nil {
			return err
		}
	}
	b.recovered = nil
	b.mu.Lock()
	from := b.c.next
	b.mu.Unlock()
	b.done.Go(func() {
		if err := b.follow(from); err != nil {
			b.fail(err)
		}
	})
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for f := b.newCut(); ; {
		now := time.Now()
		b.intake.moveTo(f, now)
		switch now, wait := b.ready(f, now); {
		case now:
			if err := b.cut(f); err != nil {
				return err
			}
			f = b.newCut()
			continue
		case wait > 0:
			timer.Reset(wait)
		default:
			timer.Stop()
		}
		if b.sleepUntil(timer.C) != nil {
			return nil
		}
	}
}

// sleepUntil waits for a signal, or a timer.
func (b *Buffer) sleepUntil(timer <-chan time.Time) error {
	select {
	case <-b.ctx.Done():
		return b.ctx.Err()
	case <-b.wake:
	case <-timer:
	}
	return nil
}

func (b *Buffer) newCut() *filling {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.first = time.Time{}
	return newFilling(&b.o, b.c.cuts)
}

// firstFrom returns the first offset from one on at which there is a row: a salvage may
// have left a hole.
func (b *Buffer) firstFrom(from uint64) (uint64, error) {
	for a, err := range b.seq.Appends(from) {
		return max(from, a.Offset), err
	}
	return from, nil
}

// follow reads rows as they become durable.
func (b *Buffer) follow(from uint64) error {
	from, err := b.firstFrom(from)
	if err != nil {
		return err
	}
	var slab []byte
	for it, err := range b.seq.Follow(b.ctx, from) {
		if err != nil {
			if b.ctx.Err() != nil {
				return nil
			}
			return err
		}
		// What it lends must not be kept.
		if len(it.Value) > cap(slab)-len(slab) {
			slab = make([]byte, 0, max(64<<10, len(it.Value)))
		}
		at := len(slab)
		slab = append(slab, it.Value...)
		if !b.intake.push(decodeRow(it.Offset, slab[at:len(slab):len(slab)])) {
			return nil
		}
		signal(b.wake)
	}
	return nil
}

// mayRun says whether a cut of so many lanes may be brought into them: all that are there
// have as many, for else the rows of one key would be in two lanes; and not much waits
// there.
func (b *Buffer) mayRun(lanes int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range b.running {
		if c.lanes != lanes {
			return false
		}
	}
	most := int64(max(lanes, b.o.Lanes))
	return len(b.running) < 4*int(most) && b.held.rows <= most*int64(b.o.Items) && b.held.bytes <= most*b.o.Bytes
}

// ready says whether a cut is to be made now, or else when to look again; 0: when
// something happens.
func (b *Buffer) ready(f *filling, now time.Time) (cut bool, wait time.Duration) {
	if len(f.rows) == 0 {
		return false, 0
	}
	may := b.mayRun(b.o.Lanes)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.first = f.oldest
	if !may {
		return false, 0
	}
	if f.full {
		return true, 0
	}
	if wait = f.due.Sub(now); wait > 0 && f.rows[0].Offset >= b.flushTo {
		return false, wait
	}
	// Behind a backlog the next rows come in a moment, and have waited as long.
	if last := &f.rows[len(f.rows)-1]; last.Offset+1 < b.seq.Next() && (now.Sub(last.Time) >= b.o.Age || last.Offset+1 < b.flushTo) {
		if wait = f.grew.Add(patience).Sub(now); wait > 0 {
			return false, wait
		}
	}
	// It would wait in its lane: there may as well come more. While the sink is away
	// nothing is gained by small batches, either.
	idle := slices.ContainsFunc(b.lanes[:b.o.Lanes], func(l *lane) bool { return !l.busy })
	return idle && (len(b.running) == 0 || !b.circuit.open()), 0
}

// cut makes the bounds of a cut durable, and brings it into its lanes.
func (b *Buffer) cut(f *filling) error {
	c := &cut{number: f.number, token: b.own, lanes: b.o.Lanes, end: f.rows[len(f.rows)-1].Offset + 1}
	if err := b.commit(func(_ *forebay.Tx, ks forebay.Space, now *counters) error {
		if now.cuts != c.number || c.end <= now.next {
			return fmt.Errorf("%w: cut %d to offset %d, where the next is %d from %d on", ErrDamaged, c.number, c.end, now.cuts, now.next)
		}
		c.first = now.next
		now.next = c.end
		now.cuts++
		return ks.Put(numberKey(cutPrefix, c.number), c.encode())
	}, func() { b.cuts[c.number] = c }); err != nil {
		return err
	}
	return b.run(c, f.rows, nil)
}

// loadCut reads the rows of a cut that was made before, and goes on with it.
func (b *Buffer) loadCut(c *cut) error {
	plans := map[int]plan{}
	for _, lane := range c.stored {
		v, err := b.ks.Get(laneKey(c.number, lane))
		if err != nil {
			return err
		}
		if plans[lane], err = decodePlan(c, v); err != nil {
			return err
		}
	}
	from, err := b.firstFrom(c.first)
	if err != nil {
		return err
	}
	var rows []row
	if from < c.end {
		for it, err := range b.seq.Read(b.ctx, from) {
			if err != nil {
				return err
			}
			if it.Offset >= c.end {
				break
			}
			rows = append(rows, decodeRow(it.Offset, slices.Clone(it.Value)))
		}
	}
	return b.run(c, rows, plans)
}

// run brings a cut into its lanes. Without rows to be written it is finished.
func (b *Buffer) run(c *cut, rows []row, plans map[int]plan) error {
	jobs := make([]*job, c.lanes)
	var settled held
	var oldest time.Time
	for i := range rows {
		r := &rows[i]
		at := laneOf(r, c.number, c.lanes)
		j := jobs[at]
		if j == nil {
			p, ok := plans[at]
			if !ok {
				p = wholePlan(c)
			}
			j = &job{cut: c, lane: at, plan: p}
			jobs[at] = j
		}
		if !j.plan.has(r.Offset) { // it was done before
			settled.rows++
			settled.bytes += r.size
			continue
		}
		if oldest.IsZero() || r.Time.Before(oldest) {
			oldest = r.Time
		}
		j.rows = append(j.rows, *r)
		j.held.rows++
		j.held.bytes += r.size
	}
	b.room.release(settled)
	jobs = slices.DeleteFunc(jobs, func(j *job) bool { return j == nil || len(j.plan.pieces) == 0 })
	if c.left = len(jobs); c.left == 0 {
		return b.commit(func(tx *forebay.Tx, ks forebay.Space, now *counters) error {
			return b.finish(tx, ks, now, c)
		}, func() { b.finished(c) })
	}
	b.mu.Lock()
	c.oldest = oldest
	b.running[c.number] = c
	for _, j := range jobs {
		b.held.rows += j.held.rows
		b.held.bytes += j.held.bytes
		l := b.lane(j.lane)
		l.queue = append(l.queue, j)
		l.busy = true
		signal(l.wake)
	}
	b.mu.Unlock()
	return nil
}

// finish deletes a cut of which nothing is left, and moves the reader of the topic.
func (b *Buffer) finish(tx *forebay.Tx, ks forebay.Space, now *counters, c *cut) error {
	b.mu.Lock()
	was, low, last := b.low, b.lowWithout(c), len(b.cuts) == 1
	b.mu.Unlock()
	if last { // all before next has come to something, or is not there any more
		now.lost = 0
		now.lost = now.next + now.again - min(now.next+now.again, now.settled())
	}
	err := forgetCut(ks, c)
	if low > was {
		err = errors.Join(err, b.rd.MoveTx(tx, was, low))
	}
	return err
}

// finished takes a cut out of memory. Who calls holds mu.
func (b *Buffer) finished(c *cut) {
	delete(b.cuts, c.number)
	delete(b.running, c.number)
	if low := b.lowWithout(nil); low > b.low {
		b.low = low
		b.tell()
		signal(b.trim)
	}
	signal(b.wake)
}
