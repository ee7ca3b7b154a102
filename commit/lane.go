package commit

import (
	"context"
	"sync"
	"time"

	"github.com/forebaydb/forebay/internal/base"
	"github.com/forebaydb/forebay/wal"
)

// Lane is where transactions that met a conflict take turns. Who holds it runs
// his transaction, reads what those before him are about to write, submits, and
// leaves; he waits for the sync outside. So transactions on one key follow one
// another within one group, where otherwise each would wait for the sync of the
// one before.
//
// The lane makes this fast and no more: what is correct the leader decides when
// it admits. So a lane that is held for too long is simply given to the next.
//
// What a transaction sees in the lane is what there would be if all those ahead
// of it in the lane were admitted: commits of which it is known that they will
// not be are left out. It may yet turn out that one is not; then the leader
// refuses, too, whoever read from it.
type Lane struct {
	p *Pipeline
	// limit is how long the lane is held while others wait, and short while one
	// waits that is nested: it may be the holder who waits for it.
	limit, short time.Duration
	nested       func() bool

	mu     sync.Mutex // guards all below; the locks of log and tracker come after it
	holder *Hold
	queue  []*Hold
	over   overlay
}

// NewLane returns a lane of the pipeline. nested, which may be nil, says whether
// the calling goroutine is inside of two transactions; it is asked by those that
// have waited for a while.
func NewLane(p *Pipeline, nested func() bool) *Lane {
	return &Lane{p: p, limit: time.Second, short: 5 * time.Millisecond, nested: nested}
}

// Hold is one stay in the lane. One goroutine at a time uses it.
type Hold struct {
	lane    *Lane
	granted chan struct{} // closed when the lane is this one's; nil: at once
	since   time.Time
	at      base.LSN
	// clean: what lay in the overlay is no business of this one.
	clean bool
}

// Enter waits for the lane, first come first served. When ctx ends it returns
// its error. Who asks while he holds it takes it from himself after a moment. A
// Hold must be left, also by a panic: defer Leave.
func (l *Lane) Enter(ctx context.Context) (*Hold, error) {
	h := &Hold{lane: l}
	l.mu.Lock()
	if l.holder == nil {
		l.grant(h)
		l.mu.Unlock()
	} else {
		h.granted = make(chan struct{})
		l.queue = append(l.queue, h)
		l.mu.Unlock()
		if err := l.wait(ctx, h); err != nil {
			h.Leave()
			return nil, err
		}
	}
	if err := h.settle(ctx, false); err != nil {
		h.Leave()
		return nil, err
	}
	return h, nil
}

// grant gives the lane to h; mu is held.
func (l *Lane) grant(h *Hold) {
	l.holder, h.since = h, time.Now()
	if h.granted != nil {
		close(h.granted)
	}
}

// pass gives the lane to the first who waits; mu is held.
func (l *Lane) pass() {
	l.holder = nil
	if len(l.queue) > 0 {
		h := l.queue[0]
		l.queue[0] = nil
		l.queue = l.queue[1:]
		l.grant(h)
	}
}

// wait waits until h has the lane, and takes it from who holds it too long.
func (l *Lane) wait(ctx context.Context, h *Hold) error {
	limit := l.limit
	timer := time.NewTimer(l.short)
	defer timer.Stop()
	for asked := false; ; {
		select {
		case <-h.granted:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
			if !asked && l.nested != nil && l.nested() {
				limit = l.short
			}
			asked = true
			l.mu.Lock()
			rest := limit
			if l.holder != nil && len(l.queue) > 0 {
				if rest -= time.Since(l.holder.since); rest <= 0 {
					l.pass()
					rest = limit
				}
			}
			l.mu.Unlock()
			timer.Reset(rest)
		}
	}
}

// Leave leaves the lane to the next. It may be called again, and for a lane that
// was taken away.
func (h *Hold) Leave() {
	l := h.lane
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.holder == h {
		l.pass()
		return
	}
	for i, w := range l.queue {
		if w == h {
			l.queue = append(l.queue[:i:i], l.queue[i+1:]...)
			return
		}
	}
}

// At returns the LSN at which the transaction reads what Get does not have.
func (h *Hold) At() base.LSN { return h.at }

// Clean says that nothing was under way in the lane: reads at At are all there
// is. Ranges can be read then.
func (h *Hold) Clean() bool { return h.clean }

// Drain waits until all that is under way in the lane is applied or refused, and
// moves At. It is called before the first read, by who reads ranges or has had
// the lane taken away in an earlier attempt.
func (h *Hold) Drain(ctx context.Context) error {
	if h.clean {
		return nil
	}
	return h.settle(ctx, true)
}

// settle takes the LSN at which h reads, when there is room in the overlay or,
// with empty, when nothing is in it.
func (h *Hold) settle(ctx context.Context, empty bool) error {
	l := h.lane
	for {
		l.mu.Lock()
		h.at = l.p.Applied()
		if l.holder != h { // then it is a transaction like those outside
			h.clean = true
			l.mu.Unlock()
			return ctx.Err()
		}
		l.over.prune(l.p, h.at)
		if n := len(l.over.queue); n == 0 || !empty && !l.over.full() {
			l.over.validate(l.p)
			h.clean = n == 0
			l.mu.Unlock()
			return nil
		}
		first := l.over.queue[0].c // prune drops it once it is done
		l.mu.Unlock()
		err := l.p.failure()
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return err
		}
		_ = l.p.log.Wait(ctx, &first.req) // an error concerns that commit
	}
}

// Get returns what a commit ahead in the lane, which is still to be applied,
// does to key: its last put or delete. The transaction then notes KeyFrom(key,
// from). Without one it reads at At and notes Key(key). value must not be
// changed and lives for as long as the caller likes.
func (h *Hold) Get(key []byte) (value []byte, kind base.Kind, from *Commit, ok bool) {
	if h.clean {
		return nil, 0, nil, false
	}
	l := h.lane
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.holder != h { // its place in the order is lost
		return nil, 0, nil, false
	}
	if value, kind, from, ok = l.over.get(key); ok {
		l.p.track.heat(hashOf(key)) // it stays contended, though nobody is refused
	}
	return value, kind, from, ok
}

// Submit orders the transaction, as Pipeline.SubmitTx does; with a nil record it
// is one that writes nothing. record must never be changed afterwards. The
// caller then leaves the lane and waits.
func (h *Hold) Submit(record []byte, level wal.Level, reads *Reads, guard func() error) (*Commit, error) {
	l, c := h.lane, new(Commit)
	if err := c.prepareTx(l.p, record, level, reads, guard); err != nil {
		return nil, err
	}
	// The order of the overlay is that of the log: no other submits between.
	at := reads.at
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.p.log.Submit(&c.req); err != nil {
		return nil, err
	}
	if l.holder == h && record != nil {
		l.over.add(c, record, at)
	}
	return c, nil
}
