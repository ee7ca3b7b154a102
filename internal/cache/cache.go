// Package cache keeps verified blocks of segments in memory, within a budget
// of bytes.
//
// A block enters only after its checksum has been verified, and nobody writes
// to it afterwards: Get hands out the cached bytes themselves, and they stay
// good for as long as somebody holds them, evicted or not (the garbage
// collector frees them).
//
// The cache is split into shards, each with its own lock, and each shard evicts
// by S3-FIFO (Yang et al., SOSP'23): a block enters a small queue and moves to
// the main queue only if it is asked for again while there; a block that falls
// out is remembered by name for a while, and goes straight to the main queue
// when it comes back. One long scan therefore does not push out what point
// reads use. A hit changes one counter under a shared lock and moves nothing.
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
	// entryOverhead is what one entry costs beside its block: the entry, its
	// place in the map, and a remembered name.
	entryOverhead = 160
)

// Cache is a set of blocks named by (file, offset). All methods may be called
// at once from many goroutines. A nil *Cache is valid and holds nothing.
type Cache struct {
	shards   []shard
	mask     uint64
	lastFile atomic.Uint64

	resize sync.Mutex // held by Resize: shards never have budgets of two calls
	// share is the budget of one shard. resize guards it.
	share int64
}

// Stats counts what a cache has done since New.
type Stats struct {
	// Hits and Misses count calls of Get.
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
func New(budget int64) *Cache {
	n := 1
	for n < maxShards && budget/int64(2*n) >= minShardBytes {
		n *= 2
	}
	c := &Cache{shards: make([]shard, n), mask: uint64(n - 1), share: max(budget, 0) / int64(n)}
	for i := range c.shards {
		c.shards[i].budget = c.share
	}
	return c
}

// Resize changes the budget. What is above a smaller one has been evicted when
// it returns; no other call waits for more than one shard's part of that. A
// budget that is as good as the old one costs one lock.
func (c *Cache) Resize(budget int64) {
	if c == nil {
		return
	}
	c.resize.Lock()
	defer c.resize.Unlock()
	share := max(budget, 0) / int64(len(c.shards))
	if share == c.share {
		return
	}
	c.share = share
	for i := range c.shards {
		c.shards[i].resize(share)
	}
}

// NewFile returns a file number that this cache has never returned before.
// Each opened file takes one, so that blocks of an earlier file of the same
// name can never be taken for its own.
func (c *Cache) NewFile() uint64 {
	if c == nil {
		return 0
	}
	return c.lastFile.Add(1)
}

// Get returns the block of file at offset, or nil when it is not here. The
// caller must not write to it.
func (c *Cache) Get(file, offset uint64) []byte {
	if c == nil {
		return nil
	}
	return c.shard(file, offset).get(name{file, offset})
}

// Put gives a block to the cache, which keeps b itself: nobody may write to it
// any more. A block that is here already stays. A block that would take more
// than half of a shard is not kept.
func (c *Cache) Put(file, offset uint64, b []byte) {
	if c == nil || b == nil {
		return
	}
	c.shard(file, offset).put(name{file, offset}, b)
}

// EvictFile drops all blocks of a file. It looks at every block of the cache,
// and is meant for the rare moment when a file is closed.
func (c *Cache) EvictFile(file uint64) {
	if c == nil {
		return
	}
	for i := range c.shards {
		c.shards[i].evictFile(file)
	}
}

// Bytes returns what the cache holds now, in bytes, its own overhead included.
func (c *Cache) Bytes() int64 {
	return c.Stats().Bytes
}

// Stats returns the counters; they are read shard after shard, not at one
// instant.
func (c *Cache) Stats() Stats {
	var s Stats
	if c == nil {
		return s
	}
	for i := range c.shards {
		c.shards[i].addStats(&s)
	}
	return s
}

func (c *Cache) shard(file, offset uint64) *shard {
	// Offsets are dense and files are small numbers: multiply to spread them.
	h := (file*0x9E3779B97F4A7C15 ^ bits.RotateLeft64(offset, 29)) * 0xC2B2AE3D27D4EB4F
	return &c.shards[h>>48&c.mask]
}
