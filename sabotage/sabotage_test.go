package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func testRoot(t *testing.T) string {
	t.Helper()
	root, err := moduleRoot()
	require.NoError(t, err)
	return root
}

// TestSwitches: each ordering rule and each exception still is of the code, each
// switch has a number and a name of its own, and there are enough of each kind.
func TestSwitches(t *testing.T) {
	o, err := rewrite(testRoot(t))
	require.NoError(t, err)
	require.NoError(t, fitExceptions(o.sites))
	numbers, names, n := map[int]bool{}, map[string]bool{}, map[string]int{}
	for i := range o.sites {
		s := &o.sites[i]
		require.False(t, numbers[s.N], "two switches have number %d", s.N)
		require.False(t, names[s.name()], "two switches are %s", s.name())
		numbers[s.N], names[s.name()] = true, true
		n[s.Kind]++
	}
	for _, k := range kinds {
		require.Positive(t, n[k], "switches of kind %s", k)
	}
	require.GreaterOrEqual(t, n[kindSync]+n[kindDirSync]+n[kindChecksum]+n[kindOrder], 50)
	again, err := rewrite(testRoot(t))
	require.NoError(t, err)
	require.Equal(t, o, again)
}

// TestCaught builds the overlay and looks that a switch of each of some kinds is
// caught, and that nothing is where none is on.
func TestCaught(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the module")
	}
	o, err := rewrite(testRoot(t))
	require.NoError(t, err)
	exe, err := o.build(testRoot(t), t.TempDir())
	require.NoError(t, err)
	h := &hunter{exe: exe, budget: time.Minute} // without forged bytes, which take long to make
	for _, name := range []string{
		"wal/sync.go Log.sync: if err := l.timed(w, f.f.SyncData); err != nil {",
		"internal/editlog/editlog.go Writer.rotate: if err := w.fsys.SyncDir(w.dir); err != nil {",
		"wal/frame/reader.go Reader.Next: if hash != closingHash(payload, sum) {",
		"wal/lead.go Log.append: l.poisonWith(err)",
		"checkpoint/checkpoint.go Settle: the replay start is not above what is settled",
	} {
		found := false
		for i := range o.sites {
			if s := &o.sites[i]; s.name() == name {
				found = true
				r := h.hunt(s)
				require.True(t, r.Caught, "%s: %s", name, r.outcome())
				t.Logf("%s\n%s: %s", s.String(), r.Hunt, r.What)
			}
		}
		require.True(t, found, "no switch is %s", name)
	}
	h.budget = 2 * time.Second
	r := h.hunt(&site{Kind: kindOrder})
	require.False(t, r.Caught, "%s: %s", r.Hunt, r.What)
}

const sampleFile = `package x

import "errors"

func (r *T) read(b []byte) error {
	if len(b) < 8 {
		return corrupt(0, "too short")
	}
	switch {
	case b[0] != 1, b[1] != 2:
		return corrupt(0, "kind")
	case hash != 7:
		return &CorruptionError{}
	default:
		r.n++
	}
	if err := r.f.Sync(); err != nil {
		r.poisonWith(err)
		return err
	}
	return r.dir.SyncDir("x")
}
`

// TestRewrite shows what each kind of site becomes.
func TestRewrite(t *testing.T) {
	n := 0
	text, sites, err := rewriteFile("x.go", []byte(sampleFile), func() int { n++; return n })
	require.NoError(t, err)
	var got []string
	for i := range sites {
		got = append(got, sites[i].String())
	}
	require.Equal(t, []string{
		`  1 bound    x.go:6 T.read: if len(b) < 8 {`,
		`  2 bound    x.go:10 T.read: case b[0] != 1, b[1] != 2:`,
		`  3 checksum x.go:12 T.read: case hash != 7:`,
		`  4 sync     x.go:17 T.read: if err := r.f.Sync(); err != nil {`,
		`  5 poison   x.go:18 T.read: r.poisonWith(err)`,
		`  6 dirsync  x.go:21 T.read: return r.dir.SyncDir("x")`,
	}, got)
	for _, want := range []string{
		`package x; import "github.com/forebaydb/forebay/internal/sabotaged"`,
		`if sabotaged.Check(1, len(b) < 8) {`,
		`case sabotaged.Check(2, b[0] != 1), sabotaged.Check(2, b[1] != 2):`,
		`if err := sabotaged.Err(4, func() error { return r.f.Sync() }, nil); err != nil {`,
		`if !sabotaged.On(5) { r.poisonWith(err) }`,
	} {
		require.Contains(t, text, want)
	}
	require.Equal(t, strings.Count(sampleFile, "\n"), strings.Count(text, "\n"), "lines stay where they are")
}

// TestNoHook: no build but the command's own has switches.
func TestNoHook(t *testing.T) {
	_, err := os.Stat(filepath.Join(testRoot(t), filepath.FromSlash(hookDir)))
	require.ErrorIs(t, err, os.ErrNotExist)
}
