package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay"
)

// TestMain makes the test binary stand for the command where a test, or the
// demonstration under test, starts it as a process of its own.
func TestMain(m *testing.M) {
	const asCommand = "FOREBAY_TEST_AS_COMMAND"
	if os.Getenv(asCommand) != "" {
		os.Exit(process(os.Args[1:]))
	}
	os.Setenv(asCommand, "1")
	os.Exit(m.Run())
}

// forebayCmd runs the command in this process.
func forebayCmd(stdin string, args ...string) (code int, stdout, stderr string) {
	var out, errs bytes.Buffer
	code = run(context.Background(), args, strings.NewReader(stdin), &out, &errs)
	return code, out.String(), errs.String()
}

// fine runs the command, which must succeed, and returns what it printed.
func fine(t *testing.T, args ...string) string {
	t.Helper()
	code, out, errs := forebayCmd("", args...)
	require.Equal(t, 0, code, "%v: %s", args, errs)
	return out
}

// fill makes a store with these keys and values.
func fill(t *testing.T, entries map[string]string) (dir string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "store")
	db, err := forebay.Open(dir, nil)
	require.NoError(t, err)
	for k, v := range entries {
		require.NoError(t, db.Put([]byte(k), []byte(v)))
	}
	require.NoError(t, db.Close())
	return dir
}

func TestPutGetDel(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "s")
	fine(t, "put", dir, "greeting", "hello")
	require.Equal(t, "hello", fine(t, "get", dir, "greeting"))
	require.Equal(t, "68656c6c6f\n", fine(t, "get", dir, "6772656574696e67", "--hex"))
	require.JSONEq(t, `{"key":"greeting","value":"hello"}`, fine(t, "get", dir, "greeting", "--json"))

	fine(t, "put", dir, "ff00", "00fe", "--hex", "--level", "written")
	require.Equal(t, "\x00\xfe", fine(t, "get", dir, "\xff\x00"))
	require.JSONEq(t, `{"key_b64":"/wA=","value_b64":"AP4="}`, fine(t, "get", dir, "\xff\x00", "--json"))
	require.JSONEq(t, `{"key_hex":"ff00","value_hex":"00fe"}`, fine(t, "get", dir, "ff00", "--json", "--hex"))

	code, _, _ := forebayCmd("from a pipe", "put", dir, "piped")
	require.Equal(t, 0, code)
	require.Equal(t, "from a pipe", fine(t, "get", dir, "piped"))
	file := filepath.Join(t.TempDir(), "f")
	require.NoError(t, os.WriteFile(file, []byte("from a file"), 0o600))
	fine(t, "put", dir, "filed", "--file", file)
	require.Equal(t, "from a file", fine(t, "get", dir, "filed"))
	fine(t, "put", dir, "empty", "")
	require.JSONEq(t, `{"key":"empty","value":""}`, fine(t, "get", dir, "empty", "--json"))

	fine(t, "del", dir, "greeting", "piped", "never there")
	code, out, errs := forebayCmd("", "get", dir, "greeting")
	require.Equal(t, 1, code)
	require.Empty(t, out)
	require.Contains(t, errs, `no key "greeting"`)
}

func TestScan(t *testing.T) {
	dir := fill(t, map[string]string{"a": "1", "b": "2\n", "b/x": "3", "b\xff": "4", "c": ""})
	require.Equal(t, "a\t1\nb\t2\\n\nb/x\t3\nb\\xff\t4\nc\t\n", fine(t, "scan", dir))
	require.Equal(t, "b\nb/x\nb\\xff\n", fine(t, "scan", dir, "--prefix", "b", "--keys-only"))
	require.Equal(t, "b\nb/x\n", fine(t, "scan", dir, "--from", "aa", "--to", "b0", "--keys-only"))
	require.Equal(t, "b\\xff\nb/x\n", fine(t, "scan", dir, "--prefix", "b", "--from", "b/", "--reverse", "--keys-only"))
	require.Equal(t, "c\nb\\xff\n", fine(t, "scan", dir, "--reverse", "--limit", "2", "--keys-only"))
	require.Equal(t, "62ff\t34\n", fine(t, "scan", dir, "--hex", "--prefix", "62ff"))
	require.Equal(t, "{\"key_b64\":\"Yv8=\",\"value\":\"4\"}\n{\"key\":\"c\",\"value\":\"\"}\n", fine(t, "scan", dir, "--json", "--from", "b0"))
	require.Empty(t, fine(t, "scan", dir, "--from", "c", "--to", "a"))
	require.Empty(t, fine(t, "scan", dir, "--prefix", "zz"))
}

func TestStats(t *testing.T) {
	dir := fill(t, map[string]string{"a": "1", "b": "2"})
	out := fine(t, "stats", dir)
	require.Regexp(t, `(?m)^  verdict +clean$`, out)
	require.Regexp(t, `(?m)^  visible lsn +2$`, out)
	var got struct {
		Stats    map[string]any `json:"stats"`
		Recovery map[string]any `json:"recovery"`
	}
	require.NoError(t, json.Unmarshal([]byte(fine(t, "stats", dir, "--json")), &got))
	require.Equal(t, "clean", got.Recovery["verdict"])
	require.EqualValues(t, 2, got.Recovery["replayed"])
	require.Contains(t, got.Recovery, "duration_ms")
	require.EqualValues(t, 2, got.Stats["durable_lsn"])
	require.Contains(t, got.Stats, "log_syncs")
}

// Every mistake on the command line is code 2 and says what to do.
func TestUsage(t *testing.T) {
	dir := fill(t, map[string]string{"a": "1"})
	missing := filepath.Join(t.TempDir(), "nowhere")
	tests := []struct {
		args string
		want string
	}{
		{"", "needs a command"},
		{"scna", "did you mean scan"},
		{"get", "accepts 2 arg"},
		{"get DIR", "accepts 2 arg"},
		{"get DIR a b", "accepts 2 arg"},
		{"get DIR a --frob", "unknown flag: --frob"},
		{"get DIR xyz --hex", "not hexadecimal"},
		{"put DIR a b c", "arg(s)"},
		{"put DIR a b --level sturdy", "durable, written or buffered"},
		{"put DIR a b --file f", "not from both"},
		{"del DIR", "at least 2 arg"},
		{"scan", "accepts 1 arg"},
		{"scan DIR --limit -1", "below 0"},
		{"scan DIR --limit x", "invalid argument"},
		{"scan DIR --from x --hex", "not hexadecimal"},
		{"stats", "accepts 1 arg"},
		{"import DIR", "accepts 2 arg"},
		{"import DIR MISSING", "no file or directory"},
		{"import DIR - --format xml", "json, csv or tree"},
		{"import DIR - --format tree", "no directory"},
		{"import DIR/sub DIR", "lies inside"},
		{"export DIR", "accepts 2 arg"},
		{"export DIR MISSING", "tells no format"},
		{"export DIR - --format tree", "name a directory"},
		{"wal", "needs a command"},
		{"wal dmup", "did you mean dump"},
		{"wal dump", "argument"},
		{"wal dump DIR --frob", "unknown flag"},
		{"manifest dump", "argument"},
		{"recover DIR", "recover --explain"},
		{"segment", "needs a command"},
		{"segment dump", "argument"},
		{"find DIR", "two arguments"},
		{"find DIR x --hex", "not hexadecimal"},
		{"changes", "argument"},
		{"changes DIR --from 7", "EPOCH:LSN"},
		{"check", "accepts 1 arg"},
		{"salvage DIR", "accepts 2 arg"},
		{"backup DIR", "accepts 2 arg"},
		{"checkpoint", "accepts 1 arg"},
		{"compact DIR DIR", "accepts 1 arg"},
		{"keyspaces", "accepts 1 arg"},
		{"keyspaces drop DIR", "accepts 2 arg"},
		{"shell", "accepts 1 arg"},
		{"shell DIR --create --read-only", "exclude each other"},
		{"del DIR --range a", "two keys"},
		{"demo here", "unknown command"},
		{"demo --kills -1", "at least 0"},
		{"demo --from MISSING", "--from"},
	}
	for _, tt := range tests {
		t.Run(tt.args, func(t *testing.T) {
			args := strings.Fields(tt.args)
			for i := range args {
				args[i] = strings.NewReplacer("DIR", dir, "MISSING", missing).Replace(args[i])
			}
			code, out, errs := forebayCmd("", args...)
			require.Equal(t, 2, code, errs)
			require.Empty(t, out)
			require.Contains(t, errs, tt.want)
			require.Contains(t, errs, "--help\n")
			require.NoDirExists(t, missing)
		})
	}
}

// A directory that is not there is not found: code 1, as a key is.
func TestMissingDirectory(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "nowhere")
	for _, args := range [][]string{{"get", missing, "a"}, {"del", missing, "a"}, {"export", missing, "-"}, {"scan", missing}, {"recover", "--explain", missing}} {
		code, out, errs := forebayCmd("", args...)
		require.Equal(t, 1, code, args)
		require.Empty(t, out)
		require.Contains(t, errs, missing)
		require.NoDirExists(t, missing)
	}
}

// A reading command makes no store, and says where one would come from.
func TestNoStore(t *testing.T) {
	dir := t.TempDir()
	for _, args := range []string{"get DIR a", "del DIR a", "scan DIR", "stats DIR", "export DIR -",
		"keyspaces DIR", "keyspaces drop DIR x", "checkpoint DIR", "compact DIR", "shell DIR", "backup DIR DIR-copy", "check DIR", "salvage DIR DIR-copy"} {
		code, out, errs := forebayCmd("", strings.Fields(strings.ReplaceAll(args, "DIR", dir))...)
		require.Equal(t, 1, code, args)
		require.Empty(t, out)
		require.Contains(t, errs, "no store in "+dir)
		require.NoDirExists(t, dir+"-copy")
		entries, err := os.ReadDir(dir)
		require.NoError(t, err)
		require.Empty(t, entries)
	}
}

func TestLocked(t *testing.T) {
	dir := fill(t, map[string]string{"a": "1"})
	db, err := forebay.Open(dir, nil)
	require.NoError(t, err)
	defer db.Close()
	code, _, errs := forebayCmd("", "get", dir, "a")
	require.Equal(t, 1, code)
	require.Contains(t, errs, "open in another process")
}

// Damage is code 1, and a store without its manifest is damaged, not absent.
func TestDamaged(t *testing.T) {
	dir := fill(t, map[string]string{"a": "1"})
	manifests, err := filepath.Glob(filepath.Join(dir, "MANIFEST-*"))
	require.NoError(t, err)
	require.Len(t, manifests, 1)
	require.NoError(t, os.Remove(manifests[0]))
	code, _, errs := forebayCmd("", "get", dir, "a")
	require.Equal(t, 1, code)
	require.Contains(t, errs, "recover --explain")

	// One bit of what a mark proves.
	dir = fill(t, map[string]string{"a": "needle"})
	logs, err := filepath.Glob(filepath.Join(dir, "*.log"))
	require.NoError(t, err)
	for _, name := range logs {
		content, err := os.ReadFile(name)
		require.NoError(t, err)
		if at := bytes.Index(content, []byte("needle")); at >= 0 {
			content[at] ^= 1
			require.NoError(t, os.WriteFile(name, content, 0o600))
		}
	}
	code, _, errs = forebayCmd("", "scan", dir)
	require.Equal(t, 1, code)
	require.Contains(t, errs, "damaged")
}

// The commands that look into files are there, with their exit codes.
func TestInspect(t *testing.T) {
	dir := fill(t, map[string]string{"a": "1"})
	require.NotEmpty(t, fine(t, "wal", "dump", dir))
	require.NotEmpty(t, fine(t, "wal", "stats", dir))
	require.NotEmpty(t, fine(t, "manifest", "dump", dir))
	require.Contains(t, fine(t, "recover", "--explain", dir), "clean")
	code, _, errs := forebayCmd("", "wal", "dump", t.TempDir())
	require.Equal(t, 1, code, errs)
}

// Each command has a help text, with examples.
func TestHelp(t *testing.T) {
	var each func(cmd *cobra.Command, path ...string)
	each = func(cmd *cobra.Command, path ...string) {
		for _, sub := range cmd.Commands() {
			if !sub.Hidden && sub.Name() != "help" && sub.Name() != "completion" {
				each(sub, append(slices.Clone(path), sub.Name())...)
			}
		}
		require.Contains(t, fine(t, append(path, "--help")...), "Usage:", path)
		if cmd.Runnable() && !cmd.HasSubCommands() {
			require.NotEmpty(t, cmd.Long, path)
			require.NotEmpty(t, cmd.Example, path)
		}
	}
	each(newRoot())
	require.Contains(t, fine(t, "--version"), "forebay ")
	require.Contains(t, fine(t, "help"), "demo")
}
