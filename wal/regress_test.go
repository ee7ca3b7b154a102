// The tests of this file are bugs that were found by attacking the code: each
// failed before its bug was mended.

package wal_test

import (
	"context"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/vfs"
	"github.com/forebaydb/forebay/wal"
)

func loseAll(int, vfs.Unit) vfs.Fate { return vfs.Lost }

// sync error in Close; a commit queued behind is acknowledged
func TestRegressCloseSyncErrorThenAck(t *testing.T) {
	mem := vfs.NewMem()
	in := vfs.NewInjector(mem)
	o := testOptions(in)
	l, _ := openAll(t, o)
	put(t, l, wal.Durable, "one")
	put(t, l, wal.Written, strings.Repeat("2", 5000))
	in.Add(vfs.Rule{Call: vfs.CallSyncData, Name: "*.log", Err: syscall.EIO})
	start, stop := make(chan struct{}), make(chan struct{})
	go l.Exclusive(func() { close(start); <-stop })
	<-start
	cerr, werr := make(chan error, 1), make(chan error, 1)
	go func() { cerr <- l.Close() }()
	time.Sleep(20 * time.Millisecond)
	go func() {
		werr <- l.Commit(&wal.Request{Records: []wal.Record{{Data: []byte("three")}}})
	}()
	time.Sleep(20 * time.Millisecond)
	close(stop)
	ce, we := <-cerr, <-werr
	t.Log("close:", ce, "commit:", we)
	_, got := openAll(t, testOptions(mem.PowerCut(loseAll)))
	t.Log(len(got))
	if we == nil {
		require.Len(t, got, 3)
	}
}

// Close returns while a group is still being written
func TestRegressCloseDoesNotWait(t *testing.T) {
	mem := vfs.NewMem()
	in := vfs.NewInjector(mem)
	o := testOptions(in)
	l, _ := openAll(t, o)
	put(t, l, wal.Durable, "one")
	gate := vfs.NewGate()
	in.Add(vfs.Rule{Call: vfs.CallWrite, Name: "*.log", K: 2, Gate: gate})
	s1, e1, s2, e2 := make(chan struct{}), make(chan struct{}), make(chan struct{}), make(chan struct{})
	go l.Exclusive(func() { close(s1); <-e1 })
	<-s1
	go l.Exclusive(func() { close(s2); <-e2 })
	time.Sleep(10 * time.Millisecond)
	cerr, werr := make(chan error, 1), make(chan error, 1)
	go func() { cerr <- l.Close() }()
	time.Sleep(10 * time.Millisecond)
	close(e1)
	<-s2
	go func() { werr <- l.Commit(&wal.Request{Records: []wal.Record{{Data: []byte("two")}}}) }()
	time.Sleep(10 * time.Millisecond)
	close(e2)
	// The commit stands behind the close, or was refused at once.
	select {
	case <-gate.Arrived(): // the close mark, or the commit before it
		gate.Release()
	case <-time.After(200 * time.Millisecond):
		gate.Release()
	}
	ce, we := <-cerr, <-werr
	require.NoError(t, ce)
	_, got := openAll(t, testOptions(mem))
	if we != nil {
		require.ErrorIs(t, we, wal.ErrClosed)
		require.Equal(t, []string{"one"}, got)
	}
}

func TestRegressArchivePutsBack(t *testing.T) {
	for _, how := range []string{"truncateback", "release"} {
		t.Run(how, func(t *testing.T) {
			mem := vfs.NewMem()
			o := testOptions(mem)
			in, out := make(chan wal.ArchiveFile, 100), make(chan struct{})
			o.Archive = func(ctx context.Context, f wal.ArchiveFile) error { in <- f; <-out; return nil }
			l, _ := openAll(t, o)
			var last wal.LSN
			for len(l.Files()) < 3 {
				last = put(t, l, wal.Durable, strings.Repeat("x", 1000))
			}
			f := <-in
			if how == "release" {
				require.NoError(t, l.TruncateFront(last-1))
				require.NoError(t, l.Release(f.Number))
			} else {
				require.NoError(t, l.TruncateBack(0))
			}
			close(out)
			time.Sleep(50 * time.Millisecond)
			l.Close()
			l2, err := wal.Open("db", testOptions(mem))
			require.NoError(t, err)
			l2.Close()
		})
	}
}

func TestRegressOpenFullAfterCrash(t *testing.T) {
	mem := vfs.NewMem()
	o := testOptions(mem)
	o.FileSize = 16 << 10
	o.MaxBytes = 64 << 10
	l, _ := openAll(t, o)
	for {
		if _, err := l.Append([]byte(strings.Repeat("x", 1000))); err != nil {
			require.ErrorIs(t, err, wal.ErrFull)
			break
		}
	}
	p := *o
	p.FS = mem.PowerCut(loseAll)
	_, err := wal.Open("db", &p)
	require.NoError(t, err, "power cut")
}

func TestRegressFullForEver(t *testing.T) {
	mem := vfs.NewMem()
	o := &wal.Options{FS: mem, MarkDelay: -1, MaxBytes: 1 << 20, NoSpares: true}
	l, _ := openAll(t, o)
	for {
		_, err := l.Append([]byte(strings.Repeat("x", 10000)))
		if err != nil {
			break
		}
	}
	require.NoError(t, l.TruncateFront(l.DurableLSN()))
	t.Log("in use", l.Stats().FileBytes, "of", o.MaxBytes)
	_, err := l.Append([]byte(strings.Repeat("y", 10000)))
	for i := 0; i < 5 && err != nil; i++ {
		_, err = l.Append([]byte(strings.Repeat("y", 10000)))
	}
	require.NoError(t, err)
}

func TestRegressIntervalLate(t *testing.T) {
	mem := vfs.NewMem()
	o := testOptions(mem)
	o.MarkDelay = 2 * time.Second
	o.Policy = wal.SyncInterval(10 * time.Millisecond)
	l, _ := openAll(t, o)
	put(t, l, wal.Durable, "one")
	lsn := put(t, l, wal.Written, "two")
	time.Sleep(500 * time.Millisecond)
	require.GreaterOrEqual(t, l.DurableLSN(), lsn)
}

func keepPut(t *testing.T, l *wal.Log, keep uint64) wal.LSN {
	r := &wal.Request{Records: []wal.Record{{Data: []byte(strings.Repeat("k", 1000)), Keep: keep}}}
	require.NoError(t, l.Commit(r))
	return r.First
}

func TestRegressKeepLostAfterTruncateBack(t *testing.T) {
	o := testOptions(vfs.NewMem())
	l, _ := openAll(t, o)
	keepPut(t, l, 1000) // 1
	keepPut(t, l, 0)    // 2
	require.NoError(t, l.TruncateBack(1))
	put(t, l, wal.Durable, "two")
	require.NoError(t, l.TruncateFront(l.DurableLSN()))
	f := l.Files()
	t.Logf("%+v", f)
	require.Equal(t, wal.LSN(1), f[0].First, "the file with record 1, of which 1000 bytes are kept, is gone")
}

func TestRegressUnkeepCurrentLost(t *testing.T) {
	o := testOptions(vfs.NewMem())
	l, _ := openAll(t, o)
	lsn := keepPut(t, l, 1000) // 1
	require.NoError(t, l.Unkeep(lsn, 1000))
	for len(l.Files()) < 2 {
		keepPut(t, l, 0)
	}
	require.NoError(t, l.TruncateFront(l.Files()[0].Last))
	t.Logf("%+v", l.Files())
	require.Len(t, l.Files(), 1)
}

func TestRegressTailStale(t *testing.T) {
	o := testOptions(vfs.NewMem())
	l, _ := openAll(t, o)
	r := &wal.Request{}
	for i := 0; i < 10; i++ {
		r.Records = append(r.Records, wal.Record{Data: []byte{byte(i)}})
	}
	require.NoError(t, l.Commit(r))
	tl, err := l.NewTail(wal.Position{})
	require.NoError(t, err)
	_, _, err = tl.Next(context.Background())
	require.NoError(t, err)
	require.NoError(t, l.TruncateBack(1))
	ctx, c := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer c()
	at, _, err := tl.Next(ctx)
	t.Log(at, err)
	require.Error(t, err, "record 2 was cut off before the call")
}

func TestRegressTailRace(t *testing.T) {
	o := testOptions(vfs.NewMem())
	l, _ := openAll(t, o)
	r := &wal.Request{}
	for i := 0; i < 1000; i++ {
		r.Records = append(r.Records, wal.Record{Data: []byte{byte(i)}})
	}
	require.NoError(t, l.Commit(r))
	tl, err := l.NewTail(wal.Position{})
	require.NoError(t, err)
	_, _, err = tl.Next(context.Background())
	require.NoError(t, err)
	done := make(chan struct{})
	go func() { l.TruncateBack(500); close(done) }()
	for i := 0; i < 900; i++ {
		ctx, c := context.WithTimeout(context.Background(), 5*time.Millisecond)
		if _, _, err := tl.Next(ctx); err != nil {
			c()
			break
		}
		c()
	}
	<-done
}

type countFS struct {
	vfs.FS
	n *atomic.Int64
}
type countFile struct {
	vfs.File
	n *atomic.Int64
}

func (c countFS) Create(n string, m vfs.Mode) (vfs.File, error) {
	f, err := c.FS.Create(n, m)
	if err == nil {
		c.n.Add(1)
		f = countFile{f, c.n}
	}
	return f, err
}
func (c countFS) Open(n string, m vfs.Mode) (vfs.File, error) {
	f, err := c.FS.Open(n, m)
	if err == nil {
		c.n.Add(1)
		f = countFile{f, c.n}
	}
	return f, err
}
func (c countFile) Close() error { c.n.Add(-1); return c.File.Close() }

func TestRegressOpenLeak(t *testing.T) {
	mem := vfs.NewMem()
	l, _ := openAll(t, testOptions(mem))
	put(t, l, wal.Durable, "one")
	put(t, l, wal.Durable, "two")
	img := mem.PowerCut(loseAll)
	for k := 1; k < 12; k++ {
		var n atomic.Int64
		in := vfs.NewInjector(countFS{img.Snapshot(), &n})
		in.Add(vfs.Rule{Call: vfs.CallSyncData, K: k, Err: syscall.EIO})
		l, err := wal.Open("db", testOptions(in))
		if err == nil {
			l.Close()
			t.Log("done", k, n.Load())
			return
		}
		if n.Load() != 0 {
			t.Errorf("k=%d: %d files left open after %v", k, n.Load(), err)
		}
	}
}

// Recycled + rotates fd leak
func TestRegressFullRecycleCountedTwice(t *testing.T) {
	o := &wal.Options{FS: vfs.NewMem(), MarkDelay: -1, MaxBytes: 160 << 10, FileSize: 64 << 10}
	l, _ := openAll(t, o)
	for i := 0; i < 2000; i++ {
		_, err := l.Append([]byte(strings.Repeat("x", 1000)))
		if err != nil {
			t.Log(i, err)
			require.NoError(t, l.TruncateFront(l.DurableLSN()))
			_, err := l.Append([]byte(strings.Repeat("x", 1000)))
			require.NoError(t, err, "files %d, bytes %d", l.Stats().Files, l.Stats().FileBytes)
		}
		if i%20 == 0 {
			require.NoError(t, l.TruncateFront(l.DurableLSN()))
		}
	}
}

func TestRegressRetainedOrder(t *testing.T) {
	mem := vfs.NewMem()
	o := testOptions(mem)
	o.NoSpares = false
	o.FileSize = 16 << 10
	l, _ := openAll(t, o)
	require.NoError(t, l.Pin("p", 1))
	for i := 0; i < 10; i++ {
		put(t, l, wal.Durable, strings.Repeat("x", 1000))
	}
	time.Sleep(30 * time.Millisecond)                   // a spare is there
	put(t, l, wal.Durable, strings.Repeat("y", 100000)) // does not fit the spare
	for len(l.Files()) < 5 {
		put(t, l, wal.Durable, strings.Repeat("x", 1000))
		time.Sleep(time.Millisecond)
	}
	t.Logf("%+v", l.Files())
	require.NoError(t, l.TruncateFront(l.DurableLSN()))
	check := func(l *wal.Log) {
		tl, err := l.NewTail(wal.Position{})
		require.NoError(t, err)
		for i := wal.LSN(0); i < l.DurableLSN(); i++ {
			_, _, err = tl.Next(context.Background())
			require.NoError(t, err)
		}
		tl.Close()
	}
	check(l)
	require.NoError(t, l.Close())
	l, _ = openAll(t, o)
	t.Logf("%+v", l.Files())
	check(l)
}

// A log file that was made and not yet synced may hold what a manifest of the
// same store and number held before at that place: that is no newer log.
func TestRegressStaleManifestInANewLog(t *testing.T) {
	mem := vfs.NewMem()
	l, _ := openAll(t, testOptions(mem))
	require.NoError(t, l.Close())
	require.NoError(t, mem.SetBytes("db/"+wal.FileName(1), mem.Bytes("db/CATALOG-000001")))
	l, got := openAll(t, testOptions(mem))
	require.Empty(t, got)
	put(t, l, wal.Durable, "one")
	require.NoError(t, l.Close())
	_, got = openAll(t, testOptions(mem))
	require.Equal(t, []string{"one"}, got)
}

// TestProofInsideAStretch: the last proof lies anywhere among many small frames that
// were written without a sync; an open goes on exactly there.
func TestProofInsideAStretch(t *testing.T) {
	for _, proven := range []int{1, 7, 300, 1000, 2999, 3000} {
		mem := vfs.NewMem()
		o := testOptions(mem)
		o.FirstFileSize, o.FileSize = 256<<10, 256<<10
		l, _ := openAll(t, o)
		var want []string
		for i := 1; i <= 3000; i++ {
			level := wal.Written
			if i == proven {
				level = wal.Durable
			}
			want = append(want, strings.Repeat("r", i%90+1))
			put(t, l, level, want[i-1])
		}
		o.FS = mem.Snapshot()
		require.NoError(t, l.Close())
		for range 2 {
			l, got := openAll(t, o)
			require.Equal(t, want, got, "proven %d", proven)
			require.Equal(t, wal.LSN(len(want)), l.DurableLSN())
			put(t, l, wal.Durable, "one more")
			want = append(want, "one more")
			require.NoError(t, l.Close())
		}
	}
}
