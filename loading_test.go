package forebay_test

import (
	"encoding/binary"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/vfs"
)

// TestLongLogIsLoadedAside: a log that is collected by a second goroutine comes to the
// same as it was, with deletes, range deletes, and items of sequences; and where it is
// damaged the open fails and leaves nothing behind.
func TestLongLogIsLoadedAside(t *testing.T) {
	const records = 60_000
	o := func(fsys vfs.FS) *forebay.Options {
		return &forebay.Options{FS: fsys, DefaultLevel: forebay.Written, MemtableSize: 32 << 20, MemoryLimit: 128 << 20}
	}
	mem := vfs.NewMem()
	db, err := forebay.Open("db", o(mem))
	require.NoError(t, err)
	seq, err := db.Sequence("s")
	require.NoError(t, err)
	rng := rand.New(rand.NewPCG(1, 1))
	key := func(i int) []byte { return binary.BigEndian.AppendUint64([]byte("key-"), uint64(i)) }
	want := map[int]uint64{}
	for n := range uint64(records) {
		i := rng.IntN(records / 2)
		switch {
		case n%1000 == 999:
			require.NoError(t, db.DeleteRange(key(i), key(i+10)))
			for k := i; k < i+10; k++ {
				delete(want, k)
			}
		case n%100 == 99:
			_, err := seq.Append(make([]byte, 50))
			require.NoError(t, err)
		case n%10 == 9:
			require.NoError(t, db.Delete(key(i)))
			delete(want, i)
		default:
			require.NoError(t, db.Put(key(i), binary.BigEndian.AppendUint64(make([]byte, 100), n)))
			want[i] = n
		}
	}
	require.NoError(t, db.Sync(t.Context()))
	require.NoError(t, db.Put(key(0), make([]byte, 108))) // which proves what was synced
	want[0] = 0
	require.NoError(t, db.Sync(t.Context()))
	after := mem.Snapshot() // as a kill leaves it
	last := db.LastLSN()
	require.NoError(t, db.Close())

	check := func(db *forebay.DB) {
		n := 0
		it := db.NewIterator(nil)
		for ok := it.First(); ok; ok = it.Next() {
			i := int(binary.BigEndian.Uint64(it.Key()[4:]))
			require.Equal(t, want[i], binary.BigEndian.Uint64(it.Value()[100:]), "%d", i)
			n++
		}
		require.NoError(t, it.Err())
		require.NoError(t, it.Close())
		require.Equal(t, len(want), n)
		require.Equal(t, last, db.LastLSN())
	}
	db, err = forebay.Open("db", o(after.Snapshot()))
	require.NoError(t, err)
	check(db)
	require.Positive(t, db.Stats().MemtableBytes)
	require.NoError(t, db.Close())
	ro := o(after.Snapshot())
	ro.ReadOnly = true
	db, err = forebay.Open("db", ro)
	require.NoError(t, err)
	check(db)
	require.NoError(t, db.Close())

	damaged := after.Snapshot()
	largest, size := "", int64(0)
	names, err := damaged.List("db")
	require.NoError(t, err)
	for _, name := range names {
		if f, err := damaged.Open("db/"+name, vfs.ReadWrite); err == nil {
			if n, err := f.Size(); err == nil && n > size {
				largest, size = "db/"+name, n
			}
			require.NoError(t, f.Close())
		}
	}
	f, err := damaged.Open(largest, vfs.ReadWrite)
	require.NoError(t, err)
	var b [1]byte
	_, err = f.ReadAt(b[:], size/4)
	require.NoError(t, err)
	b[0] ^= 1
	_, err = f.WriteAt(b[:], size/4)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	before := runtime.NumGoroutine()
	_, err = forebay.Open("db", o(damaged))
	var bad *forebay.CorruptionError
	require.ErrorAs(t, err, &bad)
	for end := time.Now().Add(5 * time.Second); runtime.NumGoroutine() > before && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	require.LessOrEqual(t, runtime.NumGoroutine(), before)
}
