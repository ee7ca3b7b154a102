package forebay

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/vfs"
)

// seenBy returns the keys that an iterator shows.
func seenBy(t *testing.T, it *Iterator) string {
	var keys []string
	for ok := it.First(); ok; ok = it.Next() {
		keys = append(keys, string(it.Key()))
	}
	require.NoError(t, it.Err())
	return strings.Join(keys, " ")
}

// TestCursorsAreUsedAgain: an iterator that has the cursor of one before it sees what
// it would see without, whatever the bounds, the LSN and what was committed meanwhile.
func TestCursorsAreUsedAgain(t *testing.T) {
	db := open(t, &Options{FS: vfs.NewMem()})
	defer db.Close()
	ctx := context.Background()
	put := func(keys ...string) {
		for _, k := range keys {
			require.NoError(t, db.Put([]byte(k), []byte(k)))
		}
	}
	put("a", "b", "c", "d")
	require.NoError(t, db.Compact(ctx))
	show := func(lo, hi string) string {
		it := db.NewIterator(&IterOptions{Lower: []byte(lo), Upper: []byte(hi)})
		defer it.Close()
		return seenBy(t, it)
	}
	cursors := func() (c *cursor) {
		it := db.NewIterator(nil)
		defer it.Close()
		return it.c
	}
	require.Equal(t, "a b c d", show("", "z"))
	require.Same(t, cursors(), cursors(), "cursors are not used again, and this test is of nothing")
	require.Equal(t, "b c", show("b", "d"))
	old, err := db.Snapshot()
	require.NoError(t, err)
	defer old.Close()
	put("bb")
	require.Equal(t, "b bb c", show("b", "d"))
	it := old.NewIterator(nil)
	require.Equal(t, "a b c d", seenBy(t, it))
	require.NoError(t, it.Close())

	require.NoError(t, it.Close())
	require.False(t, it.Valid())
	require.False(t, it.First())
	require.ErrorIs(t, it.Err(), ErrClosed)

	require.NoError(t, db.DeleteRange([]byte("b"), []byte("c")))
	require.Equal(t, "a c d", show("", "z"))
	it = old.NewIterator(nil)
	require.Equal(t, "a b c d", seenBy(t, it))
	require.NoError(t, it.Close())
	require.NoError(t, db.Checkpoint(ctx))
	require.Equal(t, "a c d", show("", "z"))
	require.NoError(t, db.Put([]byte("b"), nil))
	require.Equal(t, "a b c d", show("", "z"))
}

// TestCursorsBesideWriters lends cursors to many goroutines while views come and go:
// each reads a copy of the same keys as of its own commit.
func TestCursorsBesideWriters(t *testing.T) {
	db := open(t, &Options{FS: vfs.NewMem(), MemtableSize: 64 << 10})
	defer db.Close()
	const keys = 50
	write := func(n int) {
		b := db.NewBatch()
		for i := range keys {
			b.Put(fmt.Appendf(nil, "%03d", i), fmt.Appendf(nil, "%d%200s", n, ""))
		}
		require.NoError(t, db.Apply(b, Buffered))
	}
	write(0)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for g := range 6 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(g), 1))
			for {
				select {
				case <-stop:
					return
				default:
				}
				lo := rng.IntN(keys)
				it := db.NewIterator(&IterOptions{Lower: fmt.Appendf(nil, "%03d", lo)})
				n, first := lo, ""
				for ok := it.First(); ok; ok = it.Next() {
					v, _, _ := bytes.Cut(it.Value(), []byte(" "))
					if n == lo {
						first = string(v)
					}
					if string(it.Key()) != fmt.Sprintf("%03d", n) || string(v) != first {
						t.Errorf("key %d: %q of %q, not of %q", n, it.Key(), v, first)
						break
					}
					n++
					if rng.IntN(40) == 0 {
						break
					}
				}
				if err := it.Err(); err != nil {
					t.Error(err)
				}
				it.Close()
			}
		})
	}
	for n := range 400 {
		write(n)
		if n%50 == 0 {
			require.NoError(t, db.Compact(context.Background()))
		}
	}
	close(stop)
	wg.Wait()
}

// lockedBuffer may be written to by many.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// TestForgottenIterators: one that nobody closes is closed by the garbage collector and
// told of, with where it was made; one that was closed is not, used again or not.
func TestForgottenIterators(t *testing.T) {
	var log lockedBuffer
	db := open(t, &Options{FS: vfs.NewMem(), Logger: slog.New(slog.NewTextHandler(&log, nil))})
	require.NoError(t, db.Put([]byte("k"), nil))
	for range 100 {
		it := db.NewIterator(nil)
		it.First()
		it.Close()
	}
	require.NoError(t, db.Compact(context.Background()))
	for range 3 {
		runtime.GC()
		time.Sleep(time.Millisecond)
	}
	require.NotContains(t, log.String(), "never closed")
	forget := func() { db.NewIterator(nil).First() }
	forget()
	require.Eventually(t, func() bool {
		runtime.GC()
		return strings.Contains(log.String(), "an iterator was never closed")
	}, 10*time.Second, time.Millisecond)
	require.Contains(t, log.String(), "TestForgottenIterators")
	inside := func() (n int64) {
		g := &db.view.Load().gate
		for i := range g.shards {
			n += g.shards[i].n.Load()
		}
		return n
	}
	require.Eventually(t, func() bool { return inside() == 0 }, 10*time.Second, time.Millisecond)
	require.NoError(t, db.Close())
}

// TestOutsideOfBounds: a segment outside of an iterator's bounds, which cannot be read,
// does not end it.
func TestOutsideOfBounds(t *testing.T) {
	in := vfs.NewInjector(vfs.NewMem())
	db := open(t, &Options{FS: in})
	defer db.Close()
	for i := range 1000 {
		require.NoError(t, db.Put(fmt.Appendf(nil, "m%04d", i), make([]byte, 100)))
	}
	require.NoError(t, db.Compact(context.Background()))
	require.Empty(t, db.view.Load().zero)
	require.NoError(t, db.Put([]byte("a"), []byte("v"))) // in memory
	in.Add(vfs.Rule{Call: vfs.CallRead, Err: syscall.EIO, Forever: true})
	it := db.NewIterator(&IterOptions{Lower: []byte("a"), Upper: []byte("b")})
	defer it.Close()
	if !it.First() || string(it.Key()) != "a" {
		t.Fatalf("[a, b) touches no segment, and: %v", it.Err())
	}
	require.False(t, it.Next())
	require.NoError(t, it.Err())
}
