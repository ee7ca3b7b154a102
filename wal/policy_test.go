package wal_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/vfs"
	"github.com/forebaydb/forebay/wal"
)

// unavailable ends a test that this machine cannot run. Where everything must
// run (FOREBAY_REQUIRE=1) that is a failure.
func unavailable(t *testing.T, what string, err error) {
	t.Helper()
	if os.Getenv("FOREBAY_REQUIRE") == "1" {
		t.Fatalf("%s: %v", what, err)
	}
	t.Skipf("%s: %v", what, err)
}

// count returns how many calls of a kind on log files a recorder has seen.
func count(rec *vfs.Recorder, call vfs.Call) int {
	n := 0
	for _, e := range rec.Events() {
		if e.Call == call && strings.HasSuffix(e.Name, ".log") {
			n++
		}
	}
	return n
}

// ready opens a log with one durable record, so that its file is made, and
// forgets what that took.
func ready(t *testing.T, rec *vfs.Recorder, change func(o *wal.Options)) *wal.Log {
	t.Helper()
	o := testOptions(rec)
	o.FirstFileSize = 64 << 10
	change(o)
	l, _ := openAll(t, o)
	put(t, l, wal.Durable, "the first")
	rec.Reset()
	return l
}

func TestLevels(t *testing.T) {
	mem := vfs.NewMem()
	rec := vfs.NewRecorder(mem)
	l := ready(t, rec, func(o *wal.Options) { o.FirstFileSize, o.FileSize = 1<<20, 1<<20 })
	put(t, l, wal.Buffered, "b")
	require.Zero(t, count(rec, vfs.CallWrite), "Buffered costs no call")
	require.Equal(t, []wal.LSN{2, 1, 1}, []wal.LSN{l.LastLSN(), l.WrittenLSN(), l.DurableLSN()})
	put(t, l, wal.Written, "w")
	require.Equal(t, 1, count(rec, vfs.CallWrite))
	require.Zero(t, count(rec, vfs.CallSyncData), "Written costs no sync")
	require.Equal(t, []wal.LSN{3, 3, 1}, []wal.LSN{l.LastLSN(), l.WrittenLSN(), l.DurableLSN()})
	put(t, l, wal.Durable, "d")
	require.Equal(t, 2, count(rec, vfs.CallWrite))
	require.Equal(t, 1, count(rec, vfs.CallSyncData))
	require.Equal(t, []wal.LSN{4, 4, 4}, []wal.LSN{l.LastLSN(), l.WrittenLSN(), l.DurableLSN()})
	require.NoError(t, l.Sync(context.Background()))
	require.Equal(t, 1, count(rec, vfs.CallSyncData), "nothing is unsynced")
	// What each level survives.
	put(t, l, wal.Durable, "d5")
	put(t, l, wal.Written, "w6")
	put(t, l, wal.Buffered, "b7")
	_, got := openAll(t, testOptions(mem.Snapshot()))
	require.Equal(t, []string{"the first", "b", "w", "d", "d5", "w6"}, got)
	_, got = openAll(t, testOptions(mem.PowerCut(func(int, vfs.Unit) vfs.Fate { return vfs.Lost })))
	require.Equal(t, []string{"the first", "b", "w", "d", "d5"}, got)
	// Buffered bytes are written once there are many.
	rec.Reset()
	put(t, l, wal.Buffered, strings.Repeat("x", 300<<10))
	require.Eventually(t, func() bool { return count(rec, vfs.CallWrite) == 1 }, 10*time.Second, time.Millisecond)
	require.NoError(t, l.Close())
}

func TestPolicies(t *testing.T) {
	t.Run("bytes", func(t *testing.T) {
		rec := vfs.NewRecorder(vfs.NewMem())
		l := ready(t, rec, func(o *wal.Options) { o.Policy = wal.SyncBytes(4000) })
		for range 20 {
			put(t, l, wal.Written, strings.Repeat("x", 1000))
		}
		require.InDelta(t, 5, count(rec, vfs.CallSyncData), 1)
		for range 20 { // buffered bytes count too
			put(t, l, wal.Buffered, strings.Repeat("x", 1000))
		}
		require.InDelta(t, 10, count(rec, vfs.CallSyncData), 2)
		require.GreaterOrEqual(t, l.DurableLSN()+4, l.LastLSN())
		require.NoError(t, l.Close())
	})
	t.Run("never", func(t *testing.T) {
		rec := vfs.NewRecorder(vfs.NewMem())
		l := ready(t, rec, func(o *wal.Options) { o.Policy, o.FirstFileSize = wal.SyncNever, 16<<10 })
		for range 200 {
			put(t, l, wal.Written, strings.Repeat("x", 1000))
		}
		require.Greater(t, len(l.Files()), 3)
		require.Zero(t, count(rec, vfs.CallSyncData))
		require.Equal(t, wal.LSN(1), l.DurableLSN())
		// Older files first, and all of them.
		rec.Reset()
		put(t, l, wal.Durable, "now")
		var names []string
		for _, e := range rec.Events() {
			if e.Call == vfs.CallSyncData && strings.HasSuffix(e.Name, ".log") {
				names = append(names, filepath.Base(e.Name))
			}
		}
		require.Len(t, names, len(l.Files()))
		require.IsIncreasing(t, names)
		require.Equal(t, l.LastLSN(), l.DurableLSN())
		require.NoError(t, l.Close())
	})
	t.Run("group", func(t *testing.T) {
		rec := vfs.NewRecorder(vfs.NewMem())
		l := ready(t, rec, func(o *wal.Options) {})
		for range 20 {
			put(t, l, wal.Written, strings.Repeat("x", 1000))
		}
		require.Zero(t, count(rec, vfs.CallSyncData))
		for range 100 { // a file that is full is synced
			put(t, l, wal.Written, strings.Repeat("x", 1000))
		}
		require.Eventually(t, func() bool { return l.DurableLSN() > 20 }, 10*time.Second, time.Millisecond)
		require.NoError(t, l.Close())
	})
	for _, p := range []wal.Policy{wal.SyncInterval(0), wal.SyncBytes(0), wal.SyncInterval(-1)} {
		_, err := wal.Open("db", &wal.Options{FS: vfs.NewMem(), Policy: p})
		require.ErrorContains(t, err, "needs a positive bound")
	}
	require.Equal(t, "group each never interval 1s bytes 5", fmt.Sprint(wal.SyncGroup, " ", wal.SyncEach, " ", wal.SyncNever, " ", wal.SyncInterval(time.Second), " ", wal.SyncBytes(5)))
}

// slowSync makes groups form: a sync takes a while.
type slowSync struct{ vfs.FS }

func (s slowSync) Create(name string, mode vfs.Mode) (vfs.File, error) {
	f, err := s.FS.Create(name, mode)
	if err != nil || !strings.HasSuffix(name, ".log") {
		return f, err
	}
	return slowFile{f}, nil
}

type slowFile struct{ vfs.File }

func (f slowFile) SyncData() error {
	time.Sleep(time.Millisecond)
	return f.File.SyncData()
}

// TestGroupCommitSharesSyncs: writers that wait at the same time share one sync,
// and with SyncEach they do not.
func TestGroupCommitSharesSyncs(t *testing.T) {
	for _, policy := range []wal.Policy{wal.SyncGroup, wal.SyncEach} {
		t.Run(policy.String(), func(t *testing.T) {
			o := testOptions(slowSync{vfs.NewMem()})
			o.Policy, o.FirstFileSize = policy, 64<<10
			l, _ := openAll(t, o)
			put(t, l, wal.Durable, "the first")
			before := l.Stats()
			const writers, each = 16, 8
			var wg sync.WaitGroup
			for w := range writers {
				wg.Go(func() {
					for i := range each {
						lsn := put(t, l, wal.Durable, fmt.Sprint(w, " ", i))
						if l.DurableLSN() < lsn {
							t.Errorf("%d is acknowledged, durable is %d", lsn, l.DurableLSN())
						}
					}
				})
			}
			wg.Wait()
			syncs := l.Stats().Syncs - before.Syncs
			if policy == wal.SyncEach {
				require.Equal(t, int64(writers*each), syncs)
			} else {
				require.Less(t, syncs, int64(writers*each/2))
			}
			require.NoError(t, l.Close())
		})
	}
}

// TestSyncInterval runs under a clock of its own: what is unsynced is synced at
// most the interval after it was written.
func TestSyncInterval(t *testing.T) {
	for _, c := range []struct {
		name  string
		delay time.Duration // MarkDelay
	}{{"no marks", -1}, {"marks", 0}} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := testOptions(vfs.NewMem())
				o.Policy, o.MarkDelay, o.Hold = wal.SyncInterval(10*time.Millisecond), c.delay, -1
				l, _ := openAll(t, o)
				for i, level := range []wal.Level{wal.Written, wal.Buffered, wal.Written, wal.Written, wal.Durable, wal.Written} {
					lsn := put(t, l, level, fmt.Sprint(i))
					if level != wal.Durable && l.LastLSN() > 1 {
						require.Less(t, l.DurableLSN(), lsn)
					}
					time.Sleep(time.Duration(i%3) * time.Millisecond)
				}
				lsn := l.LastLSN()
				time.Sleep(10 * time.Millisecond)
				synctest.Wait()
				require.Equal(t, lsn, l.DurableLSN(), "after one interval")
				// A Durable record arms the timer of the mark, which is later.
				put(t, l, wal.Durable, "d")
				time.Sleep(time.Millisecond)
				lsn = put(t, l, wal.Written, "w")
				time.Sleep(11 * time.Millisecond)
				synctest.Wait()
				require.Equal(t, lsn, l.DurableLSN(), "after one interval, behind a Durable record")
				require.NoError(t, l.Close())
			})
		})
	}
}

// TestIdleMark: after a sync and a while of silence the end of the log is
// proven, so that damage to it is no torn tail; and buffered bytes are written.
func TestIdleMark(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := vfs.NewMem()
		rec := vfs.NewRecorder(mem)
		o := testOptions(rec)
		o.MarkDelay, o.Hold = 100*time.Millisecond, -1
		l, _ := openAll(t, o)
		inspect := func() wal.Recovery {
			r, err := wal.Inspect("db", testOptions(mem.Snapshot()))
			require.NoError(t, err)
			return r
		}
		for range 5 {
			put(t, l, wal.Durable, "d")
			time.Sleep(50 * time.Millisecond)
		}
		require.Equal(t, wal.LSN(4), inspect().Proven, "no mark while it is not idle")
		time.Sleep(time.Second)
		synctest.Wait()
		require.Equal(t, wal.LSN(5), inspect().Proven)
		rec.Reset()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		require.Empty(t, rec.Events(), "an idle log does nothing")
		put(t, l, wal.Buffered, "b")
		require.Empty(t, rec.Events())
		time.Sleep(time.Second)
		synctest.Wait()
		require.Equal(t, wal.LSN(6), inspect().Last, "buffered bytes are written in the end")
		require.NoError(t, l.Close())
	})
}

// TestMechanisms: groups reach the disk by fsync, by O_DSYNC, and by direct
// writes too, in a real directory, into files of zeros and files that grow; in
// memory a power cut looks whether they do.
func TestMechanisms(t *testing.T) {
	for _, m := range []wal.Mechanism{wal.Fdatasync, wal.DSync, wal.DirectDSync, wal.Fsync, wal.Direct} {
		work := func(t *testing.T, o *wal.Options, dir string, crash func() vfs.FS) {
			o.Mechanism, o.Align = m, 4096
			o.MarkDelay, o.NoSpares, o.FirstFileSize, o.FileSize = -1, true, 64<<10, 256<<10
			l, err := wal.Open(dir, o)
			require.NoError(t, err)
			var want [][]byte
			for i := range 60 {
				rec := bytes.Repeat([]byte{byte(i)}, i*i*3)
				want = append(want, rec)
				level := wal.Level(i % 3)
				if err := l.Commit(&wal.Request{Records: []wal.Record{{Data: rec}}, Level: level}); err != nil {
					if errors.Is(err, vfs.ErrUnsupported) {
						l.Close()
						unavailable(t, m.String(), err)
					}
					require.NoError(t, err)
				}
				if level == wal.Durable {
					require.Equal(t, wal.LSN(i+1), l.DurableLSN())
				}
			}
			require.NoError(t, l.Sync(context.Background()))
			if crash != nil {
				o.FS = crash()
			} else {
				require.NoError(t, l.Close())
			}
			var got [][]byte
			o.OnRecord = func(_ wal.LSN, _ uint64, rec []byte) error {
				got = append(got, bytes.Clone(rec))
				return nil
			}
			l, err = wal.Open(dir, o)
			require.NoError(t, err)
			require.Len(t, got, len(want))
			for i := range want {
				require.True(t, bytes.Equal(want[i], got[i]), "record %d", i+1)
			}
			require.NoError(t, l.Close())
		}
		t.Run(m.String()+"/memory", func(t *testing.T) {
			mem := vfs.NewMem()
			work(t, &wal.Options{FS: mem}, "db", func() vfs.FS {
				return mem.PowerCut(func(int, vfs.Unit) vfs.Fate { return vfs.Lost })
			})
		})
		t.Run(m.String()+"/disk", func(t *testing.T) {
			work(t, &wal.Options{}, filepath.Join(t.TempDir(), "db"), nil)
		})
		t.Run(m.String()+"/memory, growing", func(t *testing.T) {
			mem := vfs.NewMem()
			work(t, &wal.Options{FS: mem, NoZeros: true}, "db", func() vfs.FS {
				return mem.PowerCut(func(int, vfs.Unit) vfs.Fate { return vfs.Lost })
			})
		})
		t.Run(m.String()+"/disk, growing", func(t *testing.T) {
			work(t, &wal.Options{NoZeros: true}, filepath.Join(t.TempDir(), "db"), nil)
		})
	}
	for _, m := range []wal.Mechanism{wal.DirectDSync, wal.Direct} {
		_, err := wal.Open("db", &wal.Options{FS: vfs.NewMem(), Mechanism: m})
		require.ErrorContains(t, err, "needs Options.Align")
	}
}

// TestNoZeros: files are as long as what was written, nothing is written twice,
// and no file is used again.
func TestNoZeros(t *testing.T) {
	mem := vfs.NewMem()
	rec := vfs.NewRecorder(mem)
	o := testOptions(rec)
	o.NoZeros, o.FirstFileSize, o.FileSize = true, 64<<10, 64<<10
	l, _ := openAll(t, o)
	for range 100 {
		put(t, l, wal.Durable, strings.Repeat("x", 5000))
	}
	require.Greater(t, len(l.Files()), 5)
	require.Zero(t, l.Stats().Zeroed)
	require.Zero(t, count(rec, vfs.CallZero))
	require.NoError(t, l.TruncateFront(90))
	rec.Reset()
	for range 100 {
		put(t, l, wal.Durable, strings.Repeat("x", 5000))
	}
	for _, e := range rec.Events() {
		require.NotEqual(t, vfs.CallRename, e.Call, "a file is used again")
	}
	require.NoError(t, l.Close())
	l, got := openAll(t, testOptions(mem))
	require.GreaterOrEqual(t, len(got), 110)
	require.NoError(t, l.Close())
}

// TestFsyncMechanism: each group is one fsync, and no fdatasync.
func TestFsyncMechanism(t *testing.T) {
	rec := vfs.NewRecorder(vfs.NewMem())
	l := ready(t, rec, func(o *wal.Options) { o.Mechanism, o.NoSpares, o.FirstFileSize = wal.Fsync, true, 1<<20 })
	for range 10 {
		put(t, l, wal.Durable, "x")
	}
	require.Equal(t, 10, count(rec, vfs.CallSync))
	require.Zero(t, count(rec, vfs.CallSyncData))
	require.NoError(t, l.Close())
}

func TestRecordSizes(t *testing.T) {
	o := testOptions(vfs.NewMem())
	var want []string
	l, _ := openAll(t, o)
	for _, n := range []int{0, 1, 0, 100, 4096, 15 << 10, 17 << 10, 64 << 10, 256<<10 - 20, 256 << 10, 1 << 20, 5 << 20, 0} {
		s := strings.Repeat(string(rune('a'+n%26)), n)
		for _, level := range []wal.Level{wal.Durable, wal.Written, wal.Buffered} {
			put(t, l, level, s)
			want = append(want, s)
		}
	}
	require.NoError(t, l.Commit(&wal.Request{}), "no record at all")
	r := &wal.Request{}
	for i := range 5000 { // many records in one request, longer than a file
		s := fmt.Sprint("one of many ", i)
		r.Records = append(r.Records, wal.Record{Data: []byte(s), Keep: 1})
		want = append(want, s)
	}
	require.NoError(t, l.Commit(r))
	require.Equal(t, l.LastLSN(), r.Last())
	require.NoError(t, l.Close())
	l, got := openAll(t, o)
	require.Equal(t, len(want), len(got))
	for i := range want {
		require.True(t, want[i] == got[i], "record %d", i+1)
	}
	require.NoError(t, l.Close())
}

func TestTooLarge(t *testing.T) {
	l, _ := openAll(t, testOptions(vfs.NewMem()))
	put(t, l, wal.Durable, "1")
	big := &wal.Request{Records: []wal.Record{{Data: []byte("small")}, {Data: make([]byte, wal.MaxRecordSize+1)}}}
	require.ErrorIs(t, l.Commit(big), wal.ErrTooLarge)
	require.ErrorIs(t, l.Submit(big), wal.ErrTooLarge)
	require.Equal(t, wal.LSN(2), put(t, l, wal.Durable, "2"), "nothing of it was taken")
	require.NoError(t, l.Close())
}

// TestCloseIsAlwaysMarked: however full the file is, a log that was closed in
// order ends with a close mark, so that its last group is proven.
func TestCloseIsAlwaysMarked(t *testing.T) {
	for _, align := range []int64{0, 4096} {
		for n := 0; n < 40; n++ {
			o := testOptions(vfs.NewMem())
			o.Align = align
			l, _ := openAll(t, o)
			for range n {
				put(t, l, wal.Durable, strings.Repeat("x", 500))
			}
			require.NoError(t, l.Close())
			rec, err := wal.Inspect("db", o)
			require.NoError(t, err)
			require.Equal(t, rec.Last, rec.Proven, "align %d, %d records", align, n)
			require.Equal(t, n > 0, rec.Closed, "align %d, %d records", align, n)
		}
	}
}

func TestSubmitAndWait(t *testing.T) {
	in := vfs.NewInjector(vfs.NewMem())
	l, _ := openAll(t, testOptions(in))
	put(t, l, wal.Durable, "1")
	gate := vfs.NewGate()
	in.Add(vfs.Rule{Call: vfs.CallSyncData, Name: "*.log", Gate: gate})
	var reqs []*wal.Request
	for i := range 10 {
		r := &wal.Request{Records: []wal.Record{{Data: fmt.Append(nil, i)}}, Level: wal.Level(i % 3)}
		require.NoError(t, l.Submit(r))
		reqs = append(reqs, r)
	}
	<-gate.Arrived()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	for _, r := range reqs {
		require.ErrorIs(t, l.Wait(ctx, r), context.Canceled)
	}
	require.ErrorIs(t, l.Sync(ctx), context.Canceled)
	gate.Release()
	for i, r := range reqs { // the commit was not abandoned, only the wait
		require.NoError(t, l.Wait(context.Background(), r))
		require.Equal(t, wal.LSN(i+2), r.First)
		require.NoError(t, l.Wait(ctx, r), "done is done")
	}
	require.NoError(t, l.Close())
}

func TestClosed(t *testing.T) {
	o := testOptions(vfs.NewMem())
	l, _ := openAll(t, o)
	put(t, l, wal.Durable, "1")
	_, err := wal.Open("db", o)
	require.ErrorIs(t, err, vfs.ErrLocked)
	require.NoError(t, l.Close())
	require.ErrorIs(t, l.Close(), wal.ErrClosed)
	_, err = l.Append(nil)
	require.ErrorIs(t, err, wal.ErrClosed)
	require.ErrorIs(t, l.Submit(&wal.Request{}), wal.ErrClosed)
	require.ErrorIs(t, l.Sync(context.Background()), wal.ErrClosed)
	require.ErrorIs(t, l.TruncateBack(0), wal.ErrClosed)
	require.ErrorIs(t, l.TruncateFront(1), wal.ErrClosed)
	l, got := openAll(t, o)
	require.Equal(t, []string{"1"}, got)
	var wg sync.WaitGroup
	closed := make(chan error, 4)
	for range 4 {
		wg.Go(func() { closed <- l.Close() })
	}
	wg.Wait()
	nils := 0
	for range 4 {
		if err := <-closed; err == nil {
			nils++
		} else {
			require.ErrorIs(t, err, wal.ErrClosed)
		}
	}
	require.Equal(t, 1, nils)
}

// TestCloseBesideCommits: a commit is in the log, or certainly not.
func TestCloseBesideCommits(t *testing.T) {
	for range 20 {
		o := testOptions(vfs.NewMem())
		l, _ := openAll(t, o)
		var mu sync.Mutex
		acked := map[string]bool{}
		var wg sync.WaitGroup
		for w := range 4 {
			wg.Go(func() {
				for i := 0; ; i++ {
					s := fmt.Sprint(w, " ", i)
					_, err := l.Append([]byte(s))
					if err != nil {
						if !errors.Is(err, wal.ErrClosed) {
							t.Error(err)
						}
						return
					}
					mu.Lock()
					acked[s] = true
					mu.Unlock()
				}
			})
		}
		time.Sleep(time.Millisecond)
		require.NoError(t, l.Close())
		wg.Wait()
		_, got := openAll(t, o)
		require.Len(t, got, len(acked))
		for _, s := range got {
			require.True(t, acked[s])
		}
	}
}

// TestIdleOpenWritesNothing: an open and a close without a commit change no
// file, whatever the log holds.
func TestIdleOpenWritesNothing(t *testing.T) {
	mem := vfs.NewMem()
	for round := range 3 {
		l, _ := openAll(t, testOptions(mem))
		for i := range 40 * round {
			put(t, l, wal.Durable, longRecord(i))
		}
		require.NoError(t, l.Close())
		before := snapshotFiles(t, mem)
		l, _ = openAll(t, testOptions(mem))
		require.NoError(t, l.Close())
		require.Equal(t, before, snapshotFiles(t, mem))
	}
}

// recorder of an Applier's calls.
type applier struct {
	t        *testing.T
	assigned []wal.LSN
	applied  []wal.LSN
	seen     wal.LSN
}

func (a *applier) Admit(r *wal.Request) error {
	if err, _ := r.Owner.(error); err != nil {
		return err
	}
	return nil
}

func (a *applier) Assign(reqs []*wal.Request) {
	for _, r := range reqs {
		for i := range r.Records {
			a.assigned = append(a.assigned, r.First+wal.LSN(i))
			copy(r.Records[i].Data, fmt.Sprintf("%04d", r.First+wal.LSN(i))) // a version stamp
		}
	}
}

func (a *applier) Apply(reqs []*wal.Request, last wal.LSN) {
	for _, r := range reqs {
		for i := range r.Records {
			a.applied = append(a.applied, r.First+wal.LSN(i))
		}
	}
	if len(a.applied) > 0 && a.applied[len(a.applied)-1] != last {
		a.t.Errorf("applied %d, last is %d", a.applied[len(a.applied)-1], last)
	}
}

func (a *applier) Publish(last wal.LSN) {
	if last < a.seen || int(last) != len(a.applied) {
		a.t.Errorf("published %d behind %d; applied are %d", last, a.seen, len(a.applied))
	}
	a.seen = last
}

func TestApplier(t *testing.T) {
	o := testOptions(vfs.NewMem())
	a := &applier{t: t}
	o.Applier = a
	l, _ := openAll(t, o)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range 50 {
				put(t, l, wal.Level(i%3), "???? some words")
			}
		})
	}
	wg.Wait()
	require.NoError(t, l.Close())
	require.Len(t, a.assigned, 400)
	require.Equal(t, a.assigned, a.applied)
	require.Equal(t, wal.LSN(400), a.seen)
	_, got := openAll(t, testOptions(o.FS))
	for i, s := range got {
		require.Equal(t, fmt.Sprintf("%04d some words", i+1), s)
	}
}

// TestRefusal: an error of Admit refuses its request alone; the others close the
// gap, and where none is left nothing is written.
func TestRefusal(t *testing.T) {
	o := testOptions(vfs.NewMem())
	a := &applier{t: t}
	o.Applier = a
	l, _ := openAll(t, o)
	no := errors.New("not this one")
	submit := func(n int, owner any) *wal.Request {
		r := &wal.Request{Records: make([]wal.Record, n), Owner: owner}
		for i := range r.Records {
			r.Records[i].Data = []byte("????")
		}
		require.NoError(t, l.Submit(r))
		return r
	}
	// They join one group while the leader is kept busy.
	var reqs []*wal.Request
	require.NoError(t, l.Exclusive(func() {
		for i := range 9 {
			var owner any
			if i%3 == 1 || i == 8 {
				owner = no
			}
			reqs = append(reqs, submit(1+i%2, owner))
		}
		reqs = append(reqs, submit(0, no), submit(0, nil))
	}))
	next := wal.LSN(1)
	for i, r := range reqs {
		err := l.Wait(context.Background(), r)
		if i%3 == 1 && i < 9 || i == 8 || i == 9 {
			require.Equal(t, no, err, i)
			require.Zero(t, r.First)
			continue
		}
		require.NoError(t, err)
		require.Equal(t, next, r.First, i)
		next += wal.LSN(len(r.Records))
	}
	before := l.Stats()
	require.Equal(t, no, l.Commit(&wal.Request{Records: make([]wal.Record, 1), Owner: no}))
	after := l.Stats()
	require.Equal(t, before, after, "of a group that is refused nothing is written or synced")
	r := submit(1, nil)
	require.NoError(t, l.Wait(context.Background(), r))
	require.Equal(t, next, r.First)
	require.NoError(t, l.Close())
	_, got := openAll(t, testOptions(o.FS))
	require.Len(t, got, int(next))
	for i, s := range got {
		require.Equal(t, fmt.Sprintf("%04d", i+1), s)
	}
}

// TestHoldEndsWithoutAClock: in a bubble time stands still while a goroutine
// runs; a hold must end all the same.
func TestHoldEndsWithoutAClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := testOptions(vfs.NewMem())
		l, _ := openAll(t, o)
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for range 50 {
					_, err := l.Append([]byte("x"))
					require.NoError(t, err)
				}
			})
		}
		wg.Wait()
		for range 10 { // alone now, while eight are expected
			_, err := l.Append([]byte("y"))
			require.NoError(t, err)
		}
		require.NoError(t, l.Close())
	})
}
