package eventstore_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/eventstore"
)

// TestAtOnce does everything beside everything else.
func TestAtOnce(t *testing.T) {
	_, s := newStore(t, nil)
	p := projection(t, s, counting())
	run, stop := context.WithCancel(ctx)
	defer stop()
	ran := make(chan error, 1)
	go func() { ran <- p.Run(run) }()
	var wg sync.WaitGroup
	rounds := 20
	if testing.Short() {
		rounds = 8
	}
	work := func(name string, fn func(i int) error) {
		wg.Go(func() {
			for i := range rounds {
				if err := fn(i); err != nil {
					t.Errorf("%s: %v", name, err)
					return
				}
			}
		})
	}
	for w := range 8 {
		work("append", func(i int) error {
			for k := range 10 {
				_, err := s.Append(ctx, fmt.Sprint("s", (w+k)%5), eventstore.Any, text("x"), secret(fmt.Sprint("u", w, i/2), "y"))
				if err != nil && !errors.Is(err, eventstore.ErrForgotten) {
					return err
				}
			}
			return nil
		})
	}
	work("rebuild", func(int) error { return p.Rebuild(ctx) })
	for range 2 {
		work("retain", func(int) error {
			_, err := s.Retain(ctx, eventstore.Retention{MaxEvents: 300})
			return err
		})
	}
	work("forget", func(i int) error { return s.Forget(ctx, fmt.Sprint("u", i%8, i/2)) })
	work("verify", func(int) error {
		_, err := s.Verify(ctx)
		if errors.Is(err, eventstore.ErrRetained) {
			return nil
		}
		return err
	})
	agg := counter(7)
	work("load", func(i int) error {
		l, err := agg.Load(ctx, s, fmt.Sprint("s", i%5))
		if errors.Is(err, eventstore.ErrRetained) {
			return nil
		}
		if err == nil && l.State != l.Version {
			err = fmt.Errorf("state %d of version %d", l.State, l.Version)
		}
		if !errors.Is(l.SnapshotErr, eventstore.ErrForgotten) {
			err = errors.Join(err, l.SnapshotErr)
		}
		return err
	})
	work("view", func(int) error {
		rows(t, p)
		return nil
	})
	wg.Wait()
	stop()
	require.ErrorIs(t, <-ran, context.Canceled)
	verify(t, s)
	_, err := p.CatchUp(ctx)
	require.NoError(t, err)
	st, err := p.Status()
	require.NoError(t, err)
	require.Zero(t, st.Lag)
	require.Zero(t, st.Building)
}
