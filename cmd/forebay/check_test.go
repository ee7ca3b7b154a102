package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay"
)

// spoil flips a bit of the first place in the files of a kind where text stands.
func spoil(t *testing.T, dir, pattern, text string) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, pattern))
	require.NoError(t, err)
	for _, name := range files {
		content, err := os.ReadFile(name)
		require.NoError(t, err)
		if at := bytes.Index(content, []byte(text)); at >= 0 {
			content[at] ^= 1
			require.NoError(t, os.WriteFile(name, content, 0o600))
			return name
		}
	}
	t.Fatalf("%q is in no %s", text, pattern)
	return ""
}

func TestCheck(t *testing.T) {
	dir := fill(t, map[string]string{"a": "needle", "b": "2"})
	fine(t, "checkpoint", dir)
	fine(t, "put", dir, "c", "haystack")
	before := listing(t, dir)
	require.Regexp(t, `(?m)^checked .* 1 segment with 2 versions, \d+ records? of the log; no damage$`, fine(t, "check", dir))
	require.Equal(t, before, listing(t, dir))

	segment := spoil(t, dir, "*.seg", "needle")
	log := spoil(t, dir, "*.log", "haystack")
	before = listing(t, dir)
	code, out, errs := forebayCmd("", "check", dir)
	require.Equal(t, 1, code)
	require.Contains(t, out, "damage: "+segment+" at offset 0: ")
	require.Contains(t, out, "damage: "+log+" at offset ")
	require.Contains(t, out, "2 damaged places")
	require.Contains(t, errs, "forebay salvage "+dir)
	var got struct {
		OK       bool
		Problems []struct {
			Severity, File, Reason string
			Offset                 int64
		}
	}
	code, out, _ = forebayCmd("", "check", dir, "--json")
	require.Equal(t, 1, code)
	require.NoError(t, json.Unmarshal([]byte(out), &got))
	require.False(t, got.OK)
	require.Len(t, got.Problems, 2)
	require.Equal(t, before, listing(t, dir))

	code, _, errs = forebayCmd("", "check", t.TempDir())
	require.Equal(t, 1, code)
	require.Contains(t, errs, "no store in")
}

func TestSalvage(t *testing.T) {
	dir := fill(t, map[string]string{"a": "1", "b": "2"})
	fine(t, "put", dir, "u", "needle", "--keyspace", "users")
	fine(t, "checkpoint", dir)
	for _, kv := range []string{"c haystack", "d 4"} {
		fine(t, append([]string{"put", dir}, strings.Fields(kv)...)...)
	}
	spoil(t, dir, "*.log", "haystack")
	before := listing(t, dir)
	code, _, errs := forebayCmd("", "get", dir, "a")
	require.Equal(t, 1, code)
	require.Contains(t, errs, "forebay salvage DIR DST")

	dst := filepath.Join(t.TempDir(), "saved")
	out := fine(t, "salvage", dir, dst)
	require.Contains(t, out, "lost, or perhaps lost:\n")
	require.Contains(t, out, "commits 5 to 5")
	require.Contains(t, out, "--beyond-holes")
	require.Equal(t, before, listing(t, dir), "it is not touched")
	require.Equal(t, "a\t1\nb\t2\n", fine(t, "scan", dst))
	require.Equal(t, "u\tneedle\n", fine(t, "scan", dst, "--keyspace", "users"))
	fine(t, "check", dst)

	var got struct {
		Lost, Keys int
		Losses     []struct{ File, Effect string }
	}
	require.NoError(t, json.Unmarshal([]byte(fine(t, "salvage", dir, dst+"2", "--beyond-holes", "--json")), &got))
	require.Positive(t, got.Lost)
	require.Equal(t, "a\t1\nb\t2\nd\t4\n", fine(t, "scan", dst+"2"))

	// A segment: the keys of the loss are told as keyspace and key.
	spoil(t, dir, "*.seg", "needle")
	require.Contains(t, fine(t, "salvage", dir, dst+"3"), `to [users] "u`)

	code, _, errs = forebayCmd("", "salvage", dir, dst)
	require.Equal(t, 1, code)
	require.Contains(t, errs, "new or empty")
	code, _, errs = forebayCmd("", "salvage", dir, filepath.Join(dir, "inside"))
	require.Equal(t, 1, code)
	require.Contains(t, errs, "outside")
	code, _, errs = forebayCmd("", "salvage", dir+"nowhere", dst+"4")
	require.Equal(t, 1, code)
	require.Contains(t, errs, "no directory")
	require.NoDirExists(t, dst+"4")
}

func TestCheckLocked(t *testing.T) {
	dir := fill(t, map[string]string{"a": "1"})
	db, err := forebay.Open(dir, nil)
	require.NoError(t, err)
	defer db.Close()
	for _, args := range [][]string{{"check", dir}, {"salvage", dir, filepath.Join(t.TempDir(), "saved")}} {
		code, out, errs := forebayCmd("", args...)
		require.Equal(t, 1, code)
		require.Empty(t, out)
		require.Contains(t, errs, "DB.Verify")
	}
}
