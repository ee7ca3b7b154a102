package forebay

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sort"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/vfs"
)

// small are options under which files rotate and memtables settle soon, and
// nothing depends on time.
func small(fs vfs.FS) *Options {
	return &Options{FS: fs, MarkDelay: -1, LogFileSize: 16 << 10, MemtableSize: 32 << 10}
}

func open(t testing.TB, o *Options) *DB {
	t.Helper()
	db, err := Open("db", o)
	require.NoError(t, err)
	return db
}

// contents scans the whole store.
func contents(t testing.TB, db *DB) map[string]string {
	t.Helper()
	got := map[string]string{}
	var last []byte
	for e, err := range db.Range(nil, nil) {
		require.NoError(t, err)
		require.Negative(t, bytes.Compare(last, e.Key))
		last = append(last[:0], e.Key...)
		got[string(e.Key)] = string(e.Value)
	}
	return got
}

func TestPutGetDeleteReopen(t *testing.T) {
	db := open(t, small(vfs.NewMem()))
	require.NoError(t, db.Put([]byte("a"), []byte("1")))
	require.NoError(t, db.Put([]byte("b"), nil))
	require.NoError(t, db.Delete([]byte("a")))
	_, err := db.Get([]byte("a"))
	require.ErrorIs(t, err, ErrNotFound)
	v, err := db.Get([]byte("b"))
	require.NoError(t, err)
	require.Empty(t, v)
	require.ErrorIs(t, db.Put(nil, nil), ErrEmptyKey)
	_, err = Open("db", small(db.opts.FS))
	require.ErrorIs(t, err, ErrLocked)
	require.NoError(t, db.Close())
	require.ErrorIs(t, db.Put([]byte("a"), nil), ErrClosed)
	_, err = db.Get([]byte("b"))
	require.ErrorIs(t, err, ErrClosed)
	db = open(t, small(db.opts.FS))
	require.Equal(t, map[string]string{"b": ""}, contents(t, db))
	require.NoError(t, db.Close())
}

// TestModel runs random operations against a plain map, with reopening, power
// cuts after a Sync, and checkpoints.
func TestModel(t *testing.T) {
	for seed := uint64(1); seed <= 20; seed++ {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 0))
			mem := vfs.NewMem()
			o := small(mem)
			db := open(t, o)
			want := map[string]string{}
			for i := 0; i < 3000; i++ {
				key := fmt.Sprintf("key %03d", r.IntN(300))
				switch k := r.IntN(1000); {
				case k < 600:
					v := fmt.Sprint("value ", i, string(make([]byte, r.IntN(200))))
					b := db.NewBatch()
					require.NoError(t, b.Put([]byte(key), []byte(v)))
					require.NoError(t, db.Apply(b, Level(r.IntN(3))))
					want[key] = v
				case k < 800:
					require.NoError(t, db.Delete([]byte(key)))
					delete(want, key)
				case k < 980:
					v, err := db.Get([]byte(key))
					if w, ok := want[key]; ok {
						require.NoError(t, err)
						require.Equal(t, w, string(v))
					} else {
						require.ErrorIs(t, err, ErrNotFound)
					}
				case k < 985:
					require.NoError(t, db.Checkpoint(context.Background()))
				case k < 990:
					require.NoError(t, db.Close())
					db = open(t, o)
				case k < 995:
					require.NoError(t, db.Sync(context.Background()))
					cut := mem.PowerCutSeed(seed<<32+uint64(i), vfs.SectorAtomic)
					db.Close()
					mem = cut
					o = small(mem)
					db = open(t, o)
				default:
					require.Equal(t, want, contents(t, db))
				}
			}
			var keys []string
			for k := range want {
				keys = append(keys, k)
			}
			sort.Strings(keys)
			i := len(keys)
			for e, err := range db.RangeReverse(nil, nil) {
				require.NoError(t, err)
				i--
				require.Equal(t, keys[i], string(e.Key))
			}
			require.Zero(t, i)
			require.NoError(t, db.Close())
		})
	}
}

func TestConcurrentWritersAndReaders(t *testing.T) {
	db := open(t, small(vfs.NewMem()))
	var wg sync.WaitGroup
	for g := 0; g < 8; g++ {
		wg.Go(func() {
			for i := 0; i < 500; i++ {
				k := []byte(fmt.Sprintf("%d/%d", g, i))
				if err := db.Put(k, bytes.Repeat(k, 20)); err != nil {
					t.Error(err)
					return
				}
				v, err := db.Get(k)
				if err != nil || !bytes.Equal(v, bytes.Repeat(k, 20)) {
					t.Errorf("%s: %v", k, err)
				}
			}
		})
	}
	wg.Wait()
	require.Len(t, contents(t, db), 4000)
	require.Positive(t, db.Stats().Checkpoints)
	require.NoError(t, db.Close())
}

func TestSubmitWait(t *testing.T) {
	db := open(t, small(vfs.NewMem()))
	var cs []*Commit
	b := db.NewBatch()
	for i := 0; i < 100; i++ {
		b.Reset()
		require.NoError(t, b.Put([]byte(fmt.Sprint(i)), []byte("x")))
		c, err := db.Submit(b, Level(i%3))
		require.NoError(t, err)
		cs = append(cs, c)
	}
	for i, c := range cs {
		require.NoError(t, c.Wait(context.Background()))
		require.Equal(t, uint64(i+1), c.LSN())
	}
	require.Len(t, contents(t, db), 100)
	require.NoError(t, db.Close())
}

func TestCloseInsideIteration(t *testing.T) {
	db := open(t, small(vfs.NewMem()))
	for i := 0; i < 10; i++ {
		require.NoError(t, db.Put([]byte{byte(i + 1)}, nil))
	}
	require.NoError(t, db.Checkpoint(context.Background()))
	n := 0
	var last error
	for _, err := range db.Range(nil, nil) {
		if last = err; err == nil {
			n++
			require.NoError(t, db.Close())
		}
	}
	require.Equal(t, 1, n)
	require.True(t, errors.Is(last, ErrClosed))
}

func BenchmarkOpenScanClose10KB(b *testing.B) {
	mem := vfs.NewMem()
	o := &Options{FS: mem}
	db := open(b, o)
	for i := 0; i < 85; i++ {
		require.NoError(b, db.Put([]byte(fmt.Sprintf("key %08d", i)), make([]byte, 100)))
	}
	require.NoError(b, db.Close())
	b.ReportAllocs()
	for b.Loop() {
		db, err := Open("db", o)
		if err != nil {
			b.Fatal(err)
		}
		n := 0
		for range db.Range(nil, nil) {
			n++
		}
		if n != 85 {
			b.Fatal(n)
		}
		if err := db.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

// TestLogFull: a bounded log refuses writes with ErrFull, without a gap, settles
// by itself, and takes writes again.
func TestLogFull(t *testing.T) {
	o := small(vfs.NewMem())
	o.MaxLogBytes, o.MemtableSize = 128<<10, 1<<20
	db := open(t, o)
	want := map[string]string{}
	full := 0
	for i := 0; i < 3000; i++ {
		k, v := fmt.Sprint("key ", i%500), fmt.Sprint("value ", i, string(make([]byte, 300)))
		for {
			err := db.Put([]byte(k), []byte(v))
			if err == nil {
				break
			}
			require.ErrorIs(t, err, ErrFull)
			full++
			_, err = db.Has([]byte(k))
			require.NoError(t, err)
		}
		want[k] = v
	}
	require.Positive(t, full)
	require.Equal(t, uint64(3000), db.LastLSN())
	require.LessOrEqual(t, db.Stats().Log.FileBytes, o.MaxLogBytes)
	require.Equal(t, want, contents(t, db))
	require.NoError(t, db.Close())
	db = open(t, o)
	require.Equal(t, want, contents(t, db))
	require.NoError(t, db.Close())
}
