package editlog

import (
	"crypto/rand"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/vfs"
	"github.com/forebaydb/forebay/wal/frame"
)

// TestNewFileHoldsStaleBytes cuts the power inside rotations, where the sectors
// of the new file hold what a file that is gone held: also its whole header,
// which names another number.
func TestNewFileHoldsStaleBytes(t *testing.T) {
	k := Kind{Prefix: "EDITS", File: frame.FileCatalog}
	nothing := func(uint64, []byte) error { return nil }
	m := vfs.NewMem()
	var cuts []*vfs.Mem
	rotated := false // a complete file is durable
	m.OnIO(func(vfs.Op) {
		if rotated {
			cuts = append(cuts, m.PowerCut(func(_ int, u vfs.Unit) vfs.Fate {
				if slices.Contains(vfs.LegalFates(u, vfs.SectorAtomic), vfs.Stale) {
					return vfs.Stale
				}
				return vfs.Kept
			}))
		}
	})
	for range 4 {
		from, err := Load(m, "/", k, nothing)
		if err != nil {
			require.ErrorIs(t, err, ErrNone)
		}
		w := NewWriter(m, "/", k, [16]byte{1}, from, rand.Reader)
		require.NoError(t, w.Rotate([]byte("snapshot")))
		rotated = true
		require.NoError(t, w.Close())
	}
	require.NotEmpty(t, cuts)
	for i, cut := range cuts {
		l, err := Load(cut, "/", k, nothing)
		require.NoError(t, err, "cut %d", i)
		require.EqualValues(t, 1, l.Records)
	}
}
