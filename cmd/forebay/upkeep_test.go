package main

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay"
)

func TestBackup(t *testing.T) {
	dir := fill(t, map[string]string{"a": "1", "b": "2"})
	fine(t, "put", dir, "u", "3", "--keyspace", "users")
	dst := filepath.Join(t.TempDir(), "copy")
	require.Regexp(t, `backed up .* in 1 segment, as of commit \d+:4 `, fine(t, "backup", dir, dst))
	// It is read where nobody may write, before it was ever opened.
	before := listing(t, dst)
	require.Equal(t, "a\t1\nb\t2\n", fine(t, "scan", dst))
	require.Equal(t, "3", fine(t, "get", dst, "u", "--keyspace", "users"))
	require.Equal(t, before, listing(t, dst))

	code, _, errs := forebayCmd("", "backup", dir, dst)
	require.Equal(t, 1, code)
	require.Contains(t, errs, "not empty")
	code, _, errs = forebayCmd("", "backup", dir, filepath.Join(dir, "copy"))
	require.Equal(t, 2, code)
	require.Contains(t, errs, "inside")

	var got map[string]any
	require.NoError(t, json.Unmarshal([]byte(fine(t, "backup", dir, dst+"2", "--json")), &got))
	require.EqualValues(t, 4, got["lsn"])

	db, err := forebay.Open(dir, nil)
	require.NoError(t, err)
	defer db.Close()
	code, _, errs = forebayCmd("", "backup", dir, dst+"3")
	require.Equal(t, 1, code)
	require.Contains(t, errs, "DB.Backup")
	require.NoDirExists(t, dst+"3")
}

func TestCheckpointAndCompact(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "s")
	for i := range 3 {
		fine(t, "put", dir, fmt.Sprint("k", i), "v")
		require.Contains(t, fine(t, "checkpoint", dir), "settled in ")
	}
	fine(t, "del", dir, "k0", "k1")
	var got struct {
		Before, After struct{ Segments, Versions, Tombstones int }
	}
	require.NoError(t, json.Unmarshal([]byte(fine(t, "compact", dir, "--json")), &got))
	require.Equal(t, 3, got.Before.Segments)
	require.Equal(t, 1, got.After.Segments)
	require.Equal(t, 1, got.After.Versions)
	require.Zero(t, got.After.Tombstones)
	require.Regexp(t, `segments +1 → 1\n`, fine(t, "compact", dir))
	require.Equal(t, "k2\tv\n", fine(t, "scan", dir))
}

func TestKeyspaces(t *testing.T) {
	dir := fill(t, map[string]string{"a": "1"})
	require.Regexp(t, `^ +keys +bytes  name\n +1 +2 B  \(the default one\)\n$`, fine(t, "keyspaces", dir))
	fine(t, "put", dir, "k", "12345", "--keyspace", "users")
	fine(t, "put", dir, "k", "1", "--keyspace", "odd\nname")
	require.Equal(t, "odd\\nname\nusers\n", fine(t, "keyspaces", dir, "--names"))
	require.Equal(t, `{"name":"","keys":1,"key_bytes":1,"value_bytes":1}
{"name":"odd\nname","keys":1,"key_bytes":1,"value_bytes":1}
{"name":"users","keys":1,"key_bytes":1,"value_bytes":5}
`, fine(t, "keyspaces", dir, "--json"))
	fine(t, "keyspaces", "drop", dir, "users")
	require.Equal(t, "odd\\nname\n", fine(t, "keyspaces", dir, "--names"))
	code, _, errs := forebayCmd("", "keyspaces", "drop", dir, "users")
	require.Equal(t, 1, code)
	require.Contains(t, errs, "no such keyspace")
	code, _, _ = forebayCmd("", "keyspaces", "drop", dir, "")
	require.Equal(t, 2, code)
	fine(t, "put", dir, "k", "again", "--keyspace", "users")
	require.Equal(t, "k\tagain\n", fine(t, "scan", dir, "--keyspace", "users"))
}
