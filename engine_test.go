package forebay_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/vfs"
)

var background = context.Background()

func small(fsys vfs.FS) *forebay.Options {
	return &forebay.Options{FS: fsys, MemtableSize: 16 << 10, MemoryLimit: 1 << 20, LogFileSize: 64 << 10}
}

func openSmall(t testing.TB, fsys vfs.FS) *forebay.DB {
	t.Helper()
	db, err := forebay.Open("db", small(fsys))
	require.NoError(t, err)
	return db
}

func TestKeyspaces(t *testing.T) {
	mem := vfs.NewMem()
	db := openSmall(t, mem)
	users, err := db.Keyspace("users")
	require.NoError(t, err)
	require.NoError(t, users.Put([]byte("a"), []byte("user")))
	require.NoError(t, db.Put([]byte("a"), []byte("default")))
	b := db.NewBatch()
	require.NoError(t, b.Put([]byte("b"), []byte("1")))
	require.NoError(t, b.In(users).Put([]byte("b"), []byte("2")))
	require.NoError(t, db.Apply(b, forebay.Durable))
	get := func(r interface{ Get([]byte) ([]byte, error) }, key string) string {
		v, err := r.Get([]byte(key))
		if errors.Is(err, forebay.ErrNotFound) {
			return "-"
		}
		require.NoError(t, err)
		return string(v)
	}
	require.Equal(t, "user", get(users, "a"))
	require.Equal(t, "default", get(db, "a"))
	require.Equal(t, "2", get(users, "b"))
	names, err := db.Keyspaces()
	require.NoError(t, err)
	require.Equal(t, []string{"users"}, names)
	snap, err := db.Snapshot()
	require.NoError(t, err)
	require.NoError(t, db.DropKeyspace("users"))
	require.ErrorIs(t, users.Put([]byte("c"), nil), forebay.ErrKeyspaceDropped)
	_, err = users.Get([]byte("a"))
	require.ErrorIs(t, err, forebay.ErrKeyspaceDropped)
	old, err := snap.Keyspace("users")
	require.NoError(t, err)
	require.Equal(t, "user", get(old, "a"))
	again, err := db.Keyspace("users")
	require.NoError(t, err)
	require.Equal(t, "-", get(again, "a"))
	require.NoError(t, again.Put([]byte("n"), []byte("new")))
	require.NoError(t, db.Checkpoint(background))
	require.NoError(t, db.Compact(background))
	require.Equal(t, "user", get(old, "a"))
	require.NoError(t, snap.Close())
	_, err = old.Get([]byte("a"))
	require.ErrorIs(t, err, forebay.ErrClosed)
	require.NoError(t, db.Compact(background))
	require.NoError(t, db.Close())
	db = openSmall(t, mem)
	again, err = db.Keyspace("users")
	require.NoError(t, err)
	require.Equal(t, "new", get(again, "n"))
	require.Equal(t, "-", get(again, "a"))
	require.Equal(t, "default", get(db, "a"))
	require.NoError(t, db.Close())
}

func TestUpdateIncrements(t *testing.T) {
	db := openSmall(t, vfs.NewMem())
	defer db.Close()
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for range 50 {
				if err := db.Update(func(tx *forebay.Tx) error {
					v, err := tx.Get([]byte("n"))
					if err != nil && !errors.Is(err, forebay.ErrNotFound) {
						return err
					}
					var n int
					fmt.Sscan(string(v), &n)
					return tx.Put([]byte("n"), fmt.Append(nil, n+1))
				}); err != nil {
					panic(err)
				}
			}
		})
	}
	wg.Wait()
	v, err := db.Get([]byte("n"))
	require.NoError(t, err)
	require.Equal(t, "800", string(v))
}

func TestTxReadsItsOwnWrites(t *testing.T) {
	db := openSmall(t, vfs.NewMem())
	defer db.Close()
	for i := range 10 {
		require.NoError(t, db.Put(fmt.Append(nil, i), []byte("x")))
	}
	require.NoError(t, db.Update(func(tx *forebay.Tx) error {
		require.NoError(t, tx.DeleteRange([]byte("3"), []byte("6")))
		require.NoError(t, tx.Put([]byte("4"), []byte("y")))
		var got []string
		for e, err := range tx.Range(nil, nil) {
			require.NoError(t, err)
			got = append(got, string(e.Key)+string(e.Value))
		}
		require.Equal(t, []string{"0x", "1x", "2x", "4y", "6x", "7x", "8x", "9x"}, got)
		_, err := tx.Get([]byte("3"))
		require.ErrorIs(t, err, forebay.ErrNotFound)

		// An iterator shows what there was when it was made.
		it := tx.NewIterator(nil)
		defer it.Close()
		require.NoError(t, tx.Put([]byte("00"), []byte("z")))
		require.NoError(t, tx.Put([]byte("1"), []byte("z")))
		require.NoError(t, tx.DeleteRange([]byte("8"), nil))
		for range 2 {
			got = nil
			for ok := it.First(); ok; ok = it.Next() {
				got = append(got, string(it.Key())+string(it.Value()))
			}
			require.Equal(t, []string{"0x", "1x", "2x", "4y", "6x", "7x", "8x", "9x"}, got)
		}
		for ok := it.Last(); ok; ok = it.Prev() {
			got = append(got, string(it.Key())+string(it.Value()))
		}
		require.Equal(t, []string{"9x", "8x", "7x", "6x", "4y", "2x", "1x", "0x"}, got[8:])
		return nil
	}))
	var got []string
	for e, err := range db.RangeReverse(nil, nil) {
		require.NoError(t, err)
		got = append(got, string(e.Key)+string(e.Value))
	}
	require.Equal(t, []string{"7x", "6x", "4y", "2x", "1z", "00z", "0x"}, got)
}

func TestBackupAndChanges(t *testing.T) {
	mem := vfs.NewMem()
	db := openSmall(t, mem)
	require.NoError(t, db.Pin("follower", 0))
	for i := range 500 {
		require.NoError(t, db.Put(fmt.Appendf(nil, "%04d", i), make([]byte, 100)))
	}
	info, err := db.Backup(background, "copy")
	require.NoError(t, err)
	require.Equal(t, uint64(500), info.At.LSN)
	_, err = db.Backup(background, "copy")
	require.ErrorIs(t, err, fs.ErrExist)
	opts := small(mem)
	opts.ReadOnly = true
	fresh, err := forebay.Open("copy", opts) // nobody has opened it for writing before
	require.NoError(t, err)
	ok, err := fresh.Has([]byte("0499"))
	require.NoError(t, err)
	require.True(t, ok)
	require.NoError(t, fresh.Close())
	n := uint64(0)
	for c, err := range db.Changes(background, forebay.Position{}) {
		require.NoError(t, err)
		n++
		require.Equal(t, n, c.LSN)
		require.Equal(t, fmt.Sprintf("%04d", n-1), string(c.Ops[0].Key))
	}
	require.Equal(t, uint64(500), n)
	_, err = db.Verify(background)
	require.NoError(t, err)
	require.NoError(t, db.Close())
	require.ErrorIs(t, db.Pin("follower", 1), forebay.ErrClosed)
	require.ErrorIs(t, db.Unpin("follower"), forebay.ErrClosed)
	for _, err := range db.Changes(background, forebay.Position{}) {
		require.ErrorIs(t, err, forebay.ErrClosed)
	}
	db, err = forebay.Open("copy", small(mem))
	require.NoError(t, err)
	n = 0
	for _, err := range db.Range(nil, nil) {
		require.NoError(t, err)
		n++
	}
	require.Equal(t, uint64(500), n)
	require.NoError(t, db.Put([]byte("x"), nil))
	require.Equal(t, uint64(501), db.LastLSN())
	require.NoError(t, db.Close())

	db, err = forebay.Open("copy", opts)
	require.NoError(t, err)
	ok, err = db.Has([]byte("x"))
	require.NoError(t, err)
	require.True(t, ok)
	require.ErrorIs(t, db.Put([]byte("x"), nil), forebay.ErrReadOnly)
	require.NoError(t, db.Close())
}

// TestCheckpointOfNothing: commits without operations are durable behind a
// checkpoint, and a backup holds them.
func TestCheckpointOfNothing(t *testing.T) {
	db := openSmall(t, vfs.NewMem())
	defer db.Close()
	require.NoError(t, db.Put([]byte("a"), nil))
	for range 3 {
		require.NoError(t, db.Apply(db.NewBatch(), forebay.Buffered))
		require.NoError(t, db.Checkpoint(background))
		require.Equal(t, db.LastLSN(), db.DurableLSN())
	}
	require.NoError(t, db.Apply(db.NewBatch(), forebay.Buffered))
	info, err := db.Backup(background, "copy")
	require.NoError(t, err)
	require.Equal(t, db.LastLSN(), info.At.LSN)
	require.Equal(t, 1, info.Segments)
}

// TestRefusedAtTheEndOfALogFile: a commit that is refused where the next log file
// would begin leaves the log as it was.
func TestRefusedAtTheEndOfALogFile(t *testing.T) {
	for _, mechanism := range []forebay.Mechanism{forebay.Fdatasync, forebay.DirectDSync} {
		mem := vfs.NewMem()
		opts := small(mem)
		opts.LogAlign, opts.LogFileSize, opts.Mechanism = 4096, 64<<10, mechanism
		db, err := forebay.Open("db", opts)
		require.NoError(t, err)
		gone, err := db.Keyspace("gone")
		require.NoError(t, err)
		require.NoError(t, db.DropKeyspace("gone"))
		for i := range 64 { // one of the refused ones needs the next file
			require.NoError(t, db.Put(fmt.Append(nil, i), make([]byte, 1000)))
			b := db.NewBatch()
			require.NoError(t, b.In(gone).Put([]byte("k"), make([]byte, 1000+i%7*3000)))
			require.ErrorIs(t, db.Apply(b, forebay.Durable), forebay.ErrKeyspaceDropped)
			require.NoError(t, db.Sync(background))
			if i%20 == 19 { // a file of its own
				require.NoError(t, db.Put([]byte("large"), make([]byte, 100<<10)))
				require.NoError(t, db.Checkpoint(background))
			}
			cut := mem.PowerCutSeed(uint64(i), vfs.NothingAssumed)
			copied, err := forebay.Open("db", small(cut))
			require.NoError(t, err)
			require.Equal(t, db.LastLSN(), copied.LastLSN())
			require.NoError(t, copied.Close())
		}
		require.NoError(t, db.Close())
		db, err = forebay.Open("db", opts)
		require.NoError(t, err)
		require.NoError(t, db.Close())
	}
}

// TestGetFuncAllocatesNothing: neither in a memtable nor in a block of the cache.
func TestGetFuncAllocatesNothing(t *testing.T) {
	db := openSmall(t, vfs.NewMem())
	defer db.Close()
	key := []byte("some key")
	require.NoError(t, db.Put(key, make([]byte, 100)))
	get := func() {
		if err := db.GetFunc(key, func([]byte) error { return nil }); err != nil {
			panic(err)
		}
	}
	if n := testing.AllocsPerRun(100, get); n != 0 && !raceEnabled {
		t.Errorf("%v allocations for a key in the memtable", n)
	}
	require.NoError(t, db.Checkpoint(background))
	if n := testing.AllocsPerRun(100, get); n != 0 && !raceEnabled {
		t.Errorf("%v allocations for a key in a cached block", n)
	}
}

// TestCheckpointsWakeWriters: a writer who waits because the memory is full goes
// on when a call of Checkpoint has settled, not only when the background has.
func TestCheckpointsWakeWriters(t *testing.T) {
	db := openSmall(t, vfs.NewMem())
	defer db.Close()
	var writers, checkpoints sync.WaitGroup
	stop := make(chan struct{})
	for range 3 {
		checkpoints.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					if err := db.Checkpoint(background); err != nil {
						panic(err)
					}
				}
			}
		})
	}
	for w := range 3 {
		writers.Go(func() {
			for i := range 500 {
				if err := db.Put(fmt.Append(nil, w, i), make([]byte, 200)); err != nil {
					panic(err)
				}
			}
		})
	}
	writers.Wait()
	close(stop)
	checkpoints.Wait()
}
