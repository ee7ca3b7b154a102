package workload

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/bench/engines"
	"github.com/forebaydb/forebay/vfs"
)

// TestMain lets the test binary be the child of a run.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == childName {
		if err := Child(os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func tiny() Scale {
	return Scale{
		Quick: true,
		Write: 40 * time.Millisecond, WriteLimit: 50 * time.Millisecond, Checkpoints: 1,
		Mixed: 20 * time.Millisecond, Read: 20 * time.Millisecond, Warm: 5 * time.Millisecond, Open: 20 * time.Millisecond, Long: 60 * time.Millisecond,
		Records: 1500, Grow: 3000, GrowMax: 4000, LogBytes: 128 << 10, MostBytes: 16 << 20, LimitBytes: 2 << 20,
		Memtable: 1 << 20, Cache: 1 << 20,
	}
}

func runCells(t *testing.T, list []*engines.Engine, cells []Cell, repetitions int) []Result {
	self, err := os.Executable()
	require.NoError(t, err)
	var out []Result
	var progress bytes.Buffer
	err = Run(context.Background(), Config{
		Engines: list, Cells: cells, Repetitions: repetitions, Scale: tiny(), Dir: t.TempDir(), Progress: &progress,
		Child: func(ctx context.Context) *exec.Cmd { return exec.CommandContext(ctx, self, childName) },
		Each:  func(r Result) error { out = append(out, r); return nil },
	})
	require.NoError(t, err, progress.String())
	return out
}

// TestTwoRuns: a run leaves the directory of another one alone.
func TestTwoRuns(t *testing.T) {
	dir := t.TempDir()
	lock, err := vfs.OS().Lock(filepath.Join(dir, "LOCK"))
	require.NoError(t, err)
	store := filepath.Join(dir, "trial", "store")
	require.NoError(t, os.MkdirAll(store, 0o700))
	cfg := Config{Repetitions: 1, Scale: tiny(), Dir: dir}
	require.ErrorIs(t, Run(context.Background(), cfg), vfs.ErrLocked)
	require.DirExists(t, store)
	require.NoError(t, lock.Close())
	require.NoError(t, Run(context.Background(), cfg))
	require.NoDirExists(t, store)
}

// TestCells runs every cell for a moment, with Forebay and a peer, in this process.
func TestCells(t *testing.T) {
	loads := t.TempDir()
	for _, c := range Cells() {
		list := []string{Home, "goleveldb"}
		if c.Limit {
			list = []string{""}
		}
		for _, name := range list {
			t.Run(c.Name+"/"+name, func(t *testing.T) { runOne(t, &c, name, loads) })
		}
	}
}

func runOne(t *testing.T, c *Cell, name, loads string) {
	if name != "" {
		e, err := engines.Find(name)
		require.NoError(t, err)
		if c.leftOut(e) != "" {
			return
		}
	}
	k := task{Engine: name, Cell: c.Name, Scale: tiny(), Dir: filepath.Join(t.TempDir(), "trial")}
	if c.Load == nil {
		require.NoError(t, os.Mkdir(k.Dir, 0o700))
	} else {
		l := c.Load(k.Scale)
		dir := filepath.Join(loads, suffix(name, l))
		if _, err := os.Stat(dir); err != nil {
			require.NoError(t, os.Mkdir(dir, 0o700))
			made := k
			made.Load, made.Dir = &l, dir
			_, err := made.do()
			require.NoError(t, err)
		}
		require.NoError(t, copyTree(k.Dir, dir))
	}
	results, err := k.do()
	require.NoError(t, err)
	if !strings.HasPrefix(c.Name, "hot-") { // not all have transactions
		require.NotEmpty(t, results)
	}
	for _, r := range results {
		require.True(t, strings.HasPrefix(r.Cell, c.Name), r.Cell)
		if strings.Contains(r.Cell, "-limit-") {
			require.Equal(t, machineName, r.Engine)
		} else {
			require.Equal(t, name, r.Engine)
		}
		require.NotEmpty(t, r.Unit)
		if !strings.Contains(r.Cell, "-open") && !strings.Contains(r.Cell, "-worst") { // a moment may be too short for an arrival
			require.Greater(t, r.Value, 0.0, r.Cell)
		}
	}
}

// TestEnginesUnderLoad runs the cells that differ most between engines on all of them.
func TestEnginesUnderLoad(t *testing.T) {
	cells, err := Select(strings.Split("fillrandom-written,overwrite-8-written,readmissing-1,scan-reverse,ycsb-d-written,recovery", ","))
	require.NoError(t, err)
	for _, r := range runCells(t, engines.All(), cells, 1) {
		require.Empty(t, r.Error, "%s %s", r.Cell, r.Engine)
	}
}

func TestRepetitionsTurn(t *testing.T) {
	cells, err := Select([]string{"fillseq-written"})
	require.NoError(t, err)
	a, err := engines.Find("bbolt")
	require.NoError(t, err)
	b, err := engines.Find("goleveldb")
	require.NoError(t, err)
	var order []string
	for _, r := range runCells(t, []*engines.Engine{a, b}, cells, 2) {
		order = append(order, fmt.Sprint(r.Engine, r.Repetition))
	}
	require.Equal(t, []string{"bbolt1", "goleveldb1", "goleveldb2", "bbolt2"}, order)
}

// TestCrashCostsOneCell: what a child dies of is a result, and the run goes on.
func TestCrashCostsOneCell(t *testing.T) {
	cells, err := Select([]string{"readrandom-1", "fillseq-written"})
	require.NoError(t, err)
	for i := range cells {
		if cells[i].Name == "fillseq-written" {
			cells[i].Name = "no such cell"
		}
	}
	e, err := engines.Find("goleveldb")
	require.NoError(t, err)
	got := map[string]string{}
	for _, r := range runCells(t, []*engines.Engine{e}, cells, 1) {
		got[r.Cell] = r.Error
	}
	require.Contains(t, got["no such cell"], "there is no cell")
	require.Empty(t, got["readrandom-1"])
}

// TestReadsAreChecked: a store with a wrong value, or a missing one, fails its
// read cells. A benchmark that reads nothing is worthless.
func TestReadsAreChecked(t *testing.T) {
	for _, harm := range []string{"wrong", "missing", "version"} {
		for _, cell := range []string{"readrandom-1", "scan-forward", "scan-reverse"} {
			if harm == "version" && cell == "readrandom-1" {
				continue // any version is right there
			}
			t.Run(harm+"/"+cell, func(t *testing.T) {
				e, err := engines.Find("goleveldb")
				require.NoError(t, err)
				l := load{400, KeySize, plain.valueSize}
				k := task{Engine: e.Name, Dir: t.TempDir(), Scale: tiny(), Load: &l}
				_, err = k.do()
				require.NoError(t, err)
				s, err := e.Open(k.Dir, engines.Config{Level: engines.Written})
				require.NoError(t, err)
				w, err := s.Writer(engines.Written)
				require.NoError(t, err)
				key := plain.key(make([]byte, KeySize), 77)
				switch harm {
				case "wrong":
					err = w.Put(key, plain.value(make([]byte, 100), 78, 0))
				case "version":
					err = w.Put(key, plain.value(make([]byte, 100), 77, 1))
				case "missing":
					err = w.Delete(key)
				}
				require.NoError(t, err)
				require.NoError(t, s.Close())
				k.Load, k.Cell, k.Scale.Records = nil, cell, l.Records
				_, err = k.do()
				require.Error(t, err)
			})
		}
	}
}

func TestKeysAndValues(t *testing.T) {
	for _, n := range []uint64{1, 2, 3, 100, 1000, 4097} {
		seen, perm := map[uint64]bool{}, newPermutation(n)
		for i := range n {
			p := perm.at(i)
			require.Less(t, p, n)
			require.False(t, seen[p])
			seen[p] = true
		}
	}
	require.Equal(t, "0000000000012345", string(plain.key(make([]byte, KeySize), 12345)))
	for _, size := range []int{minValue, 16, 31, 100, 1024} {
		d := dataset{KeySize, size}
		v := d.value(make([]byte, size), 7, 3)
		require.NoError(t, d.check(7, v, make([]byte, size)))
		require.Error(t, d.check(8, v, make([]byte, size)))
		for i := range v {
			if size == minValue && i >= 8 {
				continue // nothing tells which version it is
			}
			v[i]++
			require.Error(t, d.check(7, v, make([]byte, size)), "byte %d of %d", i, size)
			v[i]--
		}
	}
	z, r, hits := newZipf(1000), rng(1), 0
	for range 10000 {
		if z.draw(&r) < 10 {
			hits++
		}
	}
	require.InDelta(t, 0.38, float64(hits)/10000, 0.05, "the 1 % of keys that are hottest")
}

// TestOpenLoop: arrivals come at the rate that was asked for, and what waits
// behind a slow operation counts from when it was due.
func TestOpenLoop(t *testing.T) {
	n := 0
	l := loop{goroutines: 1, length: 300 * time.Millisecond, every: 1, rate: 1000,
		start: func(*worker) (func() error, func() error, error) {
			return func() error {
				if n++; n == 20 {
					time.Sleep(100 * time.Millisecond)
				}
				return nil
			}, nil, nil
		}}
	m, err := l.run(nil)
	require.NoError(t, err)
	require.InDelta(t, 300, m.ops, 120)
	require.Greater(t, m.hist.ValueAtQuantile(75), int64(10*time.Millisecond), "a hundred operations have waited behind the slow one")
}

func TestRatio(t *testing.T) {
	fig := func(engine string, v float64, lower bool) *Figure {
		return &Figure{Engine: engine, Median: v, N: 1, Lower: lower}
	}
	ratio, _, best := Ratio([]*Figure{fig(Home, 10, false), fig("a", 4, false), fig("b", 5, false)})
	require.Equal(t, "b", best.Engine)
	require.InDelta(t, 2, ratio, 1e-9)
	ratio, _, best = Ratio([]*Figure{fig(Home, 10, true), fig("a", 4, true), fig("b", 5, true)})
	require.Equal(t, "a", best.Engine)
	require.InDelta(t, 0.4, ratio, 1e-9)
	ratio, _, _ = Ratio([]*Figure{fig(Home, 10, true)})
	require.True(t, math.IsNaN(ratio))
}

func TestReadAndWrite(t *testing.T) {
	text := `{"machine":{"time":"now","quick":true,"cpu":"x"}}

{"cell":"readrandom-1","engine":"forebay","repetition":1,"value":10,"unit":"ops/s","p50_us":1}
{"cell":"readrandom-1","engine":"forebay","repetition":2,"value":30,"unit":"ops/s","p50_us":3}
{"cell":"readrandom-1","engine":"bbolt","repetition":1,"value":5,"unit":"ops/s","error":""}
{"cell":"readrandom-1","engine":"sqlite","repetition":1,"error":"it broke"}
`
	m, results, err := Read(strings.NewReader(text))
	require.NoError(t, err)
	require.True(t, m.Quick)
	require.Len(t, results, 4)
	var out bytes.Buffer
	require.NoError(t, WriteTable(&out, m, results))
	for _, want := range []string{"QUICK MODE", "4.00×", "best peer", "FAILED: readrandom-1 sqlite: it broke"} {
		require.Contains(t, out.String(), want)
	}
	out.Reset()
	require.NoError(t, WriteBenchstat(&out, m, results))
	require.Contains(t, out.String(), "BenchmarkCell/cell=readrandom-1/engine=forebay 1 10 ops/s 1 p50-µs")
	b, err := json.Marshal(&results[0])
	require.NoError(t, err)
	for _, field := range []string{"cell", "engine", "ops_per_s", "p50_us", "p99_us", "syncs_per_op", "repetition"} {
		require.Contains(t, string(b), `"`+field+`":`)
	}
}

func TestCopyTree(t *testing.T) {
	from, to := t.TempDir(), filepath.Join(t.TempDir(), "copy")
	require.NoError(t, os.Mkdir(filepath.Join(from, "d"), 0o700))
	f, err := os.Create(filepath.Join(from, "d", "holes"))
	require.NoError(t, err)
	_, err = f.WriteAt([]byte("in the middle"), 1<<20)
	require.NoError(t, err)
	require.NoError(t, f.Truncate(8<<20))
	require.NoError(t, f.Close())
	require.NoError(t, os.WriteFile(filepath.Join(from, "empty"), nil, 0o600))
	require.NoError(t, copyTree(to, from))
	a, err := os.ReadFile(filepath.Join(from, "d", "holes"))
	require.NoError(t, err)
	b, err := os.ReadFile(filepath.Join(to, "d", "holes"))
	require.NoError(t, err)
	require.True(t, bytes.Equal(a, b))
	require.FileExists(t, filepath.Join(to, "empty"))
}

// TestResume: what has results is not run again, what failed is, and a result counts
// for the cell with the longest name that fits.
func TestResume(t *testing.T) {
	done := runsOf([]Result{
		{Cell: "durable-put-1-open30", Engine: "pebble", Repetition: 2, Quick: true},
		{Cell: "grow-load-max", Engine: "forebay", Repetition: 1, Quick: true},
		{Cell: "readrandom-1", Engine: "forebay", Repetition: 1, Quick: true, Error: "it failed"},
		{Cell: "readhot-1", Engine: "forebay", Repetition: 1},
		{Cell: "limit-misses", Engine: machineName, Repetition: 1, Quick: true},
	}, true)
	require.Equal(t, map[run]bool{
		{"durable-put-1", "pebble", 2}: true, {"grow-load-max", "forebay", 1}: true, {"limit-misses", machineName, 1}: true,
	}, done)

	out := filepath.Join(t.TempDir(), "results.jsonl")
	f := runFlags{resume: true, out: out}
	results, err := f.results()
	require.NoError(t, err)
	require.Empty(t, results, "there is no file yet")
	f.out = ""
	_, err = f.results()
	require.Error(t, err)
}

// TestContenders: who is far behind in all figures of a cell runs it once, and Forebay
// and the machine always run.
func TestContenders(t *testing.T) {
	result := func(cell, engine string, v float64, lower bool) Result {
		return Result{Cell: cell, Engine: engine, Repetition: 1, Value: v, Lower: lower}
	}
	r := runner{Config: Config{Contenders: .8}}
	for _, res := range []Result{
		result("readrandom-1", Home, 10, false), result("readrandom-1", "pebble", 100, false),
		result("readrandom-1", "bbolt", 81, false), result("readrandom-1", "badger", 79, false),
		result("load-settle", "pebble", 100, false), result("load-settle", "bbolt", 10, false), result("load-settle", "badger", 70, false),
		result("load-settle-space", "pebble", 2, true), result("load-settle-space", "bbolt", 1, true), result("load-settle-space", "badger", 1.3, true),
		{Cell: "load-settle-space", Engine: "badger", Repetition: 2, Value: 1, Lower: true},
	} {
		r.note(res)
	}
	contend := func(cell string) (out []string) {
		cells, err := Select([]string{cell})
		require.NoError(t, err)
		for _, name := range []string{Home, "pebble", "bbolt", "badger"} {
			e, err := engines.Find(name)
			require.NoError(t, err)
			if r.contends(&cells[0], e) {
				out = append(out, name)
			}
		}
		return out
	}
	require.Equal(t, []string{Home, "pebble", "bbolt"}, contend("readrandom-1"))
	require.Equal(t, []string{Home, "pebble", "bbolt"}, contend("load-settle"))
	require.Equal(t, []string{Home, "pebble", "bbolt", "badger"}, contend("readhot-1"), "nobody ran it yet")
	r.Contenders = 0
	require.Len(t, contend("readrandom-1"), 4)
}
