package forebay_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay"
)

// Reads look whether a durable commit waits. A store that is open for reading only has
// no log to ask.
func TestRegressReadOnlyReads(t *testing.T) {
	dir := t.TempDir()
	db, err := forebay.Open(dir, nil)
	require.NoError(t, err)
	for _, k := range []string{"a", "b", "c"} {
		require.NoError(t, db.Put([]byte(k), []byte("of "+k)))
	}
	require.NoError(t, db.Close())
	db, err = forebay.Open(dir, &forebay.Options{ReadOnly: true})
	require.NoError(t, err)
	defer db.Close()
	v, err := db.Get([]byte("a"))
	require.NoError(t, err)
	require.Equal(t, "of a", string(v))
	it := db.NewIterator(nil)
	defer it.Close()
	require.True(t, it.First())
	require.True(t, it.Next())
	require.True(t, it.Prev())
	require.True(t, it.SeekGE([]byte("b")))
	require.True(t, it.SeekLT([]byte("b")))
	require.Equal(t, "a", string(it.Key()))
	require.NoError(t, it.Err())
	s, err := db.Snapshot()
	require.NoError(t, err)
	defer s.Close()
	_, err = s.Get([]byte("c"))
	require.NoError(t, err)
}
