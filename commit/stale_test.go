package commit

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/internal/base"
	"github.com/forebaydb/forebay/vfs"
	"github.com/forebaydb/forebay/wal"
)

// TestRecheckedReadsAreOfOneLSN: a transaction that had read many keys, one of them
// from a commit under way, was stale however often it was looked at in the tables.
func TestRecheckedReadsAreOfOneLSN(t *testing.T) {
	s := openStore(t, vfs.NewMem())
	s.p.Begin()
	defer s.p.End()
	_, err := s.p.Apply(putRecord("z", "0"), wal.Durable, nil)
	require.NoError(t, err)
	var first, second *Commit
	rd := new(Reads)
	require.NoError(t, s.log.Exclusive(func() {
		h, err := s.lane.Enter(background)
		require.NoError(t, err)
		first, err = h.Submit(putRecord("a", "1"), wal.Durable, readsOf(h.At(), "a"), nil)
		require.NoError(t, err)
		h.Leave()
		h, err = s.lane.Enter(background)
		require.NoError(t, err)
		defer h.Leave()
		rd.Reset(h.At())
		_, _, from, ok := h.Get([]byte("a"))
		require.True(t, ok)
		rd.KeyFrom([]byte("a"), from)
		for i := range 2*defaultLimits.writes + 1 {
			rd.Key(fmt.Append(nil, "k", i))
		}
		second, err = h.Submit(putRecord("b", "1"), wal.Durable, rd, nil)
		require.NoError(t, err)
	}))
	require.NoError(t, first.Wait(background))
	require.ErrorIs(t, second.Wait(background), ErrStale)
	now := s.p.Applied()
	looked := 0
	require.True(t, rd.Recheck(now, func(key []byte, at base.LSN) bool { looked++; return true }, nil))
	require.Equal(t, 2*defaultLimits.writes+2, looked)
	_, err = s.p.CommitTx(putRecord("b", "1"), wal.Durable, rd, nil)
	require.NoError(t, err)
}

// TestUnluckyKeysAreRemembered: five keys that are written all the time shared a set
// of four, and each was forgotten before it was written again.
func TestUnluckyKeysAreRemembered(t *testing.T) {
	table := lastWrites{max: defaultLimits.sets}
	lsn := base.LSN(0)
	for range 20 {
		for i := range uint64(8) {
			lsn++
			table.put(i*minSets, lsn)
		}
	}
	for i := range uint64(8) {
		got, unknown := table.get(i * minSets)
		require.Equal(t, lsn-7+i, got)
		require.Zero(t, unknown)
	}
	// Where a table may not grow they are forgotten still.
	table = lastWrites{max: 1}
	for i := range uint64(8) {
		table.put(i, 1+i)
	}
	got, unknown := table.get(0)
	require.Zero(t, got)
	require.Equal(t, base.LSN(5), unknown)
}
