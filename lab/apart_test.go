package lab

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay"
)

// beside runs write from 4 goroutines, each time with a new number, while do runs.
func beside(t testing.TB, write func(n int64) error, do func()) {
	stop := make(chan struct{})
	var next atomic.Int64
	var writers sync.WaitGroup
	for range 4 {
		writers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if err := write(next.Add(1)); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	do()
	close(stop)
	writers.Wait()
}

// TestRangesApart: a transaction that reads a range of 1,000 keys has no conflict
// with those who write in front of it and behind.
func TestRangesApart(t *testing.T) {
	db := open(t)
	b := db.NewBatch()
	for i := range 1000 {
		require.NoError(t, b.Put(fmt.Appendf(nil, "m%04d", i), make([]byte, 100)))
	}
	require.NoError(t, db.Apply(b, forebay.Durable))
	n := 300
	if testing.Short() {
		n = 50
	}
	before := db.Stats().LastLSN
	beside(t, func(n int64) error {
		return db.Put(fmt.Append(nil, []string{"l", "m1000", "n"}[n%3], n%1000), nil)
	}, func() {
		for i := range n {
			require.NoError(t, db.Update(func(tx *forebay.Tx) error {
				found := 0
				walk := tx.Prefix([]byte("m0"))
				if i%2 == 0 {
					walk = tx.PrefixReverse([]byte("m0"))
				}
				for _, err := range walk {
					if err != nil {
						return err
					}
					found++
				}
				require.Equal(t, 1000, found)
				return tx.Put([]byte("sum"), nil)
			}))
		}
	})
	s := db.Stats()
	t.Logf("%d transactions beside %d writes", n, s.LastLSN-before-uint64(n))
	require.Zero(t, s.Conflicts)
}

// TestQueue: who takes the first key has no conflict with those who append.
func TestQueue(t *testing.T) {
	db := open(t)
	for i := range 100 {
		require.NoError(t, db.Put(fmt.Appendf(nil, "q%08d", i), nil))
	}
	n := 2000
	if testing.Short() {
		n = 100
	}
	var ahead atomic.Int64 // what was appended and not taken yet
	ahead.Store(100)
	last := ""
	var mu sync.Mutex // what comes later in the log has a higher number
	next := 100
	beside(t, func(int64) error {
		if ahead.Load() > 10_000 {
			time.Sleep(time.Millisecond)
			return nil
		}
		mu.Lock()
		c, err := db.Submit(batchOf(db, fmt.Appendf(nil, "q%08d", next)), forebay.Durable)
		next++
		mu.Unlock()
		if err == nil {
			err = c.Wait(context.Background())
		}
		ahead.Add(1)
		return err
	}, func() {
		for taken := 0; taken < n; {
			if ahead.Load() < 50 { // at the tail they would meet
				time.Sleep(time.Millisecond)
				continue
			}
			require.NoError(t, db.Update(func(tx *forebay.Tx) error {
				it := tx.NewIterator(&forebay.IterOptions{Prefix: []byte("q")})
				defer it.Close()
				require.True(t, it.First())
				require.Greater(t, string(it.Key()), last)
				last = string(it.Key())
				return tx.Delete(it.Key())
			}))
			ahead.Add(-1)
			taken++
		}
	})
	s := db.Stats()
	t.Logf("%d taken beside %d writes", n, s.LastLSN-100-uint64(n))
	require.Zero(t, s.Conflicts)
}

// BenchmarkQueue takes the first key beside 4 who append.
func BenchmarkQueue(b *testing.B) {
	db := open(b)
	for i := range b.N {
		_, err := db.Submit(batchOf(db, fmt.Appendf(nil, "q%08d", i)), forebay.Buffered)
		require.NoError(b, err)
	}
	require.NoError(b, db.Sync(b.Context()))
	before := db.Stats()
	beside(b, func(n int64) error { return db.Put(fmt.Appendf(nil, "q%08d", 1<<20+n), nil) }, func() {
		b.ResetTimer()
		for range b.N {
			if err := db.Update(func(tx *forebay.Tx) error {
				it := tx.NewIterator(&forebay.IterOptions{Prefix: []byte("q")})
				defer it.Close()
				if !it.First() {
					return it.Err()
				}
				return tx.Delete(it.Key())
			}); err != nil {
				b.Error(err)
			}
		}
		b.StopTimer()
	})
	report(b, db, before, "pop")
}

func batchOf(db *forebay.DB, key []byte) *forebay.Batch {
	b := db.NewBatch()
	b.Put(key, nil)
	return b
}

// BenchmarkScan is of transactions that read 1,000 keys and write one, beside 4
// who write elsewhere.
func BenchmarkScan(b *testing.B) {
	db := open(b)
	w := db.NewBatch()
	for i := range 1000 {
		require.NoError(b, w.Put(fmt.Appendf(nil, "m%04d", i), make([]byte, 100)))
	}
	require.NoError(b, db.Apply(w, forebay.Durable))
	before := db.Stats()
	beside(b, func(n int64) error { return db.Put(fmt.Append(nil, "n", n%1000), nil) }, func() {
		b.ResetTimer()
		for range b.N {
			if err := db.Update(func(tx *forebay.Tx) error {
				for _, err := range tx.Prefix([]byte("m")) {
					if err != nil {
						return err
					}
				}
				return tx.Put([]byte("sum"), nil)
			}); err != nil {
				b.Error(err)
			}
		}
		b.StopTimer()
	})
	report(b, db, before, "scan")
}
