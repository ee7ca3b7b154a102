package main

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestCrashRun explores for a moment, and prints what others read.
func TestCrashRun(t *testing.T) {
	code, out, errs := forebayCmd("", "crash", "run", "--ops", "1", "--budget", "0", "--json")
	require.Zero(t, code, errs)
	var res map[string]any
	require.NoError(t, json.Unmarshal([]byte(out), &res))
	require.Greater(t, res["states"], 5000.0)
	require.Equal(t, 0.0, res["violations"])
	require.Positive(t, res["seconds"])
	require.Contains(t, res["bound"], "all workloads of up to 1 of 19 operations")
	require.Contains(t, res["bound"], "covered")

	code, out, errs = forebayCmd("", "crash", "run", "--ops", "0", "--states", "2000", "--budget", "1m")
	require.Zero(t, code, errs)
	require.Contains(t, out, "0 violations")
	require.Contains(t, out, "bound: none")
}

func TestCrashExplain(t *testing.T) {
	const id = "sector-atomic | d{k1=20} checkpoint@20:!"
	code, out, errs := forebayCmd("", "crash", "explain", id)
	require.Zero(t, code, errs)
	require.Contains(t, out, "step      d{k1=20}")
	require.Contains(t, out, "CRASH: the process is killed")
	require.Contains(t, out, "verdict   as promised")

	code, out, errs = forebayCmd("", "crash", "replay", id)
	require.Zero(t, code, errs)
	require.Contains(t, out, "3 states opened and judged, 0 violations")

	code, _, errs = forebayCmd("", "crash", "replay", "nonsense")
	require.Equal(t, 2, code)
	require.Contains(t, errs, "begins with no workload")
	code, _, errs = forebayCmd("", "crash", "explain", "| d{k1=20}")
	require.Equal(t, 2, code)
	require.Contains(t, errs, "names no crash")
	code, _, errs = forebayCmd("", "crash", "explain", "| d{k1=20}@9999:!")
	require.Equal(t, 2, code)
	require.Contains(t, errs, "no run of the workload came to this crash")
}
