package queue

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/topic"
)

// GroupOptions configure a group while the queue is open. A nil pointer is valid, zero
// fields mean the defaults.
type GroupOptions struct {
	// Latest: a group that is made begins behind the messages that are there, and not
	// with the oldest of them.
	Latest bool
	// Lease is how long a message is a receiver's; default 30 s.
	Lease time.Duration
	// MaxDeliveries is how often a message is handed out, until it is a dead letter;
	// default 10, negative: without end. A delivery that nobody was there for any more,
	// because receivers gave up or the queue was closed, is none; but one that a crash
	// ended counts, for it may have been what crashed.
	MaxDeliveries int
	// A message that was given back is delivered again after a random time from 0 to
	// Backoff, which doubles with each attempt up to MaxBackoff (exponential backoff
	// with full jitter). Defaults 100 ms and 5 minutes.
	Backoff, MaxBackoff time.Duration
	// Jitter returns a random time from 0 to longest; nil: an even one.
	Jitter func(longest time.Duration) time.Duration
	// Level of acknowledgements and dead letters; the zero Level is forebay.Durable.
	// What was acknowledged below it may come again after a crash.
	Level forebay.Level
	// Window is how many messages of a lane, and WindowBytes how many bytes of them, are
	// in memory; defaults 1024 and 16 MiB. Messages in flight, those that are to be tried
	// again within ten seconds, and those behind another one of their key, are among
	// them: with none but these the lane waits.
	Window      int
	WindowBytes int64
}

func (o *GroupOptions) withDefaults() (GroupOptions, error) {
	var out GroupOptions
	if o != nil {
		out = *o
	}
	if out.Lease == 0 {
		out.Lease = 30 * time.Second
	}
	if out.MaxDeliveries == 0 {
		out.MaxDeliveries = 10
	}
	if out.Backoff == 0 {
		out.Backoff = 100 * time.Millisecond
	}
	if out.MaxBackoff == 0 {
		out.MaxBackoff = 5 * time.Minute
	}
	if out.Jitter == nil {
		out.Jitter = func(longest time.Duration) time.Duration { return time.Duration(rand.Int64N(int64(longest) + 1)) }
	}
	if out.Window == 0 {
		out.Window = 1024
	}
	if out.WindowBytes == 0 {
		out.WindowBytes = 16 << 20
	}
	if out.Lease < 0 || out.Backoff < 0 || out.MaxBackoff < 0 || out.MaxBackoff > maxDelay || out.Window < 0 || out.WindowBytes < 0 {
		return out, errors.New("queue: a bound in GroupOptions is negative or too large")
	}
	return out, nil
}

// backoff is how long a message waits after an attempt failed. No lock is held.
func (o *GroupOptions) backoff(attempts uint64) time.Duration {
	d := o.Backoff
	for n := attempts; n > 1 && d < o.MaxBackoff; n-- {
		d *= 2
	}
	return min(max(o.Jitter(min(d, o.MaxBackoff)), 0), maxDelay)
}

// place is where a group is in a lane.
type place struct {
	*lane
	r      *topic.Reader
	cursor uint64   // the next message to be loaded
	saved  uint64   // the low-water mark that is stored
	known  uint64   // of no message from here on there was a state at the open
	fifo   []*entry // in the window, in order, and some that are removed
	loaded int      // in the window
	bytes  int64    // of those
	gone   int64    // bytes of those in fifo that are removed
}

// mark returns the low-water mark: all below is settled. mu is held.
func (p *place) mark() uint64 {
	for len(p.fifo) > 0 && p.fifo[0].state == removed {
		p.gone -= p.fifo[0].size
		p.fifo[0] = nil
		p.fifo = p.fifo[1:]
	}
	if len(p.fifo) > 0 {
		return p.fifo[0].id.Offset
	}
	return p.cursor
}

// prune takes out what was removed behind an entry that stays, when there is as much of
// it as there may be of the rest; mu is held.
func (p *place) prune(maxBytes int64) {
	if len(p.fifo) <= 2*p.loaded+64 && p.gone <= maxBytes {
		return
	}
	p.fifo = slices.DeleteFunc(p.fifo, func(e *entry) bool { return e.state == removed })
	p.gone = 0
}

// request is a receiver that waits.
type request struct {
	most int
	got  []handed
	ch   chan result // has room for one
}

type result struct {
	got []handed
	err error
}

// handed is an entry that was handed out: the entry may be delivered again before the
// receiver has looked at it.
type handed struct {
	e                  *entry
	delivery, attempts uint64
}

// group is a consumer group. core.mu guards what changes in it, but for what is said to
// be the scheduler's, who is its goroutine.
type group struct {
	q      *core
	name   string
	starts [laneLater + 1]uint64
	o      GroupOptions
	wake   chan struct{} // of the scheduler; nil: it was not started
	places [laneLater + 1]*place

	started  bool
	err      error          // why nothing is delivered any more
	dropped  bool           // nothing is written for it any more
	acks     sync.WaitGroup // acknowledgements under way, each begun while not dropped
	ended    chan struct{}  // closed by the scheduler
	stop     context.CancelFunc
	runCtx   context.Context
	stopRuns context.CancelFunc
	backlog
	window
	requests []*request
	rate     rate
	dead     int64
	parked   int64
	// Of what was parked and is in the window: how many, and their bytes.
	unparked      int
	unparkedBytes int64
	// parkNext is when the first that is parked and not in the window is due, or was, if
	// there was no room for it; 0: none is.
	parkNext int64
	// unloaded are those that left the window since the scheduler began to look for
	// what is due, and their places in the index of what waits, 0 if they had none: what
	// he sees of those may be older.
	unloaded map[ID]int64
	savedAt  time.Time // the scheduler's
}

func checkGroup(name string) error {
	if name == "" || len(name) > 100 {
		return fmt.Errorf("queue: the name of a group has 1 to 100 bytes, not %d", len(name))
	}
	return nil
}

// poke wakes the scheduler; mu need not be held.
func (g *group) poke() {
	select {
	case g.wake <- struct{}{}:
	default:
	}
}

// isDropped says whether the group was dropped: what is stored under its name may be of
// another one since.
func (g *group) isDropped() bool {
	g.q.mu.Lock()
	defer g.q.mu.Unlock()
	return g.dropped
}

// fail ends deliveries; mu is held.
func (g *group) fail(err error) {
	if g.err == nil {
		g.err = err
	}
	g.refuse(g.err)
}

// refuse tells an error to all who wait; mu is held.
func (g *group) refuse(err error) {
	for _, r := range g.requests {
		r.ch <- result{err: err}
	}
	g.requests = nil
}

// load makes the memory of a group of what is stored. Nobody else knows it yet.
func (g *group) load() error {
	g.init()
	for i, l := range g.q.lanes {
		if l == nil {
			continue
		}
		r, err := l.t.Reader(g.name)
		if err != nil {
			return err
		}
		at, err := r.Offset()
		if err != nil {
			return err
		}
		g.places[i] = &place{lane: l, r: r, cursor: at, saved: at}
	}
	return g.count()
}

// count counts what is stored of a group behind its places.
func (g *group) count() (err error) {
	q := g.q
	var marks [laneLater + 1]uint64
	for i, p := range g.places {
		if p != nil {
			marks[i] = p.cursor
			g.passed += int64(p.cursor)
		}
	}
	if g.bytes, err = q.bytesFrom(marks); err != nil {
		return err
	}
	for e, err := range q.ks.Prefix(g.prefix(kindState)) {
		id, s, err := stateOf(e, err)
		if err != nil {
			return err
		}
		p := g.places[id.Lane]
		if p == nil || id.Offset < p.cursor {
			continue
		}
		p.known = max(p.known, id.Offset+1)
		if s.settled {
			g.passed++
			g.bytes -= s.size
		}
	}
	for e, err := range q.ks.Prefix(g.prefix(kindParked)) {
		_, s, err := stateOf(e, err)
		if err != nil {
			return err
		}
		g.parked++
		g.passed--
		g.bytes += s.size
	}
	if g.parked > 0 {
		g.parkNext = 1
	}
	for _, err := range q.ks.Prefix(g.prefix(kindDead)) {
		if err != nil {
			return err
		}
		g.dead++
	}
	return nil
}

func stateOf(e forebay.Entry, err error) (ID, state, error) {
	if err != nil {
		return ID{}, state{}, err
	}
	id, err := idOf(e.Key)
	if err != nil {
		return ID{}, state{}, err
	}
	if id.Lane > laneLater {
		return ID{}, state{}, fmt.Errorf("%w: key %x", ErrDamaged, e.Key)
	}
	s, err := decodeState(e.Value)
	return id, s, err
}

// group returns a group that is in use, and makes it if there is none.
func (q *core) group(name string, o *GroupOptions) (*group, error) {
	if err := checkGroup(name); err != nil {
		return nil, err
	}
	opts, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	if err := q.begin(false); err != nil {
		return nil, err
	}
	defer q.end()
	q.trims.Lock() // nothing is trimmed between the look and the commit
	defer q.trims.Unlock()
	q.mu.Lock()
	g := q.groups[name]
	q.mu.Unlock()
	if g == nil {
		if g, err = q.make(name, opts.Latest); err != nil {
			return nil, fmt.Errorf("queue %q: group %q: %w", q.name, name, err)
		}
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closing {
		return nil, ErrClosed
	}
	if !g.started {
		g.o, g.started = opts, true
		g.wake = make(chan struct{}, 1)
		var ctx context.Context
		ctx, g.stop = context.WithCancel(q.ctx)
		g.runCtx, g.stopRuns = context.WithCancel(ctx)
		g.ended = make(chan struct{})
		q.done.Go(func() { g.schedule(ctx) })
	}
	return g, nil
}

// make makes a group, by a durable commit. trims is held.
func (q *core) make(name string, latest bool) (*group, error) {
	g := &group{q: q, name: name}
	b := q.db.NewBatch()
	for i, l := range q.lanes {
		if l == nil {
			continue
		}
		first, next, err := l.t.Bounds()
		if err != nil {
			return nil, err
		}
		if latest {
			first = next
		}
		g.starts[i] = first
		r, err := l.t.Reader(name)
		if err == nil {
			err = r.Move(b, first) // it may be of a group whose making crashed
		}
		if err != nil {
			return nil, err
		}
	}
	if err := b.In(q.ks).Put(append([]byte{kindGroup}, name...), encodeStarts(g.starts)); err != nil {
		return nil, err
	}
	if err := q.db.Apply(b, forebay.Durable); err != nil {
		return nil, err
	}
	if err := g.load(); err != nil {
		return nil, err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if !latest && len(q.groups) == 0 {
		g.bytes = q.none.bytes // with what was enqueued meanwhile
	}
	q.groups[name] = g
	return g, nil
}

// groupNames is Queue.Groups.
func (q *core) groupNames() []string {
	q.mu.Lock()
	defer q.mu.Unlock()
	out := make([]string, 0, len(q.groups))
	for name := range q.groups {
		out = append(out, name)
	}
	return out
}

// dropGroup is Queue.DropGroup.
func (q *core) dropGroup(name string) error {
	if err := q.begin(false); err != nil {
		return err
	}
	defer q.end()
	q.trims.Lock()
	defer q.trims.Unlock()
	q.mu.Lock()
	g := q.groups[name]
	if g == nil {
		q.mu.Unlock()
		return nil
	}
	g.fail(ErrClosed)
	g.dropped = true
	stop, ended := g.stop, g.ended
	q.mu.Unlock()
	// What they still write is before the commit that deletes it. A transaction under
	// way meets a conflict, or what it reads is gone.
	if stop != nil {
		stop()
		<-ended
	}
	g.acks.Wait()
	b := q.db.NewBatch()
	w := b.In(q.ks)
	err := w.Delete(append([]byte{kindGroup}, name...))
	for _, kind := range []byte{kindState, kindParked, kindBody, kindWaiting, kindDead} {
		p := g.prefix(kind)
		err = errors.Join(err, w.DeleteRange(p, behind(p)))
	}
	if err == nil {
		err = q.db.Apply(b, forebay.Durable)
	}
	if err != nil {
		return err
	}
	q.mu.Lock()
	delete(q.groups, name)
	last := len(q.groups) == 0
	q.mu.Unlock()
	if last {
		err = q.measure()
	}
	for _, l := range q.lanes {
		if l != nil {
			err = errors.Join(err, l.t.DropReader(name))
		}
	}
	return err
}
