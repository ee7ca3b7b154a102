package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestPipeline(t *testing.T) {
	place, plots := t.TempDir(), filepath.Join(t.TempDir(), "plots")
	out := fine(t, "pipeline", "--seconds", "0.5", "--dir", place, "--out", plots, "--sink", "file", "--batch", "100")
	require.Contains(t, out, "one at a time")
	require.Contains(t, out, "loopback alone")
	left, err := os.ReadDir(place)
	require.NoError(t, err)
	require.Empty(t, left)
	for _, name := range []string{"depth.svg", "depth.png", "rates.svg", "rates.png"} {
		require.FileExists(t, filepath.Join(plots, name))
	}
	var got map[string]any
	require.NoError(t, json.Unmarshal([]byte(fine(t, "pipeline", "--seconds", "0.3", "--rate", "20000", "--dir", place, "--alone", "--json", "--through", "buffer", "--sink", "file")), &got))
	for _, name := range []string{"events_per_s", "lost", "duplicated", "ack_p50_us", "ack_p99_us", "rss_bytes", "bytes_written_per_user_byte", "compression_ratio"} {
		require.Contains(t, got, name)
	}
	require.EqualValues(t, 6000, got["events"])
	require.EqualValues(t, 0, got["lost"])
	require.EqualValues(t, 0, got["duplicated"])

	got = nil
	require.NoError(t, json.Unmarshal([]byte(fine(t, "pipeline", "--spike", "--scale", "0.001", "--dir", place, "--out", plots, "--json")), &got))
	require.EqualValues(t, 30_000, got["events"])
	require.EqualValues(t, 0, got["lost"])
	require.EqualValues(t, 0, got["duplicated"])
	require.Contains(t, got["spike"], "deviation")
	require.Len(t, got["plots"], 4)
}

func TestPipelineUsage(t *testing.T) {
	for _, args := range [][]string{
		{"--rate", "fast"}, {"--rate", "-1"}, {"--rate", "NaN"}, {"--seconds", "0"}, {"--event-bytes", "10"}, {"--servers", "0"}, {"--batch", "1000000"},
		{"--flush-rows", "0"}, {"--sink", "db"}, {"--through", "wall"}, {"--compression", "lz4"}, {"--spike", "--rate", "5000"}, {"--spike", "--scale", "0"}, {"--sink-rate", "NaN"}, {"x"},
	} {
		code, _, errs := forebayCmd("", append([]string{"pipeline"}, args...)...)
		require.Equal(t, 2, code, "%v: %s", args, errs)
	}
}
