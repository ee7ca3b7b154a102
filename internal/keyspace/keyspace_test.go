package keyspace

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestPrefixesAreOrderedAndApart(t *testing.T) {
	ids := []uint64{0, 1, 2, 239, 240, 241, 255, 256, 65535, 65536, 1<<32 - 1, 1 << 32, 1<<63 - 1, 1 << 63, 1<<64 - 2, 1<<64 - 1}
	for range 1000 {
		ids = append(ids, rand.Uint64()>>rand.IntN(64))
	}
	slices.Sort(ids)
	ids = slices.Compact(ids)
	for i, id := range ids {
		p := AppendPrefix(nil, id)
		require.LessOrEqual(t, len(p), MaxPrefix)
		got, rest, ok := Cut(append(p, "key"...))
		require.True(t, ok)
		require.Equal(t, id, got)
		require.Equal(t, "key", string(rest))
		require.Negative(t, bytes.Compare(append(slices.Clone(p), 255, 255, 255), End(id)), "id %d", id)
		if i > 0 {
			before := AppendPrefix(nil, ids[i-1])
			require.Negative(t, bytes.Compare(before, p))
			require.False(t, bytes.HasPrefix(p, before))
			require.LessOrEqual(t, bytes.Compare(End(ids[i-1]), p), 0)
		}
	}
}

func FuzzCut(f *testing.F) {
	f.Add([]byte{0, 'x'})
	f.Add([]byte{240, 240, 'k'})
	f.Add([]byte{255})
	f.Fuzz(func(t *testing.T, key []byte) {
		if id, user, ok := Cut(key); ok {
			require.Equal(t, key, append(AppendPrefix(nil, id), user...), "there is one prefix for an id")
		}
	})
}

func TestEntries(t *testing.T) {
	read := func(key, value []byte) Entry {
		id, user, ok := Cut(key)
		require.True(t, ok)
		require.Equal(t, System, id)
		e, err := DecodeEntry(user, value)
		require.NoError(t, err)
		return e
	}
	require.Equal(t, Entry{Name: "users", ID: 300, Named: true}, read(NameKey("users"), EncodeID(300)))
	require.Equal(t, Entry{Name: "users", Named: true}, read(NameKey("users"), nil))
	require.Equal(t, Entry{Name: "users", ID: 300}, read(IDKey(300), []byte("users")))
	require.Equal(t, Entry{}, read(NextKey(), EncodeID(301)))
	for _, bad := range [][]byte{nil, {'n'}, {'i'}, {'z', 'a'}, {'x', 0}, {'i', 255}} {
		_, err := DecodeEntry(bad, nil)
		require.ErrorIs(t, err, ErrDamaged)
	}
	_, err := DecodeID([]byte{1})
	require.ErrorIs(t, err, ErrDamaged, "ids below First are nobody's")
	require.ErrorIs(t, CheckName(""), ErrName)
}
