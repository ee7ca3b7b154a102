package merge

import (
	"fmt"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/internal/base"
	"github.com/forebaydb/forebay/internal/rangedel"
)

// TestCrossingRangeDeletes: what remains of range deletes that all cross each
// other, and which versions, is found in memory in proportion to their number,
// whoever reads.
func TestCrossingRangeDeletes(t *testing.T) {
	const n = 20_000
	rng := newRand(t)
	key := func(i int) []byte { return fmt.Appendf(nil, "%08d", i) }
	lsns := rng.Perm(n)
	var all []base.RangeDelete
	var vs []ver
	for i := range n {
		all = append(all, base.RangeDelete{Lo: key(i), Hi: key(n + i), LSN: base.LSN(lsns[i] + 1)})
		vs = append(vs, ver{string(key(2 * i)), base.LSN(rng.IntN(n)), base.KindPut, "v"})
	}
	dels := rangedel.New(all)
	var some []base.LSN
	for lsn := 1 + rng.IntN(10); lsn < n/2; lsn += 1 + rng.IntN(50) {
		some = append(some, base.LSN(lsn))
	}
	for _, k := range []Keep{{}, {Above: n}, {Above: n / 2}, {Above: n, Snapshots: some}, {Above: n / 2, Snapshots: some}} {
		k.ElideSpan = func(lo, _ []byte) bool { return string(lo) < string(key(n/2)) }
		k.Elide = func(key []byte) bool { return k.ElideSpan(key, nil) }
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		left := k.Dels(dels)
		got := compacted(t, Compact(newSliceIter(vs, &fuse{-1}), dels, k))
		runtime.ReadMemStats(&after)
		require.Less(t, int(after.TotalAlloc-before.TotalAlloc), n*5000)

		kept := map[string]bool{}
		for _, v := range got {
			kept[v.key] = true
		}
		for i := 0; i < n; i += 100 + rng.IntN(100) {
			v := vs[i]
			by := base.MaxLSN // the oldest range delete above v
			for _, d := range all {
				if d.LSN > v.lsn && string(d.Lo) <= v.key && v.key < string(d.Hi) {
					by = min(by, d.LSN)
				}
			}
			require.Equal(t, k.reader(v.lsn) < by, kept[v.key])
			for _, r := range append([]base.LSN{k.Above, k.Above + 7, n, base.OwnLSN - 1}, some[:min(len(some), 20)]...) {
				if r < k.Above && len(k.Snapshots) == 0 {
					continue
				}
				want := dels.Cover([]byte(v.key), r)
				if want <= k.Oldest() && k.ElideSpan([]byte(v.key), nil) {
					want = 0
				}
				require.Equal(t, want, left.Cover([]byte(v.key), r), "%s at %d", v.key, r)
			}
		}
	}
}
