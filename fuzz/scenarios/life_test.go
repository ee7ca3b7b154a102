// Package scenarios has three small systems as they are made of the parts of this module:
// order processing, notifications and analytics. Each is a file here, is shown by an
// Example, and has its power cut in the middle of its work, again and again, by TestKilled,
// which looks at its invariants at the end.
package scenarios

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/vfs"
)

var flagSeed = flag.Uint64("scenarios.seed", 0, "kill at the moments of this seed; 0: a new one")

// world is what is outside of the process that is killed, and outlives it: services that
// are called, and clients who remember what they were told.
type world struct {
	mu   sync.Mutex // guards dead and all that do touches
	dead bool
}

// do does something in the world, unless the process is dead: what it still does then has
// not happened.
func (w *world) do(fn func()) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.dead {
		fn()
	}
	return !w.dead
}

// system is one of the three.
type system interface {
	// start opens the system in a store; stop ends it, and all that it runs.
	start(db *forebay.DB) error
	stop()
	// work has clients do something, in some goroutines, until the process is dead or they
	// have done a little.
	work(r *rand.Rand)
	// settled returns when all that was acknowledged has come where it goes, and check
	// looks at what there is then.
	settled() error
	check(t *testing.T, db *forebay.DB)
}

// TestKilled cuts the power of each system in the middle of its work, some times in its
// life, and looks at the end that all that a client was told is so, and is so once.
func TestKilled(t *testing.T) {
	seed := *flagSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	lives := 10
	if testing.Short() {
		lives = 4
	}
	for name, system := range map[string]func(w *world) system{"orders": newOrders, "notifications": newNotifications, "analytics": newAnalytics} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				t.Logf("again with -scenarios.seed %d", seed)
				r := rand.New(rand.NewPCG(seed, 0))
				w := &world{}
				s := system(w)
				mem := vfs.NewMem()
				for life := range lives {
					// The power is cut at one change of the disk, in the middle of whatever it
					// is, or when the work is done.
					var cut *vfs.Mem // guarded by w.mu
					n, at, choice := 0, 1+r.IntN(800), r.Uint64()
					cutNow := func() {
						w.dead, cut = true, mem.PowerCutSeed(choice, vfs.SectorAtomic)
					}
					if life < lives-1 {
						mem.OnIO(func(vfs.Op) {
							w.mu.Lock()
							defer w.mu.Unlock()
							if n++; n == at {
								cutNow()
							}
						})
					}
					func() {
						db, err := forebay.Open("data", &forebay.Options{FS: mem, MarkDelay: -1})
						require.NoError(t, err)
						defer db.Close()
						require.NoError(t, s.start(db))
						defer s.stop()
						s.work(rand.New(rand.NewPCG(seed, uint64(life))))
						if life == lives-1 {
							require.NoError(t, s.settled())
							s.check(t, db)
						}
						w.mu.Lock()
						defer w.mu.Unlock()
						if cut == nil {
							cutNow()
						}
						mem.OnIO(nil)
					}()
					mem, w.dead = cut, false
				}
			})
		})
	}
}

func must(err error) {
	if err != nil {
		panic(fmt.Sprint("scenarios: ", err))
	}
}
