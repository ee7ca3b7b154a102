package forebay_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/vfs"
)

// TestRoomOfAMemtableIsLent: the cache has the room that the active memtable does not use
// yet, and gives it back as that fills: together they stay within the limit.
func TestRoomOfAMemtableIsLent(t *testing.T) {
	const limit, memtable, records = 8 << 20, 4 << 20, 8 << 10
	open := func(fsys vfs.FS) *forebay.DB {
		db, err := forebay.Open("db", &forebay.Options{
			FS: fsys, MemoryLimit: limit, MemtableSize: memtable, DefaultLevel: forebay.Buffered, Compression: forebay.NoCompression,
		})
		require.NoError(t, err)
		return db
	}
	key := func(i int) []byte { return fmt.Appendf(nil, "%08d", i) }
	fsys := vfs.NewMem()
	db := open(fsys)
	for i := range records {
		require.NoError(t, db.Put(key(i), make([]byte, 1<<10)))
	}
	require.NoError(t, db.Compact(context.Background()))
	require.NoError(t, db.Close())

	db = open(fsys)
	for range 2 { // a block is laid out when it is asked for again
		for i := range records {
			_, err := db.Get(key(i))
			require.NoError(t, err)
		}
	}
	require.Greater(t, db.Stats().CacheBytes, int64(limit-memtable), "nothing is in the memtable")
	most := int64(0)
	for i := 0; db.Stats().Checkpoints == 0; i++ {
		require.NoError(t, db.Put(key(i), make([]byte, 1<<10)))
		_, err := db.Get(key(records - 1 - i%records))
		require.NoError(t, err)
		if s := db.Stats(); s.Checkpoints == 0 {
			most = max(most, s.CacheBytes+s.MemtableBytes)
		}
	}
	// Memtables that are frozen wait to be settled, and the cache keeps an eighth.
	require.LessOrEqual(t, most, int64(limit+memtable/4))
	require.NoError(t, db.Close())
}
