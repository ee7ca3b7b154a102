package vfs_test

import (
	"bytes"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/vfs"
)

// TestLetGo: what was let go is read as before, synced or not, and it is no call that
// the wrappers know.
func TestLetGo(t *testing.T) {
	rec := vfs.NewRecorder(vfs.OS())
	for _, fsys := range []vfs.FS{vfs.OS(), vfs.NewMem(), vfs.NewInjector(vfs.OS()), rec} {
		name := filepath.Join(t.TempDir(), "file")
		if _, ok := fsys.(*vfs.Mem); ok {
			name = "file"
		}
		f, err := fsys.Create(name, vfs.ReadWrite)
		require.NoError(t, err)
		want := bytes.Repeat([]byte("0123456789abcdef"), 1<<13)
		check := func() {
			t.Helper()
			rec.Reset()
			vfs.LetGo(f, 0, 1<<16)
			vfs.LetGo(f, 1<<20, 1<<16) // behind the end
			vfs.LetGo(f, 0, 0)
			require.Empty(t, rec.Events())
			got := make([]byte, len(want))
			_, err := f.ReadAt(got, 0)
			require.NoError(t, err)
			require.True(t, bytes.Equal(want, got))
		}
		_, err = f.WriteAt(want, 0)
		require.NoError(t, err)
		check()
		require.NoError(t, f.Sync())
		check()
		require.NoError(t, f.Close())
	}
}
