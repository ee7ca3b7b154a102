package wal_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/vfs"
	"github.com/forebaydb/forebay/wal"
)

// handoffOptions are those of a log that hands 16 KiB of Buffered records off.
func handoffOptions(fs vfs.FS) *wal.Options {
	o := testOptions(fs)
	o.FirstFileSize, o.FileSize = 128<<10, 128<<10
	return o
}

// openHandoff opens a new log with handoffOptions, makes a first record durable, and
// hangs the next write of a log file until the gate is released; it then fails with err.
func openHandoff(t *testing.T, err error) (*vfs.Mem, *vfs.Gate, *wal.Log) {
	t.Helper()
	mem := vfs.NewMem()
	in := vfs.NewInjector(mem)
	l, _ := openAll(t, handoffOptions(in))
	put(t, l, wal.Durable, "1")
	gate := vfs.NewGate()
	in.Add(vfs.Rule{Call: vfs.CallWrite, Name: "*.log", K: 1, Gate: gate, Err: err})
	return mem, gate, l
}

// waits says whether fn does not come back before the gate is released.
func waits(gate *vfs.Gate, fn func()) bool {
	done := make(chan struct{})
	go func() { fn(); close(done) }()
	synctest.Wait()
	waited := false
	select {
	case <-done:
	default:
		waited = true
	}
	gate.Release()
	<-done
	return waited
}

// TestHandoff: who writes Buffered does not wait for a write of what others wrote,
// until four times as much has come together; who writes at another level does.
func TestHandoff(t *testing.T) {
	fill := func(t *testing.T, l *wal.Log, n int) {
		for range n {
			put(t, l, wal.Buffered, eight)
		}
	}
	t.Run("bounded", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			_, gate, l := openHandoff(t, nil)
			fill(t, l, 2+7)
			require.Equal(t, wal.LSN(1), l.WrittenLSN())
			require.True(t, waits(gate, func() { fill(t, l, 1) }))
			require.Equal(t, wal.LSN(3), l.WrittenLSN())
			require.NoError(t, l.Close())
		})
	})
	for _, level := range []wal.Level{wal.Written, wal.Durable} {
		t.Run(level.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				mem, gate, l := openHandoff(t, nil)
				fill(t, l, 3)
				require.True(t, waits(gate, func() { put(t, l, level, "5") }))
				require.Equal(t, wal.LSN(5), l.WrittenLSN())
				again, _ := openAll(t, handoffOptions(mem.Snapshot()))
				require.Equal(t, wal.LSN(5), again.LastLSN())
				again, _ = openAll(t, handoffOptions(mem.PowerCut(loseAll)))
				require.Equal(t, l.DurableLSN(), again.LastLSN())
				require.NoError(t, l.Close())
			})
		})
	}
	for how, fn := range map[string]func(l *wal.Log) error{
		"sync":  func(l *wal.Log) error { return l.Sync(context.Background()) },
		"close": func(l *wal.Log) error { return l.Close() },
		"cut":   func(l *wal.Log) error { return l.TruncateBack(3) },
	} {
		t.Run(how, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				mem, gate, l := openHandoff(t, nil)
				fill(t, l, 3)
				require.True(t, waits(gate, func() { require.NoError(t, fn(l)) }))
				again, _ := openAll(t, handoffOptions(mem.PowerCut(loseAll)))
				require.Equal(t, l.LastLSN(), again.LastLSN())
				if how != "close" {
					require.NoError(t, l.Close())
				}
			})
		})
	}
}

// TestHandoffFails: a write beside the commits that fails poisons the log at once,
// and nothing of it counts.
func TestHandoffFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem, gate, l := openHandoff(t, syscall.EIO)
		put(t, l, wal.Buffered, eight)
		put(t, l, wal.Buffered, eight)
		put(t, l, wal.Buffered, "beside it")
		written := make(chan error)
		go func() {
			_, err := l.AppendAt(wal.Written, []byte("last"))
			written <- err
		}()
		synctest.Wait()
		gate.Release()
		err := <-written
		require.ErrorIs(t, err, wal.ErrUnknown)
		require.ErrorIs(t, err, syscall.EIO)
		require.Equal(t, []wal.LSN{1, 1}, []wal.LSN{l.WrittenLSN(), l.DurableLSN()})
		_, err = l.AppendAt(wal.Buffered, []byte("no"))
		require.ErrorIs(t, err, wal.ErrPoisoned)
		require.ErrorIs(t, l.Close(), syscall.EIO)
		again, _ := openAll(t, handoffOptions(mem.Snapshot()))
		require.Equal(t, wal.LSN(1), again.LastLSN())
	})
	t.Run("nobody asks", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			_, gate, l := openHandoff(t, syscall.EIO)
			put(t, l, wal.Buffered, eight)
			put(t, l, wal.Buffered, eight)
			gate.Release()
			synctest.Wait()
			_, err := l.AppendAt(wal.Buffered, []byte("no"))
			require.ErrorIs(t, err, wal.ErrPoisoned)
			require.ErrorIs(t, l.Close(), syscall.EIO)
		})
	})
}

// TestHandoffBesideAside: a sync that begins while a write is under way does not
// count for what that writes.
func TestHandoffBesideAside(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := vfs.NewMem()
		in := vfs.NewInjector(mem)
		l, _ := openAll(t, handoffOptions(in))
		put(t, l, wal.Durable, "1")
		gate, write := hang(in), vfs.NewGate()
		for range 5 {
			put(t, l, wal.Buffered, eight)
		}
		go l.Sync(context.Background())
		synctest.Wait()
		for len(l.Files()) < 2 {
			put(t, l, wal.Buffered, eight)
		}
		in.Add(vfs.Rule{Call: vfs.CallWrite, Name: "*.log", K: 1, Gate: write})
		put(t, l, wal.Buffered, eight)
		<-write.Arrived()
		gate.Release()
		synctest.Wait() // the next sync is of the file that is full, and of this one, too
		require.Less(t, l.DurableLSN(), l.LastLSN())
		write.Release()
		synctest.Wait()
		require.NoError(t, l.Sync(context.Background()))
		again, _ := openAll(t, handoffOptions(mem.PowerCut(loseAll)))
		require.Equal(t, l.LastLSN(), again.LastLSN())
		require.NoError(t, l.Close())
	})
}

// TestQuick: records that are appended without a leader are in their place among
// those of others, are counted, and are written when the log has been idle.
func TestQuick(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := vfs.NewMem()
		o := handoffOptions(mem)
		o.MarkDelay = time.Second
		l, _ := openAll(t, o)
		const each = 300
		var wg sync.WaitGroup
		for g := range 4 {
			wg.Go(func() {
				last := wal.LSN(0)
				for i := range each {
					level := wal.Buffered
					if i%100 == 99 {
						level = wal.Level(g % 2)
					}
					lsn, err := l.AppendAt(level, fmt.Appendf(nil, "%d %d", g, i))
					require.NoError(t, err)
					require.Greater(t, lsn, last)
					last = lsn
				}
			})
		}
		wg.Wait()
		require.Equal(t, int64(4*each), l.Stats().Records)
		lsn, err := l.AppendAt(wal.Buffered, []byte("one more"))
		require.NoError(t, err)
		require.Equal(t, l.LastLSN(), lsn)
		time.Sleep(time.Minute)
		require.Equal(t, lsn, l.WrittenLSN())
		again, got := openAll(t, handoffOptions(mem.Snapshot()))
		require.Equal(t, lsn, again.LastLSN())
		var next [4]int
		for _, rec := range got[:len(got)-1] {
			g, i, _ := strings.Cut(rec, " ")
			n, _ := strconv.Atoi(g)
			require.Equal(t, strconv.Itoa(next[n]), i)
			next[n]++
		}
		require.NoError(t, l.Close())
		_, err = l.AppendAt(wal.Buffered, nil)
		require.ErrorIs(t, err, wal.ErrClosed)
	})
}

// TestBufferedCrash cuts the power, and kills the process, at moments of a load that
// is mostly Buffered, while the goroutines beside it write and sync.
func TestBufferedCrash(t *testing.T) {
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 1))
		mem := vfs.NewMem()
		o := testOptions(mem)
		o.FirstFileSize = o.FileSize
		if seed%3 == 0 {
			o.Align = 4096
		}
		l, _ := openAll(t, o)
		least := map[bool]wal.LSN{} // what a power cut keeps, and the end of the process
		check := func(mem *vfs.Mem, least wal.LSN) {
			o2 := *o
			o2.FS = mem
			again, got := openAll(t, &o2)
			require.GreaterOrEqual(t, wal.LSN(len(got)), least)
			require.LessOrEqual(t, wal.LSN(len(got)), l.LastLSN())
			for i, rec := range got {
				if strings.TrimRight(rec, " ") != strconv.Itoa(i+1) {
					t.Fatalf("record %d is %q", i+1, rec)
				}
			}
			require.NoError(t, again.Close())
		}
		for i := 1; i <= 2000; i++ {
			at := wal.Buffered
			switch r.IntN(400) {
			case 0, 1:
				at = wal.Written
			case 2:
				at = wal.Durable
			}
			// What a record holds is its own number.
			lsn, err := l.AppendAt(at, fmt.Appendf(nil, "%d%s", i, strings.Repeat(" ", r.IntN(300))))
			require.NoError(t, err)
			if lsn != wal.LSN(i) {
				t.Fatalf("record %d has LSN %d", i, lsn)
			}
			if at <= wal.Written {
				least[false] = lsn
			}
			if at == wal.Durable {
				least[true] = lsn
			}
			if r.IntN(200) == 0 {
				durable, written := max(least[true], l.DurableLSN()), max(least[false], l.WrittenLSN())
				check(mem.PowerCut(func(int, vfs.Unit) vfs.Fate { return []vfs.Fate{vfs.Kept, vfs.Lost}[r.IntN(2)] }), durable)
				check(mem.Snapshot(), written)
			}
		}
		require.NoError(t, l.Close())
	}
}

// TestQuickIsFree: a Buffered record costs no memory of its own.
func TestQuickIsFree(t *testing.T) {
	o := testOptions(vfs.NewMem())
	o.FirstFileSize, o.FileSize = 4<<20, 4<<20
	l, _ := openAll(t, o)
	put(t, l, wal.Durable, "1")
	rec := make([]byte, 128)
	for range 1000 {
		put(t, l, wal.Buffered, string(rec))
	}
	require.Zero(t, testing.AllocsPerRun(500, func() {
		if _, err := l.AppendAt(wal.Buffered, rec); err != nil {
			t.Fatal(err)
		}
	}))
	require.NoError(t, l.Close())
}

// TestFrameOfBufferedRecordsEnds: where one has its length, its group still ends at the
// alignment of the file.
func TestFrameOfBufferedRecordsEnds(t *testing.T) {
	for _, level := range []wal.Level{wal.Written, wal.Durable} {
		o := testOptions(vfs.NewMem())
		o.FirstFileSize, o.FileSize = 1<<20, 1<<20
		o.Align, o.Mechanism = 4096, wal.DirectDSync
		l, _ := openAll(t, o)
		put(t, l, wal.Durable, "1")
		put(t, l, wal.Buffered, strings.Repeat("x", 40<<10))
		require.NoError(t, l.Commit(&wal.Request{Level: level}))
		put(t, l, wal.Durable, "3")
		_, err := l.AppendAt(wal.Buffered, make([]byte, 40<<10))
		require.NoError(t, err)
		require.NoError(t, l.Sync(context.Background()))
		put(t, l, wal.Durable, "5")
		require.NoError(t, l.Close())
	}
}

// TestRegressHoleBehindAFailedHandoff: a hand-off fails while a sync aside is under way
// and a second Sync waits behind it. A Written commit takes the failure. When the aside
// ended, what was laid out behind the hole was written and synced, and counted as
// durable.
func TestRegressHoleBehindAFailedHandoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := vfs.NewMem()
		in := vfs.NewInjector(mem)
		l, _ := openAll(t, handoffOptions(in))
		put(t, l, wal.Durable, "1")
		syncGate, write := hang(in), vfs.NewGate()
		for range 5 {
			put(t, l, wal.Buffered, eight)
		}
		go l.Sync(context.Background()) // aside
		synctest.Wait()
		before := l.LastLSN()
		in.Add(vfs.Rule{Call: vfs.CallWrite, Name: "*.log", K: 1, Gate: write, Err: syscall.EIO})
		put(t, l, wal.Buffered, eight)
		put(t, l, wal.Buffered, eight)
		<-write.Arrived() // handed off
		second := make(chan error, 1)
		go func() { second <- l.Sync(context.Background()) }() // wanted
		synctest.Wait()
		put(t, l, wal.Buffered, "behind the hole")
		done := make(chan error, 1)
		go func() { _, err := l.AppendAt(wal.Written, []byte("last")); done <- err }()
		synctest.Wait()
		write.Release()
		require.ErrorIs(t, <-done, wal.ErrUnknown)
		synctest.Wait()
		require.Error(t, l.Err())
		syncGate.Release()
		synctest.Wait()
		require.ErrorIs(t, <-second, wal.ErrPoisoned)
		require.LessOrEqual(t, l.DurableLSN(), before, "DurableLSN covers a write that failed")
		require.LessOrEqual(t, l.WrittenLSN(), before, "WrittenLSN covers a write that failed")
		durable := l.DurableLSN()
		l.Close()
		again, _ := openAll(t, handoffOptions(mem.PowerCut(loseAll)))
		require.GreaterOrEqual(t, again.LastLSN(), durable, "what DurableLSN promised is there after a power cut")
		again.Close()
	})
}
