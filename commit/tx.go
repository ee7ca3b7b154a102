package commit

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/forebaydb/forebay/internal/base"
	"github.com/forebaydb/forebay/wal"
)

// Begin begins a transaction and returns the LSN at which it may read, that of
// Applied. From then on, until End, the leader remembers what is written. A
// transaction may come to read at a higher LSN later.
func (p *Pipeline) Begin() base.LSN {
	p.track.active.Add(1) // before the LSN is taken: see tracker
	return p.applied.Load()
}

// End ends a transaction; each Begin needs one.
func (p *Pipeline) End() { p.track.active.Add(-1) }

// CommitTx commits what a transaction writes, and returns its LSN when it has
// reached its level. With a nil record it writes nothing, gets no LSN of its
// own, and returns when what was read is visible.
//
// Errors beside those of Apply are ErrConflict and ErrStale: nothing was
// applied. What is certain to be refused is refused at once.
//
// guard, which may be nil, is as in ApplyGuarded. A transaction that is refused
// for what it read never comes to its guard.
func (p *Pipeline) CommitTx(record []byte, level wal.Level, reads *Reads, guard func() error) (base.LSN, error) {
	c := pool.Get().(*Commit)
	if err := c.prepareTx(p, record, level, reads, guard); err != nil {
		*c = Commit{}
		pool.Put(c)
		return 0, err
	}
	return p.commit(c)
}

// SubmitTx is CommitTx that orders the commit and does not wait: Wait returns
// ErrConflict, ErrStale or the guard's error when it was refused by the leader.
// record and reads must not change until Wait has returned its result.
func (p *Pipeline) SubmitTx(record []byte, level wal.Level, reads *Reads, guard func() error) (*Commit, error) {
	c := new(Commit)
	if err := c.prepareTx(p, record, level, reads, guard); err != nil {
		return nil, err
	}
	if err := p.log.Submit(&c.req); err != nil {
		return nil, err
	}
	return c, nil
}

func (c *Commit) prepareTx(p *Pipeline, record []byte, level wal.Level, reads *Reads, guard func() error) error {
	c.prepare(p, record, level, nil)
	if record == nil {
		c.req.Records = nil
		c.req.Level = wal.Buffered // those before it have levels of their own
	}
	c.reads, c.tx, c.guard = reads, true, guard
	reads.seal()
	return p.track.early(reads)
}

// Hot says whether a transaction that read key met a conflict a short while ago:
// then the next one does better in the lane.
func (p *Pipeline) Hot(key []byte) bool { return p.track.isHot(hashOf(key)) }

// patience is how long one waits for a mark before he asks the log whether it goes
// on at all.
const patience = 2 * time.Millisecond

// WaitVisible returns when the visible mark has reached lsn, which is at most
// Applied. It returns an error when ctx ends, or when the mark will never be
// there: then whether what was read at lsn survives is unknown.
func (p *Pipeline) WaitVisible(ctx context.Context, lsn base.LSN) error {
	return p.await(ctx, &p.visible, &p.waiting, lsn)
}

// WaitNoted returns when all that a transaction can have been refused for by now is
// applied: one that begins again before that would be refused again. It returns
// errors as WaitVisible does.
func (p *Pipeline) WaitNoted(ctx context.Context) error {
	p.track.mu.Lock()
	last := p.track.last
	p.track.mu.Unlock()
	return p.await(ctx, &p.applied, &p.entering, last)
}

// await waits until a mark has reached lsn.
func (p *Pipeline) await(ctx context.Context, mark *atomic.Uint64, w *waiters, lsn base.LSN) error {
	if mark.Load() >= lsn {
		return nil
	}
	moved := w.join(lsn)
	defer w.leave(moved)
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for {
		if mark.Load() >= lsn { // since join, too
			return nil
		}
		if err := p.failure(); err != nil {
			return err
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
			if mark.Load() >= lsn { // he was not seen: see wake
				return nil
			}
			return p.barrier(ctx, mark, lsn)
		}
	}
}

// Barrier returns when all that was ordered before it is visible, or was refused.
func (p *Pipeline) Barrier(ctx context.Context) error {
	r := &wal.Request{Level: wal.Buffered}
	if err := p.log.Submit(r); err != nil {
		return err
	}
	if err := p.log.Wait(ctx, r); err != nil {
		return err
	}
	return p.failure()
}

// barrier is Barrier for who needs no more than that a mark has reached lsn.
func (p *Pipeline) barrier(ctx context.Context, mark *atomic.Uint64, lsn base.LSN) error {
	err := p.Barrier(ctx)
	if mark.Load() >= lsn {
		return nil
	}
	if err == nil {
		err = fmt.Errorf("commit: LSN %d was never applied", lsn)
	}
	return err
}

// waiters wait for a mark.
type waiters struct {
	n    atomic.Int64
	mu   sync.Mutex // guards list
	list map[chan struct{}]base.LSN
}

func (w *waiters) join(lsn base.LSN) chan struct{} {
	ch := make(chan struct{})
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.list == nil {
		w.list = map[chan struct{}]base.LSN{}
	}
	w.list[ch] = lsn
	w.n.Store(int64(len(w.list)))
	return ch
}

func (w *waiters) leave(ch chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.list, ch)
	w.n.Store(int64(len(w.list)))
}

// wake wakes those that wait for an LSN up to last. The mark has been stored by
// publish: somebody who joins in this very moment may see the old mark and not be seen
// here. His patience ends soon, and then he looks again before he asks the log.
func (w *waiters) wake(last base.LSN) {
	if w.n.Load() == 0 {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for ch, lsn := range w.list {
		if lsn <= last {
			close(ch)
			delete(w.list, ch)
		}
	}
	w.n.Store(int64(len(w.list)))
}

// Admit is for wal.Applier.
func (p *Pipeline) Admit(r *wal.Request) error {
	c, _ := r.Owner.(*Commit)
	if p.track.idle(c) {
		if c == nil || c.guard == nil {
			return nil
		}
		return c.ask()
	}
	return p.track.admit(r, c)
}
