package forebay

import (
	"bytes"
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/internal/batch"
	"github.com/forebaydb/forebay/internal/keyspace"
	"github.com/forebaydb/forebay/vfs"
)

// The range delete of all of a keyspace ends where the next id begins, also where
// that id has a longer code: else nobody who follows the changes understands it.
func TestAttackDeleteRangeOfAWholeKeyspace(t *testing.T) {
	db := open(t, small(vfs.NewMem()))
	defer db.Close()
	for _, id := range []uint64{1, 2, 238, 239, 240, 255, 256, 65535, 65536, 1<<24 - 1, 1<<56 - 1} {
		name := fmt.Sprint(id)
		if id > 1 {
			b := new(batch.Batch)
			require.NoError(t, b.Put(keyspace.IDKey(id), []byte(name)))
			require.NoError(t, db.commit(b.Bytes(), Durable, nil))
		} else {
			name = ""
		}
		at := db.Position()
		ks := newKeyspace(db, id, name)
		require.NoError(t, ks.Put([]byte("k"), nil))
		require.NoError(t, ks.DeleteRange([]byte("a"), nil))
		var ops []Op
		for c, err := range db.Changes(context.Background(), at) {
			require.NoError(t, err, id)
			ops = append(ops, c.Ops...)
		}
		require.Equal(t, []Op{{Kind: OpPut, Keyspace: name, Key: []byte("k"), Value: []byte{}}, {Kind: OpDeleteRange, Keyspace: name, Key: []byte("a")}}, ops, id)
		_, err := ks.Get([]byte("k"))
		require.ErrorIs(t, err, ErrNotFound)
	}
}

// A change that makes a keyspace and deletes a range of it is understood by itself:
// the store need not show it yet.
func TestAttackChangeThatMakesAKeyspace(t *testing.T) {
	db := open(t, small(vfs.NewMem()))
	defer db.Close()
	b := new(batch.Batch)
	require.NoError(t, b.DeleteRange(keyspace.AppendPrefix(nil, 7), keyspace.End(7)))
	require.NoError(t, b.Put(keyspace.NameKey("seven"), keyspace.EncodeID(7)))
	require.NoError(t, b.Put(keyspace.IDKey(7), []byte("seven")))
	d := changeDecoder{db: db, names: map[uint64]string{keyspace.Default: ""}}
	ops, err := d.decode(b.Bytes())
	require.NoError(t, err)
	require.Equal(t, []Op{{Kind: OpCreateKeyspace, Keyspace: "seven"}, {Kind: OpDeleteRange, Keyspace: "seven"}}, ops)
}

// Who still follows a backlog when the store is closed is told so, and does not
// look at files that may be somebody else's by then.
func TestAttackFollowEndsWithClose(t *testing.T) {
	mem := vfs.NewMem()
	o := small(mem)
	o.MemtableSize = 1 << 20
	db := open(t, o)
	for range 200 {
		require.NoError(t, db.Put([]byte("k"), bytes.Repeat([]byte("v"), 1000)))
	}
	n := 0
	for _, err := range db.Follow(context.Background(), Position{}) {
		if n++; n == 1 {
			require.NoError(t, err)
			require.NoError(t, db.Close())
			next := open(t, small(mem))
			require.NoError(t, next.Checkpoint(context.Background()))
			require.NoError(t, next.Put([]byte("k"), nil))
			require.NoError(t, next.Checkpoint(context.Background()))
			require.NoError(t, next.Close())
			continue
		}
		if err != nil {
			require.ErrorIs(t, err, ErrClosed)
			break
		}
	}
	require.Less(t, n, 200)
}
