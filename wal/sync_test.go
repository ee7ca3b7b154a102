package wal_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/vfs"
	"github.com/forebaydb/forebay/wal"
)

// TestSyncOfAMark: a Sync makes a mark durable that proves what is durable already.
func TestSyncOfAMark(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := vfs.NewMem()
		o := testOptions(mem)
		o.MarkDelay = 100 * time.Millisecond
		l, _ := openAll(t, o)
		put(t, l, wal.Durable, "1")
		put(t, l, wal.Durable, "xxxxxxxx")
		time.Sleep(time.Second) // a mark was written, not synced
		require.NoError(t, l.Sync(context.Background()))
		at := frameEndOf(t, mem, l)
		cut := mem.PowerCut(loseAll)
		require.NoError(t, cut.Corrupt(at.name, at.off, 1, func(b []byte) { b[0] ^= 4 }))
		_, err := wal.Open("db", testOptions(cut))
		var ce *wal.CorruptionError
		require.ErrorAs(t, err, &ce)
	})
}

// TestMarkAfterSync: what a Sync made durable, aside or not, is proven by a mark once the log is idle.
func TestMarkAfterSync(t *testing.T) {
	for _, slow := range []bool{false, true} {
		t.Run(fmt.Sprint("aside=", slow), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				mem := vfs.NewMem()
				in := vfs.NewInjector(mem)
				o := asideOptions(in)
				o.MarkDelay = 100 * time.Millisecond
				l, _ := openAll(t, o)
				put(t, l, wal.Durable, "1")
				time.Sleep(time.Second) // marked
				if slow {
					for range 3 {
						put(t, l, wal.Written, eight)
					}
					gate := hang(in)
					time.AfterFunc(time.Second, gate.Release)
				} else {
					put(t, l, wal.Written, "xxxxxxxx")
					time.Sleep(time.Second)
				}
				last := l.LastLSN()
				require.NoError(t, l.Sync(context.Background()))
				require.Equal(t, last, l.DurableLSN())
				time.Sleep(time.Hour) // idle
				at := frameEndOf(t, mem, l)
				cut := mem.PowerCut(func(int, vfs.Unit) vfs.Fate { return vfs.Kept })
				require.NoError(t, cut.Corrupt(at.name, at.off, 1, func(b []byte) { b[0] ^= 4 }))
				oo := asideOptions(cut)
				l2, err := wal.Open("db", oo)
				t.Log(slow, at, err)
				if err == nil {
					t.Errorf("slow=%v: %d records were durable by Sync, an hour idle; after damage to the last frame Open says nothing and has %d: %+v", slow, last, l2.LastLSN(), l2.Recovery())
				}
				if err == nil {
					l2.Close()
				}
				l.Close()
			})
		})
	}
}

type place struct {
	name string
	off  int64
}

// frameEndOf finds the payload of the last data record, by its content.
func frameEndOf(t *testing.T, mem *vfs.Mem, l *wal.Log) place {
	fs := l.Files()
	name := "db" + "/" + fs[len(fs)-1].Name
	f, err := mem.Open(name, vfs.ReadOnly)
	require.NoError(t, err)
	defer f.Close()
	size, err := f.Size()
	require.NoError(t, err)
	b := make([]byte, size)
	_, _ = f.ReadAt(b, 0)
	i := strings.LastIndex(string(b), "xxxxxxxx")
	require.Positive(t, i)
	return place{name, int64(i)}
}

// TestArchiveOfAFileSyncedBesideAnother: a full file that a durable commit syncs, behind a sync aside, is archived.
func TestArchiveOfAFileSyncedBesideAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := vfs.NewMem()
		in := vfs.NewInjector(mem)
		o := asideOptions(in)
		o.MaxBytes = 2 * 64 << 10
		var got atomic.Int64
		o.Archive = func(context.Context, wal.ArchiveFile) error { got.Add(1); return nil }
		l, _ := openAll(t, o)
		put(t, l, wal.Durable, "1")
		for range 3 {
			put(t, l, wal.Written, eight)
		}
		first, second := vfs.NewGate(), vfs.NewGate()
		in.Add(vfs.Rule{Call: vfs.CallSyncData, Name: "*.log", K: 1, Gate: first})
		in.Add(vfs.Rule{Call: vfs.CallSyncData, Name: "*.log", K: 2, Gate: second})
		done := make(chan error, 2)
		go func() { done <- l.Sync(context.Background()) }()
		synctest.Wait()
		for len(l.Files()) < 2 { // leaves the first file beside the sync
			put(t, l, wal.Written, eight)
		}
		go func() { done <- l.Commit(&wal.Request{Records: []wal.Record{{Data: []byte("last")}}}) }()
		synctest.Wait()
		first.Release()
		time.Sleep(time.Millisecond) // the next sync takes a while
		second.Release()
		require.NoError(t, <-done)
		require.NoError(t, <-done)
		require.Equal(t, l.LastLSN(), l.DurableLSN())
		time.Sleep(time.Hour)
		if got.Load() == 0 {
			t.Errorf("file 1 is closed (%d to %d) and durable (%d), and was not archived in an hour", l.Files()[0].First, l.Files()[0].Last, l.DurableLSN())
		}
		var err error
		for range 100 { // the owner settles all that is durable, and tries again for days
			if err = l.Commit(&wal.Request{Records: []wal.Record{{Data: []byte(eight)}}}); err != nil {
				time.Sleep(time.Hour)
			}
			require.NoError(t, l.TruncateFront(l.DurableLSN()))
			time.Sleep(time.Second)
		}
		require.NoError(t, err, "the log is full, and stays so: %d are archived, files %+v", got.Load(), l.Files())
		require.NoError(t, l.Close())
	})
}

// TestSyncGoesOn: a Sync whose context ends, behind another one aside, goes on.
func TestSyncGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, in, l := openAside(t)
		for range 3 {
			put(t, l, wal.Written, eight)
		}
		gate := hang(in)
		first := make(chan error, 1)
		go func() { first <- l.Sync(context.Background()) }()
		synctest.Wait()
		put(t, l, wal.Written, "5")
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		require.ErrorIs(t, l.Sync(ctx), context.DeadlineExceeded)
		gate.Release()
		require.NoError(t, <-first)
		time.Sleep(time.Hour)
		if l.DurableLSN() != 5 {
			t.Errorf("the sync did not go on: %d", l.DurableLSN())
		}
		require.NoError(t, l.Close())
	})
}

// applyHook is an Applier that runs a function once, while a group is applied.
type applyHook struct{ f func() }

func (c *applyHook) Admit(*wal.Request) error { return nil }
func (c *applyHook) Assign([]*wal.Request)    {}
func (c *applyHook) Publish(wal.LSN)          {}
func (c *applyHook) Apply([]*wal.Request, wal.LSN) {
	if f := c.f; f != nil {
		c.f = nil
		f()
	}
}

// TestSubmitDoesNotLeadOthers: a Submit that leads its own group does not go on with what others wait for.
func TestSubmitDoesNotLeadOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := vfs.NewMem()
		in := vfs.NewInjector(mem)
		o := testOptions(in)
		o.FirstFileSize, o.FileSize = 64<<10, 64<<10
		c := &applyHook{}
		o.Applier = c
		l, _ := openAll(t, o)
		for range 5 {
			put(t, l, wal.Durable, string(make([]byte, 8<<10)))
		}
		put(t, l, wal.Written, "small")
		gate := vfs.NewGate()
		in.Add(vfs.Rule{Call: vfs.CallSyncData, Name: "*.log", Gate: gate})
		other := make(chan error, 1)
		c.f = func() {
			go func() {
				other <- l.Commit(&wal.Request{Level: wal.Written, Records: []wal.Record{{Data: make([]byte, 40<<10)}}})
			}()
			time.Sleep(time.Millisecond) // it has joined the open group
		}
		submitted := make(chan error, 1)
		r := &wal.Request{Level: wal.Buffered}
		go func() { submitted <- l.Submit(r) }()
		time.Sleep(time.Hour)
		select {
		case err := <-submitted:
			require.NoError(t, err)
		default:
			t.Error("Submit of a Buffered request without records has waited an hour for the sync of a file that another's Written record fills")
		}
		gate.Release()
		require.NoError(t, <-other)
		require.NoError(t, l.Close())
	})
}

// TestArchiveAfterOpen: an open gives files to the archive that were not taken before: a full log may wait for it.
func TestArchiveAfterOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := vfs.NewMem()
		o := testOptions(mem)
		o.FirstFileSize, o.FileSize = 64<<10, 64<<10
		o.MaxBytes = 2 * 64 << 10
		ok := false
		o.Archive = func(context.Context, wal.ArchiveFile) error {
			if !ok {
				return errors.New("no")
			}
			return nil
		}
		l, _ := openAll(t, o)
		fill := func() (err error) {
			for range 30 {
				if err = l.Commit(&wal.Request{Records: []wal.Record{{Data: make([]byte, 8<<10)}}}); err != nil {
					return err
				}
			}
			return nil
		}
		require.ErrorIs(t, fill(), wal.ErrFull)
		require.NoError(t, l.Close())
		ok = true
		l, _ = openAll(t, o)
		require.NoError(t, l.TruncateFront(l.DurableLSN()))
		time.Sleep(time.Hour)
		err := l.Commit(&wal.Request{Records: []wal.Record{{Data: make([]byte, 8<<10)}}})
		require.NoError(t, err)
		require.NoError(t, l.Close())
	})
}
