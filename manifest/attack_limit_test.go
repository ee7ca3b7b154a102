package manifest

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/internal/base"
	"github.com/forebaydb/forebay/vfs"
)

// Bounds of segments are as long as keys: an edit after which all of them together
// are longer than a record may be, and so could never be loaded again, is refused.
func TestAttackSnapshotAboveARecord(t *testing.T) {
	defer func(n int) { maxState = n }(maxState)
	maxState = 1 << 20
	mem := vfs.NewMem()
	require.NoError(t, mem.MkdirAll("db"))
	m, err := Load(mem, "db")
	require.ErrorIs(t, err, ErrNone)
	require.NoError(t, m.Writable(mem, "db", rand.Reader))
	accepted := 0
	for i := range 10 {
		e := &Edit{}
		for j := range 60 {
			key := append(fmt.Appendf(nil, "%06d", 60*i+j), bytes.Repeat([]byte("k"), 1<<10)...)
			e.Add = append(e.Add, Segment{Number: uint64(60*i + j + 1), Level: 6, Lo: key, Hi: append(key, 0)})
		}
		if err := m.Apply(e); err != nil {
			require.NoError(t, m.Err(), "a refusal")
			require.Greater(t, i, 5)
			e.Remove = []uint64{1, 2, 3, 4, 5}
			e.Add = e.Add[:4]
			require.NoError(t, m.Apply(e))
			accepted--
			break
		}
		accepted += len(e.Add)
	}
	// A swap that makes nothing longer is taken, though both together would not fit.
	swap := m.State().Segments
	for i := range swap {
		swap[i].Level = 5
	}
	require.NoError(t, m.Apply(&Edit{Add: swap[:len(swap)/2]}))
	require.Error(t, m.EditLog(&base.LogEdit{Pin: map[string]base.LSN{string(make([]byte, maxState)): 1}}))
	require.NoError(t, m.Err())
	require.NoError(t, m.Close())
	l, err := Load(mem, "db")
	require.NoError(t, err)
	require.Len(t, l.State().Segments, accepted)
	require.NoError(t, l.Writable(mem, "db", rand.Reader))
	require.NoError(t, l.Apply(&Edit{ReplayStart: 7}))
	require.NoError(t, l.Close())
	_, err = Load(mem, "db")
	require.NoError(t, err)
}
