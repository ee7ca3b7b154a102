package forebay_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/vfs"
)

// TestAcknowledgedBesideSettling: while the disk hangs on a segment of a checkpoint, and
// of a compaction, durable commits are acknowledged, and none of them waits: on the clock
// of a bubble, on which nothing but a wait takes time, each takes none.
func TestAcknowledgedBesideSettling(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := vfs.NewInjector(vfs.NewMem())
		db, err := forebay.Open("db", &forebay.Options{FS: in, MarkDelay: -1})
		require.NoError(t, err)
		n := 0
		put := func(times int) {
			start := time.Now()
			for range times {
				require.NoError(t, db.Put(fmt.Append(nil, "key ", n%100), fmt.Append(nil, n)))
				n++
			}
			require.Zero(t, time.Since(start))
			require.Equal(t, db.LastLSN(), db.DurableLSN())
		}
		put(100)
		require.NoError(t, db.Checkpoint(background))
		put(100)
		for name, settle := range map[string]func() error{
			"checkpoint": func() error { return db.Checkpoint(background) },
			"compaction": func() error { return db.Compact(background) },
		} {
			gate := vfs.NewGate()
			rule := in.Add(vfs.Rule{Call: vfs.CallWrite, Name: "*.seg", Gate: gate})
			ended := make(chan error, 1)
			go func() { ended <- settle() }()
			<-gate.Arrived()
			put(1000)
			time.Sleep(time.Hour)
			put(1000)
			require.Empty(t, ended, "%s is still at it", name)
			rule.Remove()
			gate.Release()
			require.NoError(t, <-ended)
		}
		require.Positive(t, db.Stats().Compactions)
		for i := range 100 {
			v, err := db.Get(fmt.Append(nil, "key ", i))
			require.NoError(t, err)
			require.Equal(t, fmt.Sprint(n-100+i), string(v))
		}
		require.NoError(t, db.Close())
	})
}

// TestReplayIsOfWhatIsNotSettled: what an open replays is what was committed since the
// last checkpoint, however much was before.
func TestReplayIsOfWhatIsNotSettled(t *testing.T) {
	for _, settled := range []int{0, 100, 3000} {
		for _, since := range []int{0, 10, 100, 1000} {
			mem := vfs.NewMem()
			db, err := forebay.Open("db", &forebay.Options{FS: mem, MarkDelay: -1})
			require.NoError(t, err)
			put := func(n int) {
				for i := range n {
					require.NoError(t, db.Put(fmt.Append(nil, i), make([]byte, 100)))
				}
			}
			put(settled)
			require.NoError(t, db.Checkpoint(background))
			put(since)
			cut := mem.PowerCutSeed(1, vfs.SectorAtomic)
			require.NoError(t, db.Close())
			db, err = forebay.Open("db", &forebay.Options{FS: cut, MarkDelay: -1})
			require.NoError(t, err)
			r := db.Recovery()
			require.EqualValues(t, since, r.Replayed, "%d settled", settled)
			require.LessOrEqual(t, r.ReplayedBytes, int64(since*130))
			require.NoError(t, db.Close())
		}
	}
}

// TestLogHasADiskOfItsOwn: with LogDir nothing but log files is written there, and none
// elsewhere.
func TestLogHasADiskOfItsOwn(t *testing.T) {
	mem := vfs.NewMem()
	o := small(mem)
	o.LogDir = "otherdisk"
	db, err := forebay.Open("db", o)
	require.NoError(t, err)
	for i := range 500 {
		require.NoError(t, db.Put(fmt.Append(nil, i), make([]byte, 500)))
	}
	require.NoError(t, db.Checkpoint(background))
	logs := func(dir string) (logs, others int) {
		names, err := mem.List(dir)
		require.NoError(t, err)
		for _, name := range names {
			switch {
			case strings.HasSuffix(name, ".log"):
				logs++
			case name != "LOCK":
				others++
			}
		}
		return logs, others
	}
	n, others := logs("otherdisk")
	require.Positive(t, n)
	require.Zero(t, others)
	n, others = logs("db")
	require.Zero(t, n)
	require.Positive(t, others)
	require.NoError(t, db.Close())
	db, err = forebay.Open("db", o)
	require.NoError(t, err)
	v, err := db.Get([]byte("499"))
	require.NoError(t, err)
	require.Len(t, v, 500)
	require.NoError(t, db.Close())
}

// BenchmarkPutAtRate has 64 who put 10,000 keys of 500 bytes a second together, durably,
// and says how long each waits, counted from when it was due: with nothing else going on,
// and with checkpoints and merges one after the other.
func BenchmarkPutAtRate(b *testing.B) {
	for _, name := range []string{"idle", "settling"} {
		b.Run(name, func(b *testing.B) {
			const who, every = 64, 64 * time.Second / 10_000
			db, err := forebay.Open(b.TempDir(), nil)
			require.NoError(b, err)
			defer db.Close()
			stop, stopped := make(chan struct{}), make(chan struct{})
			go func() {
				defer close(stopped)
				for {
					select {
					case <-stop:
						return
					case <-time.After(50 * time.Millisecond):
					}
					if name == "settling" {
						if err := db.Checkpoint(background); err != nil {
							b.Error(err)
						}
						if err := db.Compact(background); err != nil {
							b.Error(err)
						}
					}
				}
			}()
			took := make([][]time.Duration, who)
			b.ResetTimer()
			var work sync.WaitGroup
			start := time.Now()
			for w := range who {
				work.Go(func() {
					value := make([]byte, 500)
					due := start.Add(time.Duration(w) * every / who)
					for i := w; i < b.N; i += who {
						time.Sleep(time.Until(due))
						if err := db.Put(fmt.Append(nil, "key ", i*7919%100_003), value); err != nil {
							b.Error(err)
						}
						took[w] = append(took[w], time.Since(due))
						due = due.Add(every)
					}
				})
			}
			work.Wait()
			b.StopTimer()
			close(stop)
			<-stopped
			all := slices.Concat(took...)
			slices.Sort(all)
			for _, p := range []int{50, 99} {
				b.ReportMetric(float64(all[len(all)*p/100].Microseconds())/1000, fmt.Sprintf("p%d-ms", p))
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "puts/s")
			s := db.Stats()
			b.ReportMetric(float64(s.Checkpoints+s.Compactions), "settled")
		})
	}
}
