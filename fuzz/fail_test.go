package fuzz

import (
	"context"
	"flag"
	"testing"

	"github.com/stretchr/testify/require"
)

var (
	flagFail       = flag.Bool("fuzz.fail", false, "TestFail makes every call fail in every way, not one in some")
	flagFailSeeds  = flag.Int("fuzz.failseeds", 0, "drawn workloads of TestFail, before those of the list, from -fuzz.seed on")
	flagFailReplay = flag.String("fuzz.failreplay", "", "the replay line of a violation of TestFail")
)

func failBubbled(t *testing.T) FailConfig {
	c := bubbled(t)
	return FailConfig{Bubble: c.Bubble, Settle: c.Settle}
}

// TestFail makes the calls of the disk fail that the workloads of the list make.
func TestFail(t *testing.T) {
	cfg := failBubbled(t)
	if *flagFailReplay != "" {
		rep, err := ReplayFail(context.Background(), cfg, *flagFailReplay)
		require.NoError(t, err)
		failReport(t, rep)
		return
	}
	cfg.Workloads = FailWorkloads
	for n := range *flagFailSeeds {
		cfg.Seeds = append(cfg.Seeds, *flagSeed+uint64(n))
	}
	if !*flagFail {
		cfg.Every, cfg.First = 37, 3
		if testing.Short() {
			cfg.Every = 211
		}
	}
	rep, err := Fail(context.Background(), cfg)
	require.NoError(t, err)
	failReport(t, rep)
}

func failReport(t *testing.T, rep FailReport) {
	t.Helper()
	t.Logf("\n%s", rep.Table())
	for _, v := range rep.Violations {
		t.Errorf("-fuzz.failreplay '%s': %s\n  %s", v.Replay, v.Kind, v.Detail)
	}
}
