package segment

import (
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/vfs"
)

// TestOnFileSystems writes, closes, opens and reads through the seam, on the
// operating system and in memory, where the reader's name and errors are real.
func TestOnFileSystems(t *testing.T) {
	vs := randomVersions(rand.New(rand.NewPCG(2, 2)), 500)
	for name, fsys := range map[string]vfs.FS{"os": vfs.OS(), "mem": vfs.NewMem()} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			require.NoError(t, fsys.MkdirAll(dir))
			file := filepath.Join(dir, "000007.seg")
			f, err := fsys.Create(file, vfs.ReadWrite)
			require.NoError(t, err)
			w, err := NewWriter(f, testID, WriterOptions{})
			require.NoError(t, err)
			for _, v := range vs {
				require.NoError(t, w.Add([]byte(v.key), v.lsn, v.kind, []byte(v.value)))
			}
			meta, err := w.Finish()
			require.NoError(t, err)
			require.NoError(t, f.Close())
			require.NoError(t, fsys.SyncDir(dir))

			f, err = fsys.Open(file, vfs.ReadOnly)
			require.NoError(t, err)
			r, err := Open(f, file, testID, Options{Cache: NewCache(1 << 20)})
			require.NoError(t, err)
			require.Equal(t, meta.Hash, r.Hash())
			require.Equal(t, meta.Size, r.Size())
			got, err := scan(r)
			require.NoError(t, err)
			require.True(t, slices.Equal(vs, got))
			require.NoError(t, r.Verify(t.Context()))
			require.NoError(t, r.Close())
			_, _, _, _, err = r.Get([]byte(vs[0].key), vs[0].lsn)
			require.Error(t, err, "a closed file is an error, not an absence")
		})
	}
}
