package walbench

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/bench/workload"
)

// TestSuite runs every cell with every library for a moment; each reads back what
// it wrote.
func TestSuite(t *testing.T) {
	got, idle := map[string]int{}, 0
	s := scale{quick: true, length: 20 * time.Millisecond, bytes: 300 << 10}
	err := run(context.Background(), s, t.TempDir(), nil, 1, func(r workload.Result) error {
		require.Empty(t, r.Error, "%s %s", r.Cell, r.Engine)
		if r.Value == 0 { // a moment is short where others work, too
			t.Logf("%s %s did nothing", r.Cell, r.Engine)
			idle++
		}
		got[r.Cell]++
		return nil
	})
	require.NoError(t, err)
	require.Equal(t, map[string]int{
		"wal-append-buffered": 2, "wal-append-written": 3, "wal-durable-1": 5, "wal-durable-8": 5, "wal-durable-64": 5,
		"wal-replay-128": 5, "wal-replay-65536": 5,
	}, got)
	require.Less(t, idle, 5)
}

// TestChecker: what is wrong, missing or out of order is found.
func TestChecker(t *testing.T) {
	c := checker{scratch: make([]byte, small)}
	require.NoError(t, c.each(recordOf(make([]byte, small), 0)))
	require.Error(t, c.each(recordOf(make([]byte, small), 2)))
	require.Error(t, c.each(recordOf(make([]byte, small-1), 1)))
	bad := checker{scratch: make([]byte, small)}
	rec := recordOf(make([]byte, small), 0)
	rec[small-1]++
	require.Error(t, bad.each(rec))
}

func TestFind(t *testing.T) {
	names, err := find("forebay,etcd")
	require.NoError(t, err)
	require.Equal(t, []string{"forebay", "etcd"}, names)
	_, err = find("forebay,rocksdb")
	require.Error(t, err)
}
