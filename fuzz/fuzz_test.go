package fuzz

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/vfs"
)

var (
	flagStates    = flag.Int64("fuzz.states", 0, "crash states that TestExplore makes; 0: a short run")
	flagWorkloads = flag.Int("fuzz.workloads", 0, "workloads that TestExplore explores; 0: no bound")
	flagPer       = flag.Int64("fuzz.perworkload", 4000, "crash states of one workload; 0: all")
	flagBudget    = flag.Duration("fuzz.budget", 0, "time that TestExplore takes; 0: no bound")
	flagSeed      = flag.Uint64("fuzz.seed", 1, "seed of TestExplore")
	flagWorkers   = flag.Int("fuzz.workers", 0, "workloads explored at once; 0: one a processor")
	flagReplay    = flag.String("fuzz.replay", "", "replay id of a violation, for TestReplay")
	flagDump      = flag.String("fuzz.dump", "", "directory for the states of violations")
)

// coders makes what the process has once of zstd, which has channels: made in a
// bubble they could not be used in the next one.
var coders = sync.OnceValue(func() error {
	opts := &forebay.Options{FS: vfs.NewMem(), Compression: forebay.Zstd}
	for range 2 { // the second open reads what the first has written
		db, err := forebay.Open(storeDir, opts)
		if err == nil {
			err = errors.Join(db.Put([]byte("key"), make([]byte, 10<<10)), db.Close())
		}
		if err != nil {
			return err
		}
	}
	return nil
})

// bubbled returns a configuration whose sequential workloads repeat, but for what
// the engine does in the background at the same moment.
func bubbled(t *testing.T) Config {
	require.NoError(t, coders())
	return Config{
		Bubble: func(f func()) { synctest.Test(t, func(*testing.T) { f() }) },
		Settle: synctest.Wait,
	}
}

// TestExplore explores for a moment, or as far as the flags say.
func TestExplore(t *testing.T) {
	cfg := bubbled(t)
	cfg.States, cfg.Workloads, cfg.PerWorkload = *flagStates, *flagWorkloads, *flagPer
	cfg.Budget, cfg.Seed, cfg.Workers = *flagBudget, *flagSeed, *flagWorkers
	if cfg.States == 0 && cfg.Workloads == 0 && cfg.Budget == 0 {
		cfg.States, cfg.PerWorkload = 20000, 1000
		if testing.Short() {
			cfg.States = 4000
		}
	}
	cfg.Progress = func(r Report) {
		fmt.Fprintf(os.Stderr, "%6.0f s: %d workloads, %d cuts, %d states, %d violations\n", r.Seconds, r.Workloads, r.Cuts, r.States, len(r.Violations))
	}
	rep, err := Run(context.Background(), cfg)
	require.NoError(t, err)
	report(t, rep)
}

// TestReplay makes the state of -fuzz.replay again.
func TestReplay(t *testing.T) {
	if *flagReplay == "" {
		t.Skip("no -fuzz.replay")
	}
	cfg := bubbled(t)
	cfg.PerWorkload = *flagPer
	rep, err := Replay(context.Background(), cfg, *flagReplay)
	require.NoError(t, err)
	report(t, rep)
}

func report(t *testing.T, rep Report) {
	t.Helper()
	t.Logf("\n%s%.0f states a second", rep.Table(), float64(rep.States)/rep.Seconds)
	for i, v := range rep.Violations {
		if i < 20 {
			t.Errorf("%s", v)
		}
		if *flagDump != "" && v.Disk != nil {
			require.NoError(t, v.Dump(vfs.OS(), fmt.Sprintf("%s/%d", *flagDump, i)))
		}
	}
	if n := len(rep.Violations); n > 20 {
		t.Errorf("and %d more violations", n-20)
	}
}

// TestSequentialRepeats runs workloads until one run's I/Os are another's, which
// is what a replay waits for. Some have background work that falls differently
// every time.
func TestSequentialRepeats(t *testing.T) {
	cfg := bubbled(t)
	require.NoError(t, prepare(&cfg))
	repeated := 0
	for seed := range uint64(30) {
		w := newWorkload(seed, vfs.Model(seed%3), false, cfg.powers)
		seen := map[string]bool{}
		again := false
		for try := 0; try < 30 && !again; try++ {
			x := newExplorer(t.Context(), &cfg, &shared{})
			run := ""
			for _, c := range x.run(w).cuts {
				run += fmt.Sprintf("%+v %d\n", c.op, c.hi)
			}
			again = seen[run]
			seen[run] = true
		}
		if again {
			repeated++
		}
	}
	require.Greater(t, repeated, 15, "of 30")
}

// TestLifeWithoutIO records a life that leaves the disk as it was.
func TestLifeWithoutIO(t *testing.T) {
	cfg := bubbled(t)
	require.NoError(t, prepare(&cfg))
	w := newWorkload(1, vfs.SectorAtomic, false, cfg.powers)
	put := step{kind: stepCommit, commits: [][]commit{{{ops: []Op{{Key: []byte("k"), Value: []byte("v")}}}}}}
	w.lives = []life{{steps: []step{put}, at: 0.9999, kill: true}, {}, {steps: []step{put}}}
	x := newExplorer(t.Context(), &cfg, &shared{})
	x.w = w
	rec := x.run(w)
	require.Empty(t, rec.broken)
	lives := map[int]bool{}
	for _, c := range rec.cuts {
		lives[c.life] = true
	}
	require.Equal(t, map[int]bool{0: true, 2: true}, lives)
}

// TestExploreSequenced is TestExplore of a store that also appends each commit to a
// sequence.
func TestExploreSequenced(t *testing.T) {
	cfg := bubbled(t)
	cfg.Engine = Sequenced{}
	cfg.States, cfg.Workloads, cfg.PerWorkload = *flagStates, *flagWorkloads, *flagPer
	cfg.Budget, cfg.Seed, cfg.Workers = *flagBudget, *flagSeed, *flagWorkers
	if cfg.States == 0 && cfg.Workloads == 0 && cfg.Budget == 0 {
		cfg.States, cfg.PerWorkload = 5000, 500
	}
	rep, err := Run(context.Background(), cfg)
	require.NoError(t, err)
	report(t, rep)
}
