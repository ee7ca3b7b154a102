package pipeline

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/sink"
)

// positionKey is where the consumer's durable position is, in the keyspace of the pipeline;
// tokenKey has what is random in the ids of its batches: those of no other store are the same.
var (
	positionKey = []byte("consumer")
	tokenKey    = []byte("token")
)

// consumer reads the sequence and writes it into a sink, in batches of so many rows or of
// such an age.
type consumer struct {
	db    *forebay.DB
	seq   *forebay.Sequence
	pos   *forebay.Keyspace
	sink  sink.Sink
	rows  int
	every time.Duration
	work  int // writers into the sink
	token string

	again atomic.Int64 // batches that were written again

	mu   sync.Mutex // guards fill and what is in it
	fill *fill
	free chan *fill
	full chan *fill

	order order
	// committing is held by who commits the position; guards trimmed.
	committing sync.Mutex
	trimmed    time.Time
}

// fill is a batch that is being filled.
type fill struct {
	first uint64
	born  time.Time
	bytes []byte
	rows  []sink.Row
}

// order knows up to where all batches are done.
type order struct {
	mu   sync.Mutex // guards both
	next uint64
	done map[uint64]uint64 // batches behind next: first → behind the last
}

func (o *order) add(first, behind uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.done[first] = behind
	for {
		to, ok := o.done[o.next]
		if !ok {
			return
		}
		delete(o.done, o.next)
		o.next = to
	}
}

func (o *order) position() uint64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.next
}

func (c *consumer) newLog() eventLog { return newSequenceLog(c.db, c.seq) }
func (c *consumer) retries() int64   { return c.again.Load() }
func (c *consumer) close() error     { return nil }

// run consumes until ctx ends, which is no error.
func (c *consumer) run(ctx context.Context) error {
	from, err := c.position()
	if err != nil {
		return err
	}
	if err := c.loadToken(); err != nil {
		return err
	}
	c.order = order{next: from, done: map[uint64]uint64{}}
	c.free, c.full = make(chan *fill, c.work+1), make(chan *fill)
	for range c.work + 1 {
		c.free <- new(fill)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var g sync.WaitGroup
	part := func(fn func(context.Context) error) {
		g.Go(func() {
			if err := fn(ctx); err != nil {
				cancel(err)
			}
		})
	}
	for range c.work {
		part(c.write)
	}
	part(c.flushOld)
	part(func(ctx context.Context) error { return c.follow(ctx, from) })
	g.Wait()
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// position reads the durable position.
func (c *consumer) position() (uint64, error) {
	v, err := c.pos.Get(positionKey)
	switch {
	case errors.Is(err, forebay.ErrNotFound):
		return 0, nil
	case err != nil:
		return 0, err
	case len(v) != 8:
		return 0, fmt.Errorf("pipeline: the consumer's position has %d bytes", len(v))
	}
	return binary.BigEndian.Uint64(v), nil
}

// loadToken reads the token, and makes it where there is none.
func (c *consumer) loadToken() error {
	v, err := c.pos.Get(tokenKey)
	if errors.Is(err, forebay.ErrNotFound) {
		v = []byte(rand.Text())
		b := c.db.NewBatch()
		if err = b.In(c.pos).Put(tokenKey, v); err == nil {
			err = c.db.Apply(b, forebay.Durable)
		}
	}
	c.token = string(v)
	return err
}

// follow fills batches. It alone begins one.
func (c *consumer) follow(ctx context.Context, from uint64) error {
	for it, err := range c.seq.Follow(ctx, from) {
		if err != nil {
			return err
		}
		c.mu.Lock()
		if c.fill == nil {
			c.mu.Unlock()
			var f *fill
			select {
			case f = <-c.free:
			case <-ctx.Done():
				return ctx.Err()
			}
			f.first, f.born = it.Offset, time.Now()
			c.mu.Lock()
			c.fill = f
		}
		f := c.fill
		at := len(f.bytes)
		f.bytes = append(f.bytes, it.Value...) // what lay before it is still in the rows if this moves it
		f.rows = append(f.rows, sink.Row{Offset: it.Offset, Value: f.bytes[at:len(f.bytes):len(f.bytes)]})
		if len(f.rows) >= c.rows {
			c.fill = nil
		} else {
			f = nil
		}
		c.mu.Unlock()
		if f != nil {
			if err := c.handOver(ctx, f); err != nil {
				return err
			}
		}
	}
	return nil
}

// handOver gives a batch to a writer, whichever order batches come in.
func (c *consumer) handOver(ctx context.Context, f *fill) error {
	select {
	case c.full <- f:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// flushOld hands over what is old enough, full or not.
func (c *consumer) flushOld(ctx context.Context) error {
	wait := c.every
	for {
		if err := sleep(ctx, wait); err != nil {
			return err
		}
		wait = c.every
		c.mu.Lock()
		f := c.fill
		if f != nil {
			if left := c.every - time.Since(f.born); left > 0 {
				f, wait = nil, left
			} else {
				c.fill = nil
			}
		}
		c.mu.Unlock()
		if f != nil {
			if err := c.handOver(ctx, f); err != nil {
				return err
			}
		}
	}
}

// firstWait and maxWait bound the time between two attempts to write a batch.
const (
	firstWait = 10 * time.Millisecond
	maxWait   = 5 * time.Second
)

// write writes batches into the sink.
func (c *consumer) write(ctx context.Context) error {
	for {
		var f *fill
		select {
		case f = <-c.full:
		case <-ctx.Done():
			return ctx.Err()
		}
		behind := f.first + uint64(len(f.rows))
		b := sink.Batch{ID: fmt.Sprintf("%s/%s/%d-%d", c.seq.Name(), c.token, f.first, behind-1), Rows: f.rows}
		for wait := firstWait; ; wait = min(2*wait, maxWait) {
			err := c.sink.Write(ctx, b)
			if err == nil {
				break
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
			c.again.Add(1)
			if err := sleep(ctx, wait); err != nil {
				return err
			}
		}
		c.order.add(f.first, behind)
		f.rows, f.bytes = f.rows[:0], f.bytes[:0]
		c.free <- f // it has room for all
		if err := c.commit(); err != nil {
			return err
		}
	}
}

// commit makes the position durable, and once a second takes what lies before it out.
func (c *consumer) commit() error {
	c.committing.Lock()
	defer c.committing.Unlock()
	next := c.order.position()
	b := c.db.NewBatch()
	if err := b.In(c.pos).Put(positionKey, binary.BigEndian.AppendUint64(nil, next)); err != nil {
		return err
	}
	if err := c.db.Apply(b, forebay.Durable); err != nil {
		return err
	}
	if now := time.Now(); now.Sub(c.trimmed) >= time.Second {
		c.trimmed = now
		return c.seq.Trim(next)
	}
	return nil
}
