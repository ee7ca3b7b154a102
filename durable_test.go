package forebay_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/vfs"
	"github.com/forebaydb/forebay/wal"
	"github.com/forebaydb/forebay/wal/frame"
)

// TestSyncBeforeAcknowledgement looks at the trace of 10,000 durable puts from
// 64 goroutines: each acknowledgement comes after the return of a sync that
// began after the write of that commit's frame had returned.
func TestSyncBeforeAcknowledgement(t *testing.T) {
	for _, policy := range []forebay.SyncPolicy{forebay.SyncGroup, forebay.SyncNever} {
		t.Run(policy.String(), func(t *testing.T) {
			mem := vfs.NewMem()
			rec := vfs.NewRecorder(mem)
			db, err := forebay.Open("db", &forebay.Options{FS: rec, MarkDelay: -1, Sync: policy})
			require.NoError(t, err)
			const puts = 10_000
			var wg sync.WaitGroup
			var next atomic.Int64
			for range 64 {
				wg.Go(func() {
					for i := next.Add(1); i <= puts; i = next.Add(1) {
						b := db.NewBatch()
						b.Put(fmt.Appendf(nil, "key %d", i), []byte("value"))
						c, err := db.Submit(b, forebay.Durable)
						if err == nil {
							err = c.Wait(context.Background())
						}
						if err != nil {
							t.Error(err)
							return
						}
						rec.Mark("ack", c.LSN())
					}
				})
			}
			wg.Wait()
			events := rec.Events()
			checkTrace(t, mem, events, puts)
			require.NoError(t, db.Close())
		})
	}
}

// checkTrace checks the acknowledgements of a trace against its writes and
// syncs.
func checkTrace(t *testing.T, mem *vfs.Mem, events []vfs.Event, want int) {
	type place struct {
		file string
		off  int64
	}
	at := map[uint64]place{}
	names, err := mem.List("db")
	require.NoError(t, err)
	for _, n := range names {
		if _, ok := wal.ParseFileName(n); ok {
			for _, fr := range frames(t, mem, "db/"+n) {
				for lsn := fr.First; fr.Kind == frame.KindData && lsn < fr.Next(); lsn++ {
					at[lsn] = place{"db/" + n, fr.Offset}
				}
			}
		}
	}
	writes := map[string][]vfs.Event{}
	syncs := map[string][]vfs.Event{}
	acks, total := 0, 0
	for _, e := range events {
		switch e.Call {
		case vfs.CallWrite:
			writes[e.Name] = append(writes[e.Name], e)
		case vfs.CallSync, vfs.CallSyncData:
			syncs[e.Name] = append(syncs[e.Name], e)
			total++
		case vfs.CallMark:
			acks++
			p, ok := at[e.Value]
			require.True(t, ok, "commit %d is in no log file", e.Value)
			require.True(t, covered(p.off, e, writes[p.file], syncs[p.file]), "commit %d was acknowledged before a sync covered it", e.Value)
		}
	}
	require.Equal(t, want, acks)
	t.Logf("%d acknowledgements, each behind a sync that covers it; %d syncs", acks, total)
}

func covered(off int64, ack vfs.Event, writes, syncs []vfs.Event) bool {
	for i := len(writes) - 1; i >= 0; i-- {
		w := writes[i]
		if off < w.Off || off >= w.Off+int64(w.N) {
			continue
		}
		for j := len(syncs) - 1; j >= 0; j-- {
			if s := syncs[j]; s.Err == nil && s.Begin > w.Seq && s.Seq < ack.Begin {
				return true
			}
		}
	}
	return false
}

// TestStraceChild is run under strace by TestSyncsPerPut.
func TestStraceChild(t *testing.T) {
	spec := os.Getenv("FOREBAY_STRACE")
	if spec == "" {
		t.Skip("a child of TestSyncsPerPut")
	}
	parts := strings.Split(spec, ",")
	writers, _ := strconv.Atoi(parts[0])
	puts, _ := strconv.Atoi(parts[1])
	db, err := forebay.Open(parts[2], &forebay.Options{MarkDelay: -1})
	require.NoError(t, err)
	var wg sync.WaitGroup
	for g := range writers {
		wg.Go(func() {
			for i := range puts / writers {
				if err := db.Put(fmt.Appendf(nil, "%d/%d", g, i), []byte("some value")); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	require.NoError(t, db.Close())
}

// TestSyncsPerPut counts system calls on a real directory: with 64 goroutines
// about 0.02 syncs a put; with one, one write and one sync a put outside of
// rotation.
func TestSyncsPerPut(t *testing.T) {
	strace, err := exec.LookPath("strace")
	if err != nil || runtime.GOOS != "linux" {
		if os.Getenv("FOREBAY_REQUIRE") == "1" {
			t.Fatal("strace is required")
		}
		t.Skip("strace is not installed")
	}
	count := func(writers, puts int) (writes, syncs int) {
		dir := t.TempDir()
		out := filepath.Join(dir, "strace")
		cmd := exec.Command(strace, "-f", "-c", "--seccomp-bpf", "-o", out, "-e", "trace=pwrite64,fdatasync,fsync", os.Args[0], "-test.run", "^TestStraceChild$", "-test.count=1")
		cmd.Env = append(os.Environ(), fmt.Sprintf("FOREBAY_STRACE=%d,%d,%s", writers, puts, filepath.Join(dir, "db")))
		if b, err := cmd.CombinedOutput(); err != nil {
			if bytes.Contains(b, []byte("ptrace")) || bytes.Contains(b, []byte("Operation not permitted")) {
				if os.Getenv("FOREBAY_REQUIRE") != "1" {
					t.Skip("strace may not trace here")
				}
			}
			t.Fatalf("%v\n%s", err, b)
		}
		b, err := os.ReadFile(out)
		require.NoError(t, err)
		for _, m := range regexp.MustCompile(`(?m)^\s*[\d.]+\s+[\d.]+\s+\d+\s+(\d+)\s+(?:\d+\s+)?(pwrite64|fdatasync|fsync)$`).FindAllStringSubmatch(string(b), -1) {
			n, _ := strconv.Atoi(m[1])
			if m[2] == "pwrite64" {
				writes += n
			} else {
				syncs += n
			}
		}
		return writes, syncs
	}
	writes, syncs := count(64, 64_000)
	t.Logf("64 goroutines, 64000 puts: %d writes, %d syncs, %.4f syncs a put", writes, syncs, float64(syncs)/64_000)
	// 1/64 is the floor. A machine that is busy with something else wakes the
	// writers late, so the bound leaves room; the figure is in the log.
	require.LessOrEqual(t, float64(syncs)/64_000, 0.05)
	writes, syncs = count(1, 2_000)
	t.Logf("1 goroutine, 2000 puts: %d writes, %d syncs", writes, syncs)
	require.GreaterOrEqual(t, syncs, 2_000)
	require.LessOrEqual(t, syncs, 2_000+80, "beside rotation")
	require.LessOrEqual(t, writes, 2_000+80, "beside rotation")
}
