package filesink_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/sink"
	"github.com/forebaydb/forebay/sink/filesink"
	"github.com/forebaydb/forebay/vfs"
)

// soon waits for an answer that comes at once, or never.
func soon(t *testing.T, answer <-chan error, what string) error {
	t.Helper()
	select {
	case err := <-answer:
		return err
	case <-time.After(time.Minute):
		require.FailNow(t, "it hangs", what)
		return nil
	}
}

// TestEncoderMayAsk: no lock is held while the encoder of the caller runs.
func TestEncoderMayAsk(t *testing.T) {
	var s *filesink.Sink
	nested := true
	s, err := filesink.Open(name, &filesink.Options{FS: vfs.NewMem(), Encode: func(dst []byte, b sink.Batch) ([]byte, error) {
		if nested {
			nested = false
			if err := s.Write(context.Background(), batch(7, 2)); err != nil {
				return nil, err
			}
		}
		return fmt.Append(dst, s.Size(), "\n"), nil
	}})
	require.NoError(t, err)
	done := make(chan error, 1)
	go func() { done <- s.Write(context.Background(), batch(1, 1)) }()
	require.NoError(t, soon(t, done, "a write"))
	require.EqualValues(t, 4, s.Size())
	require.NoError(t, s.Close())
}

// TestWaits: who waits for a write whose disk hangs goes with his context, or with Close.
func TestWaits(t *testing.T) {
	mem := vfs.NewMem()
	in := vfs.NewInjector(mem)
	s := open(t, in)
	gate := vfs.NewGate()
	defer gate.Release()
	in.Add(vfs.Rule{Call: vfs.CallSyncData, Name: "rows", Gate: gate})
	write := func(ctx context.Context, i int) <-chan error {
		done := make(chan error, 1)
		go func() { done <- s.Write(ctx, batch(i, 3)) }()
		return done
	}
	first := write(t.Context(), 1)
	<-gate.Arrived()
	ctx, cancel := context.WithCancel(t.Context())
	second, third := write(ctx, 2), write(t.Context(), 3)
	cancel()
	require.ErrorIs(t, soon(t, second, "a write that was cancelled"), context.Canceled)
	require.Zero(t, s.Size())
	closed := make(chan error, 1)
	go func() { closed <- s.Close() }()
	require.ErrorIs(t, soon(t, third, "a write that waits"), filesink.ErrClosed)
	gate.Release()
	require.NoError(t, soon(t, first, "the first write"))
	require.NoError(t, soon(t, closed, "Close"))
	require.Len(t, lines(t, mem.Bytes(name)), 3)
}

// counting counts the files that are open.
type counting struct {
	vfs.FS
	open *atomic.Int64
}

type countedFile struct {
	vfs.File
	open *atomic.Int64
}

func (f countedFile) Close() error {
	f.open.Add(-1)
	return f.File.Close()
}

func (c counting) counted(f vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	c.open.Add(1)
	return countedFile{f, c.open}, nil
}

func (c counting) Open(name string, mode vfs.Mode) (vfs.File, error) {
	return c.counted(c.FS.Open(name, mode))
}

func (c counting) Create(name string, mode vfs.Mode) (vfs.File, error) {
	return c.counted(c.FS.Create(name, mode))
}

// TestFailingCalls lets each call fail while a file with a tail is opened and written: no
// file stays open, what was acknowledged stays, and the next open goes.
func TestFailingCalls(t *testing.T) {
	for k := 1; ; k++ {
		mem := vfs.NewMem()
		s := open(t, mem)
		require.NoError(t, s.Write(t.Context(), batch(1, 3)))
		require.NoError(t, s.Close())
		require.NoError(t, mem.SetBytes(name, append(mem.Bytes(name), "a part of a batch"...)))
		in := vfs.NewInjector(mem)
		armed := in.Add(vfs.Rule{K: k, Err: syscall.EIO})
		var files atomic.Int64
		fsys := counting{in, &files}
		acked := map[int]bool{1: true}
		s, err := filesink.Open(name, &filesink.Options{FS: fsys, Remember: 1})
		if err == nil {
			for i := 2; i < 7; i++ {
				acked[i] = s.Write(t.Context(), batch(i, 3)) == nil
			}
			_ = s.Close()
		}
		require.Zero(t, files.Load(), "files that are open when call %d has failed", k)
		fired := armed.Hits() > 0
		armed.Remove()
		s = open(t, mem)
		seen := map[uint64]int{}
		for _, r := range lines(t, mem.Bytes(name)) {
			seen[r.Offset/1000]++
		}
		for i, ok := range acked {
			require.Contains(t, []int{0, 3}, seen[uint64(i)], "call %d, batch %d", k, i)
			if ok {
				require.Equal(t, 3, seen[uint64(i)], "call %d, batch %d", k, i)
			}
		}
		require.NoError(t, s.Close())
		if !fired {
			require.Greater(t, k, 30)
			return
		}
	}
}

// TestForgetsWhileItIsOpen: the journal and what is in memory of it are bounded, a crash
// at any time loses no id that is to be kept, and nothing that was acknowledged.
func TestForgetsWhileItIsOpen(t *testing.T) {
	const keep, writes = 3, 20
	o := func(fsys vfs.FS) *filesink.Options { return &filesink.Options{FS: fsys, Remember: keep} }
	type cut struct {
		mem   *vfs.Mem
		acked int
	}
	var cuts []cut
	mem := vfs.NewMem()
	s, err := filesink.Open(name, o(mem))
	require.NoError(t, err)
	acked := 0
	n := uint64(0)
	mem.OnIO(func(vfs.Op) {
		n++
		cuts = append(cuts, cut{mem.PowerCutSeed(n, vfs.SectorAtomic), acked}, cut{mem.Snapshot(), acked})
	})
	for ; acked < writes; acked++ {
		require.NoError(t, s.Write(t.Context(), batch(acked, 2)))
		require.LessOrEqual(t, len(mem.Bytes(name+".journal")), 32*(1+2*keep))
	}
	mem.OnIO(nil)
	for i := writes - keep; i < writes; i++ {
		require.NoError(t, s.Write(t.Context(), batch(i, 2)))
	}
	require.Len(t, lines(t, mem.Bytes(name)), 2*writes)
	require.NoError(t, s.Close())
	for _, c := range cuts {
		s, err := filesink.Open(name, o(c.mem))
		require.NoError(t, err)
		for i := max(0, c.acked-keep+1); i < c.acked; i++ { // and maybe one that nobody was told of
			require.NoError(t, s.Write(t.Context(), batch(i, 2)))
		}
		require.NoError(t, s.Write(t.Context(), batch(c.acked, 2)))
		require.NoError(t, s.Close())
		seen := map[uint64]int{}
		for _, r := range lines(t, c.mem.Bytes(name)) {
			seen[r.Offset]++
		}
		require.Len(t, seen, 2*(c.acked+1))
		for at, n := range seen {
			require.Equal(t, 1, n, "row %d, behind %d batches", at, c.acked)
		}
	}
}
