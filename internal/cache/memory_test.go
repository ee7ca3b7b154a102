package cache

import (
	"bytes"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/internal/huge"
)

// check says whether the memory is as it should be: extents without gaps, whose ends
// are marked, no two idle ones side by side, each in its bin, and all of it counted.
func (m *memory) check(t *testing.T, regions map[*region]bool) {
	var used, idle int64
	binnedN, known := 0, 0
	for r := range regions {
		last := inUse
		for at := 0; at < len(r.at); {
			e := m.known(r, at)
			known++
			require.Equal(t, at, e.from)
			require.Same(t, e, m.known(r, at+e.n-1))
			switch e.state {
			case inUse:
				used += e.size()
			case isIdle:
				idle += e.size()
				require.NotEqual(t, isIdle, last)
				binnedN++
			default:
				require.NotEqual(t, isDiscarded, last)
				binnedN++
				idle += e.resident()
			}
			last, at = e.state, at+e.n
		}
	}
	for _, e := range m.extents {
		if e != nil {
			known--
		}
	}
	require.Zero(t, known, "what is no extent any more stays")
	resident := int64(0)
	for r := range regions {
		resident += m.residentOf(t, r)
	}
	require.Equal(t, resident, m.used+m.idle)
	require.Equal(t, m.used, used)
	require.Equal(t, m.idle, idle)
	for _, b := range []*binned{&m.idles, &m.discarded} {
		for i, e := range b.heads {
			require.Equal(t, e != nil, b.has[i/64]>>(i%64)&1 == 1)
			for ; e != nil; e = e.next {
				require.Equal(t, i, binOf(e.n))
				binnedN--
			}
		}
	}
	require.Zero(t, binnedN)
}

// residentOf returns how many bytes of a region are in memory, page by page: those that
// have nothing but what was discarded are not, and zero.
func (m *memory) residentOf(t *testing.T, r *region) (n int64) {
	there := make([]bool, len(r.at))
	for at := 0; at < len(r.at); {
		e := m.known(r, at)
		for range e.n {
			there[at] = e.state != isDiscarded
			at++
		}
	}
	for from := 0; from < len(there); from += pageUnits {
		to := min(from+pageUnits, len(there))
		switch {
		case slices.Contains(there[from:to], true) || to-from < pageUnits:
			n += int64(to-from) * unit
		case runtime.GOOS == "linux" && !huge.Checked:
			b := r.b[from*unit : to*unit]
			require.Equal(t, len(b), bytes.Count(b, []byte{0}), "a page that nobody has was not given back")
		}
	}
	return n
}

// TestMemoryModel: no two extents share a byte, whatever was taken and given back.
func TestMemoryModel(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	for range 2 {
		m := newMemory(int64(1<<16 + r.IntN(4<<20)))
		type piece struct {
			e *extent
			b byte
		}
		var have []piece
		var total int64
		size := 1 + r.IntN(40<<10)
		for step := range 2000 {
			if r.IntN(500) == 0 {
				size = 1 + r.IntN(300<<10)
			}
			if n := 1 + r.IntN(size); total+int64(n) < m.limit && r.IntN(8) > 0 {
				e := m.alloc(n)
				require.GreaterOrEqual(t, len(e.bytes()), n)
				p := piece{e, byte(step) | 1}
				for i := range e.bytes() {
					e.bytes()[i] = p.b
				}
				have, total = append(have, p), total+e.size()
			} else if len(have) > 0 {
				i := r.IntN(len(have))
				p := have[i]
				require.Equal(t, len(p.e.bytes()), bytes.Count(p.e.bytes(), []byte{p.b}))
				have[i] = have[len(have)-1]
				have, total = have[:len(have)-1], total-p.e.size()
				m.free(p.e)
			}
			if step%100 == 0 {
				regions := make(map[*region]bool)
				for _, p := range have {
					regions[p.e.region] = true
				}
				for _, b := range []*binned{&m.idles, &m.discarded} {
					for _, e := range b.heads {
						for ; e != nil; e = e.next {
							regions[e.region] = true
						}
					}
				}
				m.check(t, regions)
			}
		}
		for _, p := range have {
			m.free(p.e)
		}
		require.Zero(t, m.used+m.idle)
		require.Empty(t, m.taken.list)
	}
}

// TestMemoryStaysNearItsBudget when blocks of one size follow those of another.
func TestMemoryStaysNearItsBudget(t *testing.T) {
	const budget = 4 << 20
	c := newNamed(budget)
	r := rand.New(rand.NewPCG(1, 2))
	off := uint64(0)
	for _, size := range []int{5000, 12000, 1500, 60000, 3000, 30000} {
		for range 4 * budget / size {
			off++
			c.Put(1, off, make([]byte, size+r.IntN(size/8)))
			c.Get(1, off-uint64(r.IntN(100)))
			require.LessOrEqual(t, c.memory.used+c.memory.idle, int64(budget+budget/4), "blocks of %d bytes", size)
		}
	}
	c.Resize(1 << 20)
	require.LessOrEqual(t, c.memory.used, int64(1<<20))
}

// TestRegressHolesOfAnEvictedFile: the blocks of two files lie between each other, those
// of one go, and longer ones come, which do not go into the holes. Memory was 1.57 times
// the budget, as only what was evicted later would have given it back, and for good
// where the holes were short.
func TestRegressHolesOfAnEvictedFile(t *testing.T) {
	const budget = 32 << 20
	for _, size := range []int{4 << 10, 7 << 10, 12 << 10, 16 << 10} {
		c := newNamed(budget)
		full := func() bool { return c.Bytes() > budget*7/8*19/20 }
		for off := uint64(0); !full(); off++ {
			c.Put(1, off, make([]byte, size))
			c.Put(2, off, make([]byte, 1024))
		}
		c.EvictFile(1)
		for off := uint64(0); off < budget/(20<<10) && !full(); off++ {
			c.Put(3, off, make([]byte, 20<<10))
		}
		require.LessOrEqual(t, c.memory.used+c.memory.idle, int64(budget+budget/8), "blocks of %d bytes", size)
		c.EvictFile(2)
		c.EvictFile(3)
		require.Zero(t, c.memory.used+c.memory.idle)
	}
}

// TestHeldBlocksKeepTheirBytes: what was evicted or replaced while somebody holds it
// is not used for another block before it is released.
func TestHeldBlocksKeepTheirBytes(t *testing.T) {
	c := newNamed(1 << 20)
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(g), 3))
			type held struct {
				b    *Block[struct{}]
				mark byte
			}
			var hold []held
			for range 2000 {
				off := uint64(r.IntN(400))
				b := c.slot(1, off).Get()
				if b == nil {
					b = c.Cache.Put(c.slot(1, off), c.filled(1, off, bytes.Repeat([]byte{byte(off)}, 1024+r.IntN(9000))))
				} else if r.IntN(10) == 0 && b.Claim() {
					b = c.Replace(b, c.filled(1, off, bytes.Repeat([]byte{byte(off)}, 1024+r.IntN(20000))))
				}
				hold = append(hold, held{b, byte(off)})
				if len(hold) > 20 || r.IntN(50) == 0 {
					i := r.IntN(len(hold))
					h := hold[i]
					if bytes.Count(h.b.Data, []byte{h.mark}) != len(h.b.Data) {
						t.Errorf("a block that is held has changed")
					}
					h.b.Release()
					hold[i] = hold[len(hold)-1]
					hold = hold[:len(hold)-1]
				}
			}
			for _, h := range hold {
				h.b.Release()
			}
		})
	}
	wg.Wait()
	c.EvictFile(1)
	require.Zero(t, c.memory.used)
	require.Empty(t, c.memory.taken.list)
}
