package forebay_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/vfs"
)

// TestFrontOfAQueue: what is remembered of the empty front of a queue is never in
// the way of what comes back into it, whoever reads.
func TestFrontOfAQueue(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	opts := small(vfs.NewMem())
	opts.DefaultLevel, opts.MemtableSize = forebay.Buffered, 256<<10
	db, err := forebay.Open("db", opts)
	require.NoError(t, err)
	defer db.Close()
	live := map[int]bool{}
	front, tail := 0, 0
	key := func(n int) []byte { return fmt.Appendf(nil, "%06d", n) }
	first := func(from int) int {
		for n := from; n <= tail; n++ {
			if live[n] {
				return n
			}
		}
		return -1
	}
	check := func(r interface {
		NewIterator(*forebay.IterOptions) *forebay.Iterator
	}, from, want int) {
		it := r.NewIterator(nil)
		defer it.Close()
		ok := it.First()
		if from > 0 {
			ok = it.SeekGE(key(from))
		}
		require.NoError(t, it.Err())
		require.Equal(t, want >= 0, ok, "from %d", from)
		if ok {
			require.Equal(t, string(key(want)), string(it.Key()), "from %d", from)
		}
	}
	for range 150 {
		switch r.IntN(8) {
		case 0, 1, 2:
			for range 200 + r.IntN(400) {
				tail++
				require.NoError(t, db.Put(key(tail), nil))
				live[tail] = true
			}
		case 3, 4:
			for range r.IntN(600) {
				if n := first(front); n >= 0 {
					require.NoError(t, db.Delete(key(n)))
					delete(live, n)
					front = n
				}
			}
		case 5: // something comes back into what was empty
			if n := r.IntN(tail + 1); n > 0 {
				require.NoError(t, db.Put(key(n), nil))
				live[n], front = true, min(front, n)
			}
		case 6:
			require.NoError(t, db.Checkpoint(background))
		case 7:
			s, err := db.Snapshot()
			require.NoError(t, err)
			was := first(0)
			if was >= 0 {
				require.NoError(t, db.Delete(key(was)))
				delete(live, was)
			}
			check(s, 0, was)
			require.NoError(t, s.Close())
		}
		for range 4 {
			check(db, 0, first(0))
			from := r.IntN(tail + 2)
			check(db, from, first(from))
		}
	}
}

// TestFrontOfAQueueConcurrently: everything that is put is taken once, also what
// is put in front of what has been taken.
func TestFrontOfAQueueConcurrently(t *testing.T) {
	opts := small(vfs.NewMem())
	opts.DefaultLevel, opts.MemtableSize = forebay.Buffered, 128<<10
	db, err := forebay.Open("db", opts)
	require.NoError(t, err)
	defer db.Close()
	const each = 800
	var put, taken atomic.Int64
	var wg sync.WaitGroup
	for w := range 3 {
		wg.Go(func() {
			for i := range each {
				// The third putter counts down, and always comes first.
				n := i*2 + w
				if w == 2 {
					n = -i
				}
				if err := db.Put(fmt.Appendf(nil, "%08d %d", n+each, w), nil); err != nil {
					panic(err)
				}
				put.Add(1)
			}
		})
	}
	seen := map[string]bool{}
	wg.Go(func() {
		for taken.Load() < 3*each {
			var key []byte
			err := db.Update(func(tx *forebay.Tx) error {
				key = nil
				for e, err := range tx.Range(nil, nil) {
					if err != nil {
						return err
					}
					key = append(key, e.Key...)
					return tx.Delete(key)
				}
				return forebay.ErrNotFound
			})
			switch {
			case errors.Is(err, forebay.ErrNotFound):
				continue
			case err != nil:
				panic(err)
			case seen[string(key)]:
				panic("taken twice: " + string(key))
			}
			seen[string(key)] = true
			taken.Add(1)
		}
	})
	wg.Wait()
	require.Equal(t, put.Load(), taken.Load())
	for e := range db.Range(nil, nil) {
		t.Fatalf("%s is left", e.Key)
	}
}
