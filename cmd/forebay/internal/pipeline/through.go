package pipeline

import (
	"context"
	"time"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/buffer"
	"github.com/forebaydb/forebay/sink"
)

// Ways from the log into the sink.
const (
	// Direct: a sequence, and a consumer with a position of its own.
	Direct = "direct"
	// Buffer: package buffer, which also has retries of identical batches over a crash,
	// bad rows and bounds.
	Buffer = "buffer"
)

// eventLog is where one connection makes the events of its frames durable.
type eventLog interface {
	// begin forgets what was not committed.
	begin()
	// add takes an event, whose bytes stay as they are until commit returns.
	add(event []byte) error
	// commit returns when all are durable, by one commit.
	commit() error
}

// stage is what flows from the log into the sink.
type stage interface {
	newLog() eventLog
	// run works until ctx ends, which is no error.
	run(ctx context.Context) error
	// retries is how many batches were written again.
	retries() int64
	// close is called behind run.
	close() error
}

// openStage makes the stage that a measurement asks for.
func openStage(db *forebay.DB, c *Config, to sink.Sink) (stage, error) {
	if c.Through == Buffer {
		b, err := buffer.Open(db, "events", to, &buffer.Options{
			Items: c.FlushRows, Bytes: max(4<<20, 2*int64(c.FlushRows)*int64(c.EventBytes)), Age: c.FlushEvery, Lanes: c.Consumers,
			Backoff: firstWait, MaxBackoff: maxWait, Timeout: -1,
		})
		if err != nil {
			return nil, err
		}
		return &buffered{b}, nil
	}
	seq, err := db.Sequence("events")
	if err != nil {
		return nil, err
	}
	pos, err := db.Keyspace("pipeline")
	if err != nil {
		return nil, err
	}
	return &consumer{db: db, seq: seq, pos: pos, sink: to, rows: c.FlushRows, every: c.FlushEvery, work: c.Consumers}, nil
}

// sequenceLog appends to a sequence.
type sequenceLog struct {
	db  *forebay.DB
	seq *forebay.Sequence
	b   *forebay.Batch
}

func newSequenceLog(db *forebay.DB, seq *forebay.Sequence) *sequenceLog {
	return &sequenceLog{db, seq, db.NewBatch()}
}

func (l *sequenceLog) begin()             { l.b.Reset() }
func (l *sequenceLog) add(e []byte) error { return l.b.Append(l.seq, e) }
func (l *sequenceLog) commit() error      { return l.db.Apply(l.b, forebay.Durable) }

// bufferLog adds to a buffer.
type bufferLog struct {
	b    *buffer.Buffer
	rows []buffer.Row
}

func (l *bufferLog) begin() { l.rows = l.rows[:0] }

func (l *bufferLog) add(e []byte) error {
	l.rows = append(l.rows, buffer.Row{Value: e})
	return nil
}

func (l *bufferLog) commit() error {
	_, err := l.b.AddBatch(l.rows)
	return err
}

// buffered is the stage of a buffer, which works by itself.
type buffered struct{ b *buffer.Buffer }

func (s *buffered) newLog() eventLog { return &bufferLog{b: s.b} }

// run looks whether the buffer still works.
func (s *buffered) run(ctx context.Context) error {
	for {
		if err := s.b.Stats().Err; err != nil {
			return err
		}
		if sleep(ctx, 100*time.Millisecond) != nil {
			return nil
		}
	}
}

func (s *buffered) retries() int64 { return int64(s.b.Stats().Failed) }

func (s *buffered) close() error { return s.b.Close() }
