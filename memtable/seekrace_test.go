package memtable

import (
	"encoding/binary"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/forebaydb/forebay/internal/base"
)

// TestSeekBesideSplits: a leaf that is split beside a seek keeps one half, and its
// neighbour on that side may by then be the other half, with entries on the wrong
// side of what is sought. Runs of rising and of falling keys split so.
func TestSeekBesideSplits(t *testing.T) {
	rounds := 300
	if testing.Short() {
		rounds = 50
	}
	for range rounds {
		tab := New(0)
		var done atomic.Bool
		var wg sync.WaitGroup
		for w := range 2 {
			wg.Go(func() {
				r := rand.New(rand.NewPCG(uint64(w), rand.Uint64()))
				var k [8]byte
				for !done.Load() {
					binary.BigEndian.PutUint64(k[:], r.Uint64N(4096))
					lsn := base.LSN(r.Uint64N(3000))
					it := tab.NewIter()
					if it.SeekGE(k[:], lsn) && base.Compare(it.Key(), it.LSN(), k[:], lsn) < 0 {
						t.Error("SeekGE stands before what it sought")
						return
					}
					if it.SeekLT(k[:], lsn) && base.Compare(it.Key(), it.LSN(), k[:], lsn) >= 0 {
						t.Error("SeekLT stands behind what it sought")
						return
					}
					if _, _, at, ok := tab.Get(k[:], lsn); ok && at > lsn {
						t.Error("Get found a version that is too new")
						return
					}
				}
			})
		}
		r := rand.New(rand.NewPCG(rand.Uint64(), 3))
		lsn := base.LSN(0)
		for range 60 {
			at, down := r.Uint64N(4096), r.IntN(2) == 0
			for i := range uint64(50) {
				var k [8]byte
				if down {
					i = -i
				}
				binary.BigEndian.PutUint64(k[:], (at+i)%4096)
				lsn++
				if err := tab.Add(lsn, base.KindPut, k[:], nil); err != nil {
					t.Fatal(err)
				}
			}
		}
		done.Store(true)
		wg.Wait()
	}
}
