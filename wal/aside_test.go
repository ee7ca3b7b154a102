package wal_test

import (
	"context"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/vfs"
	"github.com/forebaydb/forebay/wal"
)

// asideOptions are those of a log whose syncs of 16 KiB are aside.
func asideOptions(fs vfs.FS) *wal.Options {
	o := testOptions(fs)
	o.FirstFileSize, o.FileSize = 64<<10, 64<<10
	return o
}

// openAside opens a new log with asideOptions and makes a first record durable.
func openAside(t *testing.T) (*vfs.Mem, *vfs.Injector, *wal.Log) {
	t.Helper()
	mem := vfs.NewMem()
	in := vfs.NewInjector(mem)
	l, _ := openAll(t, asideOptions(in))
	put(t, l, wal.Durable, "1")
	return mem, in, l
}

// eight is a record of 8 KiB.
var eight = strings.Repeat("x", 8<<10)

// hang makes syncs of log files hang until the gate is released.
func hang(in *vfs.Injector) *vfs.Gate {
	gate := vfs.NewGate()
	in.Add(vfs.Rule{Call: vfs.CallSyncData, Name: "*.log", Gate: gate})
	return gate
}

// TestFullFileIsSyncedAside: who writes at a lower level does not wait for the sync
// of a file that is full, unless the next one is full, too.
func TestFullFileIsSyncedAside(t *testing.T) {
	for _, level := range []wal.Level{wal.Buffered, wal.Written} {
		t.Run(level.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				mem, in, l := openAside(t)
				gate := hang(in)
				for len(l.Files()) < 2 {
					put(t, l, level, eight)
				}
				synctest.Wait()
				require.Equal(t, wal.LSN(1), l.DurableLSN())
				done := make(chan bool)
				go func() {
					for len(l.Files()) < 4 {
						put(t, l, level, eight)
					}
					close(done)
				}()
				time.Sleep(time.Hour)
				require.Len(t, l.Files(), 2, "the third file waits for the first one's sync")
				select {
				case <-done:
					t.Fatal("it does not wait")
				default:
				}
				last := l.LastLSN()
				// A power cut now takes what no sync has covered, and nothing else.
				lost, _ := openAll(t, asideOptions(mem.PowerCut(loseAll)))
				require.Equal(t, wal.LSN(1), lost.LastLSN())
				kept, _ := openAll(t, asideOptions(mem.PowerCut(func(int, vfs.Unit) vfs.Fate { return vfs.Kept })))
				require.LessOrEqual(t, kept.LastLSN(), last)
				gate.Release()
				<-done
				synctest.Wait()
				require.Greater(t, l.DurableLSN(), last-8)
				require.NoError(t, l.Close())
				again, _ := openAll(t, asideOptions(mem.PowerCut(loseAll)))
				require.Equal(t, l.LastLSN(), again.LastLSN())
			})
		})
	}
}

// TestDurableWaitsForAside: a durable commit behind a full file waits for the sync of
// that, and is behind it in what a power cut leaves.
func TestDurableWaitsForAside(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem, in, l := openAside(t)
		gate := hang(in)
		for len(l.Files()) < 2 {
			put(t, l, wal.Written, eight)
		}
		done := make(chan error)
		go func() { done <- l.Commit(&wal.Request{Records: []wal.Record{{Data: []byte("last")}}}) }()
		time.Sleep(time.Hour)
		select {
		case <-done:
			t.Fatal("it was acknowledged before the file before it was synced")
		default:
		}
		gate.Release()
		require.NoError(t, <-done)
		require.Equal(t, l.LastLSN(), l.DurableLSN())
		again, _ := openAll(t, asideOptions(mem.PowerCut(loseAll)))
		require.Equal(t, l.LastLSN(), again.LastLSN())
		require.NoError(t, l.Close())
	})
}

// TestAsideFails: a sync aside that fails poisons the log, nothing is said to be
// durable by it, and no later sync is believed.
func TestAsideFails(t *testing.T) {
	for _, how := range []string{"full file", "sync"} {
		t.Run(how, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				mem, in, l := openAside(t)
				gate := vfs.NewGate()
				in.Add(vfs.Rule{Call: vfs.CallSyncData, Name: "*.log", K: 1, Gate: gate, Err: syscall.EIO})
				synced := make(chan error, 1)
				if how == "sync" {
					put(t, l, wal.Written, eight)
					put(t, l, wal.Written, eight)
					put(t, l, wal.Written, eight)
					go func() { synced <- l.Sync(context.Background()) }()
				} else {
					for len(l.Files()) < 2 {
						put(t, l, wal.Written, eight)
					}
				}
				synctest.Wait()
				put(t, l, wal.Written, "beside it")
				durable := make(chan error, 1)
				go func() { durable <- l.Commit(&wal.Request{Records: []wal.Record{{Data: []byte("last")}}}) }()
				synctest.Wait()
				gate.Release()
				err := <-durable
				require.ErrorIs(t, err, wal.ErrUnknown)
				require.ErrorIs(t, err, syscall.EIO)
				if how == "sync" {
					require.ErrorIs(t, <-synced, syscall.EIO)
				}
				require.Equal(t, wal.LSN(1), l.DurableLSN())
				require.ErrorIs(t, l.Commit(&wal.Request{Level: wal.Buffered, Records: []wal.Record{{Data: []byte("no")}}}), wal.ErrPoisoned)
				require.ErrorIs(t, l.Sync(context.Background()), wal.ErrPoisoned)
				require.ErrorIs(t, l.Close(), syscall.EIO)
				again, _ := openAll(t, asideOptions(mem.PowerCut(loseAll)))
				require.Equal(t, wal.LSN(1), again.LastLSN())
			})
		})
	}
}

// TestSyncAside: others commit at lower levels while a Sync of much runs, and it
// promises what was there when it was called.
func TestSyncAside(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem, in, l := openAside(t)
		gate := hang(in)
		for range 3 {
			put(t, l, wal.Buffered, eight)
		}
		first, second := make(chan error, 1), make(chan error, 1)
		go func() { first <- l.Sync(context.Background()) }()
		synctest.Wait()
		put(t, l, wal.Buffered, "beside it")
		go func() { second <- l.Sync(context.Background()) }() // the first one's is not enough
		synctest.Wait()
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		require.ErrorIs(t, l.Sync(ctx), context.DeadlineExceeded)
		require.Empty(t, first)
		require.Empty(t, second)
		require.Equal(t, wal.LSN(1), l.DurableLSN())
		gate.Release()
		require.NoError(t, <-first)
		require.GreaterOrEqual(t, l.DurableLSN(), wal.LSN(4))
		require.NoError(t, <-second)
		require.Equal(t, wal.LSN(5), l.DurableLSN())
		again, _ := openAll(t, asideOptions(mem.PowerCut(loseAll)))
		require.Equal(t, wal.LSN(5), again.LastLSN())
		require.NoError(t, l.Close())
	})
}

// TestCloseBesideAside: Close waits for a sync that is under way, and for what was
// written since.
func TestCloseBesideAside(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem, in, l := openAside(t)
		gate := hang(in)
		for len(l.Files()) < 2 {
			put(t, l, wal.Buffered, eight)
		}
		put(t, l, wal.Buffered, eight)
		put(t, l, wal.Buffered, eight)
		closed := make(chan error)
		go func() { closed <- l.Close() }()
		time.Sleep(time.Hour)
		gate.Release()
		require.NoError(t, <-closed)
		again, _ := openAll(t, asideOptions(mem.PowerCut(loseAll)))
		require.Equal(t, l.LastLSN(), again.LastLSN())
	})
}
