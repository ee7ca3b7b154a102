package policy

import (
	"context"
	"io"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestParsePolicy(t *testing.T) {
	for _, name := range AllPolicies {
		p, err := ParsePolicy(name)
		require.NoError(t, err)
		require.Equal(t, name, p.Name)
	}
	p, err := ParsePolicy("interval-2ms")
	require.NoError(t, err)
	require.Equal(t, 2*time.Millisecond, p.Interval)
	p, err = ParsePolicy("bytes-64KiB")
	require.NoError(t, err)
	require.Equal(t, int64(65536), p.Bytes)
	for _, bad := range []string{"", "often", "interval-", "interval-0s", "interval--1s", "bytes-", "bytes-0", "bytes-1KB"} {
		_, err := ParsePolicy(bad)
		require.ErrorContains(t, err, "unknown", bad)
	}
}

func TestSizes(t *testing.T) {
	for s, n := range map[string]int64{"100": 100, "1KiB": 1024, "16KiB": 16384, "1MiB": 1 << 20, "4GiB": 4 << 30} {
		got, err := ParseSize(s)
		require.NoError(t, err)
		require.Equal(t, n, got)
		require.Equal(t, s, size(n))
	}
	for _, bad := range []string{"", "-1", "1K", "KiB", "99999999999999GiB"} {
		_, err := ParseSize(bad)
		require.ErrorContains(t, err, "is no size", bad)
	}
}

func TestMatrix(t *testing.T) {
	cross, err := Cross("")
	require.NoError(t, err)
	n := 0
	for _, s := range cross {
		n += len(s.Cells)
	}
	require.Equal(t, 24+8+8+3+3+30, n)
	full, err := Full("")
	require.NoError(t, err)
	require.Len(t, full, 2)
	require.Len(t, full[0].Cells, 8*3*4*3*5)
	require.Len(t, full[1].Cells, 8*3*4*3*5*2)
	log, err := Cross(OnLog)
	require.NoError(t, err)
	for _, s := range log {
		for _, c := range s.Cells {
			require.Equal(t, OnLog, c.On)
		}
	}
	store, err := Cross(OnStore)
	require.NoError(t, err)
	for _, s := range store {
		for _, c := range s.Cells {
			require.NoError(t, c.check())
		}
	}
	names := map[string]bool{}
	for _, s := range full {
		for _, c := range s.Cells {
			require.False(t, names[c.Name()], c.Name())
			names[c.Name()] = true
		}
	}
}

func TestUsage(t *testing.T) {
	for want, args := range map[string][]string{
		"policy \"x\" is unknown":       {"--policies", "x"},
		"level \"x\" is unknown":        {"--levels", "x"},
		"mechanism \"x\" is unknown":    {"--mechanisms", "x"},
		"files \"x\" are unknown":       {"--files", "x"},
		"can not be measured":           {"--on", "x"},
		"0 writers":                     {"--writers", "0"},
		"a value of 15 bytes":           {"--values", "15"},
		"\"x\" is no size":              {"--values", "x"},
		"--full takes no axes":          {"--full", "--writers", "1"},
		"on the log alone":              {"--on", "store", "--files", "growing"},
		"if any flags in the group":     {"--json", "--benchstat"},
		"unknown command \"x\" for":     {"x"},
		"no such file or directory":     {"--dir", "/nowhere/at/all", "--writers", "1"},
		"invalid argument \"x\" for \"": {"--window", "x"},
	} {
		cmd := Command()
		cmd.SilenceErrors, cmd.SilenceUsage = true, true
		cmd.SetArgs(args)
		cmd.SetOut(io.Discard)
		cmd.SetErr(io.Discard)
		require.ErrorContains(t, cmd.ExecuteContext(context.Background()), want)
	}
}

// TestRunEnds: a run that is cancelled, or comes to its limit of bytes, ends.
func TestRunEnds(t *testing.T) {
	c := cell(t, OnStore, "never", "buffered")
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := Run(ctx, c, Options{Dir: t.TempDir(), Window: time.Hour})
	require.ErrorIs(t, err, context.Canceled)
	r, err := Run(context.Background(), c, Options{Dir: t.TempDir(), Window: time.Hour, MaxBytes: 1 << 20})
	require.NoError(t, err)
	require.Positive(t, r.Ops)
	require.Positive(t, r.PowerCut.Records[2])
}
