package wal

import (
	"fmt"
	"runtime"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/vfs"
)

// TestLooksWhereItPays: it is looked while some find nobody who leads, and not where
// nearly all find one, for longer each time.
func TestLooksWhereItPays(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(2))
	var s looks
	window := func(found int) bool {
		for i := range lookWindow {
			s.count(i < found)
		}
		return s.on.Load()
	}
	const few, many = lookWindow / 2, lookWindow - 1
	require.True(t, window(many), "it is tried")
	require.True(t, window(many), "the first window does not count")
	require.False(t, window(many))
	rests := func() (n int) {
		for n = 1; !window(many); n++ {
		}
		return n
	}
	require.Equal(t, minRest, rests())
	for want := 2 * minRest; want < maxRest; want *= 2 {
		require.True(t, window(many))
		require.False(t, window(many))
		require.Equal(t, want, rests())
	}
	for range 2 {
		require.True(t, window(many))
		require.False(t, window(many))
		require.Equal(t, maxRest, rests())
	}
	for range lookLong {
		require.True(t, window(few))
	}
	require.False(t, window(many))
	require.Equal(t, minRest, rests(), "what came before is forgotten")

	runtime.GOMAXPROCS(1)
	s = looks{}
	for range 10 {
		require.False(t, window(few), "nobody could end meanwhile")
	}
}

// TestWhoLooksLosesNothing: with all that look, and with none, each record is there once.
func TestWhoLooksLosesNothing(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(4))
	for _, level := range []Level{Written, Buffered} {
		fs := vfs.NewMem()
		l, err := Open("d", &Options{FS: fs})
		require.NoError(t, err)
		var wg sync.WaitGroup
		const writers, each = 8, 400
		for w := range writers {
			wg.Go(func() {
				for i := range each {
					if w == 0 && i%50 == 0 {
						l.mu.Lock()
						l.looks.on.Store(i%100 == 0)
						l.mu.Unlock()
					}
					r := Request{Records: []Record{{Data: fmt.Append(nil, w, i)}}, Level: level}
					if err := l.do(&r); err != nil { // past what needs no leader
						t.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
		require.EqualValues(t, leadsNobody, l.looks.who.Load())
		require.NoError(t, l.Close())
		seen := map[string]int{}
		l, err = Open("d", &Options{FS: fs, OnRecord: func(_ LSN, _ uint64, rec []byte) error {
			seen[string(rec)]++
			return nil
		}})
		require.NoError(t, err)
		require.Len(t, seen, writers*each)
		for rec, n := range seen {
			require.Equal(t, 1, n, rec)
		}
		require.NoError(t, l.Close())
	}
}
