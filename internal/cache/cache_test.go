package cache

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// named is a cache with a slot for each name that it was asked for, as the owners
// of files have.
type named struct {
	*Cache[struct{}]
	mu    sync.Mutex
	slots map[name]*Slot[struct{}]
}

func newNamed(budget int64) *named {
	return &named{Cache: New[struct{}](budget), slots: make(map[name]*Slot[struct{}])}
}

func (c *named) slot(file, off uint64) *Slot[struct{}] {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := name{file, off}
	if c.slots[n] == nil {
		c.slots[n] = new(Slot[struct{}])
	}
	return c.slots[n]
}

func (c *named) Get(file, off uint64) []byte {
	if b := c.slot(file, off).Get(); b != nil {
		defer b.Release()
		return bytes.Clone(b.Data)
	}
	return nil
}

func (c *named) Put(file, off uint64, b []byte) {
	c.Cache.Put(c.slot(file, off), c.filled(file, off, b)).Release()
}

func (c *named) filled(file, off uint64, b []byte) *Block[struct{}] {
	n := c.NewBlock(file, off, len(b))
	copy(n.Data, b)
	return n
}

func (c *named) EvictFile(file uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for n, s := range c.slots {
		if n.file == file {
			c.Evict(s, file, n.offset)
		}
	}
}

// block makes a block that says which file and offset it belongs to.
func block(file, offset uint64, size int) []byte {
	b := make([]byte, size)
	copy(b, fmt.Sprintf("%d/%d", file, offset))
	return b
}

func TestZeroBudgetHoldsNothing(t *testing.T) {
	for _, c := range []*named{newNamed(0), newNamed(-1)} {
		c.Put(1, 0, block(1, 0, 100))
		require.Nil(t, c.Get(1, 0))
		require.Zero(t, c.Bytes())
		c.EvictFile(1)
	}
}

func TestGetGivesWhatWasPut(t *testing.T) {
	c := newNamed(1 << 20)
	b := block(7, 4096, 1000)
	c.Put(7, 4096, b)
	require.Equal(t, b, c.Get(7, 4096))
	require.Nil(t, c.Get(7, 0))
	require.Nil(t, c.Get(8, 4096))
	require.Equal(t, int64(1000+blockOverhead), c.Bytes())

	c.Put(7, 4096, block(0, 0, 10)) // the first stays
	require.Equal(t, b, c.Get(7, 4096))

	c.Put(8, 0, block(8, 0, 1000))
	c.EvictFile(7)
	require.Nil(t, c.Get(7, 4096))
	require.NotNil(t, c.Get(8, 0))
	require.Equal(t, int64(1000+blockOverhead), c.Bytes())
	s := c.Stats()
	require.Equal(t, uint64(3), s.Hits)
	require.Equal(t, uint64(3), s.Misses)
	require.Equal(t, 1, s.Blocks)
}

func TestFileNumbersAreNeverGivenTwice(t *testing.T) {
	c := newNamed(1 << 20)
	require.NotEqual(t, c.NewFile(), c.NewFile())
}

func TestBudgetIsNeverExceeded(t *testing.T) {
	for _, budget := range []int64{4 << 10, 300 << 10, 3 << 20, 40 << 20} {
		c := newNamed(budget)
		r := rand.New(rand.NewPCG(1, 2))
		for i := range 20000 {
			off := uint64(r.IntN(6000))
			if c.Get(1, off) == nil {
				c.Put(1, off, block(1, off, 1+r.IntN(16<<10)))
			}
			if i%97 == 0 {
				require.LessOrEqual(t, c.Bytes(), budget)
			}
		}
		require.LessOrEqual(t, c.Bytes(), budget)
		for i := range c.shards {
			s := &c.shards[i]
			require.LessOrEqual(t, len(s.ghosts.at), s.blocks+1)
		}
		c.EvictFile(1)
		require.Zero(t, c.Bytes())
	}
}

// TestReplace: what takes a block's place is found there, counts with what it takes,
// and keeps its turn; who holds the old block keeps its bytes.
func TestReplace(t *testing.T) {
	c := newNamed(1 << 20)
	for i := range uint64(3) {
		c.Put(1, i, block(1, i, 1000))
	}
	for i := range uint64(3) { // the first, one between others, the last
		old := c.slot(1, i).Get()
		other := c.slot(1, i).Get()
		before := c.Bytes()
		e := c.Replace(old, c.filled(1, i, block(2, i, 3000)))
		require.Same(t, e, c.slot(1, i).Peek())
		require.Equal(t, before-1000+3072, c.Bytes()) // whole units, from 1 KiB on
		require.Equal(t, block(1, i, 1000), other.Data)
		other.Release()
		require.Equal(t, int32(2), e.uses.Load())
		e.Release()
	}
	require.Equal(t, 3, c.Stats().Blocks)

	old := c.slot(1, 1).Get()
	require.Same(t, old, c.Replace(old, c.NewBlock(1, 1, 600<<10)), "too large for the shard")
	require.Same(t, old, c.slot(1, 1).Peek())

	c.EvictFile(1)
	require.Zero(t, c.Bytes())
	require.Equal(t, block(2, 1, 3000), old.Data, "it is held")
	e := c.Replace(old, c.filled(1, 1, block(2, 1, 10)))
	require.NotSame(t, old, e, "it may be used, but is not in the cache")
	require.Equal(t, block(2, 1, 10), e.Data)
	e.Release()
	require.Nil(t, c.slot(1, 1).Peek())
	require.Zero(t, c.Bytes())
}

// TestReplaceWithMore: what grows pushes out others, in either queue.
func TestReplaceWithMore(t *testing.T) {
	const budget = 256 << 10
	c := newNamed(budget)
	for range 3 {
		for i := range uint64(40) {
			if c.Get(1, i) == nil {
				c.Put(1, i, block(1, i, 5000))
			}
		}
	}
	for i := range uint64(40) {
		if old := c.slot(1, i).Get(); old != nil && old.Claim() {
			require.False(t, old.Claim(), "one alone may")
			c.Replace(old, c.filled(1, i, block(1, i, 9000))).Release()
			require.LessOrEqual(t, c.Bytes(), int64(budget))
		}
	}
	found := 0
	for i := range uint64(40) {
		if c.Get(1, i) != nil {
			found++
		}
	}
	require.Equal(t, found, c.Stats().Blocks)
	require.Greater(t, found, 20)
	c.EvictFile(1)
	require.Zero(t, c.Bytes())
}

func TestHasRoom(t *testing.T) {
	c := newNamed(100 << 10)
	room := 100<<10 - 100<<10/idleShare
	require.True(t, c.HasRoom(1, 0, room-blockOverhead))
	require.False(t, c.HasRoom(1, 0, room))
	c.Put(1, 0, make([]byte, 40<<10))
	require.True(t, c.HasRoom(1, 1, 45<<10))
	require.False(t, c.HasRoom(1, 1, 60<<10))
}

func TestResize(t *testing.T) {
	var none *Cache[struct{}]
	none.Resize(1 << 20)
	const full = 4 << 20
	c := newNamed(full)
	fill := func() {
		for i := range uint64(2000) {
			c.Put(1, i, make([]byte, 4096))
		}
	}
	fill()
	require.Greater(t, c.Bytes(), int64(full*8/10))
	shards := len(c.shards)
	for _, budget := range []int64{full / 2, 100 << 10, 1, 0, -5, full / 4, full} {
		c.Resize(budget)
		require.LessOrEqual(t, c.Bytes(), max(budget, 0))
		fill()
		require.LessOrEqual(t, c.Bytes(), max(budget, 0))
		require.Len(t, c.shards, shards)
		for i := range c.shards {
			require.LessOrEqual(t, len(c.shards[i].ghosts.turns), c.shards[i].blocks+1)
		}
	}
	require.Greater(t, c.Bytes(), int64(full*8/10), "what was given back is used again")
}

// What is in use outlives a cut of the budget rather than what was seen once.
func TestResizeKeepsWhatIsUsed(t *testing.T) {
	c := newNamed(1 << 20)
	for i := range uint64(200) {
		c.Put(1, i, make([]byte, 4096))
	}
	for range 3 {
		for i := range uint64(20) {
			require.NotNil(t, c.Get(1, 10*i))
		}
	}
	c.Resize(256 << 10)
	for i := range uint64(20) {
		require.NotNil(t, c.Get(1, 10*i))
	}
}

func TestResizeBesideAll(t *testing.T) {
	c := newNamed(4 << 20)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	var wg, sizers sync.WaitGroup
	stop := make(chan struct{})
	for g := range uint64(2) {
		sizers.Go(func() {
			r := rand.New(rand.NewPCG(seed, g))
			for {
				select {
				case <-stop:
					return
				default:
					c.Resize(int64(r.IntN(4 << 20)))
				}
			}
		})
	}
	for g := range uint64(4) {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(seed, 10+g))
			for range 3000 {
				file, off := uint64(r.IntN(4)), uint64(r.IntN(500))
				switch b := c.Get(file, off); {
				case b == nil:
					c.Put(file, off, block(file, off, 32+r.IntN(8000)))
				case r.IntN(500) == 0:
					c.EvictFile(file)
				case r.IntN(4) == 0:
					if old := c.slot(file, off).Get(); old != nil {
						if old.Claim() {
							old = c.Replace(old, c.filled(file, off, block(file, off, 32+r.IntN(16000))))
						}
						old.Release()
					}
				default:
					want := fmt.Sprintf("%d/%d\x00", file, off)
					if string(b[:len(want)]) != want {
						t.Errorf("block %s holds %q", want, b[:len(want)])
					}
				}
			}
		})
	}
	wg.Wait()
	close(stop)
	sizers.Wait()
	for i := range c.shards {
		require.Equal(t, c.share, c.shards[i].budget)
	}
	c.Resize(64 << 10)
	require.LessOrEqual(t, c.Bytes(), int64(64<<10))
	c.Resize(0)
	require.Zero(t, c.Bytes())
}

func BenchmarkResizeSame(b *testing.B) {
	c := newNamed(64 << 20)
	for range b.N {
		c.Resize(64 << 20)
	}
}

func TestABlockLargerThanHalfAShardIsNotKept(t *testing.T) {
	c := newNamed(1 << 20)
	c.Put(1, 0, make([]byte, 600<<10))
	require.Nil(t, c.Get(1, 0))
	require.Zero(t, c.Bytes())
}

// One scan over ten times the budget must leave most of a set that is in use.
func TestAScanDoesNotPushOutWhatIsUsed(t *testing.T) {
	c := newNamed(1 << 20)
	const hot = 100
	for range 3 {
		for i := range uint64(hot) {
			if c.Get(1, i) == nil {
				c.Put(1, i, make([]byte, 4096))
			}
		}
	}
	for i := range uint64(2560) {
		c.Put(2, i, make([]byte, 4096))
	}
	kept := 0
	for i := range uint64(hot) {
		if c.Get(1, i) != nil {
			kept++
		}
	}
	require.GreaterOrEqual(t, kept, hot*9/10)
}

func TestManyAtOnce(t *testing.T) {
	c := newNamed(2 << 20)
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(g), 3))
			for range 5000 {
				file, off := uint64(r.IntN(4)), uint64(r.IntN(500))
				b := c.Get(file, off)
				if b == nil {
					c.Put(file, off, block(file, off, 32+r.IntN(8000)))
					continue
				}
				want := fmt.Sprintf("%d/%d\x00", file, off)
				if string(b[:len(want)]) != want {
					t.Errorf("block %s holds %q", want, b[:len(want)])
				}
				if r.IntN(1000) == 0 {
					c.EvictFile(file)
				}
			}
		})
	}
	wg.Wait()
	require.LessOrEqual(t, c.Bytes(), int64(2<<20))
}

func BenchmarkNew(b *testing.B) {
	b.ReportAllocs()
	for range b.N {
		_ = newNamed(64 << 20)
	}
}

func BenchmarkGetHit(b *testing.B) {
	c := newNamed(64 << 20)
	for i := range uint64(4096) {
		c.Put(1, i*8192, make([]byte, 8192))
	}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		x := rand.Uint64()
		for pb.Next() {
			x = x*6364136223846793005 + 1442695040888963407
			if c.Get(1, x>>52*8192) == nil {
				b.Error("a miss")
			}
		}
	})
}

func BenchmarkPutEvict(b *testing.B) {
	c := newNamed(16 << 20)
	blk := make([]byte, 8192)
	b.ReportAllocs()
	var off uint64
	for range b.N {
		off += 8192
		c.Put(1, off, blk)
	}
}
