package pipeline

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/forebaydb/forebay/sink"
	"github.com/forebaydb/forebay/sink/filesink"
)

// discard is a sink that is as fast as can be.
type discard struct{}

func (discard) Write(context.Context, sink.Batch) error { return nil }

// openFile opens a file as a sink: a line for each event, each batch synced.
func openFile(name string) (*filesink.Sink, error) {
	return filesink.Open(name, &filesink.Options{Encode: func(dst []byte, b sink.Batch) ([]byte, error) {
		for i := range b.Rows {
			dst = append(append(dst, b.Rows[i].Value...), '\n')
		}
		return dst, nil
	}})
}

// limited is a sink that takes so many rows a second, from the first batch on, as a
// database does.
type limited struct {
	next sink.Sink
	rate float64
	// credit is how much time that it has let pass it makes up for: that it had nothing to
	// do cannot be told from that a batch was late.
	credit time.Duration

	mu   sync.Mutex // guards free
	free time.Time  // when it has taken all that it was given
}

// shortCredit is the credit of a sink that may have nothing to do for long.
const shortCredit = 50 * time.Millisecond

func (l *limited) Write(ctx context.Context, b sink.Batch) error {
	l.mu.Lock()
	now := time.Now()
	if l.free.IsZero() {
		l.free = now
	} else if earliest := now.Add(-l.credit); l.free.Before(earliest) {
		l.free = earliest
	}
	l.free = l.free.Add(time.Duration(float64(len(b.Rows)) / l.rate * float64(time.Second)))
	until := l.free
	l.mu.Unlock()
	if err := sleep(ctx, time.Until(until)); err != nil {
		return err
	}
	return l.next.Write(ctx, b)
}

// arrivals counts, behind a sink, what has arrived in it.
type arrivals struct {
	next sink.Sink
	seen *seen

	rows, batches atomic.Int64
	lag           atomic.Int64  // nanoseconds, of the last event of the last batch
	moved         chan struct{} // has a token when rows has changed; of capacity 1
}

func newArrivals(next sink.Sink, seen *seen) *arrivals {
	return &arrivals{next: next, seen: seen, moved: make(chan struct{}, 1)}
}

// Write implements sink.Sink.
func (a *arrivals) Write(ctx context.Context, b sink.Batch) error {
	if err := a.next.Write(ctx, b); err != nil {
		return err
	}
	a.seen.add(b.Rows)
	if n := len(b.Rows); n > 0 {
		if at, ok := eventTime(b.Rows[n-1].Value); ok {
			a.lag.Store(int64(time.Since(at)))
		}
	}
	a.batches.Add(1)
	a.rows.Add(int64(len(b.Rows)))
	select {
	case a.moved <- struct{}{}:
	default:
	}
	return nil
}
