package forebay_test

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/vfs"
)

// TestCompactEnds: writers who never rest do not keep a Compact from its end, and
// what there was when it began is in the last level then.
func TestCompactEnds(t *testing.T) {
	opts := small(vfs.NewMem())
	opts.DefaultLevel = forebay.Buffered
	db, err := forebay.Open("db", opts)
	require.NoError(t, err)
	defer db.Close()
	for i := range 5000 {
		require.NoError(t, db.Put(fmt.Appendf(nil, "%05d", i), make([]byte, 50)))
	}
	var over atomic.Bool
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(w), 1))
			for !over.Load() {
				if err := db.Put(fmt.Appendf(nil, "%05d", r.IntN(5000)), make([]byte, 50)); err != nil {
					panic(err)
				}
			}
		})
	}
	for range 5 {
		require.NoError(t, db.Compact(background))
	}
	over.Store(true)
	wg.Wait()
	require.NoError(t, db.Compact(background))
	st := db.Stats()
	for i, l := range st.Levels[:len(st.Levels)-1] {
		require.Zero(t, l.Segments, "level %d", i)
	}
}
