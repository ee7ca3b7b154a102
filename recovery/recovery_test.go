package recovery

import (
	"crypto/rand"
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/internal/base"
	"github.com/forebaydb/forebay/manifest"
	"github.com/forebaydb/forebay/memtable"
	"github.com/forebaydb/forebay/segment"
	"github.com/forebaydb/forebay/vfs"
	"github.com/forebaydb/forebay/wal"
)

func segmentName(n uint64) string { return fmt.Sprintf("%06d.seg", n) }

func parseSegment(name string) (n uint64, ok bool) {
	_, err := fmt.Sscanf(name, "%06d.seg", &n)
	return n, err == nil && segmentName(n) == name
}

// config opens a store without memtable or batch: records are plain text.
func config(fs vfs.FS, got *[]string) *Config {
	return &Config{
		FS: fs, Dir: "db", LogDir: "db", Rand: rand.Reader, SegmentName: segmentName, ParseSegment: parseSegment,
		Log: wal.Options{MarkDelay: -1, NoSpares: true},
		Apply: func(lsn base.LSN, rec []byte) error {
			*got = append(*got, fmt.Sprint(lsn, " ", string(rec)))
			return nil
		},
	}
}

func write(t *testing.T, s *Store, recs ...string) {
	t.Helper()
	for _, r := range recs {
		_, err := s.Log.Append([]byte(r))
		require.NoError(t, err)
	}
}

func made(t *testing.T) *vfs.Mem {
	t.Helper()
	mem := vfs.NewMem()
	require.NoError(t, vfs.MkdirDurable(mem, "db"))
	return mem
}

// settle puts a segment of the records up to high under the store, as a
// checkpoint does.
func settle(t *testing.T, mem *vfs.Mem, s *Store, high base.LSN) manifest.Segment {
	t.Helper()
	n, err := s.Manifest.NextSegment()
	require.NoError(t, err)
	f, err := mem.Create("db/"+segmentName(n), vfs.ReadWrite)
	require.NoError(t, err)
	w, err := segment.NewWriter(f, segment.ID{Store: s.Manifest.StoreID(), Number: n}, segment.WriterOptions{})
	require.NoError(t, err)
	table := memtable.New(0)
	for lsn := base.LSN(1); lsn <= high; lsn++ {
		require.NoError(t, table.Add(lsn, base.KindPut, fmt.Append(nil, lsn), nil))
	}
	it := table.NewIter()
	for ok := it.First(); ok; ok = it.Next() {
		require.NoError(t, w.Add(it.Key(), it.LSN(), it.Kind(), it.Value()))
	}
	meta, err := w.Finish()
	require.NoError(t, err)
	require.NoError(t, f.Sync())
	require.NoError(t, f.Close())
	require.NoError(t, mem.SyncDir("db"))
	g := manifest.Segment{Number: n, Size: meta.Size, Count: meta.Count, MinLSN: meta.MinLSN, MaxLSN: meta.MaxLSN, Hash: meta.Hash, Lo: meta.Lo, Hi: meta.Hi}
	require.NoError(t, s.Manifest.Apply(&manifest.Edit{Add: []manifest.Segment{g}, ReplayStart: high + 1}))
	return g
}

func TestReplayBeginsBehindTheCheckpoint(t *testing.T) {
	mem := made(t)
	var got []string
	s, err := Open(config(mem, &got))
	require.NoError(t, err)
	require.True(t, s.Report.Created)
	write(t, s, "a", "b", "c")
	settle(t, mem, s, 2)
	require.NoError(t, s.Log.Close())
	require.NoError(t, s.Close())

	for range 2 { // recover(recover(x)) = recover(x)
		got = nil
		s, err = Open(config(mem, &got))
		require.NoError(t, err)
		require.Equal(t, []string{"3 c"}, got)
		require.Len(t, s.Segments, 1)
		require.Equal(t, uint64(1), s.Report.Replayed)
		require.Equal(t, base.LSN(3), s.Report.ReplayStart)
		require.True(t, s.Report.Closed)
		require.NoError(t, s.Log.Close())
		require.NoError(t, s.Close())
	}
}

func TestWhatNobodyNamesIsRemovedLast(t *testing.T) {
	mem := made(t)
	var got []string
	s, err := Open(config(mem, &got))
	require.NoError(t, err)
	write(t, s, "a")
	g := settle(t, mem, s, 1)
	require.NoError(t, s.Log.Close())
	require.NoError(t, s.Close())
	orphan := segmentName(g.Number + 5)
	require.NoError(t, mem.SetBytes("db/"+orphan, []byte("half a segment")))

	damaged := mem.Snapshot()
	require.NoError(t, damaged.Corrupt("db/"+segmentName(g.Number), int64(g.Size)-1, 1, func(b []byte) { b[0] ^= 1 }))
	_, err = Open(config(damaged, &got))
	var c *base.CorruptionError
	require.ErrorAs(t, err, &c)
	require.NotEmpty(t, damaged.Bytes("db/"+orphan), "an open that fails removes nothing")

	s, err = Open(config(mem, &got))
	require.NoError(t, err)
	require.Equal(t, []string{orphan}, s.Report.Removed)
	require.Empty(t, mem.Bytes("db/"+orphan))
	n, err := s.Manifest.NextSegment()
	require.NoError(t, err)
	require.Greater(t, n, g.Number+5, "its number is not used again")
}

func TestLostManifestIsCorruption(t *testing.T) {
	mem := made(t)
	var got []string
	s, err := Open(config(mem, &got))
	require.NoError(t, err)
	// Without frames or segments it is an unfinished create.
	early := mem.Snapshot()
	require.NoError(t, early.Remove("db/MANIFEST-000001"))
	fresh, err := Open(config(early, &got))
	require.NoError(t, err)
	require.True(t, fresh.Report.Created)

	write(t, s, "a")
	require.NoError(t, s.Log.Close())
	require.NoError(t, s.Close())
	names, err := mem.List("db")
	require.NoError(t, err)
	for _, n := range names {
		if _, ok := manifest.ParseFileName(n); ok {
			require.NoError(t, mem.Remove("db/"+n))
		}
	}
	var c *base.CorruptionError
	_, err = Open(config(mem, &got))
	require.ErrorAs(t, err, &c)
	require.Contains(t, c.Reason, "no intact manifest")
	_, err = Explain(config(mem, &got))
	require.ErrorAs(t, err, &c)
}

func TestSegmentOfAnotherTimeIsCorruption(t *testing.T) {
	mem := made(t)
	var got []string
	s, err := Open(config(mem, &got))
	require.NoError(t, err)
	write(t, s, "a", "b")
	g := settle(t, mem, s, 2)
	require.NoError(t, s.Log.Close())
	require.NoError(t, s.Close())
	for name, damage := range map[string]func(*vfs.Mem) error{
		"missing":   func(m *vfs.Mem) error { return m.Remove("db/" + segmentName(g.Number)) },
		"truncated": func(m *vfs.Mem) error { return m.SetBytes("db/"+segmentName(g.Number), make([]byte, 10)) },
		"empty":     func(m *vfs.Mem) error { return m.SetBytes("db/"+segmentName(g.Number), nil) },
	} {
		t.Run(name, func(t *testing.T) {
			m := mem.Snapshot()
			require.NoError(t, damage(m))
			_, err := Open(config(m, &got))
			var c *base.CorruptionError
			require.ErrorAs(t, err, &c)
			require.Equal(t, "db/"+segmentName(g.Number), c.File)
		})
	}
}

func TestRecordThatIsNotUnderstoodIsCorruption(t *testing.T) {
	mem := made(t)
	var got []string
	s, err := Open(config(mem, &got))
	require.NoError(t, err)
	write(t, s, "a")
	require.NoError(t, s.Log.Close())
	require.NoError(t, s.Close())
	cfg := config(mem, &got)
	cfg.Apply = func(base.LSN, []byte) error { return fmt.Errorf("what is this") }
	_, err = Open(cfg)
	var c *base.CorruptionError
	require.ErrorAs(t, err, &c)
}

// TestDamageIsFoundBeforeTheManifestIsWritten: an open that finds the log damaged
// has not written the manifest anew, although its last edit was not proven.
func TestDamageIsFoundBeforeTheManifestIsWritten(t *testing.T) {
	mem := made(t)
	var got []string
	s, err := Open(config(mem, &got))
	require.NoError(t, err)
	write(t, s, "a", "b")
	var killed *vfs.Mem
	mem.OnIO(func(op vfs.Op) {
		if killed == nil && op.Call == vfs.CallWrite {
			killed = mem.Snapshot() // the edit is written, and its mark is not
		}
	})
	require.NoError(t, s.Manifest.Apply(&manifest.Edit{LastSegment: 7}))
	mem.OnIO(nil)
	closeAll(t, s)

	m, err := manifest.Load(killed, "db")
	require.NoError(t, err)
	require.True(t, m.Dirty())
	damaged := killed.Snapshot()
	require.NoError(t, flip(damaged, "db/000001.log", 600))
	before := contents(t, damaged)
	var c *base.CorruptionError
	_, err = Open(config(damaged, &got))
	require.ErrorAs(t, err, &c)
	require.Equal(t, before, contents(t, damaged))

	s, err = Open(config(killed, &got))
	require.NoError(t, err)
	require.Equal(t, uint64(7), s.Manifest.State().LastSegment)
	closeAll(t, s)
}

// TestApplyLeavesRecordsInTheLog: the report says where those begin that were left;
// all are seen, and the log has them. How large it is at least is said first.
func TestApplyLeavesRecordsInTheLog(t *testing.T) {
	mem := made(t)
	var got []string
	cfg := config(mem, &got)
	cfg.Log.FileSize = 64 << 10
	s, err := Open(cfg)
	require.NoError(t, err)
	write(t, s, "a", "b", string(make([]byte, 50<<10)), "d", string(make([]byte, 50<<10)))
	killed := mem.Snapshot()
	closeAll(t, s)
	for _, read := range ways {
		size, seen := int64(-1), 0
		cfg := config(killed.Snapshot(), &got)
		cfg.Size = func(bytes int64) { size = bytes }
		cfg.Apply = func(lsn base.LSN, _ []byte) error {
			require.NotEqual(t, int64(-1), size)
			if seen++; lsn < 3 {
				return nil
			}
			return ErrLeft
		}
		require.NoError(t, read(cfg))
		require.Equal(t, int64(64<<10), size)
		require.Equal(t, 5, seen)
	}
	cfg = config(killed, &got)
	cfg.Apply = func(lsn base.LSN, _ []byte) error {
		if lsn < 3 {
			return nil
		}
		return ErrLeft
	}
	s, err = Open(cfg)
	require.NoError(t, err)
	require.Equal(t, base.LSN(3), s.Report.Left)
	require.Equal(t, uint64(5), s.Report.Replayed)
	var left []base.LSN
	require.NoError(t, s.Log.Replay(s.Report.Left, func(lsn base.LSN, _ []byte) error { left = append(left, lsn); return nil }))
	require.Equal(t, []base.LSN{3, 4, 5}, left)
	closeAll(t, s)
}

// TestAppliedCanRefuse: what is wrong with the records together is said before
// anything is changed, behind the last record, and not asked of who explains.
func TestAppliedCanRefuse(t *testing.T) {
	mem := made(t)
	var got []string
	s, err := Open(config(mem, &got))
	require.NoError(t, err)
	write(t, s, "a", "b", "c")
	killed := mem.Snapshot()
	closeAll(t, s)
	before := contents(t, killed)
	refused := errors.New("refused")
	for way, read := range ways {
		got = nil
		cfg, calls := config(killed, &got), 0
		cfg.Applied = func() error {
			calls++
			require.Len(t, got, 3)
			return refused
		}
		err := read(cfg)
		if calls == 0 {
			require.NoError(t, err, way)
		} else {
			require.ErrorIs(t, err, refused, way)
			require.Equal(t, 1, calls)
		}
		require.Equal(t, before, contents(t, killed), way)
	}
	cfg := config(killed, &got)
	cfg.Applied = func() error { return refused }
	_, err = Open(cfg)
	require.ErrorIs(t, err, refused)
	require.Equal(t, before, contents(t, killed))
}
