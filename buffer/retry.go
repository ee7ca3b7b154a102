package buffer

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/forebaydb/forebay/sink"
)

// maxLater bounds what a target may ask to wait.
const maxLater = time.Hour

// sleep waits, until ctx ends.
func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// longest bounds a wait, whatever the options say: twice as much is a duration, too.
const longest = 365 * 24 * time.Hour

// backoff is the wait behind n+1 failures, with full jitter: those who failed together do
// not come back together.
func backoff(base, most time.Duration, n int) time.Duration {
	most = min(most, longest)
	d := min(base, most)
	for ; n > 0 && d < most; n-- {
		d = min(2*d, most)
	}
	return rand.N(d + 1)
}

// tripAfter is how many writes fail in a row, of all lanes together, until only one lane
// tries.
const tripAfter = 3

// circuit lets all lanes write while the sink answers, and one at a time while it does
// not. A lane that failed gives its turn to others: the batch of one lane may be what
// the sink cannot take.
type circuit struct {
	base, most time.Duration

	mu      sync.Mutex // guards what follows
	fails   int        // in a row
	trying  bool       // while it is open, somebody does
	not     time.Time  // before which, while it is open, nobody tries
	changed chan struct{}
}

func (c *circuit) init(base, most time.Duration) {
	c.base, c.most, c.changed = base, most, make(chan struct{})
}

// enter waits until a write may be tried. Who entered leaves, and says then whether he
// was the one who tries.
func (c *circuit) enter(ctx context.Context) (trial bool, err error) {
	for {
		c.mu.Lock()
		wait := time.Until(c.not)
		switch {
		case c.fails < tripAfter:
			c.mu.Unlock()
			return false, ctx.Err()
		case !c.trying && wait <= 0:
			c.trying = true
			c.mu.Unlock()
			if err := ctx.Err(); err != nil {
				c.abandon(true)
				return false, err
			}
			return true, nil
		}
		changed := c.changed
		if c.trying {
			wait = time.Hour // until something changes
		}
		c.mu.Unlock()
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			t.Stop()
			return false, ctx.Err()
		case <-changed:
		case <-t.C:
		}
		t.Stop()
	}
}

// abandon leaves without having learned anything.
func (c *circuit) abandon(trial bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.trying = c.trying && !trial
	c.tell()
}

// answered leaves behind a write that the sink has answered with yes or no.
func (c *circuit) answered(trial bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.trying = c.trying && !trial
	if c.fails > 0 {
		c.fails = 0
		c.not = time.Time{}
		c.tell()
	}
}

// failed leaves behind attempt n, from 0 on, of a batch, and returns how long that is not
// to be tried.
func (c *circuit) failed(trial bool, n int, err error) time.Duration {
	later, asked := sink.RetryAfter(err)
	later = min(later, maxLater)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.trying = c.trying && !trial
	c.fails++
	if asked { // that is for all
		c.fails = max(c.fails, tripAfter)
	}
	wait := max(backoff(c.base, c.most, n), later)
	if c.fails >= tripAfter {
		c.not = time.Now().Add(max(backoff(c.base, c.most, c.fails-1), later))
		wait = 0 // it waits with the others
	}
	c.tell()
	return wait
}

// tell wakes who waits. Who calls holds mu.
func (c *circuit) tell() {
	close(c.changed)
	c.changed = make(chan struct{})
}

// wait returns how long nobody will try; 0 when somebody may.
func (c *circuit) wait() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fails < tripAfter {
		return 0
	}
	return max(time.Until(c.not), 0)
}

// open says whether one lane at a time tries.
func (c *circuit) open() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.fails >= tripAfter
}

// write writes a batch until the sink answers with nil or *sink.Rejected, and returns
// that, and how often it tried. Any other error is that of b.ctx.
func (b *Buffer) write(batch sink.Batch) (tries uint64, err error) {
	for n := 0; ; n++ {
		trial, err := b.circuit.enter(b.ctx)
		if err != nil {
			return tries, err
		}
		tries++
		b.counted(func(c *counts) { c.writes++; c.writing++ })
		err = b.writeOnce(batch)
		b.counted(func(c *counts) { c.writing-- })
		var rejected *sink.Rejected
		switch {
		case err == nil:
			b.circuit.answered(trial)
			return tries, nil
		case errors.As(err, &rejected):
			b.circuit.answered(trial)
			b.counted(func(c *counts) { c.rejected++ })
			return tries, err
		case b.ctx.Err() != nil:
			b.circuit.abandon(trial)
			return tries, b.ctx.Err()
		}
		wait := b.circuit.failed(trial, n, err)
		b.counted(func(c *counts) { c.failed++; c.last, c.lastAt = err, time.Now() })
		b.o.Logger.Warn("buffer: a write failed, and is tried again", "buffer", b.name, "batch", batch.ID, "rows", len(batch.Rows), "attempt", n+1, "error", err)
		if err := sleep(b.ctx, wait); err != nil {
			return tries, err
		}
	}
}

func (b *Buffer) writeOnce(batch sink.Batch) error {
	ctx := b.ctx
	if b.o.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, b.o.Timeout)
		defer cancel()
	}
	return b.sink.Write(ctx, batch)
}
