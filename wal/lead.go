package wal

import (
	"context"
	"fmt"
	"runtime"
	"time"

	"github.com/forebaydb/forebay/internal/base"
	"github.com/forebaydb/forebay/internal/publish"
	"github.com/forebaydb/forebay/wal/frame"
)

// Record is one record to append.
type Record struct {
	// Data is opaque to the log.
	Data []byte
	// Keep is the owner's count of bytes in Data that somebody still needs; a
	// file whose counts have not all been given back by Unkeep stays.
	Keep uint64
}

// Request is one or more records that go into the log together and in order.
// Each record has an LSN of its own; a crash may keep the first few of several.
// The records' bytes must not change until the request is done, except in
// Applier.Assign.
type Request struct {
	Records []Record
	Level   Level
	// First is the LSN of the first record, once it is done or Assign is
	// called. A request without records has the LSN after the last one.
	First LSN
	// Owner is for the caller of Commit and for its Applier.
	Owner any

	err error
	fn  func() error
	g   *group
}

// Last returns the LSN of the last record.
func (r *Request) Last() LSN { return r.First + LSN(len(r.Records)) - 1 }

func (r *Request) size() int64 {
	var n int64
	for i := range r.Records {
		n += frame.RecordSize(len(r.Records[i].Data))
	}
	return n
}

// group is what one leader commits.
type group struct {
	reqs  []*Request
	done  chan struct{} // closed when all are done; nil: nobody waits
	lead  chan struct{} // tells the first request's goroutine to lead
	async bool          // the first request's goroutine does not wait
	quick bool          // none waits for the disk
	bytes int64         // of its records
	full  chan struct{} // closed when nobody can join any more; nil: nobody waits for that
}

// maxGroup bounds the bytes that one write may have, unless one request has
// more.
const maxGroup = 4 << 20

// maxRounds bounds how many groups one leads in a row: his own, and then others' that do
// not wait for the disk. A leader who hands on has to wake another goroutine first,
// and meanwhile nothing is committed.
const maxRounds = 10

// maxQueue bounds the bytes of records that wait behind the group that is being
// written: with so many Submit waits, too.
const maxQueue = 4 * maxGroup

// Commit appends the request's records and returns when they have reached its
// level. On nil they are in the log. ErrUnknown means that they may be; any
// other error that they are not.
func (l *Log) Commit(r *Request) error {
	if err := check(r); err != nil {
		return err
	}
	if r.Level == Buffered && len(r.Records) == 1 {
		if lsn, ok := l.quick(&r.Records[0]); ok {
			r.First = lsn
			return nil
		}
	}
	if r.Level == Durable {
		l.waiting.Add(1)
		defer l.waiting.Add(-1)
	}
	return l.do(r)
}

// Waiting says whether somebody waits in Commit for a record to be Durable. He
// sleeps most of that time, while the disk works, and wants a processor again for a
// moment when it is done: who uses one for long does well to look, and to yield.
func (l *Log) Waiting() bool { return l.waiting.Load() > 0 }

// Submit orders the request and does not wait; Wait does. The LSN is known
// when Wait has returned nil. Requests are ordered as their Submit and Commit
// calls are. Where more than some megabytes of records wait already, because
// the disk hangs, say, Submit first waits until they are being written.
func (l *Log) Submit(r *Request) error {
	if err := check(r); err != nil {
		return err
	}
	g, lead, _, err := l.enqueue(r, true, false)
	if err != nil {
		return err
	}
	if lead {
		if r.Level == Buffered {
			if next := l.leadOne(g, true); next != nil {
				go l.lead(next)
			}
		} else {
			go l.lead(g)
		}
	}
	return nil
}

// Wait waits for a request given to Submit. When ctx ends first, Wait returns
// its error and the request goes on.
func (l *Log) Wait(ctx context.Context, r *Request) error {
	select {
	case <-r.g.done:
		return r.err
	case <-ctx.Done():
		select {
		case <-r.g.done:
			return r.err
		default:
			return ctx.Err()
		}
	}
}

func check(r *Request) error {
	for i := range r.Records {
		if n := len(r.Records[i].Data); n > MaxRecordSize {
			return fmt.Errorf("%w: %d bytes, limit %d", ErrTooLarge, n, MaxRecordSize)
		}
	}
	return nil
}

// do enqueues r, leads if it must, and waits.
func (l *Log) do(r *Request) error {
	found := r.Level != Durable && r.fn == nil && l.look()
	g, lead, first, err := l.enqueue(r, false, found)
	if err != nil {
		return err
	}
	if lead {
		if g.done != nil {
			l.leadOpen(g)
		} else {
			l.lead(g)
		}
		return r.err
	}
	if first { // only the first may be told to lead
		select {
		case <-g.lead:
			l.leadOpen(g)
		case <-g.done:
		}
		return r.err
	}
	<-g.done
	return r.err
}

// exec runs fn as the leader, in its place in the order.
func (l *Log) exec(fn func() error) error { return l.do(&Request{fn: fn}) }

// enqueue joins r to the open group, or makes its caller the leader.
func (l *Log) enqueue(r *Request, async, found bool) (g *group, lead, first bool, err error) {
	l.mu.Lock()
	if !async && r.Level != Durable {
		l.looks.count(found)
	}
	if !async && !l.leading && !l.closed && !l.mayHold(r) { // nobody else ever sees the group
		l.leading = true
		l.leads(leadsAlone)
		l.mu.Unlock()
		l.alone.reqs = append(l.alone.reqs[:0], r)
		return &l.alone, true, true, nil
	}
	defer l.mu.Unlock()
	for async && len(r.Records) > 0 && l.open != nil && l.open.bytes >= maxQueue {
		l.waitRoom()
	}
	if l.closed {
		return nil, false, false, ErrClosed
	}
	if !l.leading {
		l.leading = true
		l.leads(leadsAlone)
		g = &group{reqs: []*Request{r}, done: make(chan struct{})}
		r.g = g
		if !async { // it holds
			l.open = g
		}
		return g, true, true, nil
	}
	if l.open == nil {
		l.open = &group{done: make(chan struct{}), lead: make(chan struct{}, 1), async: async, quick: true, reqs: make([]*Request, 0, 16)}
	}
	l.leads(leadsJoined)
	l.open.quick = l.open.quick && r.Level != Durable && r.fn == nil
	l.open.reqs = append(l.open.reqs, r)
	for i := range r.Records {
		l.open.bytes += int64(len(r.Records[i].Data))
	}
	r.g = l.open
	return l.open, false, len(l.open.reqs) == 1, nil
}

// waitRoom waits until the open group has a leader. mu is held, but not
// meanwhile.
func (l *Log) waitRoom() {
	g := l.open
	if g.full == nil {
		g.full = make(chan struct{})
	}
	l.mu.Unlock()
	<-g.full
	l.mu.Lock()
}

// lead commits a group that nobody can join any more, and hands leadership on.
func (l *Log) lead(g *group) {
	for rounds := 1; g != nil; rounds++ {
		g = l.leadOne(g, rounds < maxRounds)
	}
}

// leadOne commits a group, and returns the next one if its caller is to lead it, too.
func (l *Log) leadOne(g *group, on bool) *group {
	l.run(g.reqs)
	l.mu.Lock()
	next, done := l.open, g.done
	l.expect = len(g.reqs)
	if g == &l.alone {
		g.reqs[0] = nil
	}
	if next == nil {
		l.leads(leadsNobody)
		l.leading = false // from here on l.alone is another's
	} else {
		l.expect += len(next.reqs)
	}
	if on = on && next != nil && next.quick; on {
		l.close(next)
	}
	l.mu.Unlock()
	if done != nil {
		close(done)
	}
	switch {
	case next == nil:
	case on:
		return next
	case next.async:
		go l.leadOpen(next)
	default:
		next.lead <- struct{}{}
	}
	return nil
}

// close closes the open group to others; mu is held.
func (l *Log) close(g *group) {
	l.open = nil
	l.leads(leadsAlone)
	if g.full != nil {
		close(g.full)
	}
}

// leadOpen leads the open group: it closes it to others, perhaps after a hold.
func (l *Log) leadOpen(g *group) {
	l.hold(g)
	l.mu.Lock()
	l.close(g)
	l.mu.Unlock()
	l.lead(g)
}

// hold waits for the writers of the group before: they are on their way back,
// and without them there would be two groups that alternate, each half as
// large. It expects as many as there were in that group and in this one when
// that one was done.
//
// It waits for Options.Hold, and longer, up to the time of a sync, while they come
// faster than groups of the size that this one has are synced: a moment more of such a
// wait makes more commits in all, and not fewer.
func (l *Log) hold(g *group) {
	start, before, seen := time.Now(), 0, time.Duration(0)
	// The count ends it where the clock stands still as long as anybody runs
	// (testing/synctest).
	for range maxSpins {
		l.mu.Lock()
		n := len(g.reqs)
		done := n >= l.expect || !l.mayHold(g.reqs[0])
		l.mu.Unlock()
		held := time.Since(start)
		if done || held > max(l.opts.Hold, l.syncTakes) {
			return
		}
		if window := held - seen; window >= holdWindow {
			if held > l.opts.Hold && float64(n-before)*float64(held+l.syncTakes) < float64(n)*float64(window) {
				return
			}
			before, seen = n, held
		}
		runtime.Gosched()
	}
}

// holdWindow is the time in which those who come during a hold are counted.
const holdWindow = 25 * time.Microsecond

// maxSpins of a hold take longer than the hold where the clock runs.
const maxSpins = 20_000

// mayHold says whether a group that r opens is worth a hold; mu is held.
func (l *Log) mayHold(r *Request) bool {
	return l.opts.Hold > 0 && l.expect > 1 && r.Level == Durable && r.fn == nil && l.opts.Policy.kind != policyEach
}

// run commits requests in order, in as few writes as may be. Those that stand
// behind a Close are refused: its mark is the last thing that is written.
func (l *Log) run(reqs []*Request) {
	for len(reqs) > 0 {
		if l.closed { // by a request before these; only a leader closes
			for _, r := range reqs {
				r.err = ErrClosed
			}
			return
		}
		if r := reqs[0]; r.fn != nil {
			r.err = r.fn()
			reqs = reqs[1:]
			continue
		}
		n, size := 0, int64(0)
		for n < len(reqs) && reqs[n].fn == nil {
			s := reqs[n].size()
			if n > 0 && (size+s > maxGroup || l.opts.Policy.kind == policyEach) {
				break
			}
			size += s
			n++
		}
		l.commit(reqs[:n], size)
		reqs = reqs[n:]
	}
}

// lastLSN leaves room for one group: behind it there are no LSNs that a catalog
// may name.
const lastLSN = base.MaxListed - 1<<32

// commit commits those of the requests that are admitted, and gives each
// request its error. It may reorder reqs.
func (l *Log) commit(reqs []*Request, size int64) {
	var lf *logFile
	err := l.Err()
	switch {
	case err != nil || size == 0:
	case l.next > lastLSN:
		err = fmt.Errorf("%w: LSNs are used up at %d", ErrFull, l.next)
	case !l.room(size):
		lf, err = l.nextFile(size)
	}
	if err == nil {
		// Nothing but a failed write, which poisons, comes between a request's
		// admission and its place in the log.
		var next LSN
		reqs, next = l.admit(reqs)
		switch {
		case lf == nil:
		case next > l.next:
			err = l.rotate(lf)
		default: // all were refused
			l.giveBack(lf)
		}
		if l.next = next; err == nil && len(reqs) > 0 {
			err = l.append(reqs)
		}
	}
	for _, r := range reqs {
		r.err = err
	}
}

// admit gives LSNs to requests and returns those that are not refused, in
// order, in the memory of reqs, and the LSN behind them.
func (l *Log) admit(reqs []*Request) (_ []*Request, next LSN) {
	a, kept := l.opts.Applier, 0
	next = l.next
	for _, r := range reqs {
		r.First = next
		if a != nil && (len(r.Records) > 0 || r.Owner != nil) {
			if r.err = a.Admit(r); r.err != nil {
				r.First = 0
				continue
			}
		}
		next += LSN(len(r.Records))
		reqs[kept] = r
		kept++
	}
	return reqs[:kept], next
}

// append lays requests out, writes, syncs, applies and publishes them.
func (l *Log) append(reqs []*Request) error {
	level, last := Buffered, l.next-1
	for _, r := range reqs {
		level = min(level, r.Level)
	}
	a := l.opts.Applier
	if a != nil {
		a.Assign(reqs)
	}
	durable := l.durable.Load()
	if level == Buffered && last >= reqs[0].First { // and only here: frame.GroupSize counts on longer ones
		l.endFrame()
	}
	for _, r := range reqs {
		for i := range r.Records {
			l.b.Record(r.First+LSN(i), r.Records[i].Keep, r.Records[i].Data, durable, 0)
			l.keepSum += r.Records[i].Keep
		}
	}
	publish.Count(&l.stats.records, int64(last+1-reqs[0].First))
	// Not by publish: who begins to watch what is put (the store's gap) says so, and then
	// asks for this; what is applied looks, behind this, whether it is watched.
	l.assigned.Store(last)
	publish.Count(&l.stats.groups, 1)
	if err := l.settle(reqs, level, last); err != nil {
		l.poisonWith(err)
		return fmt.Errorf("%w: %w", ErrUnknown, err)
	}
	if a != nil {
		a.Publish(last)
	}
	return l.after(level)
}

// applyAside is the size in bytes of records from which on they are applied beside
// their sync however few they are.
const applyAside = 2 << 10

// settle brings what is laid out to the given level and applies reqs.
func (l *Log) settle(reqs []*Request, level Level, last LSN) error {
	a := l.opts.Applier
	if level == Buffered || l.cur == nil {
		if l.cur != nil && l.b.Len() >= l.flushDue {
			if err := l.handOff(); err != nil {
				return err
			}
		}
		if a != nil {
			a.Apply(reqs, last)
		}
		return nil
	}
	if level != Durable {
		if err := l.writeOut(false); err != nil {
			return err
		}
		if a != nil {
			a.Apply(reqs, last)
		}
		return nil
	}
	if a == nil {
		return l.writeOut(true)
	}
	if len(reqs) < 4 && l.b.Len() < applyAside { // not worth a goroutine
		a.Apply(reqs, last)
		return l.writeOut(true)
	}
	applied := make(chan struct{})
	go func() {
		a.Apply(reqs, last)
		close(applied)
	}()
	err := l.writeOut(true)
	<-applied
	return err
}

// after does what the policy asks for beside the requests' own level.
func (l *Log) after(level Level) error {
	if p := l.opts.Policy; p.kind == policyBytes && l.unsynced() >= p.bytes {
		if err := l.writeOut(true); err != nil {
			l.poisonWith(err)
			return fmt.Errorf("%w: %w", ErrUnknown, err)
		}
	}
	l.spareSoon()
	l.arm()
	return nil
}

// putMark writes a mark of the durable LSN.
func (l *Log) putMark(flags frame.Flags, sync bool) error {
	l.marked = l.durable.Load()
	l.b.Mark(l.next, l.marked, flags)
	return l.writeOut(sync)
}

// arm starts the timer that flushes, syncs by interval, and marks when idle. A
// timer that waits for a mark is set earlier for a sync.
func (l *Log) arm() {
	d, sync := l.opts.MarkDelay, false
	if p := l.opts.Policy; p.kind == policyInterval && l.unsynced() > 0 {
		d, sync = p.interval, true
	}
	if d < 0 || l.cur == nil || l.unsynced() == 0 && l.marked == l.durable.Load() {
		return
	}
	// Leaders alone change these: to look at them needs no lock.
	if l.closed || l.armed && (!sync || l.syncDue || d >= l.opts.MarkDelay) {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.armed, l.syncDue = true, sync
	if l.timer == nil {
		l.timer = time.AfterFunc(d, func() { l.exec(l.tick) })
	} else {
		l.timer.Reset(d)
	}
	l.armedAt = l.stats.groups.Load() + l.quicks
}

// tick is what the leader does when the timer fired.
func (l *Log) tick() error {
	l.mu.Lock()
	l.armed = false
	idle := l.armedAt == l.stats.groups.Load()+l.quicks
	l.mu.Unlock()
	if l.Err() != nil || l.cur == nil {
		return nil
	}
	err := l.writeOut(l.opts.Policy.kind == policyInterval)
	if err == nil && idle && l.marked < l.durable.Load() && l.unsynced() == 0 && l.room(0) {
		err = l.putMark(0, false)
	}
	if err != nil {
		l.poisonWith(err)
		return err
	}
	if l.unsynced() > 0 && l.opts.Policy.kind == policyInterval || l.marked < l.durable.Load() && !idle {
		l.arm()
	}
	return nil
}

// Append appends one record durably and returns its LSN.
func (l *Log) Append(rec []byte) (LSN, error) { return l.AppendAt(Durable, rec) }

// AppendAt appends one record, and returns its LSN when it has reached the level. A
// Buffered one costs no memory of its own.
func (l *Log) AppendAt(level Level, rec []byte) (LSN, error) {
	if level == Buffered && len(rec) <= MaxRecordSize {
		if lsn, ok := l.quick(&Record{Data: rec}); ok {
			return lsn, nil
		}
	}
	r := &Request{Records: []Record{{Data: rec}}, Level: level}
	err := l.Commit(r)
	return r.First, err
}
