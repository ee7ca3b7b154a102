package vfs

import (
	"bytes"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// mapped makes a file of zeros, synced, and maps n bytes of it at off; the test is
// skipped where the file system cannot.
func mapped(t *testing.T, fsys FS, name string, size, off, n int64) (File, Mapping) {
	f, err := fsys.Create(name, ReadWrite)
	require.NoError(t, err)
	t.Cleanup(func() { f.Close() })
	require.NoError(t, f.Zero(0, size))
	require.NoError(t, f.Sync())
	m, err := Map(f, off, n)
	if _, ok := f.(Mapper); !ok {
		require.ErrorIs(t, err, ErrUnsupported)
		t.Skip("files cannot be mapped here")
	}
	require.NoError(t, err)
	return f, m
}

func TestMapping(t *testing.T) {
	for name, fsys := range map[string]FS{"os": OS(), "mem": NewMem()} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			require.NoError(t, fsys.MkdirAll(dir))
			f, m := mapped(t, fsys, filepath.Join(dir, "a"), 4*MapAlign, MapAlign, 2*MapAlign)
			put := func(off int64, s string) {
				n, err := m.WriteAt([]byte(s), off)
				require.NoError(t, err)
				require.Equal(t, len(s), n)
				b := make([]byte, len(s))
				_, err = f.ReadAt(b, off)
				require.NoError(t, err)
				require.Equal(t, s, string(b))
			}
			put(MapAlign, "first")
			put(3*MapAlign-4, "last")
			put(2*MapAlign-3, "across")
			_, err := f.WriteAt([]byte("by the file"), MapAlign+1)
			require.NoError(t, err)
			put(MapAlign, "f")
			for _, off := range []int64{0, MapAlign - 1, 3*MapAlign - 1, 3 * MapAlign} {
				_, err := m.WriteAt([]byte("ab"), off)
				require.ErrorIs(t, err, syscall.EINVAL)
			}
			require.NoError(t, f.SyncData())
			require.NoError(t, m.Close())
			b := make([]byte, 4*MapAlign)
			_, err = f.ReadAt(b, 0)
			require.NoError(t, err)
			require.Equal(t, "fby the file", string(bytes.TrimRight(b[MapAlign:2*MapAlign-3], "\x00")))
			require.Equal(t, make([]byte, MapAlign), b[:MapAlign])
			require.Equal(t, make([]byte, MapAlign), b[3*MapAlign:])
			for _, at := range [][2]int64{{1, MapAlign}, {0, 0}, {-MapAlign, MapAlign}, {0, 4*MapAlign + 1}, {4 * MapAlign, 1}} {
				_, err := Map(f, at[0], at[1])
				require.ErrorIs(t, err, syscall.EINVAL, "%v", at)
			}
			r, err := fsys.Open(filepath.Join(dir, "a"), ReadOnly)
			require.NoError(t, err)
			defer r.Close()
			_, err = Map(r, 0, MapAlign)
			require.ErrorIs(t, err, syscall.EINVAL)
			if d, err := fsys.Open(filepath.Join(dir, "a"), ReadWrite|DSync); err == nil {
				defer d.Close()
				_, err = Map(d, 0, MapAlign)
				require.ErrorIs(t, err, ErrUnsupported)
			}
		})
	}
}

// TestMappingOfAFileMadeShorter: the process lives on.
func TestMappingOfAFileMadeShorter(t *testing.T) {
	f, m := mapped(t, OS(), filepath.Join(t.TempDir(), "a"), 2*MapAlign, 0, 2*MapAlign)
	require.NoError(t, f.(*osFile).f.Truncate(MapAlign))
	_, err := m.WriteAt([]byte("x"), MapAlign+5000)
	require.ErrorIs(t, err, syscall.EIO)
	_, err = m.WriteAt([]byte("x"), 5000)
	require.NoError(t, err)
	require.NoError(t, m.Close())
}

// TestMappingLosesPower: a store is as good as a write until a sync.
func TestMappingLosesPower(t *testing.T) {
	mem := NewMem()
	f, m := mapped(t, mem, "a", MapAlign, 0, MapAlign)
	require.NoError(t, mem.SyncDir("/"))
	_, err := m.WriteAt([]byte("synced"), 0)
	require.NoError(t, err)
	require.NoError(t, f.SyncData())
	_, err = m.WriteAt([]byte("not"), 1000)
	require.NoError(t, err)
	units := mem.Unsynced()
	require.NotEmpty(t, units)
	after, err := ReadFile(mem.Snapshot(), "a", 1<<20)
	require.NoError(t, err)
	require.Equal(t, "not", string(after[1000:1003]))
}

func TestInjectorAndRecorderSeeStores(t *testing.T) {
	rec := NewRecorder(NewMem())
	in := NewInjector(rec)
	f, m := mapped(t, in, "a", MapAlign, 0, MapAlign)
	rec.Reset()
	in.Add(Rule{Call: CallWrite, K: 2, Err: syscall.EIO, Part: 2})
	_, err := m.WriteAt([]byte("one"), 0)
	require.NoError(t, err)
	n, err := m.WriteAt([]byte("two"), 100)
	require.ErrorIs(t, err, syscall.EIO)
	require.Equal(t, 2, n)
	b := make([]byte, 3)
	_, err = f.ReadAt(b, 100)
	require.NoError(t, err)
	require.Equal(t, "tw\x00", string(b))
	events := rec.Events()
	require.Len(t, events, 3)
	require.Equal(t, CallWrite, events[0].Call)
	require.Equal(t, int64(100), events[1].Off)
	require.Equal(t, int64(2), events[1].N)
}
