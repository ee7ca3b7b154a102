package forebay

import (
	"bytes"
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/vfs"
)

// The end of an iterator after Close removes nothing from a directory that may be
// somebody else's by then.
func TestAttackIteratorAfterCloseRemovesNothing(t *testing.T) {
	mem := vfs.NewMem()
	db := open(t, small(mem))
	fill(t, db, 2)
	_, err := db.Backup(context.Background(), "copy")
	require.NoError(t, err)
	it := db.NewIterator(nil)
	require.True(t, it.First())
	require.NoError(t, db.Compact(context.Background()))
	require.NoError(t, db.Close())
	names, err := mem.List("db")
	require.NoError(t, err)
	for _, name := range names { // the backup is put in its place
		require.NoError(t, mem.Remove("db/"+name))
	}
	names, err = mem.List("copy")
	require.NoError(t, err)
	for _, name := range names {
		require.NoError(t, mem.Rename("copy/"+name, "db/"+name))
	}
	require.NoError(t, it.Close())
	db = open(t, small(mem))
	require.Len(t, contents(t, db), 20)
	require.NoError(t, db.Close())
}

// Close waits for a Verify that reads the log: it would call damage what somebody
// else does to the files afterwards.
func TestAttackVerifyBesideClose(t *testing.T) {
	mem := vfs.NewMem()
	in := vfs.NewInjector(mem)
	o := small(in)
	o.MemtableSize = 1 << 20
	db := open(t, o)
	for range 100 {
		require.NoError(t, db.Put([]byte("k"), bytes.Repeat([]byte("v"), 1000)))
	}
	gate := vfs.NewGate()
	in.Add(vfs.Rule{Call: vfs.CallOpen, Name: "000002.log", Gate: gate})
	verified, closed := make(chan error, 1), make(chan error, 1)
	go func() {
		_, err := db.Verify(context.Background())
		verified <- err
	}()
	<-gate.Arrived()
	go func() { closed <- db.Close() }()
	select {
	case err := <-closed:
		require.NoError(t, err)
		next := open(t, small(mem))
		require.NoError(t, next.Checkpoint(context.Background()))
		require.NoError(t, next.Put([]byte("k"), nil))
		require.NoError(t, next.Checkpoint(context.Background()))
		require.NoError(t, next.Close())
		gate.Release()
	case <-time.After(50 * time.Millisecond):
		gate.Release()
		require.NoError(t, <-closed)
	}
	if err := <-verified; err != nil {
		require.ErrorIs(t, err, ErrClosed)
	}
}
