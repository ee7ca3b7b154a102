package memtable

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/internal/base"
	"github.com/forebaydb/forebay/internal/rangedel"
)

func coverOf(dels []base.RangeDelete, key string, lsn base.LSN) (newest base.LSN) {
	for _, d := range dels {
		if string(d.Lo) <= key && key < string(d.Hi) && (d.LSN <= lsn || d.LSN >= base.OwnLSN) {
			newest = max(newest, d.LSN)
		}
	}
	return newest
}

func TestRangeDeletesModel(t *testing.T) {
	rng := newRand(t)
	for range 50 {
		tab := New(0)
		require.Nil(t, tab.RangeDeletes())
		require.Empty(t, tab.RangeDeleteParts())
		require.Zero(t, tab.Cover([]byte("a"), base.MaxLSN))
		var dels []base.RangeDelete
		often := 1 + rng.IntN(50)
		for i := range 1 + rng.IntN(400) {
			lo, hi := fmt.Sprintf("%03d", rng.IntN(300)), fmt.Sprintf("%03d", 1+rng.IntN(300))
			lsn := base.LSN(1 + rng.IntN(i+1))
			if rng.IntN(20) == 0 {
				lsn += base.OwnLSN
			}
			if lo >= hi {
				require.ErrorIs(t, tab.AddRangeDelete(lsn, []byte(lo), []byte(hi)), ErrInvalid)
				continue
			}
			buf := []byte(lo + hi)
			require.NoError(t, tab.AddRangeDelete(lsn, buf[:3], buf[3:]))
			clear(buf) // It was copied.
			dels = append(dels, base.RangeDelete{Lo: []byte(lo), Hi: []byte(hi), LSN: lsn})
			if rng.IntN(3) == 0 { // At the LSN of a range delete.
				_ = tab.Add(lsn, base.KindPut, []byte(lo), nil)
			}
			require.Equal(t, len(dels), tab.RangeLen())
			if rng.IntN(often) == 0 {
				key, at := fmt.Sprintf("%03d", rng.IntN(300)), base.LSN(rng.IntN(i+2))
				require.Equal(t, coverOf(dels, key, at), tab.Cover([]byte(key), at))
			}
			if rng.IntN(often) == 0 {
				require.Equal(t, rangedel.New(dels).Ranges(), tab.RangeDeletes().Ranges())
			}
			if rng.IntN(often) == 0 {
				parts := tab.RangeDeleteParts()
				require.LessOrEqual(t, len(parts), 9)
				require.Equal(t, rangedel.New(dels).Ranges(), rangedel.Merge(parts...).Ranges())
			}
		}
		if len(dels) > 0 {
			require.Same(t, tab.RangeDeletes(), tab.RangeDeletes())
		}
	}
}

func TestRangeDeletesCount(t *testing.T) {
	tab := New(0)
	require.NoError(t, tab.AddRangeDelete(7, []byte("a"), []byte("b")))
	require.Equal(t, []any{1, 0, uint64(7), uint64(7), uint64(0)},
		[]any{tab.RangeLen(), tab.Len(), tab.MinLSN(), tab.MaxLSN(), tab.PointMaxLSN()})
	require.NoError(t, tab.Add(7, base.KindPut, []byte("a"), nil))
	require.NoError(t, tab.Add(5, base.KindPut, []byte("a"), nil))
	require.NoError(t, tab.AddRangeDelete(9, []byte("a"), []byte("b")))
	require.Equal(t, []any{2, 2, uint64(5), uint64(9), uint64(7)},
		[]any{tab.RangeLen(), tab.Len(), tab.MinLSN(), tab.MaxLSN(), tab.PointMaxLSN()})
	require.Equal(t, base.LSN(9), tab.Cover([]byte("a"), base.MaxLSN))
	require.Equal(t, base.LSN(7), tab.Cover([]byte("a"), 8))
	require.Zero(t, tab.Cover([]byte("b"), 9))
	value, kind, lsn, ok := tab.Get([]byte("a"), 9)
	require.Equal(t, []any{0, base.KindPut, base.LSN(7), true}, []any{len(value), kind, lsn, ok})

	before := tab.Bytes()
	long := make([]byte, base.MaxKeySize)
	require.NoError(t, tab.AddRangeDelete(10, long[:1], long))
	require.GreaterOrEqual(t, tab.Bytes(), before+base.MaxKeySize)

	for _, err := range []error{
		tab.AddRangeDelete(8, nil, []byte("b")),
		tab.AddRangeDelete(8, []byte("a"), nil),
		tab.AddRangeDelete(8, []byte("a"), []byte("a")),
		tab.AddRangeDelete(8, []byte("a"), make([]byte, base.MaxKeySize+1)),
		tab.AddRangeDelete(0, []byte("a"), []byte("b")),
	} {
		require.ErrorIs(t, err, ErrInvalid)
	}
	require.Equal(t, 3, tab.RangeLen())
	require.Zero(t, testing.AllocsPerRun(100, func() { tab.Cover([]byte("a"), 9); tab.RangeDeletes() }))
}

// TestRangeDeletesBetweenReads adds range deletes one by one with a read after
// each; were they all sorted again each time, it would take minutes.
func TestRangeDeletesBetweenReads(t *testing.T) {
	const n = 20_000
	for _, shape := range []string{"apart", "nested", "random"} {
		rng := rand.New(rand.NewPCG(1, 1))
		tab := New(0)
		start := time.Now()
		for i := range n {
			lo, hi := i*10, i*10+5
			switch shape {
			case "nested":
				lo, hi = i, 4*n-i
			case "random":
				lo = rng.IntN(n)
				hi = lo + 1 + rng.IntN(20)
			}
			require.NoError(t, tab.AddRangeDelete(base.LSN(i+1), fmt.Appendf(nil, "%08d", lo), fmt.Appendf(nil, "%08d", hi)))
			require.Equal(t, base.LSN(i+1), tab.Cover(fmt.Appendf(nil, "%08d", lo), base.MaxLSN))
		}
		t.Logf("%s: %v for each, %d parts, %d bytes for each", shape, time.Since(start)/n, len(tab.RangeDeleteParts()), tab.Bytes()/n)
		require.Less(t, time.Since(start), 20*time.Second)
	}
}

// TestRangeDeletesConcurrent reads while one goroutine adds range deletes,
// with now and then a version in them at the same LSN.
func TestRangeDeletesConcurrent(t *testing.T) {
	const commits = 3000
	rng := newRand(t)
	tab := New(0)
	var dels [commits + 1]base.RangeDelete
	for i := range dels {
		lo := rng.IntN(500)
		dels[i] = base.RangeDelete{Lo: fmt.Appendf(nil, "%04d", lo), Hi: fmt.Appendf(nil, "%04d", lo+1+rng.IntN(20)), LSN: base.LSN(i)}
	}
	var mark atomic.Uint64
	var wg sync.WaitGroup
	for r := range 3 {
		seed := rng.Uint64()
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(seed, uint64(r)))
			for lsn := uint64(0); lsn < commits; {
				lsn = mark.Load()
				key := fmt.Appendf(nil, "%04d", rng.IntN(520))
				want := coverOf(dels[1:lsn+1], string(key), lsn)
				got := tab.Cover(key, lsn)
				if rng.IntN(4) == 0 {
					got = tab.RangeDeletes().Cover(key, lsn)
				}
				if got != want {
					t.Errorf("cover of %s at %d is %d, want %d", key, lsn, got, want)
					return
				}
				_, _, _ = tab.Bytes(), tab.MinLSN(), tab.MaxLSN()
			}
		})
	}
	for lsn := base.LSN(1); lsn <= commits; lsn++ {
		d := dels[lsn]
		if err := errors.Join(tab.AddRangeDelete(lsn, d.Lo, d.Hi), tab.Add(lsn, base.KindPut, d.Lo, nil)); err != nil {
			t.Error(err)
			break
		}
		mark.Store(lsn)
	}
	mark.Store(commits)
	wg.Wait()
}
