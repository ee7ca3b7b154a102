package report

import (
	"bytes"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/bench/workload"
)

func lines(t *testing.T, results ...workload.Result) *bytes.Buffer {
	var b bytes.Buffer
	b.WriteString(`{"machine":{"time":"2026-11-26T00:00:00Z","cpu":"a processor","cores":2,"engines":{"forebay":"v0","pebble":"v2.1.7"}}}` + "\n")
	for i := range results {
		if results[i].Unit == "" {
			results[i].Unit = "ops/s"
		}
		require.NoError(t, json.NewEncoder(&b).Encode(&results[i]))
	}
	return &b
}

// TestWrite: every row is there, what is lost stands as plainly as what is won.
func TestWrite(t *testing.T) {
	var results []workload.Result
	var home, drift []float64 // rounds of those who take turns
	for rep := 1; rep <= 10; rep++ {
		v := float64(100 + rep)
		results = append(results,
			workload.Result{Cell: "durable-put-1", Engine: "forebay", Repetition: rep, Value: v * .97, P99: 5, P50: 1},
			workload.Result{Cell: "limit-fdatasync", Engine: "machine", Repetition: rep, Value: v})
		drift = append(drift, 100*v)
		home = append(home, 97*v)
	}
	results = append(results,
		workload.Result{Cell: "durable-turns-1", Engine: "forebay", Repetition: 1, Value: 97 * 105.5, Rounds: home},
		workload.Result{Cell: "durable-turns-1-direct-dsync", Engine: "forebay", Repetition: 1, Value: 97 * 105.5, Rounds: home[:9]},
		workload.Result{Cell: "durable-turns-1-limit-direct", Engine: "machine", Repetition: 1, Value: 105.5 * 100, Rounds: drift},
		workload.Result{Cell: "durable-turns-1-limit-fdatasync", Engine: "machine", Repetition: 1, Value: 1},
		workload.Result{Cell: "durable-put-64", Engine: "forebay", Repetition: 1, Value: 300, P50: 1, P99: 9},
		workload.Result{Cell: "durable-put-64", Engine: "pebble", Repetition: 1, Value: 100, P50: 1, P99: 8},
		workload.Result{Cell: "durable-put-64-open30", Engine: "forebay", Repetition: 1, Value: 5, Unit: "µs p99", Lower: true, P50: 1, P99: 5},
		workload.Result{Cell: "durable-put-64-open30", Engine: "pebble", Repetition: 1, Value: 4, Unit: "µs p99", Lower: true, P50: 1, P99: 4},
		workload.Result{Cell: "overwrite-1-buffered", Engine: "forebay", Repetition: 1, Value: 300},
		workload.Result{Cell: "overwrite-1-buffered", Engine: "pebble", Repetition: 1, Value: 100},
		workload.Result{Cell: "readrandom-1", Engine: "forebay", Repetition: 1, Value: 100},
		workload.Result{Cell: "readrandom-1", Engine: "pebble", Repetition: 1, Value: 400},
		workload.Result{Cell: "readrandom-1", Engine: "bbolt", Repetition: 1, Error: "it fell over\nand lay there"},
		workload.Result{Cell: "reopen", Engine: "forebay", Repetition: 1, Value: 6, Unit: "ms", Lower: true})
	path := filepath.Join(t.TempDir(), "bench.md")
	require.NoError(t, Write(path, lines(t, results...)))
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	text := string(b)
	row := func(title string) string {
		for l := range strings.Lines(text) {
			if strings.HasPrefix(l, "| "+title+" |") {
				return l
			}
		}
		return ""
	}
	for _, r := range rows {
		require.NotEmpty(t, row(r.title), r.title)
	}
	require.Contains(t, row("durable put, 1 goroutine"), "0.97 of the limit (at least 0.97 over 10 pairs)")
	require.Contains(t, row("durable put, 1 goroutine"), "| reached |")
	require.Contains(t, row("durable put, 1 goroutine, Options.Mechanism DirectDSync"), "9 pairs: too few for a claim")
	require.Contains(t, row("durable put, 1 goroutine, Options.Mechanism DirectDSync"), "**missed**")
	require.Contains(t, row("durable put, 64"), "3.00×")
	require.Contains(t, row("durable put, 64"), "**missed**", "its p99 is above the peer's")
	require.Contains(t, row("overwrite, 1, Buffered"), "| reached |")
	require.Contains(t, row("readrandom, 1"), "pebble 400 | 0.25×")
	require.Contains(t, row("readrandom, 1"), "**missed**")
	require.Contains(t, row("clean reopen of 1M records"), "**missed**")
	require.Contains(t, row("readhot, 8"), "| not measured |")
	require.Contains(t, text, "Of 4 cells that Forebay and another engine ran, Forebay is best in 2.")
	require.Contains(t, row("readrandom-1"), "0.25×")
	require.Contains(t, row("durable-put-64-open30"), "0.80×")
	require.Contains(t, text, "- readrandom-1, bbolt: `it fell over`")
	for _, p := range []string{"ratios", "durable", "open-loop"} {
		require.FileExists(t, filepath.Join(filepath.Dir(path), "bench", p+".svg"))
		require.Contains(t, text, "(bench/"+p+".svg)")
	}
}

func TestLowerBound(t *testing.T) {
	var results []workload.Result
	for rep := range 10 {
		results = append(results,
			workload.Result{Cell: "a", Engine: "forebay", Repetition: rep, Value: float64(rep + 1)},
			workload.Result{Cell: "b", Engine: "machine", Repetition: rep, Value: 1})
	}
	bound, n := lowerBound("a", "b", results)
	require.Equal(t, 10, n)
	require.InDelta(t, 2, bound, 0, "the second smallest: all but at most one of ten throws")
	bound, n = lowerBound("a", "b", results[:18])
	require.Equal(t, 9, n)
	require.True(t, math.IsNaN(bound))
}

// TestOtherCommits: what was measured at another commit than the rest is named.
func TestOtherCommits(t *testing.T) {
	machine := func(commit string) string { return `{"machine":{"commit":"` + commit + `"}}` + "\n" }
	result := func(cell string) string { return `{"cell":"` + cell + `","engine":"forebay","value":1}` + "\n" }
	m, results, err := read(strings.NewReader(machine("new") + result("a") + result("a") + result("b") + machine("old") + result("c")))
	require.NoError(t, err)
	var out strings.Builder
	head(&out, m, results)
	require.Contains(t, out.String(), "At Forebay's commit new, not at that above, were measured, with the peers beside it: a, b.")
	require.NotContains(t, out.String(), "commit old")
}

func TestRead(t *testing.T) {
	_, _, err := read(lines(t))
	require.Error(t, err)
	_, _, err = read(lines(t, workload.Result{Cell: "a", Engine: "b", Quick: true}, workload.Result{Cell: "a", Engine: "b"}))
	require.Error(t, err)
	_, _, err = read(strings.NewReader("no json\n"))
	require.Error(t, err)
}

// TestRowsAreCells: every row names a result that some cell gives.
func TestRowsAreCells(t *testing.T) {
	known := func(name string) bool {
		for _, c := range workload.Cells() {
			if name == c.Name || strings.HasPrefix(name, c.Name+"-") {
				return true
			}
		}
		return strings.HasPrefix(name, "wal-") // of package walbench
	}
	for _, r := range rows {
		require.True(t, known(r.cell), r.cell)
		for _, l := range r.limits {
			require.True(t, known(l), l)
		}
	}
}
