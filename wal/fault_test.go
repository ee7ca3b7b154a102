package wal_test

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/vfs"
	"github.com/forebaydb/forebay/wal"
)

// ledger is what a workload was told.
type ledger struct {
	durable, written int  // highest acknowledged record of each level
	assigned         int  // highest that was tried
	poisoned         bool // an ErrUnknown or ErrPoisoned came
	err              error
}

func faultRecord(n int) string { return fmt.Sprintf("record %d %0900d", n, n) }

// faultWork opens a log, commits through some files, truncates and closes, and
// goes on after every error but that of Open.
func faultWork(t *testing.T, fs vfs.FS, align int64, from *ledger) {
	led := from
	o := testOptions(fs)
	o.Align, o.Hold = align, -1
	o.FirstFileSize, o.FileSize = 16<<10, 16<<10 // twice that with blocks
	l, err := wal.Open("db", o)
	if err != nil {
		led.err = errors.Join(led.err, err)
		return
	}
	n := int(l.LastLSN())
	led.assigned = max(led.assigned, n)
	led.durable = max(led.durable, n) // what an open shows is durable
	for i := range 36 {
		level := wal.Level([]int{0, 1, 1, 2, 0}[i%5])
		r := &wal.Request{Level: level, Records: []wal.Record{{Data: []byte(faultRecord(n + 1))}}}
		err := l.Commit(r)
		if err == nil {
			require.False(t, led.poisoned, "an acknowledgement behind a poison")
			n++
			require.Equal(t, wal.LSN(n), r.First)
			led.assigned = n
			switch level {
			case wal.Durable:
				led.durable, led.written = n, n
			case wal.Written:
				led.written = n
			}
		} else {
			led.err = errors.Join(led.err, err)
			switch {
			case errors.Is(err, wal.ErrUnknown):
				led.poisoned = true
				led.assigned = n + 1
				require.ErrorIs(t, l.Err(), wal.ErrPoisoned)
			case errors.Is(err, wal.ErrPoisoned): // behind a poison, or the catalog failed under it
				led.poisoned = true
				require.ErrorIs(t, l.Err(), wal.ErrPoisoned)
			default: // certainly not applied: the next may be
				require.Equal(t, wal.LSN(n), l.LastLSN())
			}
		}
		if i%15 == 14 {
			if err := l.TruncateFront(l.DurableLSN()); err != nil {
				led.err = errors.Join(led.err, err)
			}
		}
	}
	// Reads go on, whatever has failed.
	if led.poisoned {
		floor := l.Floor()
		pos := wal.Position{LSN: floor}
		if floor > 0 {
			pos.Epoch = l.EpochAt(floor)
		}
		tail, err := l.NewTail(pos)
		require.NoError(t, err)
		for lsn := floor + 1; lsn <= l.DurableLSN(); lsn++ {
			p, rec, err := tail.Next(context.Background())
			if err != nil { // the reader's own call was the one that failed
				led.err = errors.Join(led.err, err)
				break
			}
			require.Equal(t, lsn, p.LSN)
			require.Equal(t, faultRecord(int(lsn)), string(rec))
		}
		require.NoError(t, tail.Close())
	}
	if err := l.Close(); err != nil {
		led.err = errors.Join(led.err, err)
	} else {
		require.False(t, led.poisoned, "a poisoned log tells the cause at Close")
		led.durable, led.written = n, n
	}
}

// checkAfter opens what is left and compares it with what was told.
func checkAfter(t *testing.T, disk *vfs.Mem, align int64, atLeast, atMost int, what string) {
	t.Helper()
	o := testOptions(disk)
	o.Align = align
	last := 0
	o.OnRecord = func(lsn wal.LSN, _ uint64, rec []byte) error {
		if string(rec) != faultRecord(int(lsn)) {
			return errors.New("another record")
		}
		last = int(lsn)
		return nil
	}
	l, err := wal.Open("db", o)
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	last = max(last, int(l.Floor()))
	if last < atLeast || last > atMost {
		t.Fatalf("%s: %d records, must be from %d to %d", what, last, atLeast, atMost)
	}
	if lsn := put(t, l, wal.Durable, faultRecord(last+1)); int(lsn) != last+1 {
		t.Fatalf("%s: the next record is %d behind %d", what, lsn, last)
	}
	if err := l.Close(); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

// TestEveryErrorOnce fails each I/O call of a workload of two opens once, in
// every way: no acknowledgement behind a failed sync, reads go on, and the next
// open, in the same boot or after a power cut, shows at least what was promised.
func TestEveryErrorOnce(t *testing.T) {
	type way struct {
		name  string
		err   error
		part  int
		after bool
	}
	eio := way{"EIO", syscall.EIO, 0, false}
	done := way{"EIO, done", syscall.EIO, 0, true}
	full := way{"ENOSPC, short", syscall.ENOSPC, 700, false}
	tries := 0
	for _, c := range []struct {
		call vfs.Call
		ways []way
	}{
		{vfs.CallWrite, []way{eio, done, full}},
		{vfs.CallZero, []way{full}},
		{vfs.CallSyncData, []way{eio, done}},
		{vfs.CallSync, []way{eio, done}},
		{vfs.CallSyncDir, []way{eio, done}},
		{vfs.CallCreate, []way{{"ENOSPC", syscall.ENOSPC, 0, false}, {"EMFILE", syscall.EMFILE, 0, false}}},
		{vfs.CallOpen, []way{{"EMFILE", syscall.EMFILE, 0, false}}},
		{vfs.CallRead, []way{eio}},
		{vfs.CallRemove, []way{eio, done}},
		{vfs.CallList, []way{eio}},
		{vfs.CallSize, []way{eio}},
		{vfs.CallLock, []way{eio}},
		{vfs.CallMkdir, []way{eio}},
		{vfs.CallClose, []way{eio}},
	} {
		for w, way := range c.ways {
			for k := 1; ; k++ {
				align := []int64{0, 4096}[(k+w)%2]
				mem := vfs.NewMem()
				in := vfs.NewInjector(mem)
				rule := in.Add(vfs.Rule{Call: c.call, K: k, Err: way.err, Part: way.part, After: way.after})
				led := &ledger{}
				hit := 0
				for open := range 2 {
					faultWork(t, in, align, led)
					if rule.Hits() > 0 && hit == 0 {
						hit = open + 1
						if led.poisoned {
							break
						}
					}
				}
				if rule.Hits() == 0 {
					require.NoError(t, led.err)
					break
				}
				tries++
				what := fmt.Sprintf("%s %d: %s, align %d, open %d", c.call, k, way.name, align, hit)
				if led.poisoned {
					require.ErrorIs(t, led.err, way.err, what)
				}
				checkAfter(t, mem.Snapshot(), align, max(led.durable, led.written), led.assigned, what+", same boot")
				checkAfter(t, mem.PowerCut(func(int, vfs.Unit) vfs.Fate { return vfs.Lost }), align, led.durable, led.assigned, what+", all lost")
				checkAfter(t, mem.PowerCutSeed(uint64(k), vfs.SectorAtomic), align, led.durable, led.assigned, what+", some lost")
				// What an open in the same boot shows is there after a power cut
				// (docs/recovery.md, sequence 4).
				boot := mem.Snapshot()
				o := testOptions(boot)
				o.Align = align
				l, err := wal.Open("db", o)
				require.NoError(t, err, what)
				shown := int(l.LastLSN())
				checkAfter(t, boot.PowerCut(func(int, vfs.Unit) vfs.Fate { return vfs.Lost }), align, shown, shown, what+", open and all lost")
			}
		}
	}
	t.Logf("%d failing calls", tries)
}

// TestSyncErrorPoisons: behind a failed sync nothing is acknowledged, nothing is
// written, and the cause is told until the log is opened again.
func TestSyncErrorPoisons(t *testing.T) {
	rec := vfs.NewRecorder(vfs.NewMem())
	in := vfs.NewInjector(rec)
	l, _ := openAll(t, testOptions(in))
	put(t, l, wal.Durable, "1")
	in.Add(vfs.Rule{Call: vfs.CallSyncData, Name: "*.log", Err: syscall.EIO})
	_, err := l.Append([]byte("2"))
	require.ErrorIs(t, err, wal.ErrUnknown)
	require.ErrorIs(t, err, syscall.EIO)
	require.NotErrorIs(t, err, wal.ErrPoisoned)
	rec.Reset()
	for _, level := range []wal.Level{wal.Durable, wal.Written, wal.Buffered} {
		err = l.Commit(&wal.Request{Records: []wal.Record{{Data: []byte("3")}}, Level: level})
		require.ErrorIs(t, err, wal.ErrPoisoned)
		require.ErrorIs(t, err, syscall.EIO)
		require.NotErrorIs(t, err, wal.ErrUnknown)
	}
	require.ErrorIs(t, l.Sync(context.Background()), wal.ErrPoisoned)
	require.ErrorIs(t, l.TruncateBack(1), wal.ErrPoisoned)
	require.ErrorIs(t, l.TruncateFront(1), wal.ErrPoisoned)
	require.Equal(t, wal.LSN(1), l.DurableLSN())
	require.Empty(t, rec.Events(), "a poisoned log calls nothing")
	require.ErrorIs(t, l.Close(), syscall.EIO)
	for _, e := range rec.Events() {
		require.NotContains(t, []vfs.Call{vfs.CallWrite, vfs.CallSync, vfs.CallSyncData}, e.Call, "never retried on that file")
	}
	l, got := openAll(t, testOptions(in))
	require.Equal(t, []string{"1", "2"}, got, "it may be there, and then it is durable")
	require.NoError(t, l.Close())
}

// TestInterruptedWrite: EINTR before anything was written is no error.
func TestInterruptedWrite(t *testing.T) {
	in := vfs.NewInjector(vfs.NewMem())
	l, _ := openAll(t, testOptions(in))
	put(t, l, wal.Durable, "1")
	rule := in.Add(vfs.Rule{Call: vfs.CallWrite, Name: "*.log", Err: syscall.EINTR})
	put(t, l, wal.Durable, "2")
	require.Equal(t, 1, rule.Hits())
	for range 3 {
		in.Add(vfs.Rule{Call: vfs.CallWrite, Name: "*.log", K: 2, Err: syscall.EINTR})
	}
	put(t, l, wal.Written, "3")
	put(t, l, wal.Durable, "4")
	require.NoError(t, l.Close())
	// But not for ever, and not behind a part.
	for _, r := range []vfs.Rule{{Forever: true}, {Part: 3}} {
		l, got := openAll(t, testOptions(in))
		require.Equal(t, []string{"1", "2", "3", "4"}, got[:4])
		put(t, l, wal.Durable, "ok")
		r.Call, r.Name, r.Err = vfs.CallWrite, "*.log", syscall.EINTR
		rule := in.Add(r)
		_, err := l.Append([]byte("x"))
		require.ErrorIs(t, err, wal.ErrUnknown)
		rule.Remove()
		require.ErrorIs(t, l.Close(), wal.ErrPoisoned)
	}
}

// TestNoSpace: a file that cannot be made is a refusal; once there is room the
// log goes on, and nothing is missing.
func TestNoSpace(t *testing.T) {
	for _, call := range []vfs.Call{vfs.CallCreate, vfs.CallZero, vfs.CallSync, vfs.CallWrite} {
		t.Run(call.String(), func(t *testing.T) {
			in := vfs.NewInjector(vfs.NewMem())
			o := testOptions(in)
			l, _ := openAll(t, o)
			n := 0
			for ; len(l.Files()) < 2; n++ {
				put(t, l, wal.Durable, longRecord(n+1))
			}
			number := l.Files()[1].Number
			// The file that comes next, and the one behind it, cannot be made.
			rule := in.Add(vfs.Rule{Call: call, Name: wal.FileName(number + 1), Err: syscall.ENOSPC, Part: 100, Forever: true})
			second := in.Add(vfs.Rule{Call: call, Name: wal.FileName(number + 2), Err: syscall.ENOSPC, Part: 100, Forever: true})
			var err error
			for err == nil {
				_, err = l.Append([]byte(longRecord(n + 1)))
				if err == nil {
					n++
				}
			}
			require.ErrorIs(t, err, syscall.ENOSPC)
			require.NotErrorIs(t, err, wal.ErrUnknown)
			require.NoError(t, l.Err(), "no poison")
			require.Equal(t, wal.LSN(n), l.LastLSN())
			// It was tried in full, and as small as may be.
			require.Equal(t, 2, rule.Hits()+second.Hits())
			for range 100 {
				n++
				require.Equal(t, wal.LSN(n), put(t, l, wal.Durable, longRecord(n)))
			}
			require.NoError(t, l.Close())
			require.Equal(t, live(l), numbers(t, in), "no unlisted file is left")
			l, got := openAll(t, testOptions(in))
			require.Len(t, got, n)
			require.NoError(t, l.Close())
		})
	}
}

// TestFullDisk fills a disk for real, and makes room again.
func TestFullDisk(t *testing.T) {
	mem := vfs.NewMem()
	o := testOptions(mem)
	l, _ := openAll(t, o)
	put(t, l, wal.Durable, longRecord(1))
	mem.SetCapacity(mem.Used() + 100<<10)
	n := 1
	var err error
	for err == nil {
		if _, err = l.Append([]byte(longRecord(n + 1))); err == nil {
			n++
		}
	}
	require.ErrorIs(t, err, syscall.ENOSPC)
	require.Greater(t, n, 50)
	tail := newTail(t, l, wal.Position{})
	for i := 1; i <= n; i++ { // reads go on
		_, rec := next(t, tail, wal.LSN(i))
		require.Equal(t, longRecord(i), rec)
	}
	require.NoError(t, tail.Close())
	mem.SetCapacity(0)
	if l.Err() != nil {
		require.ErrorIs(t, l.Close(), wal.ErrPoisoned)
		l, _ = openAll(t, o)
	}
	require.Equal(t, wal.LSN(n+1), put(t, l, wal.Durable, longRecord(n+1)))
	require.NoError(t, l.Close())
	l, got := openAll(t, o)
	require.Len(t, got, n+1)
	require.NoError(t, l.Close())
}

// TestHungSync: while a sync hangs nothing behind it is acknowledged, and
// whatever needs no sync goes on.
func TestHungSync(t *testing.T) {
	in := vfs.NewInjector(vfs.NewMem())
	l, _ := openAll(t, testOptions(in))
	put(t, l, wal.Durable, "1")
	gate := vfs.NewGate()
	in.Add(vfs.Rule{Call: vfs.CallSyncData, Name: "*.log", Gate: gate})
	done := make(chan error, 2)
	go func() { _, err := l.Append([]byte("2")); done <- err }()
	<-gate.Arrived()
	go func() { _, err := l.Append([]byte("3")); done <- err }()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, l.Sync(ctx), context.DeadlineExceeded)
	require.Empty(t, done)
	require.Equal(t, wal.LSN(1), l.DurableLSN())
	tail := newTail(t, l, wal.Position{})
	next(t, tail, 1)
	gate.Release()
	require.NoError(t, <-done)
	require.NoError(t, <-done)
	require.NoError(t, l.Close())
}
