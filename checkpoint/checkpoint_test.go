package checkpoint

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"runtime"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/internal/base"
	"github.com/forebaydb/forebay/manifest"
	"github.com/forebaydb/forebay/memtable"
	"github.com/forebaydb/forebay/segment"
	"github.com/forebaydb/forebay/vfs"
)

func setUp(t *testing.T, fs vfs.FS) *Config {
	t.Helper()
	require.NoError(t, vfs.MkdirDurable(fs, "db"))
	m, err := manifest.Load(fs, "db")
	require.ErrorIs(t, err, manifest.ErrNone)
	require.NoError(t, m.Writable(fs, "db", rand.Reader))
	return &Config{FS: fs, Dir: "db", Manifest: m, Sync: func(context.Context, base.LSN) error { return nil }, Above: base.MaxLSN - 1}
}

func filled(t *testing.T) *memtable.Table {
	t.Helper()
	table := memtable.New(0)
	for i := 1; i <= 10; i++ {
		require.NoError(t, table.Add(base.LSN(i), base.KindPut, fmt.Appendf(nil, "key %d", i%3), []byte("v")))
	}
	return table
}

func TestSettleListsASegmentAndMovesReplay(t *testing.T) {
	mem := vfs.NewMem()
	cfg := setUp(t, mem)
	synced := base.LSN(0)
	cfg.Sync = func(_ context.Context, lsn base.LSN) error { synced = lsn; return nil }
	r, _, err := Settle(context.Background(), cfg, filled(t), 10)
	require.NoError(t, err)
	require.Equal(t, base.LSN(10), synced, "the log is synced first")
	s := cfg.Manifest.State()
	require.Equal(t, base.LSN(11), s.ReplayStart)
	require.Len(t, s.Segments, 1)
	require.Equal(t, uint64(3), s.Segments[0].Count, "of each key the newest version is kept")
	require.Equal(t, r.Hash(), s.Segments[0].Hash)
	require.NoError(t, r.Close())
	// After a power cut the manifest and the segment that it names are there.
	cut := mem.PowerCut(func(int, vfs.Unit) vfs.Fate { return vfs.Lost })
	m, err := manifest.Load(cut, "db")
	require.NoError(t, err)
	require.Equal(t, s.Segments, m.State().Segments)
	require.NotEmpty(t, cut.Bytes("db/"+segment.FileName(s.Segments[0].Number)))
}

func TestSettleEmptyTableMovesReplayAlone(t *testing.T) {
	cfg := setUp(t, vfs.NewMem())
	r, _, err := Settle(context.Background(), cfg, memtable.New(0), 7)
	require.NoError(t, err)
	require.Nil(t, r)
	require.Equal(t, base.LSN(8), cfg.Manifest.State().ReplayStart)
}

func TestSettleNothingWhenTheLogIsPoisoned(t *testing.T) {
	mem := vfs.NewMem()
	cfg := setUp(t, mem)
	poisoned := errors.New("poisoned")
	cfg.Sync = func(context.Context, base.LSN) error { return poisoned }
	_, _, err := Settle(context.Background(), cfg, filled(t), 10)
	require.ErrorIs(t, err, poisoned)
	require.Equal(t, base.LSN(1), cfg.Manifest.State().ReplayStart)
	requireNoSegments(t, mem)
}

// large is a table that is written while the log is synced.
func large(t *testing.T) *memtable.Table {
	t.Helper()
	table := memtable.New(0)
	for i := 1; table.Bytes() < syncBeside; i++ {
		require.NoError(t, table.Add(base.LSN(i), base.KindPut, fmt.Appendf(nil, "key %d", i), make([]byte, 1000)))
	}
	return table
}

// TestALargeTableIsWrittenBesideTheSync: nothing is listed before the log is synced,
// though the segment is there by then; and nothing stays where the sync fails.
func TestALargeTableIsWrittenBesideTheSync(t *testing.T) {
	mem := vfs.NewMem()
	cfg := setUp(t, mem)
	table := large(t)
	failed := errors.New("failed")
	written := func() bool {
		names, err := mem.List("db")
		require.NoError(t, err)
		for _, n := range names {
			if _, ok := segment.ParseFileName(n); ok {
				return true
			}
		}
		return false
	}
	var result error
	cfg.Sync = func(context.Context, base.LSN) error {
		for !written() {
			runtime.Gosched()
		}
		if len(cfg.Manifest.State().Segments) > 0 || cfg.Manifest.State().ReplayStart != 1 {
			return errors.New("listed before the log is synced")
		}
		return result
	}
	result = failed
	_, _, err := Settle(context.Background(), cfg, table, table.MaxLSN())
	require.ErrorIs(t, err, failed)
	require.Equal(t, base.LSN(1), cfg.Manifest.State().ReplayStart)
	requireNoSegments(t, mem)

	result = nil
	r, _, err := Settle(context.Background(), cfg, table, table.MaxLSN())
	require.NoError(t, err)
	require.Equal(t, table.MaxLSN()+1, cfg.Manifest.State().ReplayStart)
	require.NoError(t, r.Close())
}

func requireNoSegments(t *testing.T, fs vfs.FS) {
	t.Helper()
	names, err := fs.List("db")
	require.NoError(t, err)
	for _, n := range names {
		_, ok := segment.ParseFileName(n)
		require.False(t, ok, n)
	}
}

// TestEveryFailure fails each call of a checkpoint once: nothing is listed that
// is not there, temporaries go, and a second try succeeds unless the manifest
// failed.
func TestEveryFailure(t *testing.T) {
	for _, e := range []error{syscall.EIO, syscall.ENOSPC, syscall.EMFILE} {
		for k := 1; ; k++ {
			mem := vfs.NewMem()
			cfg := setUp(t, mem)
			in := vfs.NewInjector(mem)
			cfg.FS = in
			rule := in.Add(vfs.Rule{K: k, Err: e})
			r, _, err := Settle(context.Background(), cfg, filled(t), 10)
			if rule.Hits() == 0 {
				require.NoError(t, err)
				require.Greater(t, k, 5)
				break
			}
			if err != nil {
				require.ErrorIs(t, err, e)
				require.Empty(t, cfg.Manifest.State().Segments)
				r, _, err = Settle(context.Background(), cfg, filled(t), 10)
			}
			require.NoError(t, err, "second try, call %d", k)
			require.Len(t, cfg.Manifest.State().Segments, 1)
			require.NoError(t, r.Close())
		}
	}
}

func TestSettleStopsWithItsContext(t *testing.T) {
	mem := vfs.NewMem()
	cfg := setUp(t, mem)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, _, err := Settle(ctx, cfg, filled(t), 10)
	require.ErrorIs(t, err, context.Canceled)
	requireNoSegments(t, mem)
}

// TestWhatNobodySeesIsNotSettled: puts and their deletes vanish, but not a delete
// of what a live segment may hold, nor what a snapshot sees.
func TestWhatNobodySeesIsNotSettled(t *testing.T) {
	cfg := setUp(t, vfs.NewMem())
	add := func(table *memtable.Table, lsn base.LSN, kind base.Kind, key string) {
		t.Helper()
		require.NoError(t, table.Add(lsn, kind, []byte(key), nil))
	}
	queue := memtable.New(0)
	for i := base.LSN(1); i <= 20; i += 2 {
		add(queue, i, base.KindPut, fmt.Sprint(i))
		add(queue, i+1, base.KindDelete, fmt.Sprint(i))
	}
	require.NoError(t, queue.AddRangeDelete(21, []byte("a"), []byte("b")))
	r, _, err := Settle(context.Background(), cfg, queue, 21)
	require.NoError(t, err)
	require.Nil(t, r)
	require.Equal(t, base.LSN(22), cfg.Manifest.State().ReplayStart)
	require.Empty(t, cfg.Manifest.State().Segments)

	one := memtable.New(0)
	add(one, 22, base.KindPut, "k")
	add(one, 23, base.KindPut, "l")
	r, g, err := Settle(context.Background(), cfg, one, 23)
	require.NoError(t, err)
	require.NoError(t, r.Close())
	require.Equal(t, uint64(2), g.Count)

	two := memtable.New(0)
	add(two, 24, base.KindDelete, "k")
	add(two, 25, base.KindDelete, "m")
	require.NoError(t, two.AddRangeDelete(26, []byte("l"), []byte("lz")))
	require.NoError(t, two.AddRangeDelete(27, []byte("x"), []byte("y")))
	r, g, err = Settle(context.Background(), cfg, two, 27)
	require.NoError(t, err)
	require.Equal(t, uint64(1), g.Tombstones, "of k alone")
	require.Equal(t, uint64(1), g.RangeDeletes, "of l alone")
	require.NoError(t, r.Close())

	cfg.Snapshots = []base.LSN{28}
	three := memtable.New(0)
	add(three, 28, base.KindPut, "z")
	add(three, 29, base.KindDelete, "z")
	r, g, err = Settle(context.Background(), cfg, three, 29)
	require.NoError(t, err)
	require.Equal(t, uint64(2), g.Count)
	require.Equal(t, cfg.Manifest.State().Segments[2], g)
	require.NoError(t, r.Close())
}
