package fuzz

import (
	"context"
	"flag"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var (
	flagOps      = flag.Int("fuzz.ops", 0, "operations of the workloads that TestExhaust explores; 0: a short run")
	flagUnits    = flag.Int("fuzz.units", 0, "unsynced units of which TestExhaust makes all subsets; 0: the default")
	flagNoBubble = flag.Bool("fuzz.nobubble", false, "explore without testing/synctest, as the command does")
	flagDepth2   = flag.Int("fuzz.depth2", 0, "operations of the workloads of which TestExhaust cuts every recovery")
)

// TestExhaust explores every workload of up to two operations, or as many as the
// flags say.
func TestExhaust(t *testing.T) {
	cfg := bubbled(t)
	if *flagNoBubble {
		cfg = Config{}
	}
	cfg.Budget, cfg.Workers = *flagBudget, *flagWorkers
	bound := Bound{Ops: 2, Units: *flagUnits, Depth2: *flagDepth2}
	switch {
	case *flagOps > 0:
		bound.Ops = *flagOps
	case testing.Short():
		bound.Ops = 1
	}
	cfg.Every = 10 * time.Second
	cfg.Progress = func(r Report) {
		fmt.Fprintf(os.Stderr, "%6.0f s: %d of %d workloads, %d cuts, %d states, %d violations\n", r.Seconds, r.Workloads, r.Planned, r.Cuts, r.States, len(r.Violations))
	}
	rep, cov, err := Exhaust(context.Background(), cfg, bound)
	require.NoError(t, err)
	t.Log(cov.String())
	report(t, rep)
	if *flagBudget == 0 {
		require.True(t, cov.Done(), "%d of %d", cov.Explored, cov.Workloads)
	}
	t.Logf("%d workloads restarted", cov.Restarted)
}

// TestAlphabet: every operation of small workloads can be read, and an engine
// that can do little has few.
func TestAlphabet(t *testing.T) {
	for _, op := range alphabet("m%d=300 s1/k0=300") {
		_, err := ParseWorkload("| " + basePart + " " + op)
		require.NoError(t, err)
	}
	all, err := powersOf(Forebay{})
	require.NoError(t, err)
	require.Len(t, all.alphabet(), 19)
	require.Equal(t, []string{"d{n%d=40}", "d{k0=600}", "d{-k1}", "d{m%d=300}", "reopen"}, powers{}.alphabet())
	require.Contains(t, powers{Abilities: Abilities{Batches: true}}.alphabet(), "d{m%d=300 k0=300}", "a batch needs no keyspace")
}

// TestExhaustProgress: what is reported while it goes on may be looked at, and what
// was cut short is not called explored.
func TestExhaustProgress(t *testing.T) {
	seen := 0
	cfg := Config{Engine: toyEngine{ackEarly: true}, Workers: 2, Every: time.Millisecond, MaxViolations: 1}
	cfg.Progress = func(r Report) {
		seen += len(r.Table())
		for _, v := range r.Violations {
			seen += len(v.String())
		}
	}
	rep, cov, err := Exhaust(t.Context(), cfg, Bound{Ops: 0})
	require.NoError(t, err)
	require.NotEmpty(t, rep.Violations)
	require.False(t, cov.Done(), cov.String())
	cfg.Engine, cfg.MaxViolations = toyEngine{}, 0
	_, cov, err = Exhaust(t.Context(), cfg, Bound{Ops: 1})
	require.NoError(t, err)
	require.True(t, cov.Done())
}

// TestExhaustBound: a bound that no number holds is not covered by nothing.
func TestExhaustBound(t *testing.T) {
	for _, b := range []Bound{{Ops: -1}, {Ops: 20}, {Units: 64}, {Units: -1}} {
		_, _, err := Exhaust(t.Context(), Config{Engine: toyEngine{}}, b)
		require.ErrorContains(t, err, "the bound is from 0")
	}
}
