package eventstore_test

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/eventstore"
	"github.com/forebaydb/forebay/vfs"
)

// TestFaults lets one call of the disk fail, each in turn, in all that a store does. What
// was acknowledged is there behind a reopen, nothing is there in part, and what failed
// can be done again.
func TestFaults(t *testing.T) {
	play := func(fs vfs.FS) (acked int, failed error) {
		db, err := forebay.Open("data", &forebay.Options{FS: fs, MemtableSize: 16 << 10, LogFileSize: 16 << 10, MarkDelay: -1})
		if err != nil {
			return 0, err
		}
		defer db.Close()
		note := func(err error) bool {
			failed = errors.Join(failed, err)
			return err == nil
		}
		s, err := eventstore.Open(db, "bank", nil)
		if !note(err) {
			return 0, failed
		}
		p, err := s.Projection(counting())
		note(err)
		for i := range 12 {
			_, err := s.Append(ctx, "a", eventstore.Exactly(uint64(2*i)), secret(fmt.Sprint("u", i), "x"), eventstore.New{Type: "T", Payload: make([]byte, 2000)})
			if !note(err) {
				break
			}
			acked = 2*i + 2
			if p != nil && i%3 == 0 {
				_, err := p.CatchUp(ctx)
				note(err)
				note(p.Rebuild(ctx))
			}
			switch i {
			case 5:
				note(db.Checkpoint(ctx))
			case 7:
				note(s.Forget(ctx, "u0"))
			case 8:
				l, err := counter(3).Load(ctx, s, "a")
				note(errors.Join(err, l.SnapshotErr))
			case 10:
				_, err := s.Retain(ctx, eventstore.Retention{Before: 4})
				note(err)
			}
			for _, err := range s.Stream(ctx, "a", 9) {
				note(err)
			}
		}
		return acked, failed
	}
	count := vfs.NewInjector(vfs.NewMem())
	acked, err := play(count)
	require.NoError(t, err)
	require.Equal(t, 24, acked)
	calls := count.Count(vfs.CallNone)
	step := 1
	if calls == 0 {
		calls = 400
	}
	if testing.Short() {
		step = 11
	}
	for k := 1; k <= calls; k += step {
		for _, after := range []bool{false, true} {
			mem := vfs.NewMem()
			in := vfs.NewInjector(mem)
			in.Add(vfs.Rule{K: k, Err: syscall.EIO, After: after})
			acked, _ := play(in)
			db, err := forebay.Open("data", &forebay.Options{FS: mem})
			require.NoError(t, err, k)
			s, err := eventstore.Open(db, "bank", nil)
			require.NoError(t, err, k)
			r, err := s.Verify(ctx)
			require.NoError(t, err, k)
			floor, err := s.First()
			require.NoError(t, err)
			require.GreaterOrEqual(t, int(floor+r.Events), acked, k)
			for ev, err := range s.Stream(ctx, "a", floor+1) {
				require.NoError(t, err, k)
				if ev.Version%2 == 1 && !ev.Erased {
					require.Equal(t, "x", string(ev.Payload))
				}
			}
			p, err := s.Projection(counting())
			require.NoError(t, err, k)
			_, err = p.CatchUp(ctx)
			require.NoError(t, err, k)
			require.NoError(t, p.Rebuild(ctx), k)
			require.NoError(t, db.Close())
		}
	}
}

// TestClose: what waits ends when the store is closed, and what comes later says so.
func TestClose(t *testing.T) {
	db, s := newStore(t, nil)
	add(t, s, "a", "1")
	p := projection(t, s, byStream("p", 1))
	ran := make(chan error, 2)
	began := make(chan struct{})
	go func() { ran <- p.Run(ctx) }()
	go func() {
		for _, err := range s.Follow(ctx, 0) {
			if err != nil {
				ran <- err
				return
			}
			close(began)
		}
	}()
	<-began
	require.NoError(t, db.Close())
	require.ErrorIs(t, <-ran, forebay.ErrClosed)
	require.ErrorIs(t, <-ran, forebay.ErrClosed)
	_, err := s.Append(ctx, "a", eventstore.Any, text("2"))
	require.ErrorIs(t, err, forebay.ErrClosed)
	_, err = s.Verify(ctx)
	require.ErrorIs(t, err, forebay.ErrClosed)
	_, err = p.CatchUp(ctx)
	require.ErrorIs(t, err, forebay.ErrClosed)
	for _, err := range s.Stream(ctx, "a", 1) {
		require.ErrorIs(t, err, forebay.ErrClosed)
	}
	require.ErrorIs(t, s.Forget(ctx, "x"), forebay.ErrClosed)
	_, err = s.Retain(ctx, eventstore.Retention{Before: 1})
	require.ErrorIs(t, err, forebay.ErrClosed)
	require.ErrorIs(t, s.Reindex(ctx), forebay.ErrClosed)

	_, s = newStore(t, nil)
	done, cancel := context.WithCancel(ctx)
	cancel()
	_, err = s.Append(done, "a", eventstore.Any, text("2"))
	if err != nil {
		require.ErrorIs(t, err, context.Canceled)
	}
}
