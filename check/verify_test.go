package check

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/internal/base"
	"github.com/forebaydb/forebay/manifest"
	"github.com/forebaydb/forebay/segment"
	"github.com/forebaydb/forebay/vfs"
	"github.com/forebaydb/forebay/wal"
)

// full is a store with segments in level 0 and the last level, range deletes, and
// a log of several files above them.
func full(t *testing.T) *store {
	t.Helper()
	st := newStore(t)
	st.puts("a", 100)
	st.puts("b", 100)
	st.settle(false)
	st.commit(dels("a0010", "a0020"), put("a0015", "back"))
	st.commit(del("b0003"))
	st.settle(false)
	st.compact(false)
	st.puts("c", 50)
	st.commit(dels("b0010", "b0020"))
	st.settle(false)
	st.puts("a", 20)
	st.settle(false)
	st.puts("d", 300)
	st.commit(put("b0001", "newest"), del("a0000"))
	require.Greater(t, len(st.s.Manifest.State().Log.Files), 2)
	return st
}

func verify(t *testing.T, st *store) *Report {
	t.Helper()
	before := content(t, st.mem, "db")
	rep, err := Verify(context.Background(), st.cfg())
	require.NoError(t, err)
	require.Equal(t, before, content(t, st.mem, "db"), "Verify changed something")
	return rep
}

// at says whether there is a problem of a file at an offset.
func at(rep *Report, file string, off int64) bool {
	return slices.ContainsFunc(rep.Problems, func(p Problem) bool { return p.File == file && p.Offset == off && p.Severity == Damage })
}

func TestVerifyOfAWholeStore(t *testing.T) {
	st := full(t)
	st.close()
	var done, total int64
	cfg := st.cfg()
	cfg.Progress = func(d, n int64) {
		require.GreaterOrEqual(t, d, done)
		require.LessOrEqual(t, d, n)
		done, total = d, n
	}
	rep, err := Verify(context.Background(), cfg)
	require.NoError(t, err)
	require.Empty(t, rep.Problems)
	require.NoError(t, rep.Err())
	require.Equal(t, total, done)
	require.Equal(t, rep.Bytes, total)
	require.Positive(t, total)
	require.GreaterOrEqual(t, rep.Records, uint64(301))
	require.True(t, rep.Log.Closed)
	require.Greater(t, rep.Segments, 3)
	require.Greater(t, rep.Versions, uint64(250))
}

func TestVerifyTellsWhatNobodyNames(t *testing.T) {
	st := full(t)
	st.close()
	require.NoError(t, st.mem.SetBytes("db/000999.seg", []byte("half")))
	require.NoError(t, st.mem.SetBytes("db/notes.txt", []byte("mine")))
	require.NoError(t, st.mem.SetBytes("db/000999.log", nil))
	rep := verify(t, st)
	require.NoError(t, rep.Err())
	require.Equal(t, 3, rep.Count(Warning))
	require.Zero(t, rep.Count(Damage))
	for _, p := range rep.Problems {
		require.Equal(t, "warning", p.Severity.String())
		require.Contains(t, p.String(), p.File)
	}
}

func TestVerifyFindsEveryDamage(t *testing.T) {
	type target struct {
		name   string
		damage func(t *testing.T, st *store) (file string, off int64)
	}
	first := func(st *store) *manifest.Segment { return &st.s.Manifest.State().Segments[0] }
	for _, c := range []target{
		{"first data block", func(_ *testing.T, st *store) (string, int64) {
			p := st.segPath(first(st).Number)
			st.flip(p, 3)
			return p, 0
		}},
		{"footer", func(_ *testing.T, st *store) (string, int64) {
			g := first(st)
			st.flip(st.segPath(g.Number), int64(g.Size)-100)
			return st.segPath(g.Number), int64(g.Size) - 128
		}},
		{"segment missing", func(t *testing.T, st *store) (string, int64) {
			p := st.segPath(first(st).Number)
			require.NoError(t, st.mem.Remove(p))
			return p, -1
		}},
		{"segment of another name", func(t *testing.T, st *store) (string, int64) {
			segs := st.s.Manifest.State().Segments
			require.NoError(t, st.mem.SetBytes(st.segPath(segs[0].Number), st.mem.Bytes(st.segPath(segs[1].Number))))
			return st.segPath(segs[0].Number), 0
		}},
		{"segment cut short", func(t *testing.T, st *store) (string, int64) {
			g := first(st)
			b := st.mem.Bytes(st.segPath(g.Number))
			require.NoError(t, st.mem.SetBytes(st.segPath(g.Number), b[:len(b)-1]))
			return st.segPath(g.Number), int64(g.Size) - 129
		}},
		{"manifest", func(_ *testing.T, st *store) (string, int64) {
			p := st.manifestPath()
			st.flip(p, 4096+100)
			return p, 4096
		}},
		{"log header", func(_ *testing.T, st *store) (string, int64) {
			p := st.logs()[1]
			st.flip(p, 20)
			return p, 0
		}},
		{"log link", func(_ *testing.T, st *store) (string, int64) {
			p := st.logs()[1]
			st.flip(p, 512+60)
			return p, 512
		}},
		{"log file missing", func(t *testing.T, st *store) (string, int64) {
			p := st.logs()[1]
			require.NoError(t, st.mem.Remove(p))
			return p, -1
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			st := full(t)
			st.close()
			file, off := c.damage(t, st)
			rep := verify(t, st)
			require.True(t, at(rep, file, off), "%s at %d: %v", file, off, rep.Problems)
			require.Error(t, rep.Err())
			require.True(t, errors.As(rep.Err(), new(*base.CorruptionError)))
		})
	}
}

func TestVerifyFindsAllOfSeveralDamages(t *testing.T) {
	st := full(t)
	st.close()
	segs, logs := st.s.Manifest.State().Segments, st.logs()
	a, b := st.segPath(segs[0].Number), st.segPath(segs[1].Number)
	st.flip(a, 3)
	st.flip(a, int64(segs[0].Size)-1)
	st.flip(b, 3)
	st.flip(logs[0], 2000)
	require.NoError(t, st.mem.Remove(logs[2]))
	rep := verify(t, st)
	require.True(t, at(rep, a, 0), rep.Problems)
	require.True(t, at(rep, a, int64(segs[0].Size)-128), rep.Problems)
	require.True(t, at(rep, b, 0), rep.Problems)
	require.True(t, at(rep, logs[2], -1), rep.Problems)
	require.True(t, slices.ContainsFunc(rep.Problems, func(p Problem) bool { return p.File == logs[0] && p.Offset <= 2000 && p.Offset > 512 }), rep.Problems)

	require.NoError(t, st.mem.Remove(st.manifestPath()))
	rep = verify(t, st)
	require.True(t, at(rep, "db", -1), "there is no manifest")
	require.True(t, at(rep, a, 0), rep.Problems)
	require.True(t, at(rep, b, 0), rep.Problems)
	require.GreaterOrEqual(t, rep.Count(Damage), 5)
}

func TestVerifyComparesTheManifest(t *testing.T) {
	st := full(t)
	g := st.s.Manifest.State().Segments[0]
	g.Count++
	require.NoError(t, st.s.Manifest.Apply(&manifest.Edit{Remove: []uint64{g.Number}}))
	require.NoError(t, st.s.Manifest.Apply(&manifest.Edit{Add: []manifest.Segment{g}}))
	st.close()
	rep := verify(t, st)
	require.True(t, at(rep, st.segPath(g.Number), 0))
	require.Contains(t, rep.Problems[0].Reason, "versions")
}

func TestVerifyFindsLevelsThatOverlap(t *testing.T) {
	st := full(t)
	s := st.s.Manifest.State()
	var deep []manifest.Segment
	for _, g := range s.Segments {
		if g.Level > 0 {
			deep = append(deep, g)
		}
	}
	g := deep[0]
	g.Hi = deep[1].Hi
	require.NoError(t, st.s.Manifest.Apply(&manifest.Edit{Add: []manifest.Segment{g}}))
	st.close()
	rep := verify(t, st)
	require.True(t, slices.ContainsFunc(rep.Problems, func(p Problem) bool { return strings.Contains(p.String(), "overlap") }), rep.Problems)
}

func TestVerifyFindsARecordThatIsNoBatch(t *testing.T) {
	st := full(t)
	_, err := st.s.Log.Append([]byte("no batch"))
	require.NoError(t, err)
	st.close()
	rep := verify(t, st)
	require.Len(t, rep.Problems, 1)
	p := rep.Problems[0]
	require.Contains(t, p.Reason, "no batch")
	require.Contains(t, p.File, ".log")
	require.Positive(t, p.Offset)
}

func TestVerifyReadsRetainedFiles(t *testing.T) {
	st := newStore(t)
	require.NoError(t, st.s.Log.Pin("mine", 1))
	st.puts("a", 300)
	st.settle(false)
	st.puts("b", 300)
	st.settle(false)
	st.close()
	require.Empty(t, verify(t, st).Problems)
	var kept base.LogFile
	for _, f := range st.s.Manifest.State().Log.Files {
		if f.Retained {
			kept = f
		}
	}
	require.NotZero(t, kept.Number)
	p := filepath.Join("db", wal.FileName(kept.Number))
	st.flip(p, 3000)
	rep := verify(t, st)
	require.Len(t, rep.Problems, 1)
	require.Equal(t, p, rep.Problems[0].File)
	require.InDelta(t, 3000, rep.Problems[0].Offset, 300)
}

func TestVerifyOfATornLogIsAWarning(t *testing.T) {
	st := full(t)
	cut := st.mem.Snapshot() // as after a kill
	st.mem = cut
	logs := st.logs()
	last := logs[len(logs)-1]
	b := cut.Bytes(last)
	end := len(b)
	for end > 0 && b[end-1] == 0 {
		end--
	}
	st.flip(last, int64(end)-4)
	rep := verify(t, st)
	require.NoError(t, rep.Err())
	require.Equal(t, 1, rep.Count(Warning), rep.Problems)
	require.Equal(t, wal.Torn, rep.Log.Verdict)
}

func TestVerifyEnds(t *testing.T) {
	st := full(t)
	st.close()
	ctx, cancel := context.WithCancel(context.Background())
	calls := 0
	cfg := st.cfg()
	cfg.Progress = func(int64, int64) { calls++ }
	_, err := Verify(ctx, cfg)
	require.NoError(t, err)
	for n := range 20 {
		cfg := st.cfg()
		left := (calls - 1) * n / 20
		cfg.Progress = func(int64, int64) {
			if left--; left < 0 {
				cancel()
			}
		}
		_, err := Verify(ctx, cfg)
		require.ErrorIs(t, err, context.Canceled)
		ctx, cancel = context.WithCancel(context.Background())
	}
	cancel()

	_, err = Verify(context.Background(), &Config{FS: st.mem, Dir: "nowhere"})
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.NoError(t, st.mem.MkdirAll("empty"))
	_, err = Verify(context.Background(), &Config{FS: st.mem, Dir: "empty"})
	require.ErrorIs(t, err, ErrNone)
}

func TestVerifyTellsReadErrors(t *testing.T) {
	st := full(t)
	st.close()
	broken := errors.New("the disk says no")
	in := vfs.NewInjector(st.mem)
	g := st.s.Manifest.State().Segments[0]
	in.Add(vfs.Rule{Call: vfs.CallRead, Name: segment.FileName(g.Number), Forever: true, Err: broken})
	rep, err := Verify(context.Background(), &Config{FS: in, Dir: "db"})
	require.NoError(t, err)
	require.NotEmpty(t, rep.Problems)
	require.ErrorIs(t, rep.Problems[0].Err, broken)
	require.Equal(t, st.segPath(g.Number), rep.Problems[0].File)
}
