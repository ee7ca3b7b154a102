package forebay

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/vfs"
)

// killedStore is what a kill leaves of a store with segments in several levels,
// range deletes, a keyspace, and a log that is not settled, the last commit of
// which was never synced.
func killedStore(t *testing.T) (disk *vfs.Mem, want map[string]string) {
	mem := vfs.NewMem()
	db := open(t, small(mem))
	ks, err := db.Keyspace("space")
	require.NoError(t, err)
	for i := range 60 {
		require.NoError(t, db.Put(fmt.Appendf(nil, "key %02d", i%40), fmt.Appendf(nil, "%d %0900d", i, i)))
		require.NoError(t, ks.Put(fmt.Appendf(nil, "key %d", i), nil))
		switch i {
		case 10, 30, 50:
			require.NoError(t, db.Checkpoint(context.Background()))
		case 20:
			require.NoError(t, db.Compact(context.Background()))
			require.NoError(t, db.DeleteRange([]byte("key 00"), []byte("key 05")))
		}
	}
	b := db.NewBatch()
	require.NoError(t, b.Put([]byte("last"), []byte("written")))
	require.NoError(t, db.Apply(b, Written))
	want = contents(t, db)
	disk = mem.Snapshot()
	require.NoError(t, db.Close())
	return disk, want
}

// files returns the bytes of all files of a directory.
func files(t *testing.T, mem *vfs.Mem, dir string) map[string][]byte {
	names, err := mem.List(dir)
	require.NoError(t, err)
	out := map[string][]byte{}
	for _, name := range names {
		out[name] = bytes.Clone(mem.Bytes(filepath.Join(dir, name)))
	}
	return out
}

// TestErrorsWhileOpening fails each call of an open that looks at the disk. The
// open says which file could not be read, and not that it is damaged; no log
// file and no segment was changed; and the next open finds everything.
func TestErrorsWhileOpening(t *testing.T) {
	disk, want := killedStore(t)
	var failed, opened int
	for _, call := range []vfs.Call{vfs.CallRead, vfs.CallOpen, vfs.CallList, vfs.CallStat, vfs.CallSize, vfs.CallLock} {
		for _, cause := range []error{syscall.EIO, syscall.EMFILE, syscall.EINTR} {
			for _, forever := range []bool{false, true} {
				for k := 1; ; k++ {
					rule := vfs.Rule{Call: call, K: k, Err: cause, Forever: forever, Part: k % 3 * 100}
					mem := disk.Snapshot()
					before := files(t, mem, "db")
					in := vfs.NewInjector(mem)
					armed := in.Add(rule)
					db, err := Open("db", small(in))
					hits := armed.Hits()
					armed.Remove()
					if err == nil {
						require.Equal(t, want, contents(t, db), "%+v", rule)
						require.NoError(t, db.Close())
					}
					if hits == 0 {
						break
					}
					if err == nil {
						opened++
						continue
					}
					failed++
					var damage *CorruptionError
					require.ErrorIs(t, err, cause, "%+v", rule)
					require.False(t, errors.As(err, &damage), "%+v: %v", rule, err)
					require.Contains(t, err.Error(), "db", "no file is named")
					now := files(t, mem, "db")
					for name, b := range before {
						if strings.HasPrefix(name, "MANIFEST") {
							continue // a new one may have come: it says the same, and of one log file more
						}
						if filepath.Ext(name) == ".log" && len(bytes.Trim(b[min(len(b), vfs.SectorSize):], "\x00")) == 0 {
							continue // a spare, which holds nothing
						}
						if _, ok := now[name]; !ok {
							continue // it was settled and let go; the next open misses nothing
						}
						require.True(t, bytes.Equal(b, now[name]), "%+v: %s was changed", rule, name)
					}
					db = open(t, small(mem))
					require.Equal(t, want, contents(t, db), "%+v", rule)
					require.NoError(t, db.Close())
				}
			}
		}
	}
	t.Logf("%d opens failed, %d did without the call", failed, opened)
	require.Greater(t, failed, 100)
}

// TestReplayIsBounded measures what an open allocates: for a log that is to be
// replayed little more than the memtables that it fills, whatever the size of one
// frame or the number of files; and for one that is settled, and kept for somebody,
// next to nothing.
func TestReplayIsBounded(t *testing.T) {
	opened := func(mem *vfs.Mem, o Options) (allocated int64) {
		var a, b runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&a)
		o.FS = mem
		db := open(t, &o)
		runtime.ReadMemStats(&b)
		require.NoError(t, db.Close())
		return int64(b.TotalAlloc - a.TotalAlloc)
	}
	for _, size := range []int{8 << 20, 32 << 20} {
		mem := vfs.NewMem()
		o := Options{FS: mem, MarkDelay: -1, MemtableSize: 64 << 20, LogFileSize: 4 << 20}
		db := open(t, &o)
		require.NoError(t, db.Pin("follower", 1))
		value := make([]byte, 4000)
		for n := 0; n < size; n += len(value) {
			b := db.NewBatch()
			require.NoError(t, b.Put(fmt.Appendf(nil, "key %d", n), value))
			require.NoError(t, db.Apply(b, Buffered))
		}
		require.NoError(t, db.Sync(context.Background()))
		full := mem.Snapshot()
		require.NoError(t, db.Checkpoint(context.Background()))
		settled := mem.Snapshot()
		require.NoError(t, db.Close())

		n := opened(full, o)
		t.Logf("%d MiB to replay: an open allocates %.1f MiB", size>>20, float64(n)/(1<<20))
		require.Less(t, n, int64(2*size)+16<<20)
		less := o
		less.MemtableSize, less.MemoryLimit = 1<<20, 8<<20
		n = opened(full.Snapshot(), less)
		t.Logf("%d MiB to replay, a memtable of 1 MiB: an open allocates %.1f MiB", size>>20, float64(n)/(1<<20))
		require.Less(t, n, int64(size/2+16<<20))
		o.ReadOnly = true
		n = opened(full, o)
		t.Logf("%d MiB to replay: a read-only open allocates %.1f MiB", size>>20, float64(n)/(1<<20))
		require.Less(t, n, int64(2*size)+16<<20)
		o.ReadOnly = false
		n = opened(settled, o)
		t.Logf("%d MiB settled and kept: an open allocates %.1f MiB", size>>20, float64(n)/(1<<20))
		require.Less(t, n, int64(4<<20))
	}
}

// TestCleanUpComesBeforeWorkers opens stores whose replay fills memtables, so that
// they are settled as soon as the store is open, beside files that nothing names:
// of the numbers, too, that come next. What nobody names is removed before anything
// is made, and nothing else is.
func TestCleanUpComesBeforeWorkers(t *testing.T) {
	mem := vfs.NewMem()
	big := small(mem)
	big.MemtableSize = 1 << 20
	db := open(t, big)
	for i := range 30 {
		require.NoError(t, db.Put(fmt.Appendf(nil, "key %02d", i), make([]byte, 3000)))
		if i == 10 {
			require.NoError(t, db.Checkpoint(context.Background()))
		}
	}
	want := contents(t, db)
	disk := mem.Snapshot()
	require.NoError(t, db.Close())
	var strays []string
	for n := 2; n < 12; n++ {
		strays = append(strays, fmt.Sprintf("%06d.seg", n))
	}
	for _, name := range strays {
		require.NoError(t, disk.SetBytes("db/"+name, []byte("nothing")))
	}
	for seed := range uint64(20) {
		mem := disk.PowerCutSeed(seed, vfs.SectorAtomic)
		rec := vfs.NewRecorder(mem)
		o := small(rec)
		o.MemtableSize = 16 << 10
		db := open(t, o)
		require.NoError(t, db.Checkpoint(context.Background()))
		require.Equal(t, want, contents(t, db), "seed %d", seed)
		made, removed := 0, 0
		for _, e := range rec.Events() {
			name := filepath.Base(e.Name)
			switch {
			case e.Call == vfs.CallCreate && filepath.Ext(name) == ".seg":
				made++
			case e.Call == vfs.CallRemove && slices.Contains(strays, name) && made == 0:
				removed++
			case e.Call == vfs.CallRemove && filepath.Ext(name) == ".seg" && made == 0:
				t.Errorf("seed %d: %s was removed", seed, name)
			}
		}
		require.Equal(t, len(strays), removed, "seed %d: removed before the first segment was made", seed)
		require.NotZero(t, made)
		require.NoError(t, db.Close())
		db = open(t, small(mem.PowerCutSeed(seed, vfs.SectorAtomic)))
		require.Equal(t, want, contents(t, db), "seed %d", seed)
		require.NoError(t, db.Close())
	}
}
