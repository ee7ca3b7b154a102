package vfs

import (
	"errors"
	"io/fs"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// workload makes one call of each kind that changes something.
func workload(fsys FS) error {
	if err := fsys.MkdirAll("d"); err != nil {
		return err
	}
	l, err := fsys.Lock("d/LOCK")
	if err != nil {
		return err
	}
	f, err := fsys.Create("d/tmp", ReadWrite)
	if err != nil {
		return errors.Join(err, l.Close())
	}
	_, err = f.WriteAt([]byte(strings.Repeat("x", 100)), 0)
	err = errors.Join(err, f.Zero(100, 100), f.SyncData(), f.Sync(), f.Close())
	err = errors.Join(err, fsys.Rename("d/tmp", "d/a"), fsys.SyncDir("d"), fsys.Remove("d/a"), l.Close())
	if err != nil {
		return err
	}
	if l, err = fsys.LockShared("d/LOCK"); err != nil {
		return err
	}
	return l.Close()
}

func TestEveryCallCanFail(t *testing.T) {
	in := NewInjector(NewMem())
	require.NoError(t, workload(in))
	total := in.Count(CallNone)
	require.Equal(t, 14, total)
	require.Equal(t, 1, in.Count(CallWrite))
	in.ResetCounts()
	require.Zero(t, in.Count(CallNone))

	for k := 1; k <= total; k++ {
		m := NewMem()
		in := NewInjector(m)
		rule := in.Add(Rule{K: k, Err: syscall.ENOSPC})
		err := workload(in)
		require.ErrorIs(t, err, syscall.ENOSPC, "call %d", k)
		var pathErr *fs.PathError
		require.ErrorAs(t, err, &pathErr)
		require.Equal(t, 1, rule.Hits())
		for ino := range m.inodes {
			if pathErr.Op != "unlock" {
				require.False(t, m.isOpen(int32(ino)), "call %d leaves a file open", k)
			}
		}
	}
}

func TestRules(t *testing.T) {
	m := NewMem()
	in := NewInjector(m)
	require.NoError(t, in.MkdirAll("d"))
	f := create(t, in, "d/a.log", ReadWrite)

	never := in.Add(Rule{Call: CallWrite, Name: "*.seg", Err: syscall.EIO})
	short := in.Add(Rule{Call: CallWrite, Name: "*.log", K: 2, Err: syscall.EIO, Part: 2})
	write(t, f, "....", 0)
	n, err := f.WriteAt([]byte("abcd"), 0)
	require.ErrorIs(t, err, syscall.EIO)
	require.Equal(t, 2, n)
	require.Equal(t, "ab..", string(m.Bytes("d/a.log")))
	write(t, f, "efgh", 0)
	require.Equal(t, 1, short.Hits())
	require.Zero(t, never.Hits())

	after := in.Add(Rule{Call: CallRename, Name: "d/b", Err: syscall.EIO, After: true})
	require.ErrorIs(t, in.Rename("d/a.log", "d/b"), syscall.EIO)
	require.Equal(t, "efgh", string(m.Bytes("d/b")), "an error does not say that it did not happen")
	require.Equal(t, 1, after.Hits())

	forever := in.Add(Rule{Call: CallRead, Err: syscall.EIO, Forever: true, Part: 1})
	for range 3 {
		b := make([]byte, 4)
		n, err = f.ReadAt(b, 0)
		require.ErrorIs(t, err, syscall.EIO)
		require.Equal(t, "e", string(b[:n]))
	}
	forever.Remove()
	_, err = f.ReadAt(make([]byte, 4), 0)
	require.NoError(t, err)

	in.Add(Rule{Call: CallOpen, Err: syscall.EMFILE})
	_, err = in.Open("d/b", ReadOnly)
	require.ErrorIs(t, err, syscall.EMFILE)
	in.Add(Rule{Call: CallSync, Err: syscall.EIO, After: true})
	require.ErrorIs(t, f.Sync(), syscall.EIO)
	require.True(t, m.inodes[2].clean(), "this sync has reached the disk")
	require.Panics(t, func() { in.Add(Rule{Name: "["}) })
}

func TestHungSync(t *testing.T) {
	in := NewInjector(NewMem())
	f := create(t, in, "a", ReadWrite)
	gate := NewGate()
	hung := in.Add(Rule{Call: CallSyncData, Gate: gate})
	var wg sync.WaitGroup
	done := make(chan struct{})
	wg.Go(func() {
		if err := f.SyncData(); err != nil {
			t.Error(err)
		}
		close(done)
	})
	<-gate.Arrived()
	write(t, f, "others go on", 0)
	select {
	case <-done:
		t.Fatal("did not hang")
	default:
	}
	require.Equal(t, 1, hung.Hits())
	gate.Release()
	gate.Release()
	wg.Wait()
}

func TestRecorder(t *testing.T) {
	r := NewRecorder(NewMem())
	f := create(t, r, "a", ReadWrite)
	write(t, f, "abc", 5)
	r.Mark("ack", 42)
	_, err := r.Open("b", ReadOnly)
	require.Error(t, err)
	e := r.Events()
	require.Len(t, e, 4)
	require.Equal(t, []Call{CallCreate, CallWrite, CallMark, CallOpen}, []Call{e[0].Call, e[1].Call, e[2].Call, e[3].Call})
	require.EqualValues(t, []int64{5, 3, 3}, []int64{e[1].Off, e[1].Len, e[1].N})
	require.Equal(t, "a", e[1].Name)
	require.Equal(t, "ack", e[2].Label)
	require.EqualValues(t, 42, e[2].Value)
	require.ErrorIs(t, e[3].Err, fs.ErrNotExist)

	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 1000 {
				if _, err := f.Size(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	e = r.Events()
	require.Len(t, e, 4004)
	for i := range e {
		require.Less(t, e[i].Begin, e[i].Seq)
		require.True(t, i == 0 || e[i-1].Seq < e[i].Seq)
	}
	r.Reset()
	require.Empty(t, r.Events())
}

// TestDirectorySyncWithoutADescriptor: a sync that could not even be begun spoils
// nothing, and the next one makes the entries durable; after one that failed it
// does not.
func TestDirectorySyncWithoutADescriptor(t *testing.T) {
	for _, c := range []struct {
		err     error
		durable bool
	}{{syscall.EMFILE, true}, {syscall.ENFILE, true}, {syscall.EIO, false}} {
		mem := NewMem()
		in := NewInjector(mem)
		in.Add(Rule{Call: CallSyncDir, Err: c.err})
		f, err := in.Create("a", ReadWrite)
		require.NoError(t, err)
		require.NoError(t, f.Close())
		require.ErrorIs(t, in.SyncDir("."), c.err)
		require.NoError(t, in.SyncDir("."))
		cut := mem.PowerCut(func(int, Unit) Fate { return Lost })
		_, err = cut.Stat("a")
		require.Equal(t, c.durable, err == nil, "%v", c.err)
	}
}
