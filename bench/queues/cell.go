package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Cell is one kind of load.
type Cell struct {
	Name, About string
	Producers   int
	Batch       int  // messages a call
	Consume     bool // as many workers as producers work at the same time
	limited     bool // the disk has a limit to show for it
}

func cells() []Cell {
	return []Cell{
		{Name: "enqueue-1", About: "durable enqueue, one message a call, 1 producer", Producers: 1, Batch: 1, limited: true},
		{Name: "enqueue-64", About: "durable enqueue, one message a call, 64 producers", Producers: 64, Batch: 1},
		{Name: "batch-1", About: "durable enqueue, 100 messages a call, 1 producer", Producers: 1, Batch: 100, limited: true},
		{Name: "batch-64", About: "durable enqueue, 100 messages a call, 64 producers", Producers: 64, Batch: 100},
		{Name: "full-1", About: "enqueue → ack, one message a call, 1 producer and 1 worker at once", Producers: 1, Batch: 1, Consume: true},
		{Name: "full-64", About: "enqueue → ack, one message a call, 64 producers and 64 workers at once", Producers: 64, Batch: 1, Consume: true},
	}
}

// Load says how long a cell runs.
type Load struct {
	Seconds float64 `json:"seconds"`
	// Messages ends a cell before its time; 0: perSecond of them for each second.
	Messages int `json:"messages,omitempty"`
}

const (
	// outstanding is how many messages of a full cell are in the queue at most: more
	// would only wait.
	outstanding = 2000
	// perSecond bounds the ledger; an engine that is faster has a shorter run.
	perSecond = 500_000
	// checkers is how many workers look at what a cell of enqueues has left.
	checkers = 64
)

// stalled is how long nothing may come out, while something is in, before it is lost.
var stalled = 60 * time.Second

// run runs the cell on an engine, in a directory that is empty. An error is one of
// the engine: it failed, or lost something.
func (c *Cell) run(ctx context.Context, e *Engine, dir string, load Load) (r Result, err error) {
	r = Result{Cell: c.Name, Engine: e.Name}
	workers := c.Producers
	if !c.Consume {
		workers = checkers
	}
	q, err := e.Open(ctx, dir, Config{Producers: c.Producers, Workers: workers})
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, q.Close()) }()
	most := load.Messages
	if most == 0 {
		most = int(load.Seconds * perSecond)
	}
	t := &trial{cell: c, queue: q, ledger: newLedger(most), length: time.Duration(load.Seconds * float64(time.Second))}
	t.warm = t.length / 10
	if c.Consume {
		t.room = make(chan struct{}, outstanding)
	}
	if err := t.run(ctx, workers, e.Limit); err != nil {
		return r, err
	}
	return r, t.result(&r)
}

// trial is one run of a cell.
type trial struct {
	cell   *Cell
	queue  Queue
	ledger *ledger
	// Of length the first part is not counted: up to warm, or up to a tenth of what the
	// ledger holds. from is where it ended, in nanoseconds; 0: it has not.
	length, warm time.Duration
	from         atomic.Int64
	room         chan struct{} // one in it for each message that is out; nil: no bound
	ended        time.Duration // when the first producer stopped

	mu        sync.Mutex // guards what follows
	calls     *hdrhistogram.Histogram
	done      *hdrhistogram.Histogram // from enqueue to ack
	counted   int64                   // messages enqueued in the counted part
	countedIn int64                   // messages acknowledged in it
}

// newHistogram holds nanoseconds.
func newHistogram() *hdrhistogram.Histogram {
	return hdrhistogram.New(1, int64(10*time.Minute), 3)
}

func (t *trial) run(ctx context.Context, workers int, limit bool) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	t.calls, t.done = newHistogram(), newHistogram()
	t.ledger.began = time.Now()
	consumed := make(chan error, 1)
	consume := func() {
		consumed <- t.queue.Consume(ctx, workers, t.ledger.handle, t.acked)
	}
	if t.cell.Consume {
		go func() {
			consume()
			// Nobody would make room for the producers any more.
			cancel(errStopped)
		}()
	}
	err := t.produce(ctx)
	if limit {
		return err
	}
	if !t.cell.Consume {
		go consume()
	}
	if err == nil {
		err = t.drain(ctx)
	}
	cancel(nil)
	return errors.Join(err, <-consumed, t.ledger.check())
}

var errStopped = errors.New("the consumer stopped")

// produce lets the producers put messages in until time is up or the ledger full.
func (t *trial) produce(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var (
		wg   sync.WaitGroup
		once sync.Once
		over = make(chan struct{}) // closed when time is up
	)
	defer time.AfterFunc(t.length, func() { close(over) }).Stop()
	for range t.cell.Producers {
		wg.Go(func() {
			if err := t.producer(ctx, over); err != nil {
				cancel(err)
			}
			once.Do(func() { t.ended = time.Since(t.ledger.began) })
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

func (t *trial) producer(ctx context.Context, over <-chan struct{}) error {
	calls, counted := newHistogram(), int64(0)
	msgs := make([][]byte, t.cell.Batch)
	for ctx.Err() == nil && time.Since(t.ledger.began) < t.length {
		if t.room != nil {
			select {
			case t.room <- struct{}{}:
			case <-over: // the consumer may have lost so many that there never is room
				continue
			case <-ctx.Done():
				continue
			}
		}
		if !t.ledger.take(msgs) {
			break
		}
		start := time.Now()
		if err := t.queue.Enqueue(ctx, msgs); err != nil {
			return fmt.Errorf("enqueue: %w", err)
		}
		end := time.Now()
		t.ledger.enqueued.Add(int64(len(msgs)))
		if t.counts(end.Sub(t.ledger.began)) {
			// A value outside of the histogram is longer than a cell may take.
			_ = calls.RecordValue(int64(end.Sub(start)))
			counted += int64(len(msgs))
		}
	}
	t.mu.Lock()
	t.calls.Merge(calls)
	t.counted += counted
	t.mu.Unlock()
	return nil
}

// counts says whether what happens at a time since the beginning is counted.
func (t *trial) counts(at time.Duration) bool {
	if t.from.Load() == 0 {
		if at < t.warm && t.ledger.enqueued.Load() < int64(len(t.ledger.slots)/10) {
			return false
		}
		// What ends the warm-up is not counted itself.
		t.from.CompareAndSwap(0, int64(at))
		return false
	}
	return at < t.length
}

// acked is told of each durable acknowledgement.
func (t *trial) acked(msg []byte) {
	took, ok := t.ledger.ack(msg)
	if !ok || t.room == nil {
		return
	}
	<-t.room
	if !t.counts(time.Since(t.ledger.began)) {
		return
	}
	t.mu.Lock()
	_ = t.done.RecordValue(int64(took))
	t.countedIn++
	t.mu.Unlock()
}

// drain waits until all has come out, or nothing comes any more.
func (t *trial) drain(ctx context.Context) error {
	const step = 5 * time.Millisecond
	last, since := int64(-1), time.Now()
	for t.ledger.bad.Load() == nil {
		n := t.ledger.acked.Load()
		if n >= t.ledger.enqueued.Load() {
			return nil
		}
		if n != last {
			last, since = n, time.Now()
		}
		if time.Since(since) > stalled {
			return nil // the ledger's check says what is missing
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(step):
		}
	}
	return nil
}

// result fills in the figures.
func (t *trial) result(r *Result) error {
	window := min(t.length, t.ended) - time.Duration(t.from.Load())
	r.Seconds = window.Seconds()
	r.Messages = t.ledger.enqueued.Load()
	r.Duplicates = t.ledger.again.Load()
	n := t.counted
	if t.cell.Consume {
		n = t.countedIn
		r.DoneP50, r.DoneP99 = micros(t.done, 50), micros(t.done, 99)
	}
	if t.from.Load() == 0 || window <= 0 {
		return errors.New("the cell ended in its warm-up: it was too short")
	}
	r.PerSecond = float64(n) / window.Seconds()
	r.P50, r.P99 = micros(t.calls, 50), micros(t.calls, 99)
	return nil
}

func micros(h *hdrhistogram.Histogram, q float64) float64 {
	return float64(h.ValueAtQuantile(q)) / 1e3
}
