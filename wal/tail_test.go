package wal_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/vfs"
	"github.com/forebaydb/forebay/wal"
)

func within(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func newTail(t testing.TB, l *wal.Log, from wal.Position) *wal.Tail {
	t.Helper()
	tail, err := l.NewTail(from)
	require.NoError(t, err)
	return tail
}

// next reads one record and checks its LSN.
func next(t testing.TB, tail *wal.Tail, lsn wal.LSN) (wal.Position, string) {
	t.Helper()
	pos, rec, err := tail.Next(within(t))
	require.NoError(t, err)
	require.Equal(t, lsn, pos.LSN)
	return pos, string(rec)
}

// batch commits n records as one group, so that they share a frame.
func batch(t testing.TB, l *wal.Log, level wal.Level, recs ...string) wal.LSN {
	t.Helper()
	r := &wal.Request{Level: level}
	for _, s := range recs {
		r.Records = append(r.Records, wal.Record{Data: []byte(s)})
	}
	require.NoError(t, l.Commit(r))
	return r.Last()
}

func many(word string, from, to int) (out []string) {
	for i := from; i <= to; i++ {
		out = append(out, fmt.Sprint(word, " ", i))
	}
	return out
}

func TestTailResumesAnywhere(t *testing.T) {
	o := testOptions(vfs.NewMem())
	l, _ := openAll(t, o)
	const n = 500
	for i := 1; i <= n; i += 5 {
		batch(t, l, wal.Durable, many("a record that is long enough to fill some files", i, i+4)...)
	}
	for from := wal.LSN(0); from <= n; from += 7 {
		pos := wal.Position{LSN: from}
		if from > 0 {
			pos.Epoch = l.EpochAt(from)
		}
		tail := newTail(t, l, pos)
		for lsn := from + 1; lsn <= min(from+30, n); lsn++ {
			_, rec := next(t, tail, lsn)
			require.Equal(t, fmt.Sprint("a record that is long enough to fill some files ", lsn), rec)
		}
		require.NoError(t, tail.Close())
	}
	_, err := l.NewTail(wal.Position{Epoch: 1, LSN: n + 1})
	require.ErrorIs(t, err, wal.ErrDiverged)
	require.NoError(t, l.Close())
}

// TestTailSeesOnlyDurable: what is written or buffered waits until it is synced.
func TestTailSeesOnlyDurable(t *testing.T) {
	l, _ := openAll(t, testOptions(vfs.NewMem()))
	tail := newTail(t, l, wal.Position{})
	put(t, l, wal.Buffered, "1")
	put(t, l, wal.Written, "2")
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	_, _, err := tail.Next(ctx)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.NoError(t, l.Sync(context.Background()))
	next(t, tail, 1)
	next(t, tail, 2)
	require.NoError(t, l.Close())
	_, _, err = tail.Next(context.Background())
	require.ErrorIs(t, err, wal.ErrClosed)
}

// TestTailIsWoken: a reader that waits is told of a close and of a poison.
func TestTailIsWoken(t *testing.T) {
	t.Run("close", func(t *testing.T) {
		l, _ := openAll(t, testOptions(vfs.NewMem()))
		tail := newTail(t, l, wal.Position{})
		got := make(chan error)
		go func() { _, _, err := tail.Next(context.Background()); got <- err }()
		time.Sleep(5 * time.Millisecond)
		require.NoError(t, l.Close())
		require.ErrorIs(t, <-got, wal.ErrClosed)
	})
	t.Run("poison", func(t *testing.T) {
		in := vfs.NewInjector(vfs.NewMem())
		l, _ := openAll(t, testOptions(in))
		put(t, l, wal.Durable, "1")
		tail := newTail(t, l, wal.Position{Epoch: 1, LSN: 1})
		got := make(chan error)
		go func() { _, _, err := tail.Next(context.Background()); got <- err }()
		time.Sleep(5 * time.Millisecond)
		in.Add(vfs.Rule{Call: vfs.CallSyncData, Name: "*.log", Err: syscall.EIO})
		_, err := l.Append([]byte("2"))
		require.ErrorIs(t, err, wal.ErrUnknown)
		err = <-got
		require.ErrorIs(t, err, wal.ErrPoisoned)
		require.ErrorIs(t, err, syscall.EIO)
		// What is durable can still be read.
		tail = newTail(t, l, wal.Position{})
		next(t, tail, 1)
		require.ErrorIs(t, l.Close(), wal.ErrPoisoned)
	})
}

// TestTailDivergesForGood: a reader above a cut is told so, each time it asks,
// also when the new history has grown past it.
func TestTailDivergesForGood(t *testing.T) {
	l, _ := openAll(t, testOptions(vfs.NewMem()))
	for i := 1; i <= 10; i++ {
		put(t, l, wal.Durable, fmt.Sprint("old ", i))
	}
	tail := newTail(t, l, wal.Position{Epoch: 1, LSN: 10})
	require.NoError(t, l.TruncateBack(5))
	for i := 6; i <= 12; i++ {
		put(t, l, wal.Durable, fmt.Sprint("new ", i))
	}
	for range 3 {
		_, rec, err := tail.Next(within(t))
		require.ErrorIs(t, err, wal.ErrDiverged, "%s", rec)
	}
	require.NoError(t, l.Close())
}

// TestTailReturnsNothingThatWasCut: records that a reader has read ahead, in the
// frame of the last one that it returned, are cut like any other.
func TestTailReturnsNothingThatWasCut(t *testing.T) {
	l, _ := openAll(t, testOptions(vfs.NewMem()))
	batch(t, l, wal.Durable, many("old", 1, 10)...)
	tail := newTail(t, l, wal.Position{})
	next(t, tail, 1)
	next(t, tail, 2)
	require.NoError(t, l.TruncateBack(4))
	batch(t, l, wal.Durable, many("new", 5, 12)...)
	for lsn := wal.LSN(3); lsn <= 12; lsn++ {
		pos, rec := next(t, tail, lsn)
		if lsn <= 4 {
			require.Equal(t, fmt.Sprint("old ", lsn), rec)
			require.Equal(t, uint64(1), pos.Epoch)
		} else {
			require.Equal(t, fmt.Sprint("new ", lsn), rec)
			require.Equal(t, uint64(2), pos.Epoch)
		}
	}
	require.NoError(t, l.Close())
}

// TestPositionOfACopyOutlivesItsFile: records that an open copied keep their
// epoch, also when the file of the copies is retained for a pin and another open
// has come since.
func TestPositionOfACopyOutlivesItsFile(t *testing.T) {
	mem := vfs.NewMem()
	l, _ := openAll(t, testOptions(mem))
	for i := 1; i <= 6; i++ {
		put(t, l, wal.Durable, fmt.Sprint("old ", i))
	}
	at := l.DurablePosition()
	require.Equal(t, wal.Position{Epoch: 1, LSN: 6}, at)
	for lsn := wal.LSN(8); lsn <= 16; lsn += 2 {
		require.NoError(t, l.Pin("reader", at.LSN))
		mem = mem.Snapshot() // a crash of the process: the last group has no mark
		require.NoError(t, l.Close())
		l, _ = openAll(t, testOptions(mem))
		require.Equal(t, at, wal.Position{Epoch: l.EpochAt(6), LSN: 6}, "before LSN %d", lsn)
		put(t, l, wal.Durable, fmt.Sprint("new ", lsn-1))
		put(t, l, wal.Durable, fmt.Sprint("new ", lsn))
		require.NoError(t, l.TruncateFront(lsn))
		require.Equal(t, at, wal.Position{Epoch: l.EpochAt(6), LSN: 6})
		next(t, newTail(t, l, at), 7)
	}
	require.NoError(t, l.Close())
}

// gated runs fn while one call of a reader, the k-th of a kind on log files,
// waits, and returns what the reader then said.
func gated(t *testing.T, in *vfs.Injector, call vfs.Call, k int, tail *wal.Tail, fn func()) (string, error) {
	t.Helper()
	gate := vfs.NewGate()
	rule := in.Add(vfs.Rule{Call: call, Name: "*.log", K: k, Gate: gate})
	defer rule.Remove()
	type result struct {
		rec string
		err error
	}
	got := make(chan result, 1)
	go func() {
		_, rec, err := tail.Next(context.Background())
		got <- result{string(rec), err}
	}()
	<-gate.Arrived()
	fn()
	gate.Release()
	r := <-got
	return r.rec, r.err
}

// TestTailBesideTruncateFront: the file that a reader is about to open, or
// reads, leaves the log.
func TestTailBesideTruncateFront(t *testing.T) {
	for _, call := range []vfs.Call{vfs.CallOpen, vfs.CallRead} {
		t.Run(call.String(), func(t *testing.T) {
			in := vfs.NewInjector(vfs.NewMem())
			l, _ := openAll(t, testOptions(in))
			for i := 1; len(l.Files()) < 4; i++ {
				put(t, l, wal.Durable, fmt.Sprintf("record %d %0600d", i, 0))
			}
			tail := newTail(t, l, wal.Position{})
			rec, err := gated(t, in, call, 1, tail, func() { require.NoError(t, l.TruncateFront(l.DurableLSN())) })
			if call == vfs.CallOpen {
				var c *wal.CompactedError
				require.ErrorAs(t, err, &c)
				require.Equal(t, l.Floor()+1, c.Oldest)
			} else { // the open file can still be read
				require.NoError(t, err)
				require.Contains(t, rec, "record 1 ")
			}
			require.NoError(t, l.Close())
		})
	}
}

// TestTailBesideTruncateBack: the log is cut, down to its floor, while a reader
// is between two steps.
func TestTailBesideTruncateBack(t *testing.T) {
	for _, call := range []vfs.Call{vfs.CallOpen, vfs.CallRead} {
		for _, to := range []wal.LSN{0, 1, 5} {
			t.Run(fmt.Sprintf("%s/%d", call, to), func(t *testing.T) {
				in := vfs.NewInjector(vfs.NewMem())
				l, _ := openAll(t, testOptions(in))
				batch(t, l, wal.Durable, many("old", 1, 3)...)
				batch(t, l, wal.Durable, many("old", 4, 10)...)
				tail := newTail(t, l, wal.Position{Epoch: 1, LSN: 3})
				rec, err := gated(t, in, call, 1, tail, func() {
					// The cut reads the log too: its own calls pass the gate's rule.
					require.NoError(t, l.TruncateBack(to))
					if to == 0 {
						return // nothing is left
					}
					for lsn := to + 1; lsn <= 10; lsn++ {
						put(t, l, wal.Durable, fmt.Sprint("new ", lsn))
					}
				})
				if to < 3 {
					require.ErrorIs(t, err, wal.ErrDiverged, "%s", rec)
				} else {
					require.NoError(t, err)
					require.Equal(t, "old 4", rec)
					next(t, tail, 5)
					_, rec = next(t, tail, 6)
					require.Equal(t, "new 6", rec)
				}
				require.NoError(t, l.Close())
			})
		}
	}
}

// TestManyTails reads beside appends, rotation, recycling and TruncateFront.
func TestManyTails(t *testing.T) {
	o := testOptions(vfs.NewMem())
	o.NoSpares, o.FileSize = false, 32<<10
	l, _ := openAll(t, o)
	const n = 4000
	var wg sync.WaitGroup
	var compacted atomic.Int64
	for r := range 6 {
		wg.Go(func() {
			ctx := within(t)
			var pos wal.Position
			for pos.LSN < n {
				tail, err := l.NewTail(pos)
				for err == nil && pos.LSN < n {
					var rec []byte
					var p wal.Position
					if p, rec, err = tail.Next(ctx); err == nil {
						if p.LSN != pos.LSN+1 || string(rec) != longerRecord(int(p.LSN)) {
							t.Errorf("behind %d came %d, %.20q", pos.LSN, p.LSN, rec)
							return
						}
						pos = p
						if r >= 4 && p.LSN%50 == 0 {
							break // and resume
						}
						if r == 3 && p.LSN%100 == 0 {
							time.Sleep(time.Millisecond) // falls behind
						}
					}
				}
				if tail != nil {
					tail.Close()
				}
				var c *wal.CompactedError
				switch {
				case errors.As(err, &c):
					compacted.Add(1)
					if c.Oldest <= pos.LSN+1 {
						t.Errorf("compacted at %d, but the oldest is %d", pos.LSN, c.Oldest)
						return
					}
					pos = wal.Position{Epoch: 1, LSN: c.Oldest - 1}
				case err != nil:
					t.Errorf("reader %d at %d: %v", r, pos.LSN, err)
					return
				}
			}
		})
	}
	for i := 1; i <= n; i++ {
		put(t, l, wal.Level(i%3), longerRecord(i))
		if i%40 == 0 {
			require.NoError(t, l.TruncateFront(l.DurableLSN()/2))
		}
		if i%400 == 0 {
			require.NoError(t, l.TruncateFront(l.DurableLSN()))
		}
	}
	require.NoError(t, l.Sync(context.Background()))
	wg.Wait()
	t.Logf("%d times compacted", compacted.Load())
	require.NoError(t, l.Close())
}

func longerRecord(n int) string { return fmt.Sprintf("record %d %0200d", n, n) }

// TestTailsBesideCuts reads beside TruncateBack: whatever a reader sees is one
// history, until it is told that it is not.
func TestTailsBesideCuts(t *testing.T) {
	l, _ := openAll(t, testOptions(vfs.NewMem()))
	done := make(chan struct{})
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			ctx, cancel := context.WithCancel(context.Background())
			go func() { <-done; cancel() }()
			defer cancel()
			for ctx.Err() == nil {
				tail, err := l.NewTail(wal.Position{})
				var last wal.Position
				for err == nil {
					var p wal.Position
					var rec []byte
					if p, rec, err = tail.Next(ctx); err == nil {
						if p.LSN != last.LSN+1 || p.Epoch < last.Epoch || string(rec) != longerRecord(int(p.Epoch)*1000+int(p.LSN)) {
							t.Errorf("behind %v came %v, %.20q", last, p, rec)
							return
						}
						last = p
					}
				}
				if !errors.Is(err, wal.ErrDiverged) && !errors.Is(err, context.Canceled) {
					t.Errorf("at %v: %v", last, err)
					return
				}
				tail.Close()
			}
		})
	}
	epoch := 1
	for round := range 60 {
		for range 20 {
			lsn := int(l.LastLSN()) + 1
			put(t, l, wal.Durable, longerRecord(epoch*1000+lsn))
		}
		require.NoError(t, l.TruncateBack(l.LastLSN()-wal.LSN(round%15+1)))
		epoch++
	}
	close(done)
	wg.Wait()
	require.NoError(t, l.Close())
}

// TestTailOfAnotherHistory (docs/recovery.md, sequence 7): a position at a
// record that a power cut took back is of another history, whatever is written
// under its number.
func TestTailOfAnotherHistory(t *testing.T) {
	mem := vfs.NewMem()
	l, _ := openAll(t, testOptions(mem))
	put(t, l, wal.Durable, "1")
	put(t, l, wal.Written, "2")
	seen := wal.Position{Epoch: l.EpochAt(2), LSN: 2} // by a replica that is not careful
	mem = mem.PowerCut(func(int, vfs.Unit) vfs.Fate { return vfs.Lost })
	l, got := openAll(t, testOptions(mem))
	require.Equal(t, []string{"1"}, got)
	_, err := l.NewTail(seen)
	require.ErrorIs(t, err, wal.ErrDiverged)
	put(t, l, wal.Durable, "another 2")
	put(t, l, wal.Durable, "3")
	_, err = l.NewTail(seen)
	require.ErrorIs(t, err, wal.ErrDiverged)
	tail := newTail(t, l, wal.Position{Epoch: 1, LSN: 1})
	_, rec := next(t, tail, 2)
	require.Equal(t, "another 2", rec)
	require.NoError(t, l.Close())
}

// TestTailAfterCopies: records that an open copied keep the epoch in which they
// were committed, so that a reader of them goes on.
func TestTailAfterCopies(t *testing.T) {
	mem := vfs.NewMem()
	want := 0
	var at wal.Position
	for range 5 {
		l, got := openAll(t, testOptions(mem))
		require.Len(t, got, want)
		tail := newTail(t, l, at)
		for i := range 3 {
			want++
			put(t, l, wal.Durable, fmt.Sprint("record ", want))
			if i < 2 { // the last one is read by the next open
				for at.LSN < wal.LSN(want) {
					at, _ = next(t, tail, at.LSN+1)
				}
			}
		}
		mem = mem.Snapshot()
	}
}

// TestTailMeetsDamage: durable records that do not verify are corruption, named.
func TestTailMeetsDamage(t *testing.T) {
	mem := vfs.NewMem()
	l, _ := openAll(t, testOptions(mem))
	for i := 1; i <= 5; i++ {
		put(t, l, wal.Durable, longRecord(i))
	}
	require.NoError(t, mem.Corrupt(path(1), 512+112+2*800, 300, garbage))
	tail := newTail(t, l, wal.Position{})
	var err error
	n := 0
	for err == nil {
		_, _, err = tail.Next(within(t))
		n++
	}
	var c *wal.CorruptionError
	require.ErrorAs(t, err, &c)
	require.Equal(t, path(1), c.File)
	require.Greater(t, c.Offset, int64(1000))
	require.Less(t, n, 5)
}
