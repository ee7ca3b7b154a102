// Package sink says what a target of batched writes is: a database, a file, a service.
//
// Package buffer writes into a Sink what it has made durable first. It gives each batch
// an id that is never used again, and writes the same batch under the same id until it
// has an answer that says yes or no for good. So a Sink that remembers the ids of what
// it has written, in the same transaction as the rows, has each row exactly once,
// whatever crashes and however often.
//
// A Sink answers one of three things:
//
//   - nil: all rows are durable in the target;
//   - *Rejected: the target refuses rows of the batch for good, and nothing of the batch
//     was written;
//   - any other error: not written, or unknown. The same batch comes again. *Later says
//     when.
//
// Package sink/sinktest is the suite that each Sink passes. Sinks for files and HTTP are
// beside it, in sink/filesink and sink/httpsink; those that need more than the standard
// library are modules of their own.
package sink

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// MaxID is the longest ID of a batch, in bytes.
const MaxID = 200

// Row is one row of a batch. Its bytes and headers belong to the caller of Write, must
// not be changed, and live until Write returns.
type Row struct {
	// Offset of the row in its buffer: rows of one buffer have different ones, for ever.
	Offset uint64
	// Time at which the row was added, by the clock of who did.
	Time       time.Time
	Key, Value []byte
	Headers    map[string]string
}

// Batch is what is written at once. One that is written again, after an error or a crash,
// has the same ID and the same rows in the same order; no other batch ever has the ID.
type Batch struct {
	// ID has 1 to MaxID bytes, of which each is a printable ASCII character but a space.
	ID   string
	Rows []Row
}

// Sink writes batches. Any number of goroutines may call it at once.
type Sink interface {
	// Write returns nil when all rows are durable in the target, in the order in which
	// they are in the batch where the target has an order. A batch whose ID was written
	// already is to have no effect and return nil: a sink that cannot promise that
	// ("exactly once") says so ("at least once"). It may be called again with an ID while
	// an earlier call with the same ID still runs somewhere.
	Write(ctx context.Context, b Batch) error
}

// Func is a function that is a Sink.
type Func func(ctx context.Context, b Batch) error

// Write calls the function.
func (f Func) Write(ctx context.Context, b Batch) error { return f(ctx, b) }

// Rejected says that the target refuses rows for good: to write them again does not
// help. Nothing of the batch was written when it comes; a sink that cannot promise that
// says so, and makes its rows idempotent.
type Rejected struct {
	// Rows are indexes into Batch.Rows of rows that are known to be bad. Without any,
	// some row is bad, and it is not known which.
	Rows []int
	Err  error
}

func (e *Rejected) Error() string {
	if len(e.Rows) == 0 {
		return fmt.Sprintf("sink: rejected: %v", e.Err)
	}
	return fmt.Sprintf("sink: %d rows rejected, the first is row %d: %v", len(e.Rows), e.Rows[0], e.Err)
}

func (e *Rejected) Unwrap() error { return e.Err }

// Later says that a batch was not written, and how long the target asks to wait before
// the next attempt.
type Later struct {
	After time.Duration
	Err   error
}

func (e *Later) Error() string { return fmt.Sprintf("sink: not before %v: %v", e.After, e.Err) }

func (e *Later) Unwrap() error { return e.Err }

// RetryAfter returns how long the target asks to wait, if an error says so.
func RetryAfter(err error) (wait time.Duration, ok bool) {
	var later *Later
	if !errors.As(err, &later) || later.After < 0 {
		return 0, false
	}
	return later.After, true
}
