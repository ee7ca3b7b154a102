package manifest

import (
	"io/fs"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/internal/base"
	"github.com/forebaydb/forebay/vfs"
)

// TestCreateIsDurable cuts the power as soon as Create has returned: whatever is
// lost, the state is there. A cut before that leaves it, or nothing.
func TestCreateIsDurable(t *testing.T) {
	store := [16]byte{1, 2, 3}
	want := State{
		Log:      base.LogState{Floor: base.LogFloor{File: 7, LSN: 99, Hash: 5, Epoch: 3}, Epoch: 4, Number: 7},
		Segments: []Segment{{Number: 2, Size: 10, MinLSN: 1, MaxLSN: 99, Lo: []byte("a"), Hi: []byte("b")}}, ReplayStart: 100, LastSegment: 6,
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	mem := vfs.NewMem()
	require.NoError(t, vfs.MkdirDurable(mem, "db"))
	var early []*vfs.Mem
	mem.OnIO(func(vfs.Op) { early = append(early, mem.PowerCutSeed(seed, vfs.SectorAtomic)) })
	require.NoError(t, Create(mem, "db", store, want, &counting{}))
	mem.OnIO(nil)
	check := func(m *vfs.Mem) {
		got, err := Load(m, "db")
		require.NoError(t, err)
		require.Equal(t, store, got.StoreID())
		same(t, want, got.State())
	}
	for i := range uint64(50) {
		check(mem.PowerCutSeed(seed+i, vfs.SectorAtomic))
	}
	got, err := Load(mem, "db")
	require.NoError(t, err)
	require.False(t, got.Dirty())
	for _, m := range early {
		if err := Create(m, "db", store, want, &counting{9}); err != nil {
			require.ErrorIs(t, err, fs.ErrExist)
		}
		check(m)
	}
}

func TestCreateRefuses(t *testing.T) {
	behind9 := base.LogState{Floor: base.LogFloor{File: 1, LSN: 9}}
	mem := vfs.NewMem()
	require.ErrorIs(t, Create(mem, "none", [16]byte{}, State{ReplayStart: 1}, &counting{}), fs.ErrNotExist)
	require.NoError(t, mem.MkdirAll("db"))
	require.Error(t, Create(mem, "db", [16]byte{}, State{}, &counting{}))
	require.Error(t, Create(mem, "db", [16]byte{}, State{Log: behind9, ReplayStart: 9}, &counting{}), "record 9 would be gone")
	require.Error(t, Create(mem, "db", [16]byte{}, State{Log: behind9, ReplayStart: 11}, &counting{}), "record 10 would be looked for")
	names, err := mem.List("db")
	require.NoError(t, err)
	require.Empty(t, names)

	require.NoError(t, Create(mem, "db", [16]byte{}, State{Log: behind9, ReplayStart: 10}, &counting{}))
	before := mem.Bytes("db/MANIFEST-000001")
	require.ErrorIs(t, Create(mem, "db", [16]byte{1}, State{ReplayStart: 1}, &counting{}), fs.ErrExist)
	require.NoError(t, mem.Corrupt("db/MANIFEST-000001", 4096, 1, func(b []byte) { b[0] ^= 1 }))
	require.Error(t, Create(mem, "db", [16]byte{1}, State{ReplayStart: 1}, &counting{}), "a damaged one is not replaced")
	require.NoError(t, mem.Corrupt("db/MANIFEST-000001", 4096, 1, func(b []byte) { b[0] ^= 1 }))
	require.Equal(t, before, mem.Bytes("db/MANIFEST-000001"))

	in := vfs.NewInjector(vfs.NewMem())
	in.Add(vfs.Rule{Call: vfs.CallSyncDir, Err: fs.ErrPermission})
	require.ErrorIs(t, Create(in, "/", [16]byte{}, State{ReplayStart: 1}, &counting{}), fs.ErrPermission)
}
