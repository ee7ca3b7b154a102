package disk

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/bench/machine"
)

// TestRun: every test has figures or a reason, and nothing is left behind.
func TestRun(t *testing.T) {
	dir := t.TempDir()
	last := 0.0
	rs, err := Run(context.Background(), dir, 2*time.Second, Tests(), func(done float64) { last = done })
	require.NoError(t, err)
	require.Equal(t, 1.0, last)
	require.Len(t, rs, len(Tests()))
	for _, r := range rs {
		if r.Missing != "" {
			require.NotContains(t, []string{Fdatasync, Fsync, NoSync}, r.Mechanism, "%+v", r)
			continue
		}
		require.Positive(t, r.N, "%+v", r)
		require.Positive(t, r.PerS)
		require.LessOrEqual(t, r.P50, r.P99)
		require.LessOrEqual(t, r.P99, r.Max)
		require.InDelta(t, r.PerS*float64(r.Records), r.RecordS, 1e-6*r.RecordS)
	}
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, left)
}

func TestRunEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := Run(ctx, t.TempDir(), time.Minute, Tests(), nil)
	require.ErrorIs(t, err, context.Canceled)
	_, err = Run(context.Background(), t.TempDir()+"/none", time.Minute, Tests(), nil)
	require.ErrorIs(t, err, os.ErrNotExist)
}

// figures makes results in which each test has a median, in µs.
func figures(change func(t *Test) float64) []Result {
	var out []Result
	for _, t := range Tests() {
		p50 := change(&t)
		r := Result{Kind: "disk", Test: t, N: 100, P50: p50, P99: 2 * p50, Max: 3 * p50, PerS: 1e6 / p50}
		r.RecordS = r.PerS * float64(t.Records)
		out = append(out, r)
	}
	return out
}

func advise(m *machine.Info, rs []Result) (Advice, string) {
	a := Advise(m, rs)
	return a, strings.Join(a.Text, "\n")
}

func TestAdvice(t *testing.T) {
	m := &machine.Info{FileSystem: "ext4"}
	flat := func(us float64) func(*Test) float64 {
		return func(t *Test) float64 {
			if t.Part == PartWrite {
				return 2
			}
			return us
		}
	}
	a, text := advise(m, figures(flat(200)))
	require.Equal(t, Advice{Kind: "advice", Mechanism: "Fdatasync", OneWriter: 5000, Writers64: 320_000, Interval: 2 * time.Millisecond, Text: a.Text}, a)
	require.Contains(t, text, "leave it at Fdatasync")
	require.Contains(t, text, "may become 5,000")
	require.Contains(t, text, "about 320,000 commits a second")
	require.Contains(t, text, "100 times less")
	require.Contains(t, text, "SyncInterval(2 ms)")
	require.NotContains(t, text, "Doubt")

	a, text = advise(m, figures(func(t *Test) float64 {
		if t.Mechanism == DirectDSync && t.File == Zeroed {
			return 100
		}
		return flat(200)(t)
	}))
	require.Equal(t, "DirectDSync", a.Mechanism)
	require.Equal(t, 4096, a.LogAlign)
	require.Contains(t, text, "10,000 commits a second for one writer, not 5,000")

	a, _ = advise(m, figures(func(t *Test) float64 {
		if t.Mechanism == DSync {
			return 190 // not worth it
		}
		return flat(200)(t)
	}))
	require.Equal(t, "Fdatasync", a.Mechanism)

	_, text = advise(m, figures(flat(9000)))
	require.Contains(t, text, "one writer alone is slow")
	a, text = advise(m, figures(flat(30_000)))
	require.Contains(t, text, "slow disk")
	require.Equal(t, 100*time.Millisecond, a.Interval)
	_, text = advise(m, figures(flat(5)))
	require.Contains(t, text, "Only a power cut will tell")

	a, text = advise(&machine.Info{FileSystem: "tmpfs", NotADisk: "tmpfs is memory"}, figures(flat(5)))
	require.Contains(t, text, "NOT A DISK: tmpfs is memory")
	require.Len(t, a.Text, 1)
	_, text = advise(m, nil)
	require.Contains(t, text, "no advice")
}

func output(t *testing.T, args ...string) string {
	t.Helper()
	var out bytes.Buffer
	cmd := Command()
	cmd.SetArgs(append(args, "--time", "400ms", "--dir", t.TempDir()))
	cmd.SetOut(&out)
	cmd.SetErr(&bytes.Buffer{})
	require.NoError(t, cmd.ExecuteContext(context.Background()))
	return out.String()
}

func TestJSON(t *testing.T) {
	lines := strings.Split(strings.TrimSpace(output(t, "--json")), "\n")
	require.Len(t, lines, 2+len(Tests()))
	kinds := map[string]int{}
	for _, line := range lines {
		var v struct{ Kind string }
		require.NoError(t, json.Unmarshal([]byte(line), &v))
		kinds[v.Kind]++
	}
	require.Equal(t, map[string]int{"machine": 1, "disk": len(Tests()), "advice": 1}, kinds)
}

func TestText(t *testing.T) {
	out := output(t)
	for _, want := range []string{"kernel ", "file system ", "on a file filled with zeros ahead", "3 in flight", "256 records", "MB/s", "Large writes"} {
		require.Contains(t, out, want)
	}
	for line := range strings.Lines(out) {
		if strings.HasPrefix(line, "machine") || strings.HasPrefix(line, "file system") || strings.HasPrefix(line, "device") {
			continue
		}
		require.LessOrEqual(t, len([]rune(line)), 110, line)
	}
}
