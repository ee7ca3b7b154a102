package systems

import (
	"context"
	"fmt"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/eventstore"
)

// Evented is an engine whose commits are events of a stream. What it shows are the rows
// of a projection, which has its place in the commit of its rows.
func Evented() Engine { return Engine{begin: beginEvented} }

type evented struct {
	s *eventstore.Store
	p *eventstore.Projection
}

const stream = "commits"

func beginEvented(ctx context.Context, db *forebay.DB) (system, error) {
	s, err := eventstore.Open(db, "all", nil)
	if err != nil {
		return nil, err
	}
	p, err := s.Projection(eventstore.ProjectionOptions{Name: "state", Apply: func(rows forebay.Space, ev eventstore.Event) error {
		return apply(rows.Writer, ev.Payload)
	}})
	if err != nil {
		return nil, err
	}
	e := &evented{s: s, p: p}
	_, err = p.CatchUp(ctx)
	return e, err
}

func (e *evented) put(ctx context.Context, ops []byte) error {
	if _, err := e.s.Append(ctx, stream, eventstore.Any, eventstore.New{Type: "Committed", Payload: ops}); err != nil {
		return err
	}
	_, err := e.p.CatchUp(ctx)
	return err
}

// count also has the chain of hashes verified, heads and index.
func (e *evented) count(ctx context.Context) (uint64, error) {
	if _, err := e.s.Verify(ctx); err != nil {
		return 0, err
	}
	n := uint64(0)
	for ev, err := range e.s.Stream(ctx, stream, 1) {
		if err != nil {
			return n, err
		}
		if n++; ev.Version != n {
			return n, fmt.Errorf("version %d behind %d", ev.Version, n-1)
		}
	}
	return n, nil
}

func (e *evented) rows(read func(forebay.Reader, uint64) error) error { return e.p.View(read) }
func (e *evented) close() error                                       { return nil }
