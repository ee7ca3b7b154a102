package wal_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/vfs"
	"github.com/forebaydb/forebay/wal"
)

func TestTryNextDoesNotWait(t *testing.T) {
	in := vfs.NewInjector(vfs.NewMem())
	o := testOptions(in)
	l, _ := openAll(t, o)
	tail := newTail(t, l, wal.Position{})
	nothing := func() {
		t.Helper()
		pos, rec, ok, err := tail.TryNext()
		require.NoError(t, err)
		require.False(t, ok)
		require.Nil(t, rec)
		if pos.LSN > 0 {
			require.Equal(t, l.DurablePosition(), pos)
		}
	}
	some := func(lsn wal.LSN, want string) {
		t.Helper()
		pos, rec, ok, err := tail.TryNext()
		require.NoError(t, err)
		require.True(t, ok)
		require.Equal(t, wal.Position{Epoch: l.EpochAt(lsn), LSN: lsn}, pos)
		require.Equal(t, want, string(rec))
	}
	nothing()
	put(t, l, wal.Written, "1")
	put(t, l, wal.Buffered, "2")
	nothing()
	batch(t, l, wal.Durable, "3", "4")
	for i := range wal.LSN(3) {
		some(i+1, fmt.Sprint(i+1))
	}
	put(t, l, wal.Durable, "5")
	some(4, "4")
	next(t, tail, 5) // both may be used
	nothing()
	put(t, l, wal.Durable, "6")

	in.Add(vfs.Rule{Call: vfs.CallSyncData, Name: "*.log", Err: syscall.EIO})
	_, err := l.Append([]byte("7"))
	require.ErrorIs(t, err, syscall.EIO)
	some(6, "6") // what is durable is still read
	_, _, ok, err := tail.TryNext()
	require.ErrorIs(t, err, wal.ErrPoisoned)
	require.False(t, ok)
	require.ErrorIs(t, l.Close(), wal.ErrPoisoned)

	l, _ = openAll(t, testOptions(in))
	tail = newTail(t, l, wal.Position{})
	for i := range wal.LSN(6) {
		some(i+1, fmt.Sprint(i+1))
	}
	require.NoError(t, l.TruncateBack(3))
	_, _, ok, err = tail.TryNext()
	require.ErrorIs(t, err, wal.ErrDiverged)
	require.False(t, ok)
	require.NoError(t, l.Close())
	tail = newTail(t, l, l.DurablePosition())
	_, _, ok, err = tail.TryNext()
	require.ErrorIs(t, err, wal.ErrClosed)
	require.False(t, ok)
}

// TestTailFromTheBeginningOfATruncatedLog: the zero position is before the first
// record, also where that is gone.
func TestTailFromTheBeginningOfATruncatedLog(t *testing.T) {
	o := testOptions(vfs.NewMem())
	l, _ := openAll(t, o)
	require.Equal(t, wal.Position{}, l.DurablePosition())
	_, err := l.NewTail(wal.Position{})
	require.NoError(t, err)
	for i := 1; i <= 500; i += 5 {
		batch(t, l, wal.Durable, many("a record that is long enough to fill some files", i, i+4)...)
	}
	old := newTail(t, l, wal.Position{})
	_, _, ok, err := old.TryNext()
	require.NoError(t, err)
	require.True(t, ok)
	require.NoError(t, old.Close())
	require.NoError(t, l.TruncateFront(400))
	for range 2 {
		floor := l.Floor()
		require.Positive(t, floor)
		var c *wal.CompactedError
		for _, lsn := range []wal.LSN{0, floor - 1} {
			_, err = l.NewTail(wal.Position{LSN: lsn, Epoch: 1})
			require.ErrorAs(t, err, &c)
			require.Equal(t, floor+1, c.Oldest)
		}
		tail := newTail(t, l, wal.Position{LSN: floor, Epoch: l.EpochAt(floor)})
		next(t, tail, floor+1)
		require.NoError(t, tail.Close())
		require.Equal(t, wal.Position{LSN: 500, Epoch: l.EpochAt(500)}, l.DurablePosition())
		require.NoError(t, l.Close())
		l, _ = openAll(t, o)
	}
	// A reader that falls behind is told as one that begins.
	slow := newTail(t, l, wal.Position{LSN: l.Floor(), Epoch: l.EpochAt(l.Floor())})
	for i := 501; i <= 1000; i += 5 {
		batch(t, l, wal.Durable, many("a record that is long enough to fill some files", i, i+4)...)
	}
	require.NoError(t, l.TruncateFront(900))
	_, _, ok, err = slow.TryNext()
	require.False(t, ok)
	var c *wal.CompactedError
	require.ErrorAs(t, err, &c)
	require.Equal(t, l.Floor()+1, c.Oldest)
	require.NoError(t, l.Close())
}

// TestDurablePositionBesideCuts: number and epoch are always of one history.
func TestDurablePositionBesideCuts(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	l, _ := openAll(t, testOptions(vfs.NewMem()))
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			var last wal.Position
			for {
				select {
				case <-stop:
					return
				default:
				}
				pos := l.DurablePosition()
				if pos.LSN > 0 && pos.Epoch == 0 || pos.Epoch < last.Epoch && pos.LSN > last.LSN || pos.Epoch == last.Epoch && pos.LSN < last.LSN && pos.LSN%10 != 0 {
					t.Errorf("position %+v after %+v", pos, last)
				}
				if _, err := l.NewTail(pos); err != nil && !errors.Is(err, wal.ErrDiverged) {
					t.Errorf("no tail from %+v: %v", pos, err)
				}
				last = pos
			}
		})
	}
	r := rand.New(rand.NewPCG(seed, 1))
	for range 300 {
		batch(t, l, wal.Level(r.IntN(2)), many("record", 1, 1+r.IntN(20))...)
		if r.IntN(10) == 0 {
			require.NoError(t, l.TruncateBack(l.LastLSN()/10*10))
		}
	}
	require.NoError(t, l.Sync(context.Background()))
	close(stop)
	wg.Wait()
	require.Equal(t, wal.Position{LSN: l.LastLSN(), Epoch: l.EpochAt(l.LastLSN())}, l.DurablePosition())
	require.NoError(t, l.Close())
}
