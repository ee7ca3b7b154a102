package forebay_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/vfs"
)

// TestUserBytes: each commit is counted once, whether nobody waits for it or it is
// waited for twice, and a replay is none.
func TestUserBytes(t *testing.T) {
	disk := vfs.NewMem()
	db, err := forebay.Open("db", &forebay.Options{FS: disk})
	require.NoError(t, err)
	b := db.NewBatch()
	require.NoError(t, b.Put([]byte("key"), []byte("value")))
	one := int64(b.Size())
	count := func(want int64) {
		t.Helper()
		require.NoError(t, db.Sync(context.Background()))
		require.Equal(t, want, db.Stats().UserBytes)
	}

	require.NoError(t, db.Put([]byte("key"), []byte("value")))
	count(one)
	c, err := db.Submit(b, forebay.Durable)
	require.NoError(t, err)
	require.NoError(t, c.Wait(context.Background()))
	require.NoError(t, c.Wait(context.Background()))
	count(2 * one)
	_, err = db.Submit(b, forebay.Buffered)
	require.NoError(t, err)
	count(3 * one)
	require.NoError(t, db.Update(func(tx *forebay.Tx) error { return tx.Put([]byte("key"), []byte("value")) }))
	count(4 * one)

	require.NoError(t, db.Close())
	db, err = forebay.Open("db", &forebay.Options{FS: disk})
	require.NoError(t, err)
	require.EqualValues(t, 4, db.Recovery().Replayed)
	count(0)
	require.NoError(t, db.Close())
}
