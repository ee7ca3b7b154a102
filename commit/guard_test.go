package commit

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/internal/base"
	"github.com/forebaydb/forebay/internal/batch"
	"github.com/forebaydb/forebay/vfs"
	"github.com/forebaydb/forebay/wal"
)

var errGone = errors.New("the keyspace is gone")

func refuse() error { return errGone }

// noted is all that a tracker remembers of writes.
func noted(t *tracker) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return fmt.Sprint(t.since, t.last, t.points.used, t.points.since, len(t.keys.new.writes), len(t.dels.new.writes), t.keys.dropped, t.dels.dropped, len(t.bulk))
}

// TestGuardRefuses: a commit that its guard refuses was never there, whatever
// kind it is, with transactions beside it and without.
func TestGuardRefuses(t *testing.T) {
	for _, active := range []bool{false, true} {
		t.Run(fmt.Sprint("transactions=", active), func(t *testing.T) {
			s := openStore(t, vfs.NewMem())
			_, err := s.p.ApplyGuarded(putRecord("a", "0"), wal.Durable, nil)
			require.NoError(t, err)
			at := s.p.Applied()
			if active {
				s.p.Begin()
				defer s.p.End()
				_, err := s.p.Apply(putRecord("b", "0"), wal.Durable, nil)
				require.NoError(t, err)
			}
			last, before := s.log.LastLSN(), noted(&s.p.track)

			big := new(batch.Batch)
			for i := range defaultLimits.bulk {
				require.NoError(t, big.Put(fmt.Append(nil, "a", i), nil))
			}
			require.NoError(t, big.DeleteRange([]byte("a"), []byte("b")))
			for _, rec := range [][]byte{putRecord("a", "1"), big.Bytes()} {
				lsn, err := s.p.ApplyGuarded(rec, wal.Durable, refuse)
				require.Equal(t, errGone, err)
				require.Zero(t, lsn)
				c, err := s.p.SubmitGuarded(rec, wal.Durable, refuse)
				if err == nil {
					err = c.Wait(background)
				}
				require.Equal(t, errGone, err)
			}
			require.NoError(t, s.log.Err())
			require.Equal(t, last, s.log.LastLSN())
			require.Equal(t, last, s.p.Visible())
			require.Equal(t, before, noted(&s.p.track))
			require.Equal(t, "0", s.table.get("a", s.p.Visible()))
			if active {
				for _, rec := range [][]byte{putRecord("a", "1"), nil} { // nil: it only reads
					_, err = s.p.CommitTx(rec, wal.Durable, readsOf(last, "a"), refuse)
					require.Equal(t, errGone, err)
				}
				require.Equal(t, before, noted(&s.p.track))
				lsn, err := s.p.CommitTx(putRecord("a", "2"), wal.Durable, readsOf(at, "a"), nil)
				require.NoError(t, err, "nothing that was refused is in its way")
				require.Equal(t, last+1, lsn)
			}
			lsn, err := s.p.ApplyGuarded(putRecord("c", "1"), wal.Durable, func() error { return nil })
			require.NoError(t, err)
			require.Equal(t, s.log.LastLSN(), lsn)
		})
	}
}

// TestGuardComesLast: what is refused for another reason never comes to its
// guard, which may have changed things.
func TestGuardComesLast(t *testing.T) {
	in := vfs.NewInjector(vfs.NewMem())
	s := openStore(t, in)
	asked := 0
	count := func() error { asked++; return nil }
	_, err := s.p.Apply(putRecord("a", "0"), wal.Durable, nil)
	require.NoError(t, err)
	s.p.Begin()
	defer s.p.End()
	_, err = s.p.Apply(putRecord("a", "1"), wal.Durable, nil)
	require.NoError(t, err)

	_, err = s.p.CommitTx(putRecord("b", "1"), wal.Durable, readsOf(1, "a"), count)
	require.ErrorIs(t, err, ErrConflict)
	_, err = s.p.CommitTx(putRecord("b", "1"), wal.Durable, readsOf(0, "x"), count)
	require.ErrorIs(t, err, ErrStale)
	_, err = s.p.ApplyGuarded([]byte("no batch"), wal.Durable, count)
	require.ErrorContains(t, err, "refused")

	// The leader finds what was no conflict yet when it was submitted.
	var c1, c2, c3 *Commit
	require.NoError(t, s.log.Exclusive(func() {
		rd1, rd2 := readsOf(s.p.Applied(), "k"), readsOf(s.p.Applied(), "k")
		c1, err = s.p.SubmitTx(putRecord("k", "1"), wal.Durable, rd1, count)
		require.NoError(t, err)
		c2, err = s.p.SubmitTx(putRecord("k", "2"), wal.Durable, rd2, func() error { asked += 100; return nil })
		require.NoError(t, err)
		c3, err = s.p.SubmitGuarded(putRecord("k", "3"), wal.Durable, func() error { asked += 10; return nil })
		require.NoError(t, err)
	}))
	require.NoError(t, c1.Wait(background))
	require.ErrorIs(t, c2.Wait(background), ErrConflict)
	require.NoError(t, c3.Wait(background))
	require.Equal(t, 11, asked)

	// Admitted, and then the sync fails: the guard was asked, the outcome is
	// unknown, and no later commit comes to its guard.
	in.Add(vfs.Rule{Call: vfs.CallSyncData, Name: "*.log", Err: syscall.EIO})
	_, err = s.p.ApplyGuarded(putRecord("c", "1"), wal.Durable, count)
	require.ErrorIs(t, err, wal.ErrUnknown)
	require.Equal(t, 12, asked)
	_, err = s.p.ApplyGuarded(putRecord("c", "1"), wal.Durable, count)
	require.ErrorIs(t, err, wal.ErrPoisoned)
	require.Equal(t, 12, asked)
}

// TestGuardRefusesWhatWasReadFrom: in the lane a transaction may have read from
// one that its guard refuses.
func TestGuardRefusesWhatWasReadFrom(t *testing.T) {
	s := openStore(t, vfs.NewMem())
	s.p.Begin()
	defer s.p.End()
	var c1, c2 *Commit
	require.NoError(t, s.log.Exclusive(func() {
		h, err := s.lane.Enter(background)
		require.NoError(t, err)
		c1, err = h.Submit(putRecord("b", "1"), wal.Durable, readsOf(h.At(), "a"), refuse)
		require.NoError(t, err)
		h.Leave()
		h, err = s.lane.Enter(background)
		require.NoError(t, err)
		_, _, from, ok := h.Get([]byte("b"))
		require.True(t, ok)
		rd := readsOf(h.At())
		rd.KeyFrom([]byte("b"), from)
		c2, err = h.Submit(putRecord("c", "1"), wal.Durable, rd, func() error { t.Error("asked"); return nil })
		require.NoError(t, err)
		h.Leave()
	}))
	require.Equal(t, errGone, c1.Wait(background))
	require.ErrorIs(t, c2.Wait(background), ErrConflict)
	h, err := s.lane.Enter(background)
	require.NoError(t, err)
	require.True(t, h.Clean())
	_, err = h.Submit(putRecord("b", "1"), wal.Durable, readsOf(h.At(), "b"), nil)
	require.NoError(t, err)
	h.Leave()
}

// TestGuardMayTakeLocks: a guard runs under no lock of this package, so that one
// who holds a lock that the guard wants may begin a transaction under it.
func TestGuardMayTakeLocks(t *testing.T) {
	s := openStore(t, vfs.NewMem())
	s.p.Begin()
	defer s.p.End()
	_, err := s.p.ApplyGuarded(putRecord("a", "1"), wal.Durable, func() error {
		require.True(t, s.p.track.mu.TryLock())
		s.p.track.mu.Unlock()
		return nil
	})
	require.NoError(t, err)
}

// TestGuardsAreInTheOrderOfTheLog: writers of all kinds beside commits that drop
// and make again what they write to. The guards share a variable without a lock.
// No write is there behind a drop, and none was refused that is not behind one.
func TestGuardsAreInTheOrderOfTheLog(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	s := openStore(t, vfs.NewMem())
	gone := false // of the guards
	alive := func() error {
		if gone {
			return errGone
		}
		return nil
	}
	var mu sync.Mutex
	writes, turns := map[base.LSN]bool{}, map[base.LSN]bool{} // turn: gone from there on, or not
	count := map[error]int{}
	var wg sync.WaitGroup
	for g := range uint64(4) {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(seed, g))
			for i := range 300 {
				rec := putRecord(fmt.Sprint("key ", r.IntN(20)), fmt.Sprint(g, " ", i))
				var lsn base.LSN
				var err error
				switch kind := r.IntN(4); kind {
				case 0:
					lsn, err = s.p.ApplyGuarded(rec, wal.Level(r.IntN(2)), alive)
				case 1:
					var c *Commit
					if c, err = s.p.SubmitGuarded(rec, wal.Durable, alive); err == nil {
						err = c.Wait(background)
						lsn = c.LSN()
					}
				default:
					rd := readsOf(s.p.Begin(), fmt.Sprint("key ", r.IntN(20)))
					guard, turn := alive, kind == 3 && r.IntN(3) == 0
					to := r.IntN(2) == 0
					if turn { // it may be refused for what it read
						guard = func() error { gone = to; return nil }
					}
					lsn, err = s.p.CommitTx(rec, wal.Durable, rd, guard)
					s.p.End()
					if turn && err == nil {
						mu.Lock()
						turns[lsn] = to
						mu.Unlock()
						continue
					}
				}
				mu.Lock()
				count[err]++
				if err == nil {
					writes[lsn] = true
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	dead := false
	for lsn := base.LSN(1); lsn <= s.log.LastLSN(); lsn++ {
		if to, ok := turns[lsn]; ok {
			dead = to
			continue
		}
		require.True(t, writes[lsn], "nobody knows of commit %d", lsn)
		require.False(t, dead, "commit %d is behind a drop", lsn)
	}
	require.Equal(t, dead, gone, "a turn that was refused changed nothing")
	for err := range count {
		require.True(t, err == nil || err == errGone || err == ErrConflict || err == ErrStale, "%v", err)
	}
	require.Positive(t, count[errGone])
	require.Positive(t, count[nil])
}
