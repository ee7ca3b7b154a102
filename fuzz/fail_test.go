package fuzz

import (
	"context"
	"flag"
	"maps"
	"slices"
	"strings"
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

// TestLedger: which states are legal after commits that are there, may be there,
// and were submitted together.
func TestLedger(t *testing.T) {
	put := func(key string) commit { return commit{ops: []Op{{Key: []byte(key), Value: []byte("v")}}} }
	states := func(ws map[uint64]world) []string {
		var out []string
		for _, w := range ws {
			out = append(out, strings.Join(slices.Sorted(maps.Keys(w.live)), ""))
		}
		slices.Sort(out)
		return out
	}
	l := newLedger()
	l.acked(put("a"), Durable, 0)
	l.acked(put("b"), Written, 0)
	l.unknown(put("c"), 0)
	l.acked(put("d"), Buffered, 0)
	require.Equal(t, []string{"abcd", "abd"}, states(l.now()))
	require.Equal(t, []string{"a", "ab", "abc", "abcd", "abd"}, states(l.after(l.power)))
	require.Equal(t, []string{"ab", "abc", "abcd", "abd"}, states(l.after(l.kill)))
	l.settled()
	require.Equal(t, []string{"abcd", "abd"}, states(l.after(l.power)))

	l = newLedger()
	l.unknown(put("x"), 1)
	l.unknown(put("y"), 1)
	require.Equal(t, []string{"", "x", "xy"}, states(l.now()), "never y without x")
	l.acked(put("z"), Durable, 1)
	require.Equal(t, []string{"xyz"}, states(l.now()), "z proves those before it")
	l.rebase(l.now())
	l.unknown(put("x"), 2)
	require.Equal(t, []string{"xyz"}, states(l.now()))

	l = newLedger()
	l.unknown(commit{ops: []Op{{Kind: Create, Space: 1}}}, 0)
	l.acked(commit{ops: []Op{{Space: 1, Key: []byte("k")}}}, Durable, 0)
	require.Equal(t, []string{"s1/s1/k"}, states(l.now()), "a keyspace that was written to was made")
}

func TestFaultText(t *testing.T) {
	var n callCounts
	for i := range n {
		n[i] = 2
	}
	list := faults(n)
	require.Greater(t, len(list), 200)
	for _, f := range list {
		again, err := parseFault(f.String())
		require.NoError(t, err)
		require.Equal(t, f, again)
	}
	for _, text := range []string{"", "write#x EIO once", "push#1 EIO once", "write#1 EGG once"} {
		_, err := parseFault(text)
		require.Error(t, err, text)
	}
}
