package rangedel

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/internal/base"
)

// crossing returns n range deletes of which each crosses nearly all others, with
// LSNs in no order, or in that of the keys.
func crossing(n int, rng *rand.Rand) []base.RangeDelete {
	dels := make([]base.RangeDelete, n)
	for i := range dels {
		dels[i] = base.RangeDelete{Lo: fmt.Appendf(nil, "%08d", i), Hi: fmt.Appendf(nil, "%08d", n+i), LSN: base.LSN(i + 1)}
	}
	if rng != nil {
		rng.Shuffle(n, func(i, j int) { dels[i].LSN, dels[j].LSN = dels[j].LSN, dels[i].LSN })
	}
	return dels
}

// allocated returns how many bytes f allocates.
func allocated(f func()) int {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return int(after.TotalAlloc - before.TotalAlloc)
}

// TestCrossingIsSmall: n range deletes that all cross each other, as a window
// leaves them that goes over the keys, take memory in proportion to n: cut into
// 2n pieces with n/2 of them at each, written out, that would be n² LSNs.
func TestCrossingIsSmall(t *testing.T) {
	const n = 20_000
	const each = 1500 // bytes
	for _, rng := range []*rand.Rand{nil, newRand(t)} {
		dels := crossing(n, rng)
		var s *Set
		require.Less(t, allocated(func() { s = New(dels) }), n*each)
		require.Equal(t, 2*n-1, s.Len())
		require.Less(t, s.Memory(), n*300)
		var ranges []base.RangeDelete
		require.Less(t, allocated(func() { ranges = s.Ranges() }), n*each)
		require.ElementsMatch(t, dels, ranges)
		lo, mid, hi := dels[n/2].Lo, dels[n-1].Lo, dels[n/2].Hi
		require.Less(t, allocated(func() {
			merged := Merge(s.Clip(nil, lo), s.Clip(mid, hi), s.Clip(lo, mid), s.Clip(hi, nil))
			require.Equal(t, ranges, merged.Ranges())
		}), 4*n*each)
		require.Less(t, allocated(func() { // These are not apart.
			require.Equal(t, ranges, Merge(New(dels[:n/3]), New(dels[n/4:])).Ranges())
		}), 4*n*each)
		for i := 1; i < 2*n; i += 997 {
			k := fmt.Appendf(nil, "%08d", i)
			for _, lsn := range []base.LSN{0, 1, n / 3, n / 2, n - 1, n, base.MaxLSN} {
				require.Equal(t, cover(dels, k, lsn), s.Cover(k, lsn))
			}
		}
	}
}
