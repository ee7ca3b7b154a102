package wal_test

import (
	"context"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/vfs"
	"github.com/forebaydb/forebay/wal"
)

// TestTrimTakesTheFilesOff: of a log of which nothing is needed no file stays, nor a
// spare; it goes on behind its floor, for tails, too, and after a reopen.
func TestTrimTakesTheFilesOff(t *testing.T) {
	for _, align := range []int64{0, 4096} {
		for _, policy := range []wal.Policy{wal.SyncGroup, wal.SyncNever} {
			mem := vfs.NewMem()
			o := testOptions(mem)
			o.NoSpares, o.Align, o.Policy = false, align, policy
			l, _ := openAll(t, o)
			var tail *wal.Tail
			for round := range 3 {
				files(t, l, 4, 0)
				last := put(t, l, wal.Durable, fmt.Sprint("round ", round))
				if tail == nil {
					var err error
					tail, err = l.NewTail(l.DurablePosition())
					require.NoError(t, err)
				} else {
					for lsn := wal.LSN(0); lsn < last; {
						pos, _, err := tail.Next(context.Background())
						require.NoError(t, err)
						lsn = pos.LSN
					}
				}
				require.NoError(t, l.Trim(last-1))
				require.NotEmpty(t, l.Files(), "the last record is not settled")
				at := l.DurablePosition()
				require.NoError(t, l.Trim(last))
				require.NoError(t, l.Trim(last), "twice")
				require.Empty(t, l.Files())
				require.Empty(t, numbers(t, mem))
				s := l.Stats()
				require.Zero(t, s.SpareBytes)
				require.Zero(t, s.FileBytes)
				require.Equal(t, last, l.Floor())
				require.Equal(t, at, l.DurablePosition())
				require.Equal(t, at.Epoch, l.EpochAt(last))
				require.NoError(t, l.Sync(context.Background()))
				require.NoError(t, l.TruncateFront(last))
				require.NoError(t, l.TruncateBack(last))
			}
			last := put(t, l, wal.Durable, "behind")
			pos, rec, err := tail.Next(context.Background())
			require.NoError(t, err)
			require.Equal(t, last, pos.LSN)
			require.Equal(t, "behind", string(rec))
			require.NoError(t, tail.Close())
			require.NoError(t, l.Close())
			l, got := openAll(t, o)
			require.Equal(t, []string{"behind"}, got)
			require.Equal(t, last-1, l.Floor())
			// Of files of an earlier open, too, and of none.
			require.NoError(t, l.Trim(last))
			require.Empty(t, numbers(t, mem))
			require.NoError(t, l.Close())
			l, got = openAll(t, o)
			require.Empty(t, got)
			require.Equal(t, last, l.LastLSN())
			require.NoError(t, l.Trim(last))
			require.NoError(t, l.Close())
			require.ErrorIs(t, l.Trim(last), wal.ErrClosed)
		}
	}
}

// TestTrimLeavesWhatIsHeld: by a pin, or by keep-counts. The room kept for what is to
// come goes all the same.
func TestTrimLeavesWhatIsHeld(t *testing.T) {
	mem := vfs.NewMem()
	o := testOptions(mem)
	l, _ := openAll(t, o)
	require.NoError(t, l.Pin("pin", 3))
	files(t, l, 3, 0)
	require.NoError(t, l.Trim(l.LastLSN()))
	require.Len(t, l.Files(), 3)
	require.NoError(t, l.Unpin("pin"))
	require.NoError(t, l.Trim(l.LastLSN()))
	require.Empty(t, l.Files())
	files(t, l, 1, 5)
	require.NoError(t, l.Trim(l.LastLSN()))
	require.Len(t, l.Files(), 1, "the file that is being written has a keep-count")
	require.NoError(t, l.Unkeep(l.LastLSN(), 5))
	require.NoError(t, l.Trim(l.LastLSN()))
	require.Empty(t, l.Files())
	require.NoError(t, l.Close())
}

// TestTrimTakesVoidFilesAlong: a file that a crash has left behind what it follows is
// no part of the history. Its link names the place where the floor is then, with more
// records than that file has: if it stayed listed, the next open would take it for
// what goes on there.
func TestTrimTakesVoidFilesAlong(t *testing.T) {
	mem := vfs.NewMem()
	o := testOptions(mem)
	o.Policy = wal.SyncNever
	l, _ := openAll(t, o)
	put(t, l, wal.Durable, "1")
	put(t, l, wal.Durable, "2")
	put(t, l, wal.Written, strings.Repeat("3", 9000))
	put(t, l, wal.Written, strings.Repeat("4", 9000))
	require.Len(t, l.Files(), 2)
	disk := mem.PowerCut(func(_ int, u vfs.Unit) vfs.Fate {
		if u.Name == "db/000001.log" {
			return vfs.Lost
		}
		return vfs.Kept
	})
	require.NoError(t, l.Close())
	o.FS = disk
	l, got := openAll(t, o)
	require.Equal(t, []string{"1", "2"}, got)
	require.NotEmpty(t, l.Recovery().Void)
	require.NoError(t, l.Trim(2))
	require.Empty(t, numbers(t, disk))
	crash := disk.PowerCut(func(int, vfs.Unit) vfs.Fate { return vfs.Kept })
	require.NoError(t, l.Close())
	for _, fs := range []vfs.FS{crash, disk} {
		o.FS = fs
		l, got = openAll(t, o)
		require.Empty(t, got)
		require.Equal(t, wal.LSN(2), l.LastLSN())
		require.Equal(t, wal.LSN(3), put(t, l, wal.Durable, "again"))
		require.NoError(t, l.Close())
		l, got = openAll(t, o)
		require.Equal(t, []string{"again"}, got)
		require.NoError(t, l.Close())
	}
}

// TestTrimOfCopies: the epoch of what was copied stays that of its commit.
func TestTrimOfCopies(t *testing.T) {
	mem := copied(t)
	l, err := wal.Open("db", testOptions(mem.PowerCut(func(int, vfs.Unit) vfs.Fate { return vfs.Kept })))
	require.NoError(t, err)
	at := l.DurablePosition()
	require.NoError(t, l.Trim(l.LastLSN()))
	require.Equal(t, at, l.DurablePosition())
	require.NoError(t, l.Close())
}

// TestTrimFailsAndMayHaveDoneIt: where nobody knows whether the edit counts, nothing
// more goes into the file that it takes off.
func TestTrimFailsAndMayHaveDoneIt(t *testing.T) {
	for k := 1; ; k++ {
		mem := vfs.NewMem()
		in := vfs.NewInjector(mem)
		l, _ := openAll(t, testOptions(in))
		last := put(t, l, wal.Durable, "settled")
		rule := in.Add(vfs.Rule{K: k, Err: syscall.EIO, After: true})
		if err := l.Trim(last); err == nil && rule.Hits() == 0 {
			require.NoError(t, l.Close())
			break
		}
		lsn, err := l.Append([]byte("behind"))
		cut := mem.PowerCut(func(int, vfs.Unit) vfs.Fate { return vfs.Kept })
		_ = l.Close()
		l, _ = openAll(t, testOptions(cut))
		if err == nil {
			require.Equal(t, lsn, l.LastLSN(), "call %d", k)
		}
		require.NoError(t, l.Close())
	}
}

// TestTrimIsCut: the power fails, or a call does, anywhere in a Trim and in the commit
// behind it: what was durable is, and what is settled may be gone.
func TestTrimIsCut(t *testing.T) {
	mem := vfs.NewMem()
	l, _ := openAll(t, testOptions(mem))
	files(t, l, 3, 0)
	last := put(t, l, wal.Durable, "last")
	disk := mem.Snapshot()
	require.NoError(t, l.Close())
	cuts, failed := 0, 0
	for k := 1; ; k++ {
		ended := false
		for _, fail := range []bool{false, true} {
			mem := disk.Snapshot()
			in := vfs.NewInjector(mem)
			l, err := wal.Open("db", testOptions(in))
			require.NoError(t, err)
			rule := vfs.Rule{K: k, Err: syscall.EIO}
			if !fail {
				rule = vfs.Rule{K: k, Forever: true, Gate: vfs.NewGate()}
			}
			armed := in.Add(rule)
			type result struct {
				err error
				lsn wal.LSN
			}
			done := make(chan result, 1)
			go func() {
				err := l.Trim(last)
				var lsn wal.LSN
				if err == nil {
					lsn, err = l.Append([]byte("behind"))
				}
				done <- result{err, lsn}
			}()
			acknowledged := false
			after := mem
			if fail {
				r := <-done
				acknowledged = r.err == nil
				if r.err != nil {
					failed++
				}
				after = mem.PowerCutSeed(uint64(k), vfs.SectorAtomic)
			} else {
				select {
				case <-rule.Gate.Arrived():
					after = mem.PowerCutSeed(uint64(k), vfs.SectorAtomic)
					cuts++
					rule.Gate.Release()
					<-done
				case r := <-done:
					require.NoError(t, r.err)
					ended = true
				}
			}
			armed.Remove()
			_ = l.Close()
			l, got := openAll(t, testOptions(after))
			require.GreaterOrEqual(t, l.LastLSN(), last, "call %d, fail %v", k, fail)
			require.LessOrEqual(t, l.LastLSN(), last+1)
			require.Equal(t, int(l.LastLSN()-l.Floor()), len(got))
			require.Contains(t, []wal.LSN{0, last}, l.Floor())
			if acknowledged || ended {
				require.Equal(t, "behind", got[len(got)-1])
			}
			put(t, l, wal.Durable, "more")
			require.NoError(t, l.Close())
			l, _ = openAll(t, testOptions(after))
			require.NoError(t, l.Close())
		}
		if ended {
			break
		}
	}
	t.Logf("%d cuts, %d failed", cuts, failed)
	require.Greater(t, cuts, 10)
}
