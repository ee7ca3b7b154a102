package systems

import (
	"context"
	"errors"
	"fmt"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/buffer"
	"github.com/forebaydb/forebay/sink"
)

// Buffered is an engine whose commits are rows of a buffer. Its sink is the store itself,
// which remembers the ids of batches in the transaction of their rows.
func Buffered() Engine { return Engine{begin: beginBuffered} }

type buffered struct {
	db *forebay.DB
	b  *buffer.Buffer
}

func beginBuffered(ctx context.Context, db *forebay.DB) (system, error) {
	s := &buffered{db: db}
	var err error
	if s.b, err = buffer.Open(db, "commits", sink.Func(s.write), &buffer.Options{Age: -1}); err != nil {
		return nil, err
	}
	if err := s.b.Flush(ctx); err != nil {
		_ = s.b.Close() // the first error says more
		return nil, err
	}
	return s, nil
}

// write is the sink.
func (s *buffered) write(ctx context.Context, b sink.Batch) error {
	return s.db.UpdateLevel(ctx, forebay.Durable, func(tx *forebay.Tx) error {
		inbox, err := tx.Keyspace("inbox")
		if err != nil {
			return err
		}
		if had, err := inbox.Has([]byte(b.ID)); err != nil || had {
			return err
		}
		for _, r := range b.Rows {
			if err := effect(tx, r.Value); err != nil {
				return err
			}
		}
		return inbox.Put([]byte(b.ID), nil)
	})
}

func (s *buffered) put(ctx context.Context, ops []byte) error {
	if _, err := s.b.Add(buffer.Row{Key: []byte("one"), Value: ops}); err != nil {
		return err
	}
	return s.b.Flush(ctx)
}

func (s *buffered) count(context.Context) (uint64, error) {
	st := s.b.Stats()
	if st.Err != nil {
		return 0, st.Err
	}
	if st.In != st.Done {
		return 0, fmt.Errorf("of %d rows %d are done, %d dead, %d pending", st.In, st.Done, st.Dead, st.Pending)
	}
	return st.Done, nil
}

func (s *buffered) rows(read func(forebay.Reader, uint64) error) error { return both(s.db, read) }

func (s *buffered) close() error {
	err := s.b.Close()
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}
