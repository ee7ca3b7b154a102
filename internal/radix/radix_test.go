package radix_test

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/internal/radix"
)

// TestSorts: by head, and where that is the same in the order of before; alone and
// with two goroutines, of few items and of many, of which some bytes differ.
func TestSorts(t *testing.T) {
	for seed := range uint64(8) {
		rng := rand.New(rand.NewPCG(seed, 3))
		for _, mask := range []uint64{0, 0xff, 0xf0f0, 0xff << 56, 1 << 63, 0x0303 << 40, ^uint64(0)} {
			for _, n := range []int{0, 1, 2, 100, 40_000} {
				items := make([]radix.Item, n)
				base := rng.Uint64() &^ mask
				for i := range items {
					items[i] = radix.Item{Head: base | rng.Uint64()&mask, At: uint64(i)}
				}
				want := slices.Clone(items)
				slices.SortStableFunc(want, func(a, b radix.Item) int { return cmp.Compare(a.Head, b.Head) })
				one, rest := radix.Sort(slices.Clone(items), nil)
				require.Equal(t, want, one, "seed %d, mask %x, %d items", seed, mask, n)
				require.Len(t, rest, n)
				two, rest := radix.SortTwo(slices.Clone(items), rest)
				require.Equal(t, want, two, "seed %d, mask %x, %d items", seed, mask, n)
				require.Len(t, rest, n)

				at := 0
				radix.Ties(want, func(same []radix.Item) {
					require.Greater(t, len(same), 1)
					for want[at].Head != same[0].Head {
						at++
					}
					require.Equal(t, want[at:at+len(same)], same)
					at += len(same)
					require.True(t, at == n || want[at].Head != same[0].Head)
				})
			}
		}
	}
}
