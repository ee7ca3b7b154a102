package forebay

import (
	"context"
	"testing"

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
