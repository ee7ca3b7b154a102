package recovery

import (
	"io/fs"
	mathrand "math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/internal/base"
	"github.com/forebaydb/forebay/manifest"
	"github.com/forebaydb/forebay/vfs"
)

// readOnly opens a copy of a state and fails on any call that could change it.
func readOnly(t *testing.T, mem *vfs.Mem) (*Store, []string, error) {
	t.Helper()
	mem = mem.Snapshot()
	before := contents(t, mem)
	mem.OnIO(func(op vfs.Op) { t.Errorf("a read-only open changes something: %+v", op) })
	rec := vfs.NewRecorder(mem)
	var got []string
	s, err := OpenReadOnly(config(rec, &got))
	if s != nil {
		require.Nil(t, s.Log)
		require.ErrorIs(t, s.Manifest.Apply(&manifest.Edit{LastSegment: 99}), manifest.ErrReadOnly)
		require.Len(t, s.Listed, len(s.Segments))
		for i, r := range s.Segments {
			require.Equal(t, r.ID().Number, s.Listed[i].Number)
			require.NoError(t, r.Verify(t.Context()))
		}
		require.NoError(t, s.Close())
	}
	for _, e := range rec.Events() {
		switch e.Call {
		case vfs.CallOpen, vfs.CallRead, vfs.CallSize, vfs.CallList, vfs.CallStat, vfs.CallClose:
		default:
			t.Errorf("a read-only open calls %s of %s", e.Call, e.Name)
		}
	}
	mem.OnIO(nil)
	require.Equal(t, before, contents(t, mem))
	return s, got, err
}

func contents(t *testing.T, mem *vfs.Mem) map[string]string {
	t.Helper()
	all := map[string]string{}
	names, err := mem.List("db")
	if err != nil {
		require.ErrorIs(t, err, fs.ErrNotExist)
		return nil
	}
	for _, name := range names {
		all[name] = string(mem.Bytes("db/" + name))
	}
	return all
}

// TestReadOnlySeesWhatOpenSees cuts the power after every change of a store's
// life: a read-only open shows what an Open shows, or fails as it does, and
// leaves everything as it was.
func TestReadOnlySeesWhatOpenSees(t *testing.T) {
	seed := mathrand.Uint64()
	t.Logf("seed %d", seed)
	mem := made(t)
	var cuts []*vfs.Mem
	mem.OnIO(func(op vfs.Op) {
		cuts = append(cuts, mem.Snapshot(), mem.PowerCutSeed(seed+op.Seq, vfs.SectorAtomic))
	})
	var got []string
	for range 2 {
		s, err := Open(config(mem, &got))
		require.NoError(t, err)
		write(t, s, "a", "b")
		high := s.Log.LastLSN()
		write(t, s, "c")
		settle(t, mem, s, high)
		write(t, s, "d")
		closeAll(t, s)
	}
	mem.OnIO(nil)
	require.NoError(t, mem.SetBytes("db/000099.seg", []byte("what a checkpoint left")))
	cuts = append(cuts, mem)
	stores, torn := 0, 0
	for i, m := range cuts {
		s, shown, err := readOnly(t, m)
		if err != nil {
			require.ErrorIs(t, err, fs.ErrNotExist, "cut %d", i)
		}
		var want []string
		o, oerr := Open(config(m, &want))
		require.NoError(t, oerr, "cut %d", i)
		require.Equal(t, err != nil, o.Report.Created, "cut %d", i)
		if err == nil {
			stores++
			require.Equal(t, want, shown, "cut %d", i)
			require.Equal(t, len(o.Segments), len(s.Segments))
			require.Equal(t, o.Listed, s.Listed)
			a, b := o.Report, s.Report
			a.Duration, b.Duration, a.Removed = 0, 0, nil
			require.Equal(t, a, b, "cut %d", i)
			if s.Report.Copied > 0 {
				torn++
			}
		}
		closeAll(t, o)
	}
	require.Greater(t, stores, 20)
	require.Positive(t, torn, "none of them showed what no proof covers")
}

func TestReadOnlyWithoutAStore(t *testing.T) {
	_, _, err := readOnly(t, made(t))
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.ErrorContains(t, err, "no store in db")
	_, _, err = readOnly(t, vfs.NewMem())
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.ErrorContains(t, err, "no store in db")
}

func TestReadOnlyRefusesDamage(t *testing.T) {
	mem := made(t)
	var got []string
	s, err := Open(config(mem, &got))
	require.NoError(t, err)
	write(t, s, "a", "b")
	g := settle(t, mem, s, 1)
	closeAll(t, s)
	for name, damage := range map[string]func(m *vfs.Mem) error{
		"a segment is gone":     func(m *vfs.Mem) error { return m.Remove("db/" + segmentName(g.Number)) },
		"a segment is damaged":  func(m *vfs.Mem) error { return flip(m, "db/"+segmentName(g.Number), int64(g.Size)-1) },
		"a log file is gone":    func(m *vfs.Mem) error { return m.Remove("db/000001.log") },
		"the log is damaged":    func(m *vfs.Mem) error { return flip(m, "db/000001.log", 600) },
		"the manifest is gone":  func(m *vfs.Mem) error { return m.Remove("db/MANIFEST-000001") },
		"a record is no record": nil,
	} {
		t.Run(name, func(t *testing.T) {
			m := mem.Snapshot()
			var c *base.CorruptionError
			if damage == nil {
				cfg := config(m, &got)
				cfg.Apply = func(base.LSN, []byte) error { return fs.ErrInvalid }
				_, err := OpenReadOnly(cfg)
				require.ErrorAs(t, err, &c)
				return
			}
			require.NoError(t, damage(m))
			_, _, err := readOnly(t, m)
			require.ErrorAs(t, err, &c)
		})
	}
}

func flip(m *vfs.Mem, name string, off int64) error {
	return m.Corrupt(name, off, 1, func(b []byte) { b[0] ^= 1 })
}
