package check

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/wal"
)

var (
	seedFlag  = flag.Uint64("seed", 0, "seed of the first random store; 0 takes one from the clock")
	roundFlag = flag.Int("rounds", 40, "how many random stores are damaged and salvaged")
)

// TestRandomDamage: whatever is damaged, a salvage ends, its result opens, holds
// nothing that was never written, and lacks nothing that it does not tell.
func TestRandomDamage(t *testing.T) { eachSeed(t, randomDamage) }

// eachSeed runs a test with as many seeds as -rounds says, and tells how to replay the
// one that fails.
func eachSeed(t *testing.T, test func(t *testing.T, seed uint64)) {
	seed := seedOf(t)
	rounds := *roundFlag
	if testing.Short() {
		rounds = min(rounds, 10)
	}
	for i := range rounds {
		seed := seed + uint64(i)
		ok := t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) { test(t, seed) })
		if !ok {
			t.Fatalf("replay with -run %s -rounds=1 -seed=%d", t.Name(), seed)
		}
	}
}

// seedOf is the seed of a test, which it tells.
func seedOf(t *testing.T) uint64 {
	seed := *seedFlag
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("replay with -seed=%d", seed)
	return seed
}

func randomDamage(t *testing.T, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 0))
	st := randomStore(t, r)
	for range r.IntN(4) {
		randomHarm(st, r)
	}
	rep, err := Verify(context.Background(), st.cfg())
	if err != nil {
		require.ErrorIs(t, err, ErrNone)
		return
	}
	for range 2 {
		cfg := st.cfg()
		cfg.BeyondHoles = r.IntN(2) == 0
		if r.IntN(2) == 0 {
			cfg.MemtableSize = 4 << 10
		}
		out, got := st.salvage(cfg)
		st.clear("new")
		if rep.Err() == nil && !cfg.BeyondHoles {
			require.Empty(t, out.harm(), "Verify sees no damage")
		}
		if len(out.harm()) == 0 {
			n := slices.IndexFunc(st.states, func(m map[string]string) bool { return fmt.Sprint(m) == fmt.Sprint(got) })
			require.GreaterOrEqual(t, n, 0, "no loss is told, but the state is none that ever was")
			continue
		}
		for _, k := range missing(st.states[min(int(out.Through), len(st.states)-1)], got) {
			require.True(t, within(out.Losses, k), "%s is gone: %v", k, out.Losses)
		}
	}
}

// randomStore makes a store by a random history and closes it, in order or not.
func randomStore(t *testing.T, r *rand.Rand) *store {
	st := newStore(t)
	key := func() string { return fmt.Sprintf("%c%02d", 'a'+r.IntN(4), r.IntN(40)) }
	for range 5 + r.IntN(60) {
		switch r.IntN(12) {
		case 0:
			st.settle(r.IntN(3) == 0)
		case 1:
			st.compact(r.IntN(6) == 0)
		case 2:
			st.close()
			st.open()
		case 3:
			st.level = []wal.Level{wal.Durable, wal.Written}[r.IntN(2)]
		default:
			for range 1 + r.IntN(20) {
				var ops []op
				for range 1 + r.IntN(4) {
					switch k := key(); r.IntN(8) {
					case 0:
						ops = append(ops, del(k))
					case 1:
						if hi := key(); k < hi {
							ops = append(ops, dels(k, hi))
						}
					default:
						ops = append(ops, put(k, fmt.Sprintf("%d %d %0*d", len(st.states), r.Uint32(), r.IntN(200), 0)))
					}
				}
				st.commit(ops...)
			}
		}
	}
	if r.IntN(2) == 0 {
		st.close()
	} else {
		require.NoError(t, st.s.Log.Sync(context.Background()))
		st.mem = st.mem.Snapshot()
	}
	return st
}

// randomHarm damages a file of the store.
func randomHarm(st *store, r *rand.Rand) {
	names, err := st.mem.List("db")
	require.NoError(st.t, err)
	if len(names) == 0 {
		return
	}
	path := "db/" + names[r.IntN(len(names))]
	size := int64(len(st.mem.Bytes(path)))
	switch kind := r.IntN(10); {
	case size == 0 || kind == 0:
		require.NoError(st.t, st.mem.Remove(path))
	case kind == 1:
		st.truncate(path, r.Int64N(size))
	case kind == 2:
		at := r.Int64N(size) &^ 511
		st.zero(path, at, min(size-at, 512<<r.IntN(5)))
	case kind == 3:
		other := "db/" + names[r.IntN(len(names))]
		require.NoError(st.t, st.mem.SetBytes(path, st.mem.Bytes(other)))
	default:
		for range 1 + r.IntN(3) {
			at := r.Int64N(size)
			if kind < 8 { // where something is
				at = r.Int64N(min(size, 9000))
			}
			st.flip(path, at)
		}
	}
}
