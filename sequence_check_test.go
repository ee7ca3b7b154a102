package forebay_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/check"
	"github.com/forebaydb/forebay/vfs"
)

// TestSequencesAreSalvaged: what package check makes of a store has its sequences, with
// the offsets that items had, trimmed where they were, and they go on.
func TestSequencesAreSalvaged(t *testing.T) {
	fs := vfs.NewMem()
	opts := &forebay.Options{FS: fs, MemtableSize: 64 << 10, LogFileSize: 64 << 10}
	open := func(dir string) (*forebay.DB, map[string]*forebay.Sequence) {
		db, err := forebay.Open(dir, opts)
		require.NoError(t, err)
		seqs := map[string]*forebay.Sequence{}
		for _, name := range []string{"whole", "trimmed", "empty"} {
			seqs[name], err = db.Sequence(name)
			require.NoError(t, err)
		}
		return db, seqs
	}
	db, seqs := open("data")
	want := map[string][]string{}
	fill := func(n int) {
		for i := range n {
			b := db.NewBatch()
			for name, s := range seqs {
				for j := range 1 + i%3 {
					item := fmt.Sprintf("%s %d.%d %0*d", name, i, j, i%500, 0)
					require.NoError(t, b.Append(s, []byte(item)))
					want[name] = append(want[name], item)
				}
			}
			require.NoError(t, b.Put(fmt.Appendf(nil, "k%d", i), []byte("v")))
			require.NoError(t, db.Apply(b, forebay.Written))
		}
	}
	fill(300)
	require.NoError(t, db.Checkpoint(context.Background()))
	require.NoError(t, seqs["trimmed"].Trim(200))
	require.NoError(t, seqs["empty"].Trim(1<<40))
	require.NoError(t, db.Compact(context.Background()))
	empty := len(want["empty"])
	fill(100)
	require.NoError(t, db.Checkpoint(context.Background()))
	fill(50)
	require.NoError(t, seqs["empty"].Trim(1<<40))
	first, _, err := seqs["trimmed"].Bounds()
	require.NoError(t, err)
	require.NotZero(t, first)
	require.Greater(t, len(want["empty"]), empty)
	firsts := map[string]int{"whole": 0, "trimmed": int(first), "empty": len(want["empty"])}
	require.NoError(t, db.Close())

	dir := "data"
	for round := range 3 {
		rep, err := check.Verify(context.Background(), &check.Config{FS: fs, Dir: dir})
		require.NoError(t, err)
		require.Empty(t, rep.Problems)
		to := fmt.Sprint("saved", round)
		out, err := check.Salvage(context.Background(), &check.Config{FS: fs, Dir: dir}, to)
		require.NoError(t, err)
		require.Empty(t, out.Losses)
		require.Zero(t, out.LostItems)
		require.Equal(t, len(want["whole"])+len(want["trimmed"])-int(first)+len(want["empty"])-firsts["empty"], int(out.Items))
		dir = to
		for range 2 {
			db, seqs = open(dir)
			for name, s := range seqs {
				first, next, err := s.Bounds()
				require.NoError(t, err)
				require.Equal(t, []uint64{uint64(firsts[name]), uint64(len(want[name]))}, []uint64{first, next}, name)
				require.Equal(t, append([]string(nil), want[name][firsts[name]:]...), items(t, s, first), name)
				at, err := s.Append([]byte("more"))
				require.NoError(t, err)
				require.Equal(t, len(want[name]), int(at))
				want[name] = append(want[name], "more")
			}
			v, err := db.Get([]byte("k7"))
			require.NoError(t, err)
			require.Equal(t, "v", string(v))
			require.NoError(t, db.Checkpoint(context.Background()))
			require.NoError(t, db.Close())
		}
	}
}

// TestSequencesWithHoles: where a log file was lost, a read from there says that the
// items are gone, one from before passes over them, and all else goes on as ever.
func TestSequencesWithHoles(t *testing.T) {
	for _, front := range []bool{false, true} {
		fs := vfs.NewMem()
		opts := &forebay.Options{FS: fs, MemtableSize: 64 << 10, LogFileSize: 64 << 10}
		db, err := forebay.Open("data", opts)
		require.NoError(t, err)
		s, err := db.Sequence("s")
		require.NoError(t, err)
		var want []string
		for i := range 1000 {
			want = append(want, fmt.Sprintf("%d %0*d", i, i%700, 0))
			_, err := s.Append([]byte(want[i]))
			require.NoError(t, err)
		}
		require.NoError(t, db.Checkpoint(context.Background()))
		require.NoError(t, db.Close())
		names, err := fs.List("data")
		require.NoError(t, err)
		var logs []string
		for _, name := range names {
			if strings.HasSuffix(name, ".log") {
				logs = append(logs, "data/"+name)
			}
		}
		require.Greater(t, len(logs), 3)
		gone := logs[1]
		if front {
			gone = logs[0]
		}
		require.NoError(t, fs.Remove(gone))
		rep, err := check.Verify(context.Background(), &check.Config{FS: fs, Dir: "data"})
		require.NoError(t, err)
		require.True(t, slices.ContainsFunc(rep.Problems, func(p check.Problem) bool {
			return p.File == gone && strings.Contains(p.Reason, `of sequence "s"`)
		}), rep.Problems)
		out, err := check.Salvage(context.Background(), &check.Config{FS: fs, Dir: "data"}, "saved")
		require.NoError(t, err)
		require.Positive(t, out.LostItems)
		require.Equal(t, 1000, int(out.Items+out.LostItems))

		for range 2 {
			db, err = forebay.Open("saved", opts)
			require.NoError(t, err)
			s, err = db.Sequence("s")
			require.NoError(t, err)
			first, next, err := s.Bounds()
			require.NoError(t, err)
			require.Equal(t, len(want), int(next))
			require.Equal(t, front, first > 0)
			if front {
				require.Equal(t, out.LostItems, first)
			}
			hole, last := uint64(0), -1
			for it, err := range s.Read(context.Background(), first) {
				require.NoError(t, err)
				require.Equal(t, want[it.Offset], string(it.Value))
				if d := int(it.Offset) - last - 1; d > 0 {
					hole = it.Offset - uint64(d)
					require.Equal(t, int(out.LostItems), d)
				}
				last = int(it.Offset)
			}
			require.Equal(t, len(want)-1, last)
			for i := range out.LostItems {
				for _, err := range s.Read(context.Background(), hole+i) {
					require.ErrorIs(t, err, forebay.ErrNotFound)
				}
			}
			at, err := s.Append([]byte("more"))
			require.NoError(t, err)
			require.Equal(t, len(want), int(at))
			want = append(want, "more")
			require.NoError(t, db.Checkpoint(context.Background()))
			require.NoError(t, db.Close())
		}
		db, err = forebay.Open("saved", opts)
		require.NoError(t, err)
		s, err = db.Sequence("s")
		require.NoError(t, err)
		require.NoError(t, s.Trim(1<<40))
		first, next, err := s.Bounds()
		require.NoError(t, err)
		require.Equal(t, []uint64{1002, 1002}, []uint64{first, next})
		require.NoError(t, db.Close())
	}
}
