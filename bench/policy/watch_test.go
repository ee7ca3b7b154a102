package policy

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/vfs"
	"github.com/forebaydb/forebay/wal"
)

func cell(t *testing.T, on, policy, level string) Cell {
	t.Helper()
	p, err := ParsePolicy(policy)
	require.NoError(t, err)
	return Cell{On: on, Policy: p, Level: level, Writers: 3, Value: 64, Mechanism: "fdatasync"}
}

// survivors is how many commits a store or log shows.
func survivors(t *testing.T, c *Cell, fsys vfs.FS) uint64 {
	t.Helper()
	if c.On == OnStore {
		db, err := forebay.Open("db", &forebay.Options{FS: fsys})
		require.NoError(t, err)
		defer db.Close()
		return db.LastLSN()
	}
	l, err := wal.Open("db", &wal.Options{FS: fsys})
	require.NoError(t, err)
	defer l.Close()
	return l.LastLSN()
}

var lose = func(int, vfs.Unit) vfs.Fate { return vfs.Lost }

// TestContract cuts the power of a file system in memory under each policy and
// level, on a clock of the test's own, and looks what is there afterwards: never
// less than the timeline of the watch says, nothing lost of what is durable, and
// of the rest no more than the policy allows. A kill takes what is buffered alone.
func TestContract(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	for _, on := range []string{OnStore, OnLog} {
		for _, mechanism := range AllMechanisms {
			for _, policy := range AllPolicies {
				for _, level := range AllLevels {
					c := cell(t, on, policy, level)
					c.Mechanism, c.Growing = mechanism, on == OnLog && level != "written"
					t.Run(c.Name(), func(t *testing.T) {
						synctest.Test(t, func(t *testing.T) { contract(t, &c, seed) })
					})
				}
			}
		}
	}
}

func contract(t *testing.T, c *Cell, seed uint64) {
	const recordBytes = 64 + keySize + 100 // with what a frame of one costs
	r := rand.New(rand.NewPCG(seed, 1))
	mem := vfs.NewMem()
	w := newWatch(mem)
	tg, err := c.open(w, "db")
	require.NoError(t, err)
	put := tg.writer()
	key, value := make([]byte, keySize), make([]byte, c.Value)
	acks := make([][]int64, 1)
	for i := range 400 {
		copy(key, fmt.Sprintf("%016d", i))
		copy(value[len(value)-8:], le(identify(0, i)))
		require.NoError(t, put(key, value))
		acks[0] = append(acks[0], w.now())
		if r.IntN(3) == 0 {
			time.Sleep(time.Duration(r.IntN(5000)) * time.Microsecond)
			synctest.Wait()
		}
		if i%23 != 0 {
			continue
		}
		now := w.now()
		tl := w.timeline(acks, 0, now)
		power, kill := tl.PowerCuts([]int64{now})[0], tl.Kills([]int64{now})[0]
		n := uint64(i + 1)
		require.Equal(t, n-uint64(power.Records), survivors(t, c, mem.PowerCut(lose)), "after a power cut, as the timeline says")
		require.Equal(t, n-uint64(kill.Records), survivors(t, c, mem.Snapshot()), "after a kill, as the timeline says")
		switch {
		case c.Level == "durable":
			require.Zero(t, power)
		case c.Policy.Interval > 0:
			require.LessOrEqual(t, power.Age, c.Policy.Interval)
		case c.Policy.Bytes > 0:
			require.LessOrEqual(t, power.Records*(c.Value+keySize), c.Policy.Bytes+recordBytes)
		}
		if c.Level != "buffered" {
			require.Zero(t, kill)
		}
	}
	require.NoError(t, tg.Close())
	require.NoError(t, w.err)
	require.Equal(t, uint64(400), survivors(t, c, mem.PowerCut(lose)), "Close syncs")
}

func le(id uint64) []byte {
	b := make([]byte, 8)
	for i := range b {
		b[i] = byte(id >> (8 * i))
	}
	return b
}

// TestWatchAgreesWithTheLog: the figures of the watch are those of the log.
func TestWatchAgreesWithTheLog(t *testing.T) {
	for _, mechanism := range AllMechanisms {
		for _, growing := range []bool{false, true} {
			c := cell(t, OnLog, "group", "durable")
			c.Mechanism, c.Growing = mechanism, growing
			dir := t.TempDir()
			w := newWatch(vfs.OS())
			tg, err := c.open(w, dir)
			if err == nil {
				err = tg.writer()(make([]byte, keySize), make([]byte, 64))
			}
			if strings.HasPrefix(mechanism, "O_DIRECT") && err != nil {
				unavailable(t, "O_DIRECT", err)
			}
			require.NoError(t, err)
			put := tg.writer()
			for range 300 {
				require.NoError(t, put(make([]byte, keySize), make([]byte, 5000)))
			}
			st := tg.stats()
			// A file that is full is synced once more, behind its last record.
			require.LessOrEqual(t, len(w.syncs), int(st.Syncs), c.Name())
			require.GreaterOrEqual(t, len(w.syncs)+len(w.states)-1, int(st.Syncs), c.Name())
			require.Equal(t, uint64(301), w.syncs[len(w.syncs)-1].lsn)
			require.NoError(t, tg.Close()) // a spare may be made until then
			require.NoError(t, w.err)
			zeroed := int64(0)
			for _, z := range w.zeroed {
				zeroed += z.bytes
			}
			require.Equal(t, growing, zeroed == 0)
			require.Equal(t, tg.stats().Zeroed, zeroed)
		}
	}
}

// unavailable ends a test that this machine cannot run. Where everything must
// run (FOREBAY_REQUIRE=1) that is a failure.
func unavailable(t *testing.T, what string, err error) {
	t.Helper()
	if os.Getenv("FOREBAY_REQUIRE") == "1" {
		t.Fatalf("%s: %v", what, err)
	}
	t.Skipf("%s: %v", what, err)
}

func runCommand(t *testing.T, args ...string) (stdout, stderr string) {
	t.Helper()
	var out, trace strings.Builder
	cmd := Command()
	cmd.SetArgs(append(args, "--dir", t.TempDir()))
	cmd.SetOut(&out)
	cmd.SetErr(&trace)
	require.NoError(t, cmd.ExecuteContext(context.Background()))
	return out.String(), trace.String()
}

var tiny = []string{"--window", "50ms", "--timeline", "0s", "--policies", "group,interval-1ms", "--levels", "durable,buffered", "--writers", "2", "--count", "2"}

func TestJSON(t *testing.T) {
	out, trace := runCommand(t, append(tiny, "--json")...)
	require.Contains(t, trace, "8 cells in")
	lines := strings.Split(strings.TrimSpace(out), "\n")
	require.Len(t, lines, 1+8)
	var m struct{ Kind, Kernel string }
	require.NoError(t, json.Unmarshal([]byte(lines[0]), &m))
	require.Equal(t, "machine", m.Kind)
	for i, line := range lines[1:] {
		var r Result
		require.NoError(t, json.Unmarshal([]byte(line), &r))
		require.Equal(t, "fsync", r.Kind)
		require.Equal(t, i/4+1, r.Repetition)
		require.Equal(t, 1000, r.PowerCut.Cuts)
		require.Empty(t, r.Broken)
		if r.Level == "durable" {
			require.Zero(t, r.PowerCut.Records)
			require.Zero(t, r.Kill.Records)
		}
	}
}

func TestBenchstat(t *testing.T) {
	out, _ := runCommand(t, append(tiny, "--benchstat")...)
	require.Contains(t, out, "pkg: github.com/forebaydb/forebay/bench/policy\n")
	n := 0
	for line := range strings.Lines(out) {
		if !strings.HasPrefix(line, "Benchmark") {
			continue
		}
		n++
		f := strings.Fields(line)
		require.Zero(t, len(f)%2, "a name, a count, and pairs of value and unit: %s", line)
		require.Equal(t, "ns/op", f[3])
		require.Contains(t, f[0], "/policy=")
		for i := 2; i < len(f); i += 2 {
			var v float64
			_, err := fmt.Sscan(f[i], &v)
			require.NoError(t, err, line)
		}
	}
	require.LessOrEqual(t, n, 8)
	require.Positive(t, n, "on a disk that hangs some have none")
}

func TestText(t *testing.T) {
	out, _ := runCommand(t, tiny...)
	require.Contains(t, out, "kernel")
	require.Contains(t, out, "file system")
	require.Contains(t, out, "(on store, mechanism fdatasync, files zeroed, writers 2, value 100)")
	require.Contains(t, out, "\ninterval-1ms   buffered ")
	widths := map[int]bool{}
	for line := range strings.Lines(out) {
		if strings.HasPrefix(line, "group ") || strings.HasPrefix(line, "policy ") {
			widths[len([]rune(line))] = true
		}
	}
	require.Len(t, widths, 1, "columns stand below each other:\n%s", out)
}

func TestDocument(t *testing.T) {
	file := t.TempDir() + "/d.md"
	require.NoError(t, os.WriteFile(file, []byte("# A\n\n"+documentBegin+"old\n"+documentEnd+"\n## B\n"), 0o600))
	out, _ := runCommand(t, append(tiny, "--doc", file)...)
	require.NotEmpty(t, out)
	b, err := os.ReadFile(file)
	require.NoError(t, err)
	doc := string(b)
	require.True(t, strings.HasPrefix(doc, "# A\n\n"+documentBegin), doc)
	require.True(t, strings.HasSuffix(doc, documentEnd+"\n## B\n"), doc)
	require.NotContains(t, doc, "old\n")
	require.Contains(t, doc, "\nforebay bench fsync --count 2 ")
	require.Contains(t, doc, "### Chosen cells\n")
	cells := -1
	for line := range strings.Lines(doc) {
		if strings.HasPrefix(line, "|") {
			if n := strings.Count(line, "|"); cells < 0 {
				cells = n
			} else {
				require.Equal(t, cells, n, line)
			}
		}
	}
	require.Equal(t, 2+4, strings.Count(doc, "\n|"), "a head, a rule, and the medians of four cells")
	require.ErrorContains(t, document(t.TempDir()+"/none", "", nil, nil, nil), "no such file")
	require.NoError(t, os.WriteFile(file, []byte("x"), 0o600))
	require.ErrorContains(t, document(file, "", nil, nil, nil), "has no place for results")
}
