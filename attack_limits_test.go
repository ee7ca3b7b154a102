package forebay

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/vfs"
)

// The longest keys, in the keyspaces with the longest prefix, as points and as
// bounds, through log, memtable, segments and compactions.
func TestAttackLongestKeys(t *testing.T) {
	for _, size := range []int{MaxKeySize, MaxKeySize - 1} {
		mem := vfs.NewMem()
		db := open(t, small(mem))
		ks := newKeyspace(db, 1<<62, "x")
		key := bytes.Repeat([]byte{255}, size)
		require.NoError(t, ks.Put(key, []byte("v")))
		require.NoError(t, ks.Put([]byte{255}, []byte("v")))
		require.NoError(t, db.Checkpoint(context.Background()))
		require.NoError(t, ks.DeleteRange(key, append(bytes.Clone(key), 0)))
		_, err := ks.Get(key)
		require.ErrorIs(t, err, ErrNotFound)
		require.NoError(t, db.Checkpoint(context.Background()))
		require.NoError(t, ks.Put(key, []byte("w")))
		require.NoError(t, db.Compact(context.Background()))
		it := ks.NewIterator(&IterOptions{Prefix: key})
		require.True(t, it.Last())
		require.Equal(t, key, it.Key())
		require.True(t, it.SeekGE(key))
		require.False(t, it.Next())
		require.NoError(t, it.Close())
		var limit *LimitError
		require.ErrorAs(t, ks.Put(append(bytes.Clone(key), 0, 0), nil), &limit)
		require.ErrorAs(t, ks.DeleteRange(nil, append(bytes.Clone(key), 0, 0, 0)), &limit)
		require.NoError(t, db.Close())
		db = open(t, small(mem))
		ks = newKeyspace(db, 1<<62, "x")
		v, err := ks.Get(key)
		require.NoError(t, err)
		require.Equal(t, "w", string(v))
		_, err = db.Verify(context.Background())
		require.NoError(t, err)
		require.NoError(t, db.Close())
	}
}

// A batch as large as can be passes through the smallest memtable, and one that is
// larger than the log may be is refused and stands in nobody's way.
func TestAttackLargestBatch(t *testing.T) {
	mem := vfs.NewMem()
	o := &Options{FS: mem, MarkDelay: -1, MemtableSize: 4 << 10, LogFileSize: 16 << 10, MemoryLimit: 1 << 20}
	db := open(t, o)
	big := db.NewBatch()
	value := make([]byte, 30<<20)
	require.NoError(t, big.Put([]byte("a"), value))
	require.NoError(t, big.Put([]byte("b"), value))
	require.NoError(t, db.Apply(big, Durable))
	require.NoError(t, db.Put([]byte("c"), nil))
	require.NoError(t, db.Close())
	db = open(t, o)
	require.Len(t, contents(t, db), 3)
	require.NoError(t, db.Checkpoint(context.Background()))
	require.NoError(t, db.Close())

	o.FS = vfs.NewMem()
	o.MaxLogBytes = 256 << 10
	db = open(t, o)
	require.ErrorIs(t, db.Apply(big, Durable), ErrFull)
	for i := range 300 {
		err := errors.New("")
		for n := 0; err != nil; n++ {
			if err = db.Put(fmt.Append(nil, i), value[:4000]); err != nil {
				require.ErrorIs(t, err, ErrFull)
				require.Less(t, n, 1000)
				require.NoError(t, db.Checkpoint(context.Background()))
			}
		}
	}
	require.NoError(t, db.Close())
}
