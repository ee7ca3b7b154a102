package recovery

import (
	"crypto/rand"
	"fmt"
	mathrand "math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/internal/base"
	"github.com/forebaydb/forebay/manifest"
	"github.com/forebaydb/forebay/vfs"
)

// without returns a store that a backup or a salvage made: its manifest says
// that all records up to n are settled, and it has no log file.
func without(t *testing.T, log base.LogState) *vfs.Mem {
	t.Helper()
	mem := made(t)
	require.NoError(t, manifest.Create(mem, "db", [16]byte{7}, manifest.State{Log: log, ReplayStart: log.Floor.LSN + 1}, rand.Reader))
	return mem
}

func closeAll(t *testing.T, s *Store) {
	t.Helper()
	require.NoError(t, s.Log.Close())
	require.NoError(t, s.Close())
}

func TestStoreWithoutLogGoesOnBehindItsFloor(t *testing.T) {
	for name, log := range map[string]base.LogState{
		"as a backup says it": {Floor: base.LogFloor{File: 12, LSN: 41, Hash: 0xabcdef, Epoch: 5}, Epoch: 6, Number: 12},
		"no hash":             {Floor: base.LogFloor{File: 12, LSN: 41, Epoch: 5}, Epoch: 5, Number: 12},
		"no file":             {Floor: base.LogFloor{LSN: 41, Epoch: 5}, Epoch: 5},
		"epoch in the floor":  {Floor: base.LogFloor{File: 3, LSN: 41, Epoch: 5}},
		"from nothing":        {},
	} {
		t.Run(name, func(t *testing.T) {
			n := log.Floor.LSN
			mem := without(t, log)
			var got []string
			rep, err := Explain(config(mem, &got))
			require.NoError(t, err)
			require.Equal(t, n, rep.Last)

			epoch := max(log.Epoch, log.Floor.Epoch)
			for range 2 { // an open that writes nothing changes nothing
				s, err := Open(config(mem, &got))
				require.NoError(t, err)
				require.False(t, s.Report.Created)
				require.Equal(t, n, s.Log.LastLSN())
				require.Equal(t, n, s.Log.DurableLSN())
				require.Equal(t, n, s.Log.Floor())
				require.Empty(t, got)
				closeAll(t, s)
			}
			s, err := Open(config(mem, &got))
			require.NoError(t, err)
			lsn, err := s.Log.Append([]byte("a"))
			require.NoError(t, err)
			require.Equal(t, n+1, lsn)
			require.Greater(t, s.Log.EpochAt(lsn), epoch)
			for _, f := range s.Log.Files() {
				require.Greater(t, f.Number, max(log.Number, log.Floor.File))
			}
			write(t, s, "b")
			crashed := mem.PowerCutSeed(1, vfs.SectorAtomic)
			closeAll(t, s)

			for _, m := range []*vfs.Mem{mem, crashed} {
				for i := range 2 {
					got = nil
					s, err := Open(config(m, &got))
					require.NoError(t, err)
					require.Equal(t, []string{fmt.Sprint(n+1, " a"), fmt.Sprint(n+2, " b")}, got[:2])
					require.Len(t, got, 2+i)
					write(t, s, "c")
					closeAll(t, s)
				}
				s, err := Open(config(m, &got))
				require.NoError(t, err)
				write(t, s, "d")
				require.NoError(t, s.Manifest.Apply(&manifest.Edit{ReplayStart: n + 4}))
				require.NoError(t, s.Log.TruncateFront(n+3))
				require.Greater(t, s.Log.Floor(), n)
				write(t, s, "e")
				closeAll(t, s)
				got = nil
				s, err = Open(config(m, &got))
				require.NoError(t, err)
				require.Equal(t, []string{fmt.Sprint(n+5, " d"), fmt.Sprint(n+6, " e")}, got[len(got)-2:])
				closeAll(t, s)
			}
		})
	}
}

// TestStoreWithoutLogAndPowerCuts cuts the power after every change of the first
// opens of a store without a log: it opens, to what was durable at least.
func TestStoreWithoutLogAndPowerCuts(t *testing.T) {
	const n = 41
	seed := mathrand.Uint64()
	t.Logf("seed %d", seed)
	mem := without(t, base.LogState{Floor: base.LogFloor{File: 12, LSN: n, Epoch: 5}, Epoch: 5, Number: 12})
	type state struct {
		mem   *vfs.Mem
		acked base.LSN
	}
	var cuts []state
	acked := base.LSN(n)
	mem.OnIO(func(op vfs.Op) {
		for i := range uint64(3) {
			cuts = append(cuts, state{mem.PowerCutSeed(seed+op.Seq*3+i, vfs.SectorAtomic), acked})
		}
	})
	var got []string
	for range 2 {
		s, err := Open(config(mem, &got))
		require.NoError(t, err)
		for range 3 {
			lsn, err := s.Log.Append(fmt.Append(nil, "record"))
			require.NoError(t, err)
			acked = lsn
		}
		closeAll(t, s)
	}
	mem.OnIO(nil)
	for i, c := range cuts {
		var last base.LSN
		for round := range 2 {
			got = nil
			s, err := Open(config(c.mem, &got))
			require.NoError(t, err, "cut %d", i)
			require.GreaterOrEqual(t, s.Log.LastLSN(), c.acked)
			require.Len(t, got, int(s.Log.LastLSN()-n))
			if round == 1 {
				require.Equal(t, last, s.Log.LastLSN())
			}
			lsn, err := s.Log.Append([]byte("again"))
			require.NoError(t, err)
			require.Equal(t, s.Report.Last+1, lsn)
			last = lsn
			if i%2 == 0 {
				closeAll(t, s)
			}
		}
	}
}
