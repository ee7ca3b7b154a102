package forebay

import (
	"fmt"
	"iter"
	"math/rand/v2"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/vfs"
)

// crossed is a window of range deletes that goes over the keys: each crosses
// thousands of others. The model is what each key has.
type crossed struct {
	t     *testing.T
	n     int
	model []int // 0: nothing
}

func (c *crossed) key(i int) []byte { return fmt.Appendf(nil, "%08d", i) }

// step deletes the i-th range and puts some keys again, in one batch.
func (c *crossed) step(db *DB, rng *rand.Rand, i int) {
	lo := i % c.n
	if i%2 == 1 {
		lo = rng.IntN(c.n)
	}
	b := db.NewBatch()
	require.NoError(c.t, b.DeleteRange(c.key(lo), c.key(lo+c.n)))
	clear(c.model[lo : lo+c.n])
	for range rng.IntN(3) {
		k := rng.IntN(len(c.model))
		require.NoError(c.t, b.Put(c.key(k), fmt.Append(nil, i+1)))
		c.model[k] = i + 1
	}
	require.NoError(c.t, db.Apply(b, Buffered))
}

type pairs interface {
	Has(key []byte) (bool, error)
	Range(lo, hi []byte) iter.Seq2[Entry, error]
	RangeReverse(lo, hi []byte) iter.Seq2[Entry, error]
}

// check compares what r has with a model: point reads, scans in both directions.
func (c *crossed) check(r pairs, model []int, rng *rand.Rand) {
	var want, got, reverse []string
	for i, v := range model {
		if v > 0 {
			want = append(want, fmt.Sprintf("%s=%d", c.key(i), v))
		}
	}
	for e, err := range r.Range(nil, nil) {
		require.NoError(c.t, err)
		got = append(got, fmt.Sprintf("%s=%s", e.Key, e.Value))
	}
	require.Equal(c.t, want, got)
	for e, err := range r.RangeReverse(nil, nil) {
		require.NoError(c.t, err)
		reverse = append(reverse, fmt.Sprintf("%s=%s", e.Key, e.Value))
	}
	for i := range got {
		require.Equal(c.t, got[i], reverse[len(got)-1-i])
	}
	for range 500 {
		i := rng.IntN(len(model))
		has, err := r.Has(c.key(i))
		require.NoError(c.t, err)
		require.Equal(c.t, model[i] > 0, has)
	}
}

// TestCrossingRangeDeletes: twenty thousand range deletes that cross each other
// cost memory in proportion to their number, wherever they are. Written out in
// pieces, with all that apply in each, they took gigabytes.
func TestCrossingRangeDeletes(t *testing.T) {
	n := 20_000
	if testing.Short() {
		n = 4000
	}
	most := uint64(n) * 10_000 // bytes
	for _, memtable := range []int64{1 << 20, 64 << 20} {
		t.Run(fmt.Sprint("memtable ", memtable), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(1, uint64(memtable)))
			o := &Options{FS: vfs.NewMem(), MarkDelay: -1, MemtableSize: memtable, LogFileSize: 1 << 20}
			c := &crossed{t: t, n: n, model: make([]int, 2*n)}
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			db := open(t, o)
			b := db.NewBatch()
			for i := range c.model {
				require.NoError(t, b.Put(c.key(i), fmt.Append(nil, 1<<30)))
				c.model[i] = 1 << 30
			}
			require.NoError(t, db.Apply(b, Written))
			type moment struct {
				snap  *Snapshot
				model []int
			}
			var moments []moment
			for i := range n {
				if i%(n/4) == n/8 {
					s, err := db.Snapshot()
					require.NoError(t, err)
					moments = append(moments, moment{s, append([]int(nil), c.model...)})
				}
				c.step(db, rng, i)
			}
			all := func() {
				c.check(db, c.model, rng)
				for _, m := range moments {
					c.check(m.snap, m.model, rng)
				}
			}
			all()
			require.NoError(t, db.Checkpoint(t.Context()))
			all()
			require.NoError(t, db.Compact(t.Context()))
			all()
			for _, m := range moments {
				require.NoError(t, m.snap.Close())
			}
			moments = nil
			for i := range 100 {
				c.step(db, rng, n+i)
			}
			require.NoError(t, db.Close())
			db = open(t, o)
			all()
			require.NoError(t, db.Compact(t.Context()))
			all()
			_, err := db.Verify(t.Context())
			require.NoError(t, err)
			require.NoError(t, db.Close())
			runtime.ReadMemStats(&after)
			t.Logf("%d MiB", (after.TotalAlloc-before.TotalAlloc)>>20)
			require.Less(t, after.TotalAlloc-before.TotalAlloc, most)
		})
	}
}

// TestScansBetweenRangeDeletes: a scan after each range delete, as of a queue,
// does not put all range deletes in order again, neither those of the store nor
// those of a transaction.
func TestScansBetweenRangeDeletes(t *testing.T) {
	const n = 4000
	key := func(i int) []byte { return fmt.Appendf(nil, "%08d", i) }
	db := open(t, &Options{FS: vfs.NewMem(), MarkDelay: -1})
	defer db.Close()
	for i := range n {
		require.NoError(t, db.Put(key(i), nil))
	}
	type queue interface {
		pairs
		DeleteRange(lo, hi []byte) error
	}
	drain := func(q queue, from, to int) error {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for i := from; i < to; i++ {
			for e, err := range q.Range(nil, nil) {
				require.NoError(t, err)
				require.Equal(t, string(key(i)), string(e.Key))
				break
			}
			require.NoError(t, q.DeleteRange(key(i), key(i+1)))
		}
		runtime.ReadMemStats(&after)
		require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(n)*20_000)
		return nil
	}
	require.NoError(t, drain(db, 0, n/2))
	require.NoError(t, db.UpdateLevel(t.Context(), Buffered, func(tx *Tx) error { return drain(tx, n/2, n) }))
	require.Empty(t, contents(t, db))
}
