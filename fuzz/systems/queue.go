package systems

import (
	"context"
	"fmt"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/queue"
)

// Queued is an engine whose commits are messages of a queue. One receiver acknowledges
// each in the transaction of its effect.
func Queued() Engine { return Engine{begin: beginQueued} }

type queued struct {
	db *forebay.DB
	q  *queue.Queue[[]byte]
	g  *queue.Group[[]byte]
	// handle does what a message says and acknowledges it.
	handle func(ctx context.Context, m *queue.Message[[]byte]) error
}

func beginQueued(ctx context.Context, db *forebay.DB) (system, error) {
	s := &queued{db: db}
	s.handle = s.together
	return s.begin(ctx)
}

// together is how a message is handled: one commit.
func (s *queued) together(ctx context.Context, m *queue.Message[[]byte]) error {
	return s.db.UpdateLevel(ctx, forebay.Durable, func(tx *forebay.Tx) error {
		if err := effect(tx, m.Value); err != nil {
			return err
		}
		return m.AckTx(tx)
	})
}

func (s *queued) begin(ctx context.Context) (system, error) {
	q, err := queue.Open(s.db, "commits", queue.Bytes{}, nil)
	if err != nil {
		return nil, err
	}
	s.q = q
	if s.g, err = q.Group("effects", nil); err == nil {
		err = s.drain(ctx)
	}
	if err != nil {
		_ = q.Close() // the first error says more
		return nil, err
	}
	return s, nil
}

func (s *queued) put(ctx context.Context, ops []byte) error {
	if _, err := s.q.Enqueue(ctx, ops, nil); err != nil {
		return err
	}
	return s.drain(ctx)
}

// drain handles all that is pending.
func (s *queued) drain(ctx context.Context) error {
	for {
		st, err := s.g.Stats(ctx)
		if err != nil || st.Pending == 0 {
			return err
		}
		ms, err := s.g.Receive(ctx, 1)
		if err != nil {
			return err
		}
		for _, m := range ms {
			if err := s.handle(ctx, m); err != nil {
				return err
			}
		}
	}
}

func (s *queued) count(ctx context.Context) (uint64, error) {
	st, err := s.g.Stats(ctx)
	if err != nil {
		return 0, err
	}
	if st.Enqueued != st.Done {
		return 0, fmt.Errorf("of %d messages %d are done, %d dead, %d pending", st.Enqueued, st.Done, st.Dead, st.Pending)
	}
	return uint64(st.Done), nil
}

func (s *queued) rows(read func(forebay.Reader, uint64) error) error { return both(s.db, read) }
func (s *queued) close() error                                       { return s.q.Close() }
