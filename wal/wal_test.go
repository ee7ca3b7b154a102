package wal_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/vfs"
	"github.com/forebaydb/forebay/wal"
)

// testOptions are small files, and nothing that depends on time.
func testOptions(fs vfs.FS) *wal.Options {
	return &wal.Options{FS: fs, FirstFileSize: 16 << 10, FileSize: 64 << 10, MarkDelay: -1, NoSpares: true}
}

// openAll opens the log and returns the records that the open replayed.
func openAll(t testing.TB, o *wal.Options) (*wal.Log, []string) {
	t.Helper()
	var got []string
	c := *o
	var next wal.LSN
	c.OnRecord = func(lsn wal.LSN, _ uint64, rec []byte) error {
		if lsn != next && next != 0 {
			return fmt.Errorf("record %d where %d is due", lsn, next)
		}
		next = lsn + 1
		got = append(got, string(rec))
		return nil
	}
	l, err := wal.Open("db", &c)
	require.NoError(t, err)
	return l, got
}

func put(t testing.TB, l *wal.Log, level wal.Level, s string) wal.LSN {
	t.Helper()
	r := &wal.Request{Records: []wal.Record{{Data: []byte(s)}}, Level: level}
	require.NoError(t, l.Commit(r))
	return r.First
}

func TestAppendAndReopen(t *testing.T) {
	for _, level := range []wal.Level{wal.Durable, wal.Written, wal.Buffered} {
		for _, align := range []int64{0, 4096} {
			for _, codec := range []wal.Codec{wal.NoCompression, wal.S2, wal.Zstd} {
				t.Run(fmt.Sprintf("%s/%d/%s", level, align, codec), func(t *testing.T) {
					o := testOptions(vfs.NewMem())
					o.Align, o.Compression = align, codec
					var want []string
					for round := 0; round < 4; round++ {
						l, got := openAll(t, o)
						require.Equal(t, len(want), len(got))
						require.Equal(t, want, got)
						require.Equal(t, wal.Clean, l.Recovery().Verdict)
						for i := 0; i < 300; i++ {
							s := fmt.Sprintf("record %d of round %d, padded so that files fill up and rotate ....................", i, round)
							require.Equal(t, wal.LSN(len(want)+1), put(t, l, level, s))
							want = append(want, s)
						}
						require.NoError(t, l.Close())
					}
				})
			}
		}
	}
}

func TestConcurrentCommitsReplayInLSNOrder(t *testing.T) {
	fs := vfs.NewMem()
	l, _ := openAll(t, testOptions(fs))
	var mu sync.Mutex
	want := map[wal.LSN]string{}
	var wg sync.WaitGroup
	for g := 0; g < 16; g++ {
		wg.Go(func() {
			for i := 0; i < 200; i++ {
				s := fmt.Sprintf("%d/%d", g, i)
				lsn := put(t, l, wal.Level(i%3), s)
				mu.Lock()
				want[lsn] = s
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	require.NoError(t, l.Close())
	_, got := openAll(t, testOptions(fs))
	require.Len(t, got, 3200)
	for i, s := range got {
		require.Equal(t, want[wal.LSN(i+1)], s)
	}
}

func TestCrashKeepsDurable(t *testing.T) {
	for seed := uint64(0); seed < 300; seed++ {
		mem := vfs.NewMem()
		o := testOptions(mem)
		n := 0
		for round := 0; round < 3; round++ {
			o.FS = mem
			l, got := openAll(t, o)
			require.GreaterOrEqual(t, len(got), n, "seed %d", seed)
			for i := range got {
				require.Equal(t, fmt.Sprint("r", i+1), got[i], "seed %d", seed)
			}
			n = len(got)
			for i := 0; i < 20; i++ {
				level := wal.Level((uint64(i)*7 + seed) % 3)
				lsn := put(t, l, level, fmt.Sprint("r", len(got)+i+1))
				if level == wal.Durable {
					n = int(lsn)
				}
			}
			mem = mem.PowerCutSeed(seed*10+uint64(round), vfs.SectorAtomic)
		}
	}
}

func TestTail(t *testing.T) {
	l, _ := openAll(t, testOptions(vfs.NewMem()))
	tail, err := l.NewTail(wal.Position{})
	require.NoError(t, err)
	go func() {
		for i := 1; i <= 2000; i++ {
			l.Commit(&wal.Request{Records: []wal.Record{{Data: []byte(fmt.Sprint("record ", i))}}, Level: wal.Level(i % 2)})
		}
		l.Sync(context.Background())
	}()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for i := 1; i <= 2000; i++ {
		pos, rec, err := tail.Next(ctx)
		require.NoError(t, err)
		require.Equal(t, wal.LSN(i), pos.LSN)
		require.Equal(t, fmt.Sprint("record ", i), string(rec))
	}
	require.NoError(t, tail.Close())
	require.NoError(t, l.Close())
}

func TestTruncateBackAndFront(t *testing.T) {
	fs := vfs.NewMem()
	l, _ := openAll(t, testOptions(fs))
	for i := 1; i <= 1000; i++ {
		put(t, l, wal.Durable, fmt.Sprintf("first history %d ..........................................", i))
	}
	require.NoError(t, l.TruncateFront(500))
	floor := l.Floor()
	require.Positive(t, floor)
	require.LessOrEqual(t, floor, wal.LSN(500))
	require.NoError(t, l.TruncateBack(700))
	require.Equal(t, wal.LSN(700), l.LastLSN())
	require.ErrorIs(t, l.TruncateBack(701), wal.ErrRange)
	_, err := l.NewTail(wal.Position{Epoch: 1, LSN: 701})
	require.ErrorIs(t, err, wal.ErrDiverged)
	require.Equal(t, wal.LSN(701), put(t, l, wal.Durable, "second history"))
	_, err = l.NewTail(wal.Position{Epoch: 1, LSN: 701})
	require.ErrorIs(t, err, wal.ErrDiverged)
	_, err = l.NewTail(wal.Position{Epoch: 1, LSN: 700})
	require.NoError(t, err)
	var compacted *wal.CompactedError
	_, err = l.NewTail(wal.Position{Epoch: 1, LSN: 3})
	require.ErrorAs(t, err, &compacted)
	require.Equal(t, floor+1, compacted.Oldest)
	require.NoError(t, l.Close())
	_, got := openAll(t, testOptions(fs))
	require.Len(t, got, int(701-floor))
	require.Equal(t, "second history", got[len(got)-1])
}
