package vfs

import (
	"io"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestReserve: room reads as zeros, keeps what is there, and is a call that can be
// counted, failed and recorded.
func TestReserve(t *testing.T) {
	for name, fsys := range map[string]FS{"os": OS(), "mem": NewMem()} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			require.NoError(t, fsys.MkdirAll(dir))
			rec := NewRecorder(fsys)
			in := NewInjector(rec)
			f, err := in.Create(filepath.Join(dir, "a"), ReadWrite)
			require.NoError(t, err)
			defer f.Close()
			_, err = f.WriteAt([]byte("head"), 0)
			require.NoError(t, err)
			err = Reserve(f, 2, 10_000)
			if name == "os" && err != nil {
				require.ErrorIs(t, err, ErrUnsupported)
				t.Skip("files cannot be given room here")
			}
			require.NoError(t, err)
			size, err := f.Size()
			require.NoError(t, err)
			require.Equal(t, int64(10_002), size)
			b, err := io.ReadAll(io.NewSectionReader(f, 0, size))
			require.NoError(t, err)
			require.True(t, string(b) == "head"+string(make([]byte, 9_998)), "it starts with %q", b[:8])
			require.True(t, slices.ContainsFunc(rec.Events(), func(e Event) bool { return e.Call == CallZero && e.Off == 2 && e.Len == 10_000 }))
			in.Add(Rule{Call: CallZero, Err: syscall.ENOSPC})
			require.ErrorIs(t, Reserve(f, 0, 20_000), syscall.ENOSPC)
			require.ErrorIs(t, Reserve(f, -1, 1), syscall.EINVAL)
		})
	}
}

// TestReserveOfAFileThatCannot: who asks is told, and nothing has happened.
func TestReserveOfAFileThatCannot(t *testing.T) {
	f, err := NewMem().Create("a", ReadWrite)
	require.NoError(t, err)
	plain := struct{ File }{f}
	require.ErrorIs(t, Reserve(plain, 0, 1), ErrUnsupported)
	size, err := f.Size()
	require.NoError(t, err)
	require.Zero(t, size)
}
