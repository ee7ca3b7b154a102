package vfs_test

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/vfs"
)

// TestStartWriteback: it changes nothing that can be seen, on any file, and is no call
// that the wrappers know.
func TestStartWriteback(t *testing.T) {
	rec := vfs.NewRecorder(vfs.OS())
	for _, fsys := range []vfs.FS{vfs.OS(), vfs.NewMem(), rec} {
		name := filepath.Join(t.TempDir(), "file")
		if _, ok := fsys.(*vfs.Mem); ok {
			name = "file"
		}
		f, err := fsys.Create(name, vfs.ReadWrite)
		require.NoError(t, err)
		_, err = f.WriteAt(make([]byte, 1<<16), 0)
		require.NoError(t, err)
		rec.Reset()
		vfs.StartWriteback(f, 0, 1<<16)
		vfs.StartWriteback(f, 1<<20, 1<<16) // behind the end
		vfs.StartWriteback(f, 0, 0)
		require.Empty(t, rec.Events())
		size, err := f.Size()
		require.NoError(t, err)
		require.EqualValues(t, 1<<16, size)
		require.NoError(t, f.Sync())
		require.NoError(t, f.Close())
	}
}
