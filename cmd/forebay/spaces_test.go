package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay"
)

func TestKeyspaceFlag(t *testing.T) {
	dir := fill(t, map[string]string{"a": "default"})
	fine(t, "put", dir, "a", "1", "--keyspace", "users")
	fine(t, "put", dir, "b", "2", "--keyspace", "users")
	require.Equal(t, "default", fine(t, "get", dir, "a"))
	require.Equal(t, "1", fine(t, "get", dir, "a", "--keyspace", "users"))
	require.Equal(t, "a\t1\nb\t2\n", fine(t, "scan", dir, "--keyspace", "users"))
	require.Equal(t, "a\n", fine(t, "scan", dir, "--keyspace", "users", "--lo", "a", "--hi", "b", "--keys-only"))
	fine(t, "del", dir, "a", "--keyspace", "users")
	require.Equal(t, "b\t2\n", fine(t, "scan", dir, "--keyspace", "users"))
	require.Equal(t, "a\tdefault\n", fine(t, "scan", dir))

	file := filepath.Join(t.TempDir(), "f.csv")
	fine(t, "export", dir, file, "--keyspace", "users")
	fine(t, "import", dir, file, "--keyspace", "copied")
	require.Equal(t, "b\t2\n", fine(t, "scan", dir, "--keyspace", "copied"))

	for _, args := range []string{"get DIR a", "scan DIR", "del DIR a", "stats DIR", "export DIR -"} {
		code, out, errs := forebayCmd("", append(strings.Fields(strings.Replace(args, "DIR", dir, 1)), "--keyspace", "nobody")...)
		require.Equal(t, 1, code, args)
		require.Empty(t, out)
		require.Contains(t, errs, `no such keyspace: "nobody"`)
		require.Contains(t, errs, "forebay keyspaces")
	}
}

func TestDelRange(t *testing.T) {
	dir := fill(t, map[string]string{"a": "1", "b": "2", "c": "3", "d": "4"})
	fine(t, "del", dir, "--range", "b", "d")
	require.Equal(t, "a\nd\n", fine(t, "scan", dir, "--keys-only"))
	fine(t, "del", dir, "--range", "", "6263", "--hex")
	require.Equal(t, "d\n", fine(t, "scan", dir, "--keys-only"))
	fine(t, "del", dir, "--range", "b", "")
	require.Empty(t, fine(t, "scan", dir))
	for _, args := range [][]string{{"del", dir, "--range", "b"}, {"del", dir, "--range", "a", "b", "c"}, {"del", dir, ""}} {
		code, _, errs := forebayCmd("", args...)
		require.Equal(t, 2, code, errs)
	}
}

func TestStatsLevels(t *testing.T) {
	dir := fill(t, map[string]string{"a": "1"})
	fine(t, "put", dir, "u", "1234", "--keyspace", "users")
	db, err := forebay.Open(dir, nil)
	require.NoError(t, err)
	require.NoError(t, db.Checkpoint(t.Context()))
	require.NoError(t, db.Close())
	out := fine(t, "stats", dir, "--keyspace", "users")
	require.Regexp(t, `(?m)^ +0 +1 +\d+ B +5 +0 +0$`, out)
	require.Regexp(t, `space amplification +1.00`, out)
	require.Regexp(t, `(?m)^  keys +1$`, out)
	var got struct {
		Stats struct {
			Levels []struct{ Segments, Versions int }
		}
		Disk     map[string]int64
		Keyspace struct {
			Name string
			Keys int
		}
	}
	require.NoError(t, json.Unmarshal([]byte(fine(t, "stats", dir, "--json", "--keyspace", "users")), &got))
	require.Len(t, got.Stats.Levels, 1)
	require.Equal(t, 5, got.Stats.Levels[0].Versions)
	require.Positive(t, got.Disk["log_bytes"])
	require.Equal(t, 1, got.Keyspace.Keys)
}

// TestReadingChangesNothing: commands that read work where nothing may be
// written, also where nobody has ever made the file that is locked.
func TestReadingChangesNothing(t *testing.T) {
	dir := fill(t, map[string]string{"a": "1"})
	fine(t, "put", dir, "u", "1234", "--keyspace", "users")
	require.NoError(t, os.Remove(filepath.Join(dir, "LOCK")))
	require.NoError(t, os.Chmod(dir, 0o555))
	defer os.Chmod(dir, 0o755)
	before := listing(t, dir)
	for _, args := range readers {
		fine(t, strings.Fields(strings.Replace(args, "DIR", dir, 1))...)
		require.Equal(t, before, listing(t, dir), args)
	}
}

// readers are command lines that open a store for reading alone.
var readers = []string{"get DIR a", "get DIR u --keyspace users", "scan DIR", "stats DIR", "stats DIR --keyspace users", "export DIR -", "keyspaces DIR", "find DIR a", "changes DIR", "find DIR u --keyspace users"}

// listing is names, contents and times of what is in a directory.
func listing(t *testing.T, dir string) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	out := map[string]string{}
	for _, e := range entries {
		content, err := os.ReadFile(filepath.Join(dir, e.Name()))
		require.NoError(t, err)
		info, err := e.Info()
		require.NoError(t, err)
		out[e.Name()] = info.ModTime().String() + string(content)
	}
	return out
}
