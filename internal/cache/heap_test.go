package cache

import (
	"math/rand/v2"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/internal/huge"
)

// TestBlocksInTheHeap: what is counted of a block beside its bytes is what it takes of
// Go's heap, and as much again, for the collector lets the heap double.
func TestBlocksInTheHeap(t *testing.T) {
	if huge.Checked || runtime.GOOS != "linux" {
		t.Skip("blocks are of the heap")
	}
	heap := func() int64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	const budget, size = 64 << 20, 8 << 10
	c := New[[48]byte](budget)
	slots := make([]Slot[[48]byte], 5*budget/size)
	before := heap()
	for i := range slots {
		c.Put(&slots[i], c.NewBlock(1, uint64(i)*size, size-rand.IntN(size/8))).Release()
	}
	each := (heap() - before) / int64(c.Stats().Blocks)
	require.LessOrEqual(t, 2*each, int64(blockOverhead+size/heapShare), "%d bytes in the heap for each block", each)
	runtime.KeepAlive(slots)
}

// TestBudgetHasRoomForTheHeap: a large cache leaves some of its budget to the heap, a
// small one does not.
func TestBudgetHasRoomForTheHeap(t *testing.T) {
	for budget, blocks := range map[int64]int64{1 << 20: 1 << 20, heapFree: heapFree, heapFree + 16<<20: heapFree + 15<<20, heapFree + 4<<30: heapFree + 3840<<20} {
		require.Equal(t, blocks, withoutHeap(budget))
		c := New[struct{}](budget)
		require.LessOrEqual(t, c.memory.limit, blocks)
		c.Resize(1 << 20)
		c.Resize(budget)
		require.LessOrEqual(t, c.memory.limit, blocks)
		require.LessOrEqual(t, c.share*int64(len(c.shards)), blocks)
	}
}
