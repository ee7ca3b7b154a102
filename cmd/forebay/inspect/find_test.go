package inspect

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/internal/base"
	"github.com/forebaydb/forebay/vfs"
)

// layered is a store with a key in log and segments, and range deletes over it.
func layered(t testing.TB) *vfs.Mem {
	mem := vfs.NewMem()
	db, err := forebay.Open("db", options(mem))
	require.NoError(t, err)
	users, err := db.Keyspace("users")
	require.NoError(t, err)
	require.NoError(t, users.Put([]byte("ann"), []byte("one")))
	require.NoError(t, db.Put([]byte("ann"), []byte("default")))
	snap, err := db.Snapshot() // else the first checkpoint keeps the newest alone
	require.NoError(t, err)
	require.NoError(t, users.Put([]byte("ann"), []byte("two")))
	require.NoError(t, db.Checkpoint(context.Background()))
	require.NoError(t, users.DeleteRange([]byte("a"), []byte("b")))
	require.NoError(t, users.Put([]byte("bob"), []byte("here")))
	require.NoError(t, db.Checkpoint(context.Background()))
	require.NoError(t, users.Put([]byte("ann"), []byte("three")))
	require.NoError(t, users.Delete([]byte("bob")))
	require.NoError(t, snap.Close())
	require.NoError(t, db.Close())
	return mem
}

func TestGoldenFind(t *testing.T) {
	golden(t, "find", layered(t), "find db ann --keyspace users", "find db ann", "find db bob --keyspace users", "find db 616e6e --hex --keyspace users --json",
		"find db zoe", "find db ann --keyspace nobody", "segment dump db/000001.seg --versions", "segment dump db/000002.seg --verify", "segment dump db/000002.seg --versions --json")
}

func TestSegmentUsage(t *testing.T) {
	mem := layered(t)
	for line, want := range map[string]int{
		"segment dump":             2,
		"segment dump db":          2,
		"segment dump nowhere.seg": 1,
		"segment dump db/LOCK":     1,
		"find db":                  2,
		"find db xyz --hex":        2,
		"find db/LOCK x":           2,
		"find nowhere x":           1,
	} {
		_, err := invoke(mem, strings.Fields(line)...)
		require.Equal(t, want, code(t, err), "%s: %v", line, err)
	}
	// Each flipped bit is damage or changes nothing that is shown as good.
	name := filepath.Join("db", "000001.seg")
	good := mem.Bytes(name)
	for at := 0; at < len(good); at += 7 {
		m := mem.Snapshot()
		flip(t, m, name, int64(at), uint8(at%8))
		_, err := invoke(m, "segment", "dump", "--verify", "--versions", name)
		require.Equal(t, 1, code(t, err), "byte %d", at)
		for _, line := range []string{"segment dump --versions " + name, "find db ann --keyspace users", "manifest dump db"} {
			_, err := invoke(m, strings.Fields(line)...)
			var e *ExitError
			require.True(t, err == nil || errors.As(err, &e), "%s: %v", line, err)
		}
	}
}

// TestFindSeesWhatAReaderSees compares with Get, after crashes, over levels.
func TestFindSeesWhatAReaderSees(t *testing.T) {
	seen, gone := 0, 0
	for seed := range uint64(12) {
		r := rand.New(rand.NewPCG(seed, 9))
		mem := vfs.NewMem()
		for range 3 {
			db, err := forebay.Open("db", options(mem))
			require.NoError(t, err)
			for range 30 + r.IntN(100) {
				b := db.NewBatch()
				key := fmt.Appendf(nil, "%02d", r.IntN(30))
				switch r.IntN(6) {
				case 0:
					require.NoError(t, b.Delete(key))
				case 1:
					require.NoError(t, b.DeleteRange(key, fmt.Appendf(nil, "%02d", r.IntN(30))))
				}
				require.NoError(t, b.Put(fmt.Appendf(nil, "%02d", r.IntN(30)), make([]byte, r.IntN(300))))
				require.NoError(t, db.Apply(b, forebay.Level(r.IntN(3))))
				switch r.IntN(50) {
				case 0:
					require.NoError(t, db.Compact(context.Background()))
				case 1, 2:
					require.NoError(t, db.Checkpoint(context.Background()))
				}
			}
			cut := mem.PowerCutSeed(seed, vfs.SectorAtomic)
			db.Close()
			mem = cut
		}
		tool := &tool{mem}
		db, err := forebay.Open("db", options(mem.Snapshot()))
		require.NoError(t, err)
		for k := range 30 {
			key := fmt.Appendf(nil, "%02d", k)
			places, _, err := (&finder{t: tool, key: key}).look("db", "")
			require.NoError(t, err)
			value, err := db.Get(key)
			i := 0
			for i < len(places) && !places[i].Seen {
				i++
			}
			if i == len(places) || places[i].kind != base.KindPut {
				require.ErrorIs(t, err, forebay.ErrNotFound, "seed %d: %s", seed, key)
				gone++
				continue
			}
			require.NoError(t, err)
			require.Equal(t, len(value), len(places[i].value))
			seen++
		}
		require.NoError(t, db.Close())
	}
	require.Positive(t, seen)
	require.Positive(t, gone)
}
