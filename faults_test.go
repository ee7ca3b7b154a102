package forebay_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/vfs"
)

// TestFaultsAreShown: every row of docs/faults.md names tests, and each of them
// exists in the package that the row says.
func TestFaultsAreShown(t *testing.T) {
	tests := map[string][]string{} // packages by test
	require.NoError(t, filepath.WalkDir(".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(name, "_test.go") {
			return err
		}
		b, err := os.ReadFile(name)
		for _, m := range regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`).FindAllStringSubmatch(string(b), -1) {
			tests[m[1]] = append(tests[m[1]], filepath.ToSlash(filepath.Dir(name)))
		}
		return err
	}))
	doc, err := os.ReadFile("docs/faults.md")
	require.NoError(t, err)
	var rows []string
	for _, row := range regexp.MustCompile(`(?m)^\| (\d+) \|.*\|$`).FindAllStringSubmatch(string(doc), -1) {
		rows = append(rows, row[1])
		cells := strings.Split(row[0], "|")
		shown := strings.TrimSpace(cells[len(cells)-2])
		require.NotEmpty(t, shown, "row %s has no test", row[1])
		for _, part := range strings.Split(shown, ";") {
			packages := []string{"."}
			if _, in, ok := strings.Cut(part, "("); ok {
				packages = strings.Split(strings.TrimSuffix(strings.TrimSpace(in), ")"), ", ")
			}
			names := regexp.MustCompile("`(\\w+)`").FindAllStringSubmatch(part, -1)
			require.NotEmpty(t, names, "row %s: %q names no test", row[1], part)
			for _, name := range names {
				for _, p := range packages {
					require.Contains(t, tests[name[1]], p, "row %s: %s", row[1], name[1])
				}
			}
		}
	}
	want := []string{}
	for n := 1; n <= 51; n++ {
		if n != 15 && n != 36 && n != 49 { // there are no such rows
			want = append(want, fmt.Sprint(n))
		}
	}
	require.Equal(t, want, rows)
}

// TestCopiedWhileWritten copies a store file by file while it is written to, as a
// careless backup would. The copy opens as a prefix, or it does not open.
func TestCopiedWhileWritten(t *testing.T) {
	opened, refused := 0, 0
	for seed := range uint64(60) {
		rng := rand.New(rand.NewPCG(seed, 25))
		mem := vfs.NewMem()
		opts := &forebay.Options{FS: mem, LogFileSize: 16 << 10, MemtableSize: 16 << 10, MarkDelay: -1}
		db, err := forebay.Open("db", opts)
		require.NoError(t, err)
		// After commit n the store holds n of 20 keys, by turns, each with the number
		// of the commit that was its last.
		n := 0
		work := func(steps int) {
			for range steps {
				n++
				require.NoError(t, db.Put(fmt.Appendf(nil, "key %02d", n%20), fmt.Appendf(nil, "%06d %s", n, strings.Repeat("v", rng.IntN(800)))))
				if rng.IntN(30) == 0 {
					require.NoError(t, db.Checkpoint(context.Background()))
				}
				if rng.IntN(60) == 0 {
					require.NoError(t, db.Compact(context.Background()))
				}
			}
		}
		work(1 + rng.IntN(100))
		before := n
		copied := vfs.NewMem()
		require.NoError(t, copied.MkdirAll("db"))
		names, err := mem.List("db")
		require.NoError(t, err)
		rng.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
		for _, name := range names {
			work(rng.IntN(12))
			from := filepath.Join("db", name)
			if _, err := mem.Stat(from); errors.Is(err, fs.ErrNotExist) {
				continue // gone meanwhile
			}
			f, err := copied.Create(from, vfs.ReadWrite)
			require.NoError(t, err)
			_, err = f.WriteAt(mem.Bytes(from), 0)
			require.NoError(t, err)
			require.NoError(t, f.Close())
		}
		require.NoError(t, db.Close())
		opts.FS = copied
		again, err := forebay.Open("db", opts)
		if err != nil {
			var damage *forebay.CorruptionError
			require.ErrorAs(t, err, &damage, "seed %d", seed)
			refused++
			continue
		}
		opened++
		last := int(again.LastLSN())
		require.LessOrEqual(t, last, n, "seed %d", seed)
		found := 0
		var damage *forebay.CorruptionError
		for e, err := range again.Range(nil, nil) {
			if errors.As(err, &damage) {
				found = -1
				break
			}
			require.NoError(t, err, "seed %d", seed)
			found++
			require.Equal(t, fmt.Sprintf("%06d", lastOf(last, string(e.Key))), string(e.Value[:6]), "seed %d: %s in S(%d), %d commits were made before the copy began", seed, e.Key, last, before)
		}
		if found >= 0 {
			require.Equal(t, min(last, 20), found, "seed %d", seed)
		}
		require.NoError(t, again.Close())
	}
	t.Logf("of 60 copies %d opened, %d were refused", opened, refused)
}

// lastOf is the last commit up to n that wrote a key of TestCopiedWhileWritten.
func lastOf(n int, key string) int {
	var k int
	fmt.Sscanf(key, "key %d", &k)
	for n%20 != k {
		n--
	}
	return n
}

// TestSnapshotBesideCompactions: what a snapshot and an iterator of it see stays,
// however often the segments under them are merged and removed.
func TestSnapshotBesideCompactions(t *testing.T) {
	mem := vfs.NewMem()
	db, err := forebay.Open("db", &forebay.Options{FS: mem, LogFileSize: 16 << 10, MemtableSize: 16 << 10})
	require.NoError(t, err)
	defer db.Close()
	put := func(round int) {
		for i := range 100 {
			require.NoError(t, db.Put(fmt.Appendf(nil, "%03d", i), fmt.Appendf(nil, "%d", round)))
		}
	}
	put(0)
	require.NoError(t, db.Checkpoint(context.Background()))
	snap, err := db.Snapshot()
	require.NoError(t, err)
	defer snap.Close()
	next := 0
	for e, err := range snap.Range(nil, nil) { // goes on while all this happens
		require.NoError(t, err)
		require.Equal(t, fmt.Sprintf("%03d", next), string(e.Key))
		require.Equal(t, "0", string(e.Value))
		if next++; next%10 == 0 {
			put(next)
			require.NoError(t, db.DeleteRange([]byte("050"), nil))
			require.NoError(t, db.Compact(context.Background()))
		}
	}
	require.Equal(t, 100, next)
	v, err := snap.Get([]byte("099"))
	require.NoError(t, err)
	require.Equal(t, "0", string(v))
	_, err = db.Get([]byte("099"))
	require.ErrorIs(t, err, forebay.ErrNotFound)
}
