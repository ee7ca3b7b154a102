package wal_test

import (
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/vfs"
	"github.com/forebaydb/forebay/wal"
)

// hangingDisk is a file system where syncs of log files, and writes with DSync, take a time.
type hangingDisk struct {
	vfs.FS
	mu   sync.Mutex
	next []time.Duration // of the syncs to come; then they take none
}

func (d *hangingDisk) set(next ...time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.next = next
}

func (d *hangingDisk) sleep() {
	d.mu.Lock()
	var t time.Duration
	if len(d.next) > 0 {
		t, d.next = d.next[0], d.next[1:]
	}
	d.mu.Unlock()
	time.Sleep(t)
}

func (d *hangingDisk) Create(name string, mode vfs.Mode) (vfs.File, error) {
	return d.wrap(name, mode)(d.FS.Create(name, mode))
}

func (d *hangingDisk) Open(name string, mode vfs.Mode) (vfs.File, error) {
	return d.wrap(name, mode)(d.FS.Open(name, mode))
}

func (d *hangingDisk) wrap(name string, mode vfs.Mode) func(vfs.File, error) (vfs.File, error) {
	return func(f vfs.File, err error) (vfs.File, error) {
		if err != nil || filepath.Ext(name) != ".log" {
			return f, err
		}
		return &hangingFile{f, d, mode}, nil
	}
}

type hangingFile struct {
	vfs.File
	d    *hangingDisk
	mode vfs.Mode
}

func (f *hangingFile) SyncData() error {
	f.d.sleep()
	return f.File.SyncData()
}

func (f *hangingFile) WriteAt(b []byte, off int64) (int, error) {
	if f.mode&vfs.DSync != 0 {
		f.d.sleep()
	}
	return f.File.WriteAt(b, off)
}

func TestSlowSyncIsTold(t *testing.T) {
	for _, mech := range []wal.Mechanism{wal.Fdatasync, wal.DSync} {
		t.Run(mech.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				type call struct {
					at, took time.Duration
					done     bool
				}
				var mu sync.Mutex
				var calls []call
				start := time.Now()
				told := func() []call {
					synctest.Wait()
					mu.Lock()
					defer mu.Unlock()
					c := calls
					calls = nil
					return c
				}
				d := &hangingDisk{FS: vfs.NewMem()}
				o := testOptions(d)
				o.Mechanism = mech
				o.OnSlowSync = func(took time.Duration, done bool) {
					mu.Lock()
					defer mu.Unlock()
					calls = append(calls, call{time.Since(start), took, done})
				}
				l, _ := openAll(t, o)
				put(t, l, wal.Durable, "a")
				time.Sleep(700 * time.Millisecond) // the timer of the first sync still runs
				require.Empty(t, told())

				d.set(900*time.Millisecond, 999*time.Millisecond, 10*time.Millisecond)
				for range 3 {
					put(t, l, wal.Durable, "b")
				}
				require.Empty(t, told(), "none of them took a second")

				start = time.Now()
				d.set(5 * time.Second)
				put(t, l, wal.Durable, "c")
				require.Equal(t, []call{{time.Second, time.Second, false}, {5 * time.Second, 5 * time.Second, true}}, told())

				start = time.Now()
				d.set(time.Minute, 2*time.Second)
				done := make(chan error)
				go func() {
					_, err := l.Append([]byte("d"))
					done <- err
				}()
				time.Sleep(30 * time.Second)
				require.Equal(t, []call{{time.Second, time.Second, false}}, told(), "once, while it hangs")
				require.NoError(t, <-done)
				require.Equal(t, []call{{time.Minute, time.Minute, true}}, told())
				put(t, l, wal.Durable, "e")
				require.Len(t, told(), 2)
				require.EqualValues(t, 3, l.Stats().SlowSyncs)
				require.NoError(t, l.Close())
				time.Sleep(time.Hour)
				require.Empty(t, told())
			})
		})
	}
}

// TestSlowSyncHookMayDoAnything: the hook runs beside the sync that hangs, holds
// nothing, and nobody waits for it.
func TestSlowSyncHookMayDoAnything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &hangingDisk{FS: vfs.NewMem()}
		o := testOptions(d)
		o.SlowSync = 10 * time.Millisecond
		var l *wal.Log
		leave := make(chan struct{})
		got := make(chan int64, 10)
		o.OnSlowSync = func(_ time.Duration, done bool) {
			if done {
				return
			}
			got <- l.Stats().Records // beside the sync
			_, err := l.Append([]byte("from the hook"))
			require.NoError(t, err)
			<-leave
		}
		l, _ = openAll(t, o)
		d.set(time.Second)
		put(t, l, wal.Durable, "a")
		require.EqualValues(t, 1, <-got)
		put(t, l, wal.Durable, "b")
		require.EqualValues(t, 3, l.LastLSN())
		d.set(time.Second) // another one while the hook still runs
		put(t, l, wal.Durable, "c")
		require.NoError(t, l.Close())
		close(leave)
	})
}

func TestSlowSyncThatFails(t *testing.T) {
	in := vfs.NewInjector(vfs.NewMem())
	o := testOptions(in)
	o.SlowSync = time.Millisecond
	told := make(chan bool, 10)
	o.OnSlowSync = func(_ time.Duration, done bool) { told <- done }
	l, _ := openAll(t, o)
	put(t, l, wal.Durable, "a")
	gate := vfs.NewGate()
	in.Add(vfs.Rule{Call: vfs.CallSyncData, Name: "*.log", Err: syscall.EIO, Gate: gate})
	failed := make(chan error)
	go func() {
		_, err := l.Append([]byte("b"))
		failed <- err
	}()
	require.False(t, <-told)
	gate.Release()
	require.ErrorIs(t, <-failed, syscall.EIO)
	require.True(t, <-told)
	require.ErrorIs(t, l.Close(), wal.ErrPoisoned)
}

// TestWaiting: the log says that somebody waits as long as somebody does.
func TestWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &hangingDisk{FS: vfs.NewMem()}
		l, _ := openAll(t, testOptions(d))
		put(t, l, wal.Durable, "makes the file")
		require.False(t, l.Waiting())
		d.set(time.Second)
		go func() {
			_, err := l.Append([]byte("waits"))
			require.NoError(t, err)
		}()
		time.Sleep(500 * time.Millisecond)
		require.True(t, l.Waiting())
		time.Sleep(time.Second)
		require.False(t, l.Waiting())
		require.NoError(t, l.Close())
	})
}
