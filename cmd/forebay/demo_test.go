package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// tree makes a small source tree.
func tree(t *testing.T, files int) string {
	t.Helper()
	dir := t.TempDir()
	r := rand.New(rand.NewPCG(1, 2))
	for i := range files {
		name := filepath.Join(dir, fmt.Sprintf("d%d", i%7), fmt.Sprintf("f%d", i))
		require.NoError(t, os.MkdirAll(filepath.Dir(name), 0o777))
		content := make([]byte, r.IntN(4000))
		for j := range content {
			content[j] = byte(r.Uint32())
		}
		require.NoError(t, os.WriteFile(name, content, 0o666))
	}
	return dir
}

// The whole story, with a real process that is really killed.
func TestDemo(t *testing.T) {
	src, place := tree(t, 200), t.TempDir()
	out := fine(t, "demo", "--from", src, "--dir", place, "--rounds", "4", "--seed", "3", "--kills", "2", "--writers", "16")
	require.Contains(t, out, "800 keys by content")
	require.Contains(t, out, "killed ")
	require.Regexp(t, `(?m)^  lost +0$`, out)
	left, err := os.ReadDir(place)
	require.NoError(t, err)
	require.Empty(t, left, "the store is removed")

	var got map[string]any
	require.NoError(t, json.Unmarshal([]byte(fine(t, "demo", "--from", src, "--dir", place, "--json", "--keep", "--seed", "4", "--writers", "16")), &got))
	for _, name := range []string{"acked", "lost", "records_per_fsync", "recovery_ms", "replayed_bytes", "verdict", "disk_bytes", "user_bytes",
		"writes_per_s", "mb_per_s", "p50_us", "p99_us", "fsyncs", "seed", "kills"} {
		require.Contains(t, got, name)
	}
	require.EqualValues(t, 0, got["lost"])
	require.EqualValues(t, 600, got["acked"].(float64)+got["in_flight"].(float64))
	require.GreaterOrEqual(t, got["kills"], 1.0)
	require.Greater(t, got["fsyncs"], 0.0)
	left, err = os.ReadDir(place)
	require.NoError(t, err)
	require.Len(t, left, 1, "the store is kept")
	require.Equal(t, 600, len(contents(t, filepath.Join(place, left[0].Name(), "store"))))
}

// Where writes are promised nothing, some are lost, and the demonstration sees
// it: it would see it as well where they are promised something.
func TestDemoSeesLoss(t *testing.T) {
	src := tree(t, 300)
	for seed := range 10 {
		code, out, errs := forebayCmd("", "demo", "--from", src, "--dir", t.TempDir(), "--seed", fmt.Sprint(seed), "--level", "buffered", "--json")
		if code == 0 {
			continue // the process was killed when it had just written all
		}
		require.Equal(t, 1, code)
		require.Contains(t, errs, "acknowledged writes were lost")
		var got struct{ Lost, Acked int }
		require.NoError(t, json.Unmarshal([]byte(out), &got))
		require.Positive(t, got.Lost)
		require.LessOrEqual(t, got.Lost, got.Acked)
		return
	}
	t.Fatal("nothing was ever lost")
}
