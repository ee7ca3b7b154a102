package pipeline

import (
	"bufio"
	"context"
	"os"
	"sync"
	"time"
)

// Row is one event of a batch. Value belongs to the caller of Write and lives until it
// returns.
type Row struct {
	Offset uint64
	Value  []byte
}

// Batch is what is written at once. One that is written again has the same ID and rows.
type Batch struct {
	ID   string
	Rows []Row
}

// Sink takes batches. Write returns nil when all rows are in the target; after an error the
// same batch comes again. Any number of goroutines may call at once.
type Sink interface {
	Write(ctx context.Context, b Batch) error
}

// discard is a sink that is as fast as can be.
type discard struct{}

func (discard) Write(context.Context, Batch) error { return nil }

// limited is a sink that takes so many rows a second, as a database does.
type limited struct {
	next Sink
	rate float64

	mu   sync.Mutex // guards free
	free time.Time  // when it has taken all that it was given
}

// credit is how much time a sink that had nothing to do may make up.
const credit = 50 * time.Millisecond

func (l *limited) Write(ctx context.Context, b Batch) error {
	l.mu.Lock()
	now := time.Now()
	if l.free.Before(now.Add(-credit)) {
		l.free = now.Add(-credit)
	}
	l.free = l.free.Add(time.Duration(float64(len(b.Rows)) / l.rate * float64(time.Second)))
	until := l.free
	l.mu.Unlock()
	if err := sleep(ctx, time.Until(until)); err != nil {
		return err
	}
	return l.next.Write(ctx, b)
}

// file is a sink that appends lines to a file. It syncs when it is closed.
type file struct {
	mu sync.Mutex // guards the file
	f  *os.File
	w  *bufio.Writer
}

func newFile(name string) (*file, error) {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	return &file{f: f, w: bufio.NewWriterSize(f, 1<<20)}, nil
}

func (s *file) Write(_ context.Context, b Batch) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range b.Rows {
		if _, err := s.w.Write(b.Rows[i].Value); err != nil {
			return err
		}
		if err := s.w.WriteByte('\n'); err != nil {
			return err
		}
	}
	return s.w.Flush()
}

func (s *file) Close() error {
	err := s.f.Sync()
	if cerr := s.f.Close(); err == nil {
		err = cerr
	}
	return err
}

// counting counts, behind a sink, what has arrived in it.
type counting struct {
	Sink
	seen *seen
}

func (c counting) Write(ctx context.Context, b Batch) error {
	if err := c.Sink.Write(ctx, b); err != nil {
		return err
	}
	c.seen.add(b.Rows)
	return nil
}
