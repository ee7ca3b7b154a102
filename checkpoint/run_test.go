package checkpoint

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/internal/base"
	"github.com/forebaydb/forebay/memtable"
)

// TestRunIsAMemtable fills runs and memtables with the same versions and range
// deletes: what one shows the other shows, in either direction and from any place.
// The keys have much in common, or nothing, or are each other's beginning.
func TestRunIsAMemtable(t *testing.T) {
	keys := map[string]func(rng *rand.Rand) []byte{
		"digits":     func(rng *rand.Rand) []byte { return fmt.Appendf(nil, "user/%016d", rng.IntN(3000)) },
		"random":     func(rng *rand.Rand) []byte { return fmt.Appendf(nil, "%x", rng.Uint32N(1<<12)*2654435761) },
		"beginnings": func(rng *rand.Rand) []byte { return make([]byte, 1+rng.IntN(30)) },
		"long": func(rng *rand.Rand) []byte {
			return fmt.Appendf(nil, "%d/in common behind eight bytes/%d", rng.IntN(3), rng.IntN(100))
		},
		"one": func(*rand.Rand) []byte { return []byte("k") },
	}
	run := NewRun(1 << 20)
	for name, key := range keys {
		for seed := range uint64(4) {
			rng := rand.New(rand.NewPCG(seed, 7))
			run.Reset()
			table := memtable.New(0)
			for lsn := base.LSN(1); lsn <= 2000; lsn++ {
				taken := map[string]bool{}
				for range 1 + rng.IntN(3) {
					k, v, kind := key(rng), fmt.Appendf(nil, "value %d", rng.Int()), base.KindPut
					if taken[string(k)] {
						continue
					}
					taken[string(k)] = true
					if rng.IntN(4) == 0 {
						v, kind = nil, base.KindDelete
					}
					require.NoError(t, run.Add(lsn, kind, k, v))
					require.NoError(t, table.Add(lsn, kind, k, v))
				}
				if lo, hi := key(rng), key(rng); rng.IntN(20) == 0 && string(lo) < string(hi) {
					require.NoError(t, run.AddRangeDelete(lsn, lo, hi))
					require.NoError(t, table.AddRangeDelete(lsn, lo, hi))
				}
			}
			require.NoError(t, run.Sort())
			require.Equal(t, table.RangeDeletes(), run.RangeDeletes())
			require.Equal(t, table.Len()+table.RangeLen(), run.Len())
			a, b := table.NewIter(), run.NewIter()
			same := func(okA, okB bool) bool {
				require.Equal(t, okA, okB, "%s, seed %d", name, seed)
				require.Equal(t, okA, b.Valid())
				if okA {
					require.Equal(t, a.Key(), b.Key())
					require.Equal(t, a.LSN(), b.LSN())
					require.Equal(t, a.Kind(), b.Kind())
					require.Equal(t, string(a.Value()), string(b.Value()))
				}
				return okA
			}
			for ok := same(a.First(), b.First()); ok; ok = same(a.Next(), b.Next()) {
			}
			for ok := same(a.Last(), b.Last()); ok; ok = same(a.Prev(), b.Prev()) {
			}
			for range 200 {
				k, lsn := key(rng), base.LSN(rng.IntN(2100))
				if same(a.SeekGE(k, lsn), b.SeekGE(k, lsn)) {
					same(a.Prev(), b.Prev())
				}
				if same(a.SeekLT(k, lsn), b.SeekLT(k, lsn)) {
					same(a.Next(), b.Next())
				}
			}
			require.NoError(t, b.Err())
			require.NoError(t, b.Close())
		}
	}
}

// TestRunIsFull: a run takes no more memory than it was made with, unless one batch
// does, and it is as good as new after Reset.
func TestRunIsFull(t *testing.T) {
	run := NewRun(10_000)
	for range 3 {
		n := 0
		for run.Fits(120) {
			n++
			require.NoError(t, run.Add(base.LSN(n), base.KindPut, fmt.Appendf(nil, "%08d", n), make([]byte, 100)))
		}
		require.LessOrEqual(t, run.Bytes(), int64(10_000))
		require.Greater(t, run.Bytes(), int64(5_000))
		require.Equal(t, n, run.Len())
		require.NoError(t, run.Sort())
		run.Reset()
		require.Zero(t, run.Bytes())
		require.True(t, run.Fits(1<<20), "an empty run takes what comes")
		require.NoError(t, run.Add(1, base.KindPut, []byte("k"), make([]byte, 1<<20)))
		require.False(t, run.Fits(1))
		require.NoError(t, run.Sort())
		run.Reset()
		require.LessOrEqual(t, cap(run.arena), 20_000, "what one batch took is given back")
	}
	require.NoError(t, run.Sort())
	require.False(t, run.NewIter().First(), "nothing in an empty run")
	require.Nil(t, run.RangeDeletes())
}

// TestRunFindsAKeyTwice: at one LSN there is one version of a key, or it is no batch.
func TestRunFindsAKeyTwice(t *testing.T) {
	run := NewRun(1 << 10)
	for _, k := range []string{"a", "b", "a"} {
		require.NoError(t, run.Add(7, base.KindPut, []byte(k), nil))
	}
	require.ErrorIs(t, run.Sort(), ErrDuplicate)
}
