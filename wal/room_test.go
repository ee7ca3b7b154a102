package wal

import (
	"context"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/vfs"
)

// TestZerosWhereSyncsAreNear: files are filled with zeros only where syncs are so near
// each other that it is worth the writing, also in the middle of a file.
func TestZerosWhereSyncsAreNear(t *testing.T) {
	ctx := context.Background()
	rec := vfs.NewRecorder(vfs.NewMem())
	open := func() *Log {
		l, err := Open("d", &Options{FS: rec, FileSize: 4 << 20, MarkDelay: -1})
		require.NoError(t, err)
		return l
	}
	n := 0
	write := func(l *Log, level Level, bytes int) {
		n++
		require.NoError(t, l.Commit(&Request{Records: []Record{{Data: make([]byte, bytes)}}, Level: level}))
	}
	first := int64(64 << 10)

	l := open()
	for range 600 {
		write(l, Buffered, 30<<10)
		if n%20 == 0 {
			require.NoError(t, l.Sync(ctx)) // 600 KB
		}
	}
	require.LessOrEqual(t, l.Stats().Zeroed, first, "large syncs")
	require.Greater(t, l.Stats().FileBytes, int64(8<<20))

	before := l.Stats()
	for range fewSyncs + 2 {
		write(l, Durable, 1000)
	}
	require.Positive(t, l.Stats().Zeroed-before.Zeroed, "syncs have become small")
	require.LessOrEqual(t, l.Stats().Zeroed-before.Zeroed, int64(2*fillStep))
	for range 9000 {
		write(l, Durable, 1000)
	}
	s := l.Stats()
	require.Greater(t, s.Zeroed-before.Zeroed, s.Bytes-before.Bytes, "small syncs")
	require.NoError(t, l.Close())

	l = open()
	require.Equal(t, LSN(n), l.LastLSN())
	require.NoError(t, l.Close())
}

// TestNoFileSystemForRoom: where files cannot be given room they are filled.
func TestNoFileSystemForRoom(t *testing.T) {
	l, err := Open("d", &Options{FS: plainFS{vfs.NewMem()}, FileSize: 1 << 20, NoSpares: true})
	require.NoError(t, err)
	for range 60 {
		require.NoError(t, l.Commit(&Request{Records: []Record{{Data: make([]byte, 60<<10)}}, Level: Written}))
	}
	s := l.Stats()
	require.InDelta(t, s.FileBytes, s.Zeroed, 100_000)
	require.NoError(t, l.Close())
}

// plainFS has files of which nothing but File is known.
type plainFS struct{ vfs.FS }

func (f plainFS) Create(name string, mode vfs.Mode) (vfs.File, error) {
	g, err := f.FS.Create(name, mode)
	return struct{ vfs.File }{g}, err
}

// fewSmall opens a log of which a file was given room alone, and commits as many small
// records as may be before it is filled.
func fewSmall(t *testing.T, in *vfs.Injector, align int64) (l *Log, write func(level Level, bytes int) error) {
	l, err := Open("d", &Options{FS: in, FileSize: 4 << 20, MarkDelay: -1, Align: align})
	require.NoError(t, err)
	write = func(level Level, bytes int) error {
		return l.Commit(&Request{Records: []Record{{Data: make([]byte, bytes)}}, Level: level})
	}
	for n := range 600 {
		require.NoError(t, write(Buffered, 30<<10))
		if n%20 == 0 {
			require.NoError(t, l.Sync(context.Background()))
		}
	}
	require.NoError(t, l.Sync(context.Background()))
	for range fewSyncs {
		require.NoError(t, write(Durable, 1000))
	}
	return l, write
}

// TestFillOnAFullDisk: zeros that nothing needs are no reason to refuse anything.
func TestFillOnAFullDisk(t *testing.T) {
	for _, align := range []int64{0, 4096} {
		in := vfs.NewInjector(vfs.NewMem())
		l, write := fewSmall(t, in, align)
		in.Add(vfs.Rule{Call: vfs.CallZero, Err: syscall.ENOSPC, Forever: true})
		for range 4 {
			require.NoError(t, write(Durable, 1000))
		}
		require.NoError(t, l.Err())
	}
}

// TestFillOnlyBesideASync: a Sync that has nothing to do writes nothing.
func TestFillOnlyBesideASync(t *testing.T) {
	l, _ := fewSmall(t, vfs.NewInjector(vfs.NewMem()), 0)
	before := l.Stats()
	require.NoError(t, l.Sync(context.Background()))
	require.Equal(t, before.Zeroed, l.Stats().Zeroed)
	require.Equal(t, before.Syncs, l.Stats().Syncs)
	require.NoError(t, l.Close())
}

// TestLargeGroupsShareFiles: groups that are large beside the first file do not get a
// file each, and with it two syncs.
func TestLargeGroupsShareFiles(t *testing.T) {
	for _, size := range []int{40 << 10, 64 << 10, 1 << 20} {
		l, err := Open("d", &Options{FS: vfs.NewMem(), FileSize: 16 << 20, NoSpares: true, MarkDelay: -1})
		require.NoError(t, err)
		for range 24 {
			require.NoError(t, l.Commit(&Request{Records: []Record{{Data: make([]byte, size)}}, Level: Buffered}))
		}
		require.LessOrEqual(t, l.Stats().Syncs, int64(4), "records of %d bytes", size)
		require.NoError(t, l.Close())
	}
}

// TestLargeFirstGroupIsNotZeroedFor: a group that is large beside the first file does
// not wait for zeros beneath it: these would double what is written, and more.
func TestLargeFirstGroupIsNotZeroedFor(t *testing.T) {
	for _, size := range []int{3 << 20, 17 << 20} {
		l, err := Open("d", &Options{FS: vfs.NewMem(), NoSpares: true, MarkDelay: -1})
		require.NoError(t, err)
		require.NoError(t, l.Commit(&Request{Records: []Record{{Data: make([]byte, size)}}}))
		require.LessOrEqual(t, l.stats.zeroed.Load(), int64(1<<20), "a record of %d bytes", size)
		require.NoError(t, l.Close())
	}
}
