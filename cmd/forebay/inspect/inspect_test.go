package inspect

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/vfs"
	"github.com/forebaydb/forebay/wal"
	"github.com/forebaydb/forebay/wal/frame"
)

var update = flag.Bool("update", false, "write the golden files anew")

// counter is a source of ids and salts that repeats.
type counter byte

func (c *counter) Read(p []byte) (int, error) {
	for i := range p {
		*c++
		p[i] = byte(*c)
	}
	return len(p), nil
}

// invoke runs a command line over a file system.
func invoke(fsys vfs.FS, args ...string) (string, error) {
	root := &cobra.Command{Use: "forebay", SilenceErrors: true, SilenceUsage: true}
	root.AddCommand(commands(fsys)...)
	var out bytes.Buffer
	root.SetOut(&out)
	root.SetErr(&out)
	root.SetArgs(args)
	err := root.Execute()
	return out.String(), err
}

// code returns the exit code that an error asks for.
func code(t testing.TB, err error) int {
	if err == nil {
		return 0
	}
	var e *ExitError
	require.ErrorAs(t, err, &e)
	return e.Code
}

// golden compares what command lines say with a file in testdata.
func golden(t *testing.T, name string, fsys vfs.FS, lines ...string) {
	t.Helper()
	var all strings.Builder
	for _, line := range lines {
		out, err := invoke(fsys, strings.Fields(line)...)
		fmt.Fprintf(&all, "$ forebay %s\n%s", line, out)
		if err != nil {
			fmt.Fprintf(&all, "exit %d: %v\n", code(t, err), err)
		}
		all.WriteByte('\n')
	}
	path := filepath.Join("testdata", name+".golden")
	if *update {
		require.NoError(t, os.MkdirAll("testdata", 0o755))
		require.NoError(t, os.WriteFile(path, []byte(all.String()), 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, string(want), all.String())
}

func options(fsys vfs.FS) *forebay.Options {
	return &forebay.Options{FS: fsys, Rand: new(counter), MarkDelay: -1, LogFileSize: 16 << 10, MemtableSize: 32 << 10}
}

// small writes a store of a few commits in db and closes it unless it is to
// look as after a crash.
func small(t testing.TB, crash bool) *vfs.Mem {
	mem := vfs.NewMem()
	db, err := forebay.Open("db", options(mem))
	require.NoError(t, err)
	put := func(k, v string) { require.NoError(t, db.Put([]byte(k), []byte(v))) }
	put("apple", "green")
	put("pear", "yellow")
	require.NoError(t, db.Checkpoint(context.Background()))
	put("plum", "blue")
	b := db.NewBatch()
	require.NoError(t, b.Delete([]byte("pear")))
	require.NoError(t, b.Put([]byte("fig"), []byte("a long value, so that it does not fit on one line")))
	require.NoError(t, db.Apply(b, forebay.Durable))
	put("quince", "\x00\x01\xff")
	if crash {
		mem = mem.Snapshot()
		db.Close()
		return mem
	}
	require.NoError(t, db.Close())
	return mem
}

func TestGoldenClosed(t *testing.T) {
	golden(t, "closed", small(t, false),
		"wal dump db --records", "wal dump db/000001.log --records --hex", "wal stats db", "manifest dump db", "manifest dump db --edits",
		"recover --explain db", "wal hex db/000001.log")
}

func TestGoldenCrashed(t *testing.T) {
	golden(t, "crashed", small(t, true), "wal dump db", "recover --explain db", "recover --explain db --json")
}

func TestGoldenJSON(t *testing.T) {
	golden(t, "json", small(t, false), "wal dump db --records --json", "wal stats db --json", "manifest dump db --edits --json",
		"recover --explain db --json", "wal hex db/000001.log --json --from 0x200 --to 0x2a0")
}

func flip(t testing.TB, mem *vfs.Mem, name string, at int64, bit uint8) {
	require.NoError(t, mem.Corrupt(name, at, 1, func(b []byte) { b[0] ^= 1 << bit }))
}

// TestGoldenFlipped: one bit in a record that a later frame proves durable.
func TestGoldenFlipped(t *testing.T) {
	mem := small(t, false)
	at := int64(bytes.Index(mem.Bytes("db/000001.log"), []byte("blue")))
	flip(t, mem, "db/000001.log", at, 5)
	golden(t, "flipped", mem, "wal dump db", "wal stats db/000001.log", "recover --explain db", "recover --explain db --json",
		fmt.Sprintf("wal hex db/000001.log --from %d --to %d", at-80, at+40))
}

// TestGoldenTorn: the last frame of a crashed store is cut short.
func TestGoldenTorn(t *testing.T) {
	mem := small(t, true)
	b := mem.Bytes("db/000001.log")
	at := int64(bytes.Index(b, []byte("quince")))
	require.NoError(t, mem.Corrupt("db/000001.log", at, 40, func(b []byte) { clear(b) }))
	golden(t, "torn", mem, "wal dump db/000001.log", "recover --explain db", fmt.Sprintf("wal hex db/000001.log --from %d", at-80))
}

func TestGoldenManifestDamaged(t *testing.T) {
	mem := small(t, false)
	flip(t, mem, "db/MANIFEST-000001", 5*4096+70, 1)
	golden(t, "manifest-damaged", mem, "manifest dump db", "manifest dump db/MANIFEST-000001", "recover --explain db", "wal dump db")
}

// alone writes a log that is used alone.
func alone(t testing.TB) *vfs.Mem {
	mem := vfs.NewMem()
	l, err := wal.Open("log", &wal.Options{FS: mem, Rand: new(counter), MarkDelay: -1, FileSize: 16 << 10})
	require.NoError(t, err)
	for i := range 4 {
		require.NoError(t, l.Commit(&wal.Request{Records: []wal.Record{{Data: fmt.Appendf(nil, "entry %d", i), Keep: uint64(i)}}}))
	}
	require.NoError(t, l.Close())
	return mem
}

func TestGoldenAlone(t *testing.T) {
	golden(t, "alone", alone(t), "wal dump log --records", "wal stats log", "manifest dump log --edits", "recover --explain log", "manifest dump log/CATALOG-000001 --json")
}

// TestGoldenKeyspaces: keys are shown as keyspace and user key, everywhere.
func TestGoldenKeyspaces(t *testing.T) {
	mem := vfs.NewMem()
	db, err := forebay.Open("db", options(mem))
	require.NoError(t, err)
	users, err := db.Keyspace("users")
	require.NoError(t, err)
	odd, err := db.Keyspace("odd \"[\xff")
	require.NoError(t, err)
	require.NoError(t, users.Put([]byte("ann"), []byte("1")))
	require.NoError(t, db.Put([]byte("plain"), []byte("2")))
	require.NoError(t, users.DeleteRange([]byte("b"), nil))
	require.NoError(t, db.Checkpoint(context.Background()))
	b := db.NewBatch()
	require.NoError(t, b.In(users).DeleteRange(nil, []byte("a\x00")))
	require.NoError(t, b.In(odd).Put([]byte("k"), []byte("3")))
	require.NoError(t, b.Delete([]byte("plain")))
	require.NoError(t, db.Apply(b, forebay.Durable))
	b.Reset()
	require.NoError(t, b.DeleteRange([]byte("x"), nil))
	require.NoError(t, b.In(users).DeleteRange(nil, []byte("c")))
	require.NoError(t, db.Apply(b, forebay.Durable))
	require.NoError(t, db.DropKeyspace("users"))
	require.NoError(t, db.Close())
	golden(t, "keyspaces", mem, "wal dump db --records", "wal dump db/000001.log --records --json", "manifest dump db", "manifest dump db --json",
		"wal hex db/000001.log --from 0x200 --to 0x320")
}

func TestGoldenMissingFile(t *testing.T) {
	mem := small(t, false)
	require.NoError(t, mem.Remove("db/000001.log"))
	golden(t, "missing", mem, "recover --explain db", "wal dump db")
}

func TestUsage(t *testing.T) {
	mem := small(t, false)
	require.NoError(t, mem.MkdirAll("empty"))
	for line, want := range map[string]int{
		"recover db":                              2,
		"recover --explain":                       2,
		"recover --explain db/000001.log":         2,
		"recover --explain nowhere":               1,
		"recover --explain empty":                 1,
		"wal dump":                                2,
		"wal dump --nonsense db":                  2,
		"wal dump nowhere":                        1,
		"wal dump empty":                          1,
		"wal hex db":                              2,
		"wal hex db/000001.log --color=pink":      2,
		"wal hex db/000001.log --from x":          2,
		"wal hex db/000001.log --from 9 --to 9":   2,
		"wal hex db/MANIFEST-000001":              0,
		"wal stats empty":                         1,
		"manifest dump db/000001.log":             2,
		"manifest dump db db":                     2,
		"wal hex db/LOCK":                         1,
		"wal hex db/000001.log --from=0xffffffff": 0,
	} {
		_, err := invoke(mem, strings.Fields(line)...)
		require.Equal(t, want, code(t, err), "%s: %v", line, err)
	}
	_, err := invoke(mem, "recover", "db")
	require.ErrorContains(t, err, "Open recovers a store by itself")
}

func TestColours(t *testing.T) {
	mem := small(t, false)
	out, err := invoke(mem, "wal", "hex", "db/000001.log")
	require.NoError(t, err)
	require.NotContains(t, out, "\x1b")
	painted, err := invoke(mem, "wal", "hex", "--color=always", "db/000001.log")
	require.NoError(t, err)
	require.Contains(t, painted, "\x1b[32m")
	for _, c := range []string{red, green, yellow, blue, magenta, cyan, dim, bold} {
		painted = strings.ReplaceAll(painted, "\x1b["+c+"m", "")
	}
	require.Equal(t, out, strings.ReplaceAll(painted, "\x1b[0m", ""))
	t.Setenv("NO_COLOR", "1")
	c, err := wantColours("auto", os.Stdout)
	require.NoError(t, err)
	require.False(t, bool(c))
}

// TestHexNamesEveryByte: without collapsed runs, the JSON has each byte once.
func TestHexNamesEveryByte(t *testing.T) {
	mem := small(t, true)
	for _, name := range []string{"db/000001.log", "db/MANIFEST-000001"} {
		out, err := invoke(mem, "wal", "hex", "--json", name)
		require.NoError(t, err)
		at := int64(0)
		for _, line := range strings.Split(strings.TrimSpace(out), "\n") {
			var f hexField
			require.NoError(t, json.Unmarshal([]byte(line), &f))
			if f.Field == "" {
				continue // the end
			}
			require.Equal(t, at, f.Offset)
			require.True(t, f.OK, line)
			at += f.Length
		}
		require.Equal(t, int64(len(mem.Bytes(name))), at)
	}
}

type entry struct {
	data  string
	mtime time.Time
}

func listing(t *testing.T, dir string) map[string]entry {
	out := map[string]entry{}
	require.NoError(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		require.NoError(t, err)
		info, err := d.Info()
		require.NoError(t, err)
		e := entry{mtime: info.ModTime()}
		if !d.IsDir() {
			b, err := os.ReadFile(path)
			require.NoError(t, err)
			e.data = string(b)
		}
		out[path] = e
		return nil
	}))
	return out
}

// TestNothingChanges: no command changes a byte, a name or a time, be the store
// whole or damaged.
func TestNothingChanges(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "db")
	o := options(nil)
	db, err := forebay.Open(dir, o)
	require.NoError(t, err)
	for i := range 200 {
		require.NoError(t, db.Put(fmt.Appendf(nil, "key %d", i), make([]byte, 300)))
	}
	require.NoError(t, db.Checkpoint(context.Background()))
	require.NoError(t, db.Put([]byte("last"), []byte("one")))
	all := func(want ...int) {
		t.Helper()
		logs, err := filepath.Glob(filepath.Join(dir, "*.log"))
		require.NoError(t, err)
		before := listing(t, dir)
		for _, args := range [][]string{
			{"recover", "--explain", dir}, {"recover", "--explain", "--json", dir}, {"wal", "dump", "--records", dir},
			{"wal", "stats", dir}, {"manifest", "dump", "--edits", dir}, {"wal", "hex", logs[0]},
		} {
			root := &cobra.Command{Use: "forebay", SilenceErrors: true}
			root.AddCommand(Commands()...)
			root.SetOut(&bytes.Buffer{})
			root.SetArgs(args)
			require.Contains(t, want, code(t, root.Execute()), "%v", args)
		}
		require.Equal(t, before, listing(t, dir))
	}
	require.NoError(t, db.Close())
	all(0)
	logs, err := filepath.Glob(filepath.Join(dir, "*.log"))
	require.NoError(t, err)
	b, err := os.ReadFile(logs[len(logs)-1])
	require.NoError(t, err)
	b[600] ^= 1
	require.NoError(t, os.WriteFile(logs[len(logs)-1], b, 0o600))
	all(0, 1)
}

// TestWhileOpen looks at a store to which a process writes all the time: it is
// never taken for damaged.
func TestWhileOpen(t *testing.T) {
	const dir = "db"
	mem := vfs.NewMem() // its syncs cost nothing: the store moves fast
	o := options(mem)
	o.MarkDelay, o.LogFileSize, o.MemtableSize = 0, 4<<20, 4<<20
	db, err := forebay.Open(dir, o)
	require.NoError(t, err)
	var stop atomic.Bool
	var writers sync.WaitGroup
	for w := range 2 {
		writers.Go(func() {
			for i := 0; !stop.Load(); i++ {
				b := db.NewBatch()
				if err := errors.Join(b.Put(fmt.Appendf(nil, "%d %d", w, i), make([]byte, 200)), db.Apply(b, forebay.Level(i%2))); err != nil {
					t.Error(err)
				}
			}
		})
	}
	start := time.Now()
	for n := 0; n < 2 || time.Since(start) < 300*time.Millisecond; n++ {
		for _, args := range [][]string{{"recover", "--explain", dir}, {"wal", "dump", dir}, {"wal", "stats", dir}, {"manifest", "dump", dir}} {
			out, err := invoke(mem, args...)
			require.NoError(t, err, out)
		}
	}
	// One look alone may find a file gone, or recycled while it was read, but
	// seldom; it does not find frames behind a hole, again and again.
	moved := 0
	for range 100 {
		tool := &tool{mem}
		s, err := tool.load(dir, "")
		require.NoError(t, err)
		if s.err == nil {
			_, s.err = tool.explain(s)
		}
		if s.err != nil {
			moved++
		}
	}
	require.Less(t, moved, 25)
	stop.Store(true)
	writers.Wait()
	require.NoError(t, db.Close())
}

// TestPlanIsWhatOpenDoes compares what recover --explain says with what an open
// then finds, makes and removes, after power cuts of many kinds.
func TestPlanIsWhatOpenDoes(t *testing.T) {
	copied, removed, torn := 0, 0, 0
	for seed := range uint64(80) {
		r := rand.New(rand.NewPCG(seed, 1))
		mem := vfs.NewMem()
		for life := range 3 {
			db, err := forebay.Open("db", options(mem))
			require.NoError(t, err)
			for i := range r.IntN(150) {
				b := db.NewBatch()
				require.NoError(t, b.Put(fmt.Appendf(nil, "%d", r.IntN(50)), make([]byte, r.IntN(400))))
				require.NoError(t, db.Apply(b, forebay.Level(r.IntN(3))))
				if i%70 == 69 {
					require.NoError(t, db.Checkpoint(context.Background()))
				}
			}
			if r.IntN(4) == 0 {
				require.NoError(t, db.Close())
				mem = mem.Snapshot()
			} else {
				cut := mem.PowerCutSeed(seed<<8+uint64(life), vfs.SectorAtomic)
				db.Close()
				mem = cut
			}
			before, err := mem.List("db")
			require.NoError(t, err)
			tool := &tool{mem}
			story, err := tool.story("db", "")
			if story == nil {
				require.ErrorContains(t, err, "an open would make a new one")
				continue
			}
			require.NoError(t, err)
			out, err := invoke(mem, "recover", "--explain", "db")
			require.NoError(t, err)
			db, err = forebay.Open("db", options(mem.Snapshot()))
			require.NoError(t, err)
			rep := db.Recovery()
			require.NoError(t, db.Close())
			require.Equal(t, newLogReport(&rep, nil), story.Log, out)
			require.Equal(t, rep.Replayed, story.Replayed)
			copied += int(story.Log.Copied)
			if story.Log.Verdict == "torn" {
				torn++
			}

			// The names, right after the open.
			// Nothing is settled or merged beside the listing: there is room, and
			// nobody can make a segment until it is done.
			again := mem.Snapshot()
			gate, held := vfs.NewGate(), vfs.NewInjector(again)
			held.Add(vfs.Rule{Call: vfs.CallCreate, Name: "*.seg", Forever: true, Gate: gate})
			roomy := options(held)
			roomy.MemtableSize = 1 << 20
			db, err = forebay.Open("db", roomy)
			require.NoError(t, err)
			after, err := again.List("db")
			require.NoError(t, err)
			gate.Release()
			db.Close()
			minus := func(a, b []string) []string {
				out := []string{}
				for _, n := range a {
					if !slices.Contains(b, n) {
						out = append(out, n)
					}
				}
				slices.Sort(out)
				return out
			}
			slices.Sort(story.Remove)
			slices.Sort(story.Create)
			removed += len(story.Remove)
			require.Equal(t, minus(before, after), story.Remove, out)
			require.Equal(t, minus(after, before), story.Create, out)
		}
	}
	require.Positive(t, copied)
	require.Positive(t, removed)
	require.Positive(t, torn)
}

// TestGarbage: no command panics on a damaged, cut or made-up file, and each
// error carries an exit code.
func TestGarbage(t *testing.T) {
	good := small(t, false)
	names, err := good.List("db")
	require.NoError(t, err)
	for seed := range uint64(120) {
		r := rand.New(rand.NewPCG(seed, 2))
		mem := good.Snapshot()
		name := filepath.Join("db", names[r.IntN(len(names))])
		b := bytes.Clone(mem.Bytes(name))
		switch used := min(len(b), 6000); r.IntN(4) {
		case 0:
			b = b[:r.IntN(len(b)+1)]
		case 1:
			for range 1 + r.IntN(30) {
				if used > 0 {
					b[r.IntN(used)] = byte(r.Uint32())
				}
			}
		case 2:
			b = make([]byte, r.IntN(9000))
			for i := range b {
				b[i] = byte(r.Uint32())
			}
		default:
			if used > 0 {
				from := r.IntN(used)
				copy(b[r.IntN(used):], bytes.Clone(b[from:min(from+r.IntN(900), used)]))
			}
		}
		require.NoError(t, mem.SetBytes(name, b))
		for _, line := range []string{
			"wal dump db --records", "wal dump --json --records " + name, "wal hex " + name, "wal hex --json " + name, "wal stats db",
			"wal stats " + name, "manifest dump --edits db", "manifest dump " + name, "recover --explain db", "recover --explain --json db",
		} {
			_, err := invoke(mem, strings.Fields(line)...)
			var e *ExitError
			require.True(t, err == nil || errors.As(err, &e), "%s: %v", line, err)
		}
	}
}

// TestEveryFlippedBitIsFlagged: hex says which field does not hold.
func TestEveryFlippedBitIsFlagged(t *testing.T) {
	good := small(t, false)
	const name = "db/000001.log"
	m, err := (&tool{good}).openFramed(name)
	require.NoError(t, err)
	mark := int64(0)
	_, err = m.walk(func(fr *frame.Frame) error { mark = fr.Offset; return nil })
	require.NoError(t, err)
	m.close()
	end := int64(bytes.LastIndexFunc(good.Bytes(name), func(r rune) bool { return r != 0 }))
	for at := int64(0); at <= end; at += 5 {
		mem := good.Snapshot()
		flip(t, mem, name, at, uint8(at%8))
		out, err := invoke(mem, "wal", "hex", "--json", name)
		if at < mark {
			require.Equal(t, 1, code(t, err), "byte %d", at)
		} else {
			require.NoError(t, err) // nothing behind the last mark proves it
		}
		found := false
		for _, line := range strings.Split(strings.TrimSpace(out), "\n") {
			var f hexField
			require.NoError(t, json.Unmarshal([]byte(line), &f))
			if f.Field != "" && f.Offset <= at && at < f.Offset+f.Length {
				require.False(t, f.OK, line)
				require.NotEmpty(t, f.Reason)
				found = true
			}
		}
		require.True(t, found)
	}
}
