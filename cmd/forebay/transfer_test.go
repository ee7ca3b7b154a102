package main

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay"
)

// contents reads a whole store.
func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	db, err := forebay.Open(dir, nil)
	require.NoError(t, err)
	defer db.Close()
	got := map[string]string{}
	for e, err := range db.Range(nil, nil) {
		require.NoError(t, err)
		got[string(e.Key)] = string(e.Value)
	}
	return got
}

// nasty are entries that text formats like to spoil.
var nasty = map[string]string{
	"a": "plain", "b": "", "crlf": "x\r\ny\r", "quote": `a "b", 'c'`, "json": `{"key": 1}`, "html": "<&>", "sep": "\u2028\ufffd",
	"bin": "\x00\xff\xfe\r\n\"", "\xff\xfe": "key of no text", "\xef\xbb\xbfbom": "\xef\xbb\xbf", "nl\nkey": "\n", "comma,": ",", " space ": " ", "../up": "x",
	"key": "value", "long": strings.Repeat("0123456789abcdef", 20000), "tab": "\t\\t", "half": `\ud800`,
}

func TestExportImport(t *testing.T) {
	dir := fill(t, nasty)
	for _, flags := range [][]string{
		{"--format", "json"}, {"--format", "json", "--hex"}, {"--format", "csv"}, {"--format", "csv", "--hex"}, {"--format", "csv", "--header"},
	} {
		t.Run(strings.Join(flags, ""), func(t *testing.T) {
			tmp := t.TempDir()
			file := filepath.Join(tmp, "out")
			fine(t, append([]string{"export", dir, file}, flags...)...)
			if flags[1] == "json" {
				flags = flags[:2] // the fields say that they are hexadecimal
			}
			copied := filepath.Join(tmp, "copy")
			fine(t, append([]string{"import", copied, file}, flags...)...)
			require.Equal(t, nasty, contents(t, copied))

			// The same through standard output and input.
			out := fine(t, append([]string{"export", dir, "-"}, flags...)...)
			copied = filepath.Join(tmp, "copy2")
			code, _, errs := forebayCmd(out, append([]string{"import", copied, "-"}, flags...)...)
			require.Equal(t, 0, code, errs)
			require.Equal(t, nasty, contents(t, copied))

			code, _, errs = forebayCmd("", append([]string{"export", dir, file}, flags...)...)
			require.Equal(t, 1, code)
			require.Contains(t, errs, "--force")
			fine(t, append([]string{"export", dir, file, "--force"}, flags...)...)
			left, err := os.ReadDir(tmp)
			require.NoError(t, err)
			require.Len(t, left, 3, "temporary files are gone")
		})
	}
}

func TestImportTree(t *testing.T) {
	src := t.TempDir()
	want := map[string]string{}
	for i, name := range []string{"a", "dir/b", "dir/deep/c", "d.bin", "empty"} {
		want[name] = strings.Repeat("\x00\xff"+name, i*1000)
		if name == "empty" {
			want[name] = ""
		}
		path := filepath.Join(src, filepath.FromSlash(name))
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o777))
		require.NoError(t, os.WriteFile(path, []byte(want[name]), 0o666))
	}
	linked := runtime.GOOS != "windows" && os.Symlink("/etc/passwd", filepath.Join(src, "link")) == nil

	dir := filepath.Join(t.TempDir(), "s")
	var result struct{ Keys, Skipped int }
	require.NoError(t, json.Unmarshal([]byte(fine(t, "import", dir, src, "--json", "--level", "buffered")), &result))
	require.Equal(t, 5, result.Keys)
	if linked {
		require.Equal(t, 1, result.Skipped)
	}
	require.Equal(t, want, contents(t, dir))

	out := filepath.Join(t.TempDir(), "out")
	fine(t, "export", dir, out, "--format", "tree")
	again := filepath.Join(t.TempDir(), "s2")
	fine(t, "import", again, out)
	require.Equal(t, want, contents(t, again))

	code, _, errs := forebayCmd("", "export", dir, out)
	require.Equal(t, 1, code)
	require.Contains(t, errs, "not empty")
	fine(t, "export", dir, out, "--force", "--prefix", "dir/")
}

// No key leads out of the tree, and none is written under another name.
func TestExportTreeRefuses(t *testing.T) {
	for _, key := range []string{"../x", "/x", "a//b", "a/../b", "./a", "a/", "..", ".", "a/./b", "a\x00b"} {
		dir := fill(t, map[string]string{key: "evil"})
		parent := t.TempDir()
		code, _, errs := forebayCmd("", "export", dir, filepath.Join(parent, "out"), "--format", "tree")
		require.Equal(t, 1, code, key)
		require.Contains(t, errs, "--format json", key)
		left, err := os.ReadDir(parent)
		require.NoError(t, err)
		require.Len(t, left, 1, key)
		left, err = os.ReadDir(filepath.Join(parent, "out"))
		require.NoError(t, err)
		require.Empty(t, left, key)
	}
	dir := fill(t, map[string]string{"a": "file", "a/b": "below a file"})
	code, _, errs := forebayCmd("", "export", dir, filepath.Join(t.TempDir(), "out"), "--format", "tree")
	require.Equal(t, 1, code)
	require.Contains(t, errs, `"a/b"`)

	// A link in the tree is not followed out of it.
	if runtime.GOOS == "windows" {
		return
	}
	out, outside := t.TempDir(), t.TempDir()
	require.NoError(t, os.Symlink(outside, filepath.Join(out, "sub")))
	dir = fill(t, map[string]string{"sub/x": "evil"})
	code, _, _ = forebayCmd("", "export", dir, out, "--format", "tree", "--force")
	require.Equal(t, 1, code)
	left, err := os.ReadDir(outside)
	require.NoError(t, err)
	require.Empty(t, left)
}

// The format is found by name and by content; the last of two values counts.
func TestImportDetects(t *testing.T) {
	want := map[string]string{"a": "2", "b": "x"}
	for in, name := range map[string]string{
		"{\"key\":\"a\",\"value\":\"1\"}\n\n{\"key\":\"a\",\"value\":\"2\"}\n{\"key_b64\":\"Yg==\",\"value_hex\":\"78\"}": "",
		"a,1\na,2\r\n\n\"b\",\"x\"": "",
		"\xef\xbb\xbfa,2\nb,x\n":    ".csv",
		"\xef\xbb\xbf{\"key\":\"a\",\"value\":\"2\"}\n{\"key\":\"b\",\"value\":\"x\"}\n": ".jsonl",
	} {
		dir := filepath.Join(t.TempDir(), "s")
		source := "-"
		if name != "" {
			source = filepath.Join(t.TempDir(), "in"+name)
			require.NoError(t, os.WriteFile(source, []byte(in), 0o600))
		}
		code, _, errs := forebayCmd(in, "import", dir, source)
		require.Equal(t, 0, code, errs)
		require.Equal(t, want, contents(t, dir))
	}
	// Order holds over many batches.
	var in strings.Builder
	last := map[string]string{}
	for i := range 3000 {
		key, value := string(rune('a'+i%7)), strings.Repeat(string(rune('A'+i%26)), 2000)
		in.WriteString(key + "," + value + "\n")
		last[key] = value
	}
	dir := filepath.Join(t.TempDir(), "s")
	code, _, errs := forebayCmd(in.String(), "import", dir, "-")
	require.Equal(t, 0, code, errs)
	require.True(t, maps.Equal(last, contents(t, dir)))
}

// What is wrong in a source is told with its line.
func TestImportRefuses(t *testing.T) {
	for in, want := range map[string]string{
		`{"key":"a"}`:                                                     "line 1: it needs one of value",
		`{"value":"a"}`:                                                   "one of key",
		`{"key":"a","value":1}`:                                           "line 1",
		`{"key":"a","value":"b","x":1}`:                                   "unknown field",
		`{"key":"a","key_b64":"YQ==","value":""}`:                         "has 2 of them",
		`{"key_b64":"?","value":""}`:                                      "base64",
		"{\"key\":\"a\",\"value\":\"\xff\"}":                              "not UTF-8",
		`{"key":"a","value":"\ud800"}`:                                    "half a surrogate",
		`{"key":"a","value":"1"}{"key":"b","value":"2"}`:                  "more than one object",
		"{\"key\":\"a\",\"value\":\"1\"}\n{\"key\":\"\",\"value\":\"1\"}": "line 2",
		"a,b\nc":        "line 2: 1 fields",
		"a,b,c":         "line 1: 3 fields",
		"a,\"b":         "inside quotes",
		"a,\"b\"c":      "after closing quotes",
		"a\nb\"c,d":     "1 fields",
		"a,b\"c":        "without quotes",
		"a,b\n\n\n,x\n": "line 4",
	} {
		code, _, errs := forebayCmd(in, "import", filepath.Join(t.TempDir(), "s"), "-")
		require.Equal(t, 1, code, in)
		require.Contains(t, errs, want, in)
	}
	big := filepath.Join(t.TempDir(), "src")
	require.NoError(t, os.Mkdir(big, 0o777))
	f, err := os.Create(filepath.Join(big, "big"))
	require.NoError(t, err)
	require.NoError(t, f.Truncate(forebay.MaxValueSize+1))
	require.NoError(t, f.Close())
	code, _, errs := forebayCmd("", "import", filepath.Join(t.TempDir(), "s"), big)
	require.Equal(t, 1, code)
	require.Contains(t, errs, "values 33.6 MB")
}
