// Package cache keeps verified blocks of segments in memory, within a budget
// of bytes.
//
// A block enters only after its checksum has been verified, and nobody writes
// to it afterwards: a Slot hands out the cached bytes themselves, and they stay
// good, evicted or not, until who asked for the block has released it. Their memory
// is then used for others: see memory.
//
// The owner of a file keeps a Slot for each of its blocks, in which the cache puts
// the block and from which it takes it: a hit is one load, and the cache needs no
// map. The cache is split into shards, each with its own lock, and each shard
// evicts by S3-FIFO (Yang et al., SOSP'23): a block enters a small queue and moves
// to the main queue only if it is asked for again while there; a block that falls
// out is remembered by name for a while, and goes straight to the main queue when
// it comes back. One long scan therefore does not push out what point reads use. A
// hit changes two counters, takes no lock and moves nothing.
package cache

import (
	"math/bits"
	"sync"
	"sync/atomic"
)

const (
	// maxShards bounds how far the cache is split. It is a power of two.
	maxShards = 16
	// minShardBytes is the least budget that is worth a shard of its own.
	minShardBytes = 1 << 20
	// blockOverhead is what one block costs beside its bytes: the Block, its slot,
	// and a remembered name.
	blockOverhead = 240
	// heapFree and heapShare: of a budget that is above heapFree, one in heapShare bytes
	// of what is above is for Go's heap, where a block takes some 330 bytes, which the
	// collector lets double. Up to there that is on top, as it is for all that is small.
	heapFree  = 320 << 20
	heapShare = 16
)

// Cache is a set of blocks named by (file, offset). All methods may be called
// at once from many goroutines. A nil *Cache is valid, but for Put, and holds nothing. T is what
// the owner of the files keeps beside each block.
type Cache[T any] struct {
	shards   []shard[T]
	mask     uint64
	lastFile atomic.Uint64
	memory   *memory

	resize sync.Mutex // held by Resize: shards never have budgets of two calls
	// share is the budget of one shard. resize guards it.
	share int64
}

// Stats counts what a cache has done since New.
type Stats struct {
	// Hits counts the calls of Slot.Get that found a block, Misses those of Put.
	Hits, Misses uint64
	// Bytes is what the cache holds now, in bytes, its own overhead included.
	Bytes int64
	// Blocks is how many blocks it holds now.
	Blocks int
}

// New makes a cache that holds at most budget bytes, its own overhead
// included. It allocates nothing but its shards' heads until the first Put. A
// budget of zero or less gives a cache that holds nothing.
//
// How far it is split is decided here and for good: a cache that will be resized
// is made with the largest budget that it will ever have.
func New[T any](budget int64) *Cache[T] {
	n := 1
	for n < maxShards && budget/int64(2*n) >= minShardBytes {
		n *= 2
	}
	c := &Cache[T]{shards: make([]shard[T], n), mask: uint64(n - 1), memory: newMemory(withoutHeap(budget))}
	c.share = c.shareOf(withoutHeap(budget))
	for i := range c.shards {
		c.shards[i].budget, c.shards[i].memory = c.share, c.memory
	}
	return c
}

// withoutHeap returns what of a budget is not for Go's heap.
func withoutHeap(budget int64) int64 { return budget - max(0, budget-heapFree)/heapShare }

// shareOf returns what blocks may take in a shard.
func (c *Cache[T]) shareOf(budget int64) int64 {
	budget = max(budget, 0)
	return (budget - budget/idleShare) / int64(len(c.shards))
}

// Resize changes the budget. What is above a smaller one has been evicted when
// it returns; no other call waits for more than one shard's part of that. A
// budget that is as good as the old one costs one lock.
func (c *Cache[T]) Resize(budget int64) {
	if c == nil {
		return
	}
	c.resize.Lock()
	defer c.resize.Unlock()
	budget = withoutHeap(budget)
	share := c.shareOf(budget)
	if share == c.share {
		return
	}
	c.share = share
	for i := range c.shards {
		c.shards[i].resize(share)
	}
	c.memory.resize(budget)
}

// NewFile returns a file number that this cache has never returned before.
// Each opened file takes one, so that blocks of an earlier file of the same
// name can never be taken for its own.
func (c *Cache[T]) NewFile() uint64 {
	if c == nil {
		return 0
	}
	return c.lastFile.Add(1)
}

// NewBlock returns memory for the n bytes of the block of file at offset, whatever is
// in it. The caller fills Data, may set Side, gives the block to Put or Replace, and
// releases what these return; or releases it at once.
func (c *Cache[T]) NewBlock(file, offset uint64, n int) *Block[T] {
	return c.shard(file, offset).newBlock(name{file, offset}, n)
}

// Anew is NewBlock of a block that has n bytes in place of what it has.
func (c *Cache[T]) Anew(old *Block[T], n int) *Block[T] { return old.home.newBlock(old.name, n) }

// Put gives a block of NewBlock to the cache: nobody may write to it any more. It
// returns the block that is in the slot then, for the caller to release: one that is
// here already stays. One that would take more than half of a shard is not kept, and
// is in no slot.
func (c *Cache[T]) Put(slot *Slot[T], b *Block[T]) *Block[T] {
	b.slot = slot
	return b.home.put(b)
}

// HasRoom says whether a block of n bytes would come into the cache without pushing
// out another: what comes then will most likely stay.
func (c *Cache[T]) HasRoom(file, offset uint64, n int) bool {
	return c.shard(file, offset).hasRoom(int64(n) + blockOverhead)
}

// Replace puts b, of NewBlock, in the place of a block that the caller holds: who
// else holds the old one goes on to use that. It takes both over and returns the block
// that the caller is to use, and to release. That is in the cache if the old one was;
// it is the old one when the new would take more than half of a shard.
func (c *Cache[T]) Replace(old, b *Block[T]) *Block[T] {
	b.slot = old.slot
	return old.home.replace(old, b)
}

// Evict empties the slot of the block of file at offset.
func (c *Cache[T]) Evict(slot *Slot[T], file, offset uint64) {
	if c != nil && slot.p.Load() != nil {
		c.shard(file, offset).evict(slot)
	}
}

// Bytes returns what the cache holds now, in bytes, its own overhead included.
func (c *Cache[T]) Bytes() int64 {
	return c.Stats().Bytes
}

// Stats returns the counters; they are read shard after shard, not at one
// instant.
func (c *Cache[T]) Stats() Stats {
	var s Stats
	if c == nil {
		return s
	}
	for i := range c.shards {
		c.shards[i].addStats(&s)
	}
	return s
}

func (c *Cache[T]) shard(file, offset uint64) *shard[T] {
	// Offsets are dense and files are small numbers: multiply to spread them.
	h := (file*0x9E3779B97F4A7C15 ^ bits.RotateLeft64(offset, 29)) * 0xC2B2AE3D27D4EB4F
	return &c.shards[h>>48&c.mask]
}
