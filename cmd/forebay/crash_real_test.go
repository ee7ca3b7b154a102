package main

import (
	"encoding/json"
	"errors"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

// Real processes are killed; that nothing is lost is tested in fuzz/real.
func TestCrashKill(t *testing.T) {
	place := t.TempDir()
	var got map[string]any
	require.NoError(t, json.Unmarshal([]byte(fine(t, "crash", "kill", "--count", "8", "--dir", place, "--json")), &got))
	require.Equal(t, 8.0, got["kills"])
	require.Equal(t, 0.0, got["lost"])
	for _, name := range []string{"seed", "phases", "acknowledged", "in_flight", "seconds"} {
		require.Contains(t, got, name)
	}
	left, err := os.ReadDir(place)
	require.NoError(t, err)
	require.Empty(t, left, "the stores are removed")
	require.Regexp(t, `(?m)^  lost +0$`, fine(t, "crash", "kill", "--count", "2", "--seed", "5", "--dir", place))
	code, _, errs := forebayCmd("", "crash", "kill", "--count", "0")
	require.Equal(t, 2, code)
	require.Contains(t, errs, "--count is at least 1")
}

// Where power cannot be cut the command says what it needs; where it can, and
// that was asked for, it does.
func TestCrashPower(t *testing.T) {
	for _, name := range []string{"power", "model"} {
		if os.Getenv("FOREBAY_REAL") != "" {
			require.Contains(t, fine(t, "crash", name, "--count", "6"), "6 power cuts")
			continue
		}
		code, _, errs := forebayCmd("", "crash", name, "--fs", "fat")
		require.Equal(t, 1, code)
		require.Regexp(t, "real power cuts need Linux, root|there are file systems ext4 and xfs", errs)
	}
	_, err := os.Stat("/proc/mounts")
	if errors.Is(err, os.ErrNotExist) {
		return
	}
	mounts, err := os.ReadFile("/proc/mounts")
	require.NoError(t, err)
	require.NotContains(t, string(mounts), "forebay-power-")
	require.NotContains(t, string(mounts), "forebay-model-")
}
