package publish_test

import (
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/internal/publish"
)

func TestStores(t *testing.T) {
	var (
		a struct{ before, v, behind atomic.Uint64 }
		b struct{ before, v, behind atomic.Uint32 }
		c struct{ before, v, behind atomic.Int64 }
	)
	publish.Uint64(&a.v, 1<<64-1)
	publish.Uint32(&b.v, 1<<32-1)
	publish.Int64(&c.v, -5)
	publish.Count(&c.v, -2)
	require.Equal(t, []uint64{0, 1<<64 - 1, 0}, []uint64{a.before.Load(), a.v.Load(), a.behind.Load()})
	require.Equal(t, []uint32{0, 1<<32 - 1, 0}, []uint32{b.before.Load(), b.v.Load(), b.behind.Load()})
	require.Equal(t, []int64{0, -7, 0}, []int64{c.before.Load(), c.v.Load(), c.behind.Load()})
}

// TestOrder: who sees the number sees what was written before it.
func TestOrder(t *testing.T) {
	const rounds = 200_000
	data := make([]uint64, rounds+1) // each place is written once, before its number is stored
	var at atomic.Uint64
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for n := uint64(0); n < rounds; runtime.Gosched() {
				if n = at.Load(); n > 0 && data[n] != n {
					t.Errorf("%d is stored, and %d was before it", n, data[n])
					return
				}
			}
		})
	}
	for i := uint64(1); i <= rounds; i++ {
		data[i] = i
		publish.Uint64(&at, i)
	}
	wg.Wait()
}
