package forebay

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/checkpoint"
	"github.com/forebaydb/forebay/internal/base"
	"github.com/forebaydb/forebay/vfs"
)

// unsettled is what a kill leaves of a store of which nothing, or what came first, is
// settled, with overwrites, deletes, range deletes, two keyspaces, one that was
// dropped, and a large batch. The log is large beside the memtables of small.
func unsettled(t *testing.T, seed uint64, settleFirst bool) (disk *vfs.Mem, main, other map[string]string) {
	mem := vfs.NewMem()
	o := small(mem)
	o.MemtableSize = 64 << 20
	db := open(t, o)
	ks, err := db.Keyspace("other")
	require.NoError(t, err)
	gone, err := db.Keyspace("gone")
	require.NoError(t, err)
	rng := rand.New(rand.NewPCG(seed, 5))
	for i := range 1500 {
		key := fmt.Appendf(nil, "key %06d", rng.IntN(400))
		b := db.NewBatch()
		switch n := rng.IntN(40); {
		case n == 0:
			require.NoError(t, b.DeleteRange(key, fmt.Appendf(nil, "key %06d", rng.IntN(400)+400)))
			require.NoError(t, b.Put([]byte("key 000500"), key))
		case n < 6:
			require.NoError(t, b.Delete(key))
		default:
			require.NoError(t, b.Put(key, fmt.Appendf(nil, "%d %0*d", i, rng.IntN(400)+1, i)))
			require.NoError(t, b.In(ks).Put(key, fmt.Append(nil, i)))
			require.NoError(t, b.In(gone).Put(key, nil))
		}
		require.NoError(t, db.Apply(b, Level(rng.IntN(3))))
		switch i {
		case 300:
			if settleFirst {
				require.NoError(t, db.Checkpoint(context.Background()))
			}
		case 1000:
			require.NoError(t, db.DropKeyspace("gone"))
			gone, err = db.Keyspace("gone")
			require.NoError(t, err)
		case 1200:
			large := db.NewBatch()
			for j := range 100 {
				require.NoError(t, large.Put(fmt.Appendf(nil, "large %d", j), make([]byte, 2000)))
			}
			require.NoError(t, db.Apply(large, Written))
		}
	}
	b := db.NewBatch()
	require.NoError(t, b.Put([]byte("last"), nil))
	require.NoError(t, db.Apply(b, Written))
	main, other = contents(t, db), spaceContents(t, ks)
	disk = mem.Snapshot()
	require.NoError(t, db.Close())
	return disk, main, other
}

func spaceContents(t *testing.T, ks *Keyspace) map[string]string {
	got := map[string]string{}
	for e, err := range ks.Range(nil, nil) {
		require.NoError(t, err)
		got[string(e.Key)] = string(e.Value)
	}
	return got
}

func verified(t *testing.T, db *DB) {
	_, err := db.Verify(context.Background())
	require.NoError(t, err)
}

// sameStore compares all that a store shows.
func sameStore(t *testing.T, db *DB, main, other map[string]string) {
	t.Helper()
	require.Equal(t, main, contents(t, db))
	ks, err := db.Keyspace("other")
	require.NoError(t, err)
	require.Equal(t, other, spaceContents(t, ks))
}

// TestALargeLogIsSettledByTheOpen: of a log that is larger than a memtable an open
// makes segments, in whatever files it lies; it shows what was there, and what it has
// settled the next open does not replay.
func TestALargeLogIsSettledByTheOpen(t *testing.T) {
	for seed := range uint64(4) {
		disk, main, other := unsettled(t, seed, seed%2 == 1)
		for _, fileSize := range []int64{16 << 10, 1 << 20} {
			mem := disk.Snapshot()
			o := small(mem)
			o.MemtableSize, o.LogFileSize = []int64{4 << 10, 32 << 10, 100 << 10}[seed%3], fileSize
			db := open(t, o)
			require.Equal(t, db.LastLSN(), db.man.State().ReplayStart-1, "all is settled")
			require.Zero(t, db.Stats().MemtableEntries)
			require.Positive(t, db.Recovery().Replayed)
			require.NotZero(t, db.Recovery().Left)
			sameStore(t, db, main, other)
			verified(t, db)
			require.NoError(t, db.Put([]byte("more"), nil))
			killed := mem.Snapshot()
			require.NoError(t, db.Close())
			db = open(t, small(killed))
			require.Equal(t, uint64(1), db.Recovery().Replayed)
			v, err := db.Get([]byte("more"))
			require.NoError(t, err)
			require.Empty(t, v)
			require.NoError(t, db.Close())
		}
	}
}

// oneFile is what a kill leaves of a store of which most lies in the last log file:
// how large that is an open sees only when a memtable is full.
func oneFile(t *testing.T) (disk *vfs.Mem, want map[string]string) {
	mem := vfs.NewMem()
	o := &Options{FS: mem, MarkDelay: -1}
	db := open(t, o)
	b := db.NewBatch()
	for i := range 4500 {
		b.Reset()
		require.NoError(t, b.Put(fmt.Appendf(nil, "key %d", i), make([]byte, 1000)))
		require.NoError(t, db.Apply(b, Written))
	}
	want = contents(t, db)
	disk = mem.Snapshot()
	require.NoError(t, db.Close())
	return disk, want
}

// TestALogInOneFileIsSettledByTheOpen: the memtable that is full is settled, and what
// follows is not put into another.
func TestALogInOneFileIsSettledByTheOpen(t *testing.T) {
	disk, want := oneFile(t)
	o := &Options{FS: disk, MarkDelay: -1}
	db := open(t, o)
	require.Zero(t, db.Recovery().Left, "it fits")
	require.Equal(t, want, contents(t, db))
	require.NoError(t, db.Close())
	o.MemtableSize = 3 << 20
	for _, room := range []bool{false, true} {
		mem := disk.Snapshot()
		in := vfs.NewInjector(mem)
		o.FS = in
		if !room {
			in.Add(vfs.Rule{Call: vfs.CallCreate, Name: "*.seg", Forever: true, Err: syscall.ENOSPC})
		}
		db = open(t, o)
		require.Greater(t, db.Recovery().Left, uint64(1))
		require.Equal(t, want, contents(t, db))
		if room {
			require.Equal(t, db.LastLSN(), db.man.State().ReplayStart-1)
		}
		require.NoError(t, db.Close())
	}
}

// TestAnOpenThatSettlesIsCut cuts the power at each call of an open that settles,
// and again at some calls of the open behind it.
func TestAnOpenThatSettlesIsCut(t *testing.T) {
	disk, main, other := unsettled(t, 1, true)
	config := func(fs vfs.FS) *Options {
		o := small(fs)
		o.MemtableSize = 64 << 10
		return o
	}
	cut := func(disk *vfs.Mem, at int, seed uint64) (*vfs.Mem, bool) {
		mem := disk.Snapshot()
		in := vfs.NewInjector(mem)
		gate := vfs.NewGate()
		in.Add(vfs.Rule{K: at, Forever: true, Gate: gate})
		opened := make(chan error, 1)
		go func() {
			db, err := Open("db", config(in))
			if err == nil {
				err = db.Close()
			}
			opened <- err
		}()
		select {
		case <-gate.Arrived():
			after := mem.PowerCutSeed(seed, vfs.SectorAtomic)
			gate.Release()
			require.NoError(t, <-opened)
			return after, true
		case err := <-opened:
			require.NoError(t, err)
			return mem, false
		}
	}
	// What was not proven by the log alone is in the page cache of a disk that now
	// loses its power: the first open has made it durable, or may still lose it.
	db := open(t, config(disk.Snapshot()))
	proven, last := db.Recovery().Proven, db.LastLSN()
	require.NoError(t, db.Close())
	cuts, apart, least := 0, 40, 50
	if testing.Short() {
		apart, least = 8, 20
	}
	for at := 1; ; at += 1 + at/apart {
		after, was := cut(disk, at, uint64(at))
		if !was {
			break
		}
		cuts++
		if twice, was := cut(after, 1+at%50, uint64(at)); was && at%2 == 0 {
			after = twice
		}
		db, err := Open("db", config(after))
		require.NoError(t, err, "cut at call %d", at)
		require.GreaterOrEqual(t, db.LastLSN(), proven, "cut at call %d", at)
		if db.LastLSN() == last {
			sameStore(t, db, main, other)
		}
		verified(t, db)
		require.NoError(t, db.Close())
	}
	t.Logf("%d cuts", cuts)
	require.Greater(t, cuts, least)
}

// TestNoRoomToSettleWhileOpening: where there is no room for segments, an open does
// without: the log is in memory, and writes are refused, until there is room.
func TestNoRoomToSettleWhileOpening(t *testing.T) {
	disk, main, other := unsettled(t, 2, false)
	for _, nth := range []int{1, 3} {
		for _, size := range []int64{16 << 10, 150 << 10} { // one has filled a memtable before it knew
			mem := disk.Snapshot()
			in := vfs.NewInjector(mem)
			full := in.Add(vfs.Rule{Call: vfs.CallWrite, Name: "*.seg", K: nth, Forever: true, Err: syscall.ENOSPC})
			o := small(in)
			o.MemtableSize = size
			db := open(t, o)
			require.Positive(t, db.Stats().MemtableEntries)
			sameStore(t, db, main, other)
			full.Remove()
			require.NoError(t, db.Checkpoint(context.Background()))
			sameStore(t, db, main, other)
			require.NoError(t, db.Close())
			db = open(t, o)
			require.Zero(t, db.Recovery().Replayed)
			sameStore(t, db, main, other)
			require.NoError(t, db.Close())
		}
	}
}

// TestErrorsOfAnOpenThatSettles: each call that fails ends the open with its error,
// and the next open has all.
func TestErrorsOfAnOpenThatSettles(t *testing.T) {
	disk, main, other := unsettled(t, 3, true)
	failed, apart, least := 0, 10, 30
	if testing.Short() {
		apart, least = 2, 10
	}
	for _, call := range []vfs.Call{vfs.CallRead, vfs.CallWrite, vfs.CallCreate, vfs.CallSync, vfs.CallSyncDir, vfs.CallSize, vfs.CallRemove, vfs.CallClose} {
		for k := 1; ; k += 1 + k/apart {
			mem := disk.Snapshot()
			in := vfs.NewInjector(mem)
			rule := in.Add(vfs.Rule{Call: call, K: k, Err: syscall.EIO})
			o := small(in)
			o.MemtableSize = 64 << 10
			db, err := Open("db", o)
			hits := rule.Hits()
			rule.Remove()
			if err == nil {
				sameStore(t, db, main, other)
				db.Close()
			}
			if hits == 0 {
				break
			}
			if err != nil {
				failed++
				require.ErrorIs(t, err, syscall.EIO)
				var damage *CorruptionError
				require.False(t, errors.As(err, &damage), err)
			}
			o.FS = mem
			db = open(t, o)
			sameStore(t, db, main, other)
			require.NoError(t, db.Close())
		}
	}
	t.Logf("%d opens failed", failed)
	require.Greater(t, failed, least)
}

// TestNoBatchInALargeLog: a record that is no batch is found before anything is
// settled; one with a key twice when it is sorted.
func TestNoBatchInALargeLog(t *testing.T) {
	for _, rec := range []string{"nonsense", "\x01\x00\x02\x01\x02\x00k\x00\x01\x02\x00k\x00"} {
		mem := vfs.NewMem()
		o := small(mem)
		o.MemtableSize = 64 << 20
		db := open(t, o)
		for range 100 {
			require.NoError(t, db.Put([]byte("k"), make([]byte, 1000)))
		}
		_, _ = db.log.Append([]byte(rec)) // the memtable refuses it: that poisons the log, which has it
		killed := mem.Snapshot()
		require.ErrorIs(t, db.Close(), ErrPoisoned)
		_, err := Open("db", small(killed))
		var damage *CorruptionError
		require.ErrorAs(t, err, &damage)
		require.Contains(t, err.Error(), fmt.Sprint(101))
		_, err = Open("db", small(killed))
		require.ErrorAs(t, err, &damage, "again, and the lock is free")
	}
}

// TestFillerIsLeft: who settles runs and fails does not wait for what is not wanted.
func TestFillerIsLeft(t *testing.T) {
	for _, records := range []int{0, 1, 2, 3, 10} {
		f := newFiller("log", 100)
		replayed := 0
		go f.fill(func(from base.LSN, each func(base.LSN, []byte) error) error {
			for i := range records {
				if err := each(from+base.LSN(i), []byte("\x01\x00\x01\x01\x01k\x00")); err != nil {
					return err
				}
				replayed++
			}
			return nil
		}, 1)
		no := errors.New("no")
		require.ErrorIs(t, f.each(func(*checkpoint.Run, base.LSN) error { return no }), no)
		require.LessOrEqual(t, replayed, max(records, 9))
	}
}
