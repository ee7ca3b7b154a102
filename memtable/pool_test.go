package memtable

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/internal/base"
)

// TestPool: tables in the memory of others are as good as new ones, and an open pool
// keeps no more than it may, a shut one nothing.
func TestPool(t *testing.T) {
	pool := NewPool(16 << 20)
	if pool == nil {
		t.Skip("under the race detector memory is of the heap")
	}
	require.Nil(t, NewPool(1<<20))
	pool.Open()
	value := make([]byte, 1000)
	for round := range 4 {
		tab := NewShared(32<<20, pool)
		tab.Retain()
		const n = 30_000
		for i := range n {
			key := fmt.Appendf(nil, "%d-%08d", round, i*7919%n)
			require.NoError(t, tab.Add(base.LSN(i+1), base.KindPut, key, value[:i%1000]))
		}
		require.NoError(t, tab.AddRangeDelete(n+1, []byte("a"), []byte("b")))
		it := tab.NewIter()
		count := 0
		for ok := it.First(); ok; ok = it.Next() {
			require.Equal(t, fmt.Sprintf("%d-%08d", round, count), string(it.Key()))
			require.Len(t, it.Value(), int(it.LSN()-1)%1000)
			count++
		}
		require.Equal(t, n, count)
		for i := range value {
			value[i]++
		}
		tab.Release()
		require.Len(t, pool.kept, 2)
	}
	require.Equal(t, int64(16<<20), pool.Max())
	pool.Shut()()
	require.Empty(t, pool.kept)
	tab := NewShared(32<<20, pool)
	tab.Retain()
	for i := range 20_000 {
		require.NoError(t, tab.Add(base.LSN(i+1), base.KindPut, fmt.Append(nil, i), value))
	}
	tab.Release()
	require.Empty(t, pool.kept)
}

// TestRegressPoolBeyondItsBound: memory of a table that was let go of when the next one
// was half full came on top of what that had, all of it. The bound is for both together.
func TestRegressPoolBeyondItsBound(t *testing.T) {
	const size = 4 * pieceMax
	pool := NewPool(size)
	if pool == nil {
		t.Skip("under the race detector memory is of the heap")
	}
	pool.Open()
	pool.Bound(2 * size)
	fill := func(bytes int64) *Table {
		tab := NewShared(size, pool)
		tab.Retain()
		for i := 0; tab.Bytes() < bytes; i++ {
			require.NoError(t, tab.Add(base.LSN(i+1), base.KindPut, fmt.Appendf(nil, "%08d", i), make([]byte, 1000)))
		}
		return tab
	}
	full := fill(size)
	half := fill(size / 2)
	require.GreaterOrEqual(t, pool.has, int64(size+size/2))
	pool.Bound(size + size/4)
	full.Release()
	require.NotEmpty(t, pool.kept)
	require.LessOrEqual(t, pool.has+int64(len(pool.kept))*pieceMax, int64(size+size/4))
	half.Release()
	require.Zero(t, pool.has)
	require.Len(t, pool.kept, 4)
	pool.Shut()()
}
