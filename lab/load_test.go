package lab

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay"
)

// open opens a store on the disk where temporary files are.
func open(t testing.TB) *forebay.DB {
	t.Helper()
	db, err := forebay.Open(t.TempDir(), nil)
	require.NoError(t, err)
	t.Cleanup(func() { db.Close() })
	return db
}

type getter interface {
	Get(key []byte) ([]byte, error)
}

// number is the number under a key, 0 if there is none.
func number(r getter, key []byte) (uint64, error) {
	value, err := r.Get(key)
	if err == forebay.ErrNotFound {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return binary.BigEndian.Uint64(value), nil
}

func put(tx *forebay.Tx, key []byte, n uint64) error {
	var room [8]byte
	return tx.Put(key, binary.BigEndian.AppendUint64(room[:0], n))
}

func increment(db *forebay.DB, key []byte) error {
	return db.Update(func(tx *forebay.Tx) error {
		n, err := number(tx, key)
		if err != nil {
			return err
		}
		return put(tx, key, n+1)
	})
}

// spread calls do n times from that many goroutines, of which each is told its
// number.
func spread(t testing.TB, goroutines, n int, do func(g int) error) {
	var next atomic.Int64
	var wg sync.WaitGroup
	for g := range goroutines {
		wg.Go(func() {
			for next.Add(1) <= int64(n) {
				if err := do(g); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// report gives figures of a benchmark.
func report(b *testing.B, db *forebay.DB, before forebay.Stats, what string) {
	s := db.Stats()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), what+"/s")
	b.ReportMetric(float64(b.N)/float64(max(1, s.Log.Syncs-before.Log.Syncs)), what+"/sync")
	b.ReportMetric(float64(s.Conflicts-before.Conflicts)/float64(b.N), "conflicts/"+what)
}

// TestIncrements: 64 goroutines increment one key, durably, on a disk; nothing is
// lost, also not by a reopen.
func TestIncrements(t *testing.T) {
	for _, keys := range []int{1, 64} {
		t.Run(fmt.Sprint("keys=", keys), func(t *testing.T) {
			n := 20_000
			if testing.Short() {
				n = 2_000
			}
			dir := t.TempDir()
			db, err := forebay.Open(dir, nil)
			require.NoError(t, err)
			spread(t, 64, n, func(g int) error { return increment(db, fmt.Append(nil, "counter", g%keys)) })
			sum := func() (sum uint64) {
				for k := range keys {
					n, err := number(db, fmt.Append(nil, "counter", k))
					require.NoError(t, err)
					sum += n
				}
				return sum
			}
			require.EqualValues(t, n, sum())
			require.EqualValues(t, n, db.DurableLSN(), "one commit for each")
			t.Logf("conflicts %d, turns %d, alone %d", db.Stats().Conflicts, db.Stats().Turns, db.Stats().Alone)
			require.NoError(t, db.Close())
			db, err = forebay.Open(dir, nil)
			require.NoError(t, err)
			defer db.Close()
			require.EqualValues(t, n, sum())
		})
	}
}

// BenchmarkIncrements is of 64 goroutines on one key, and on one each.
func BenchmarkIncrements(b *testing.B) {
	for _, keys := range []int{1, 64} {
		b.Run(fmt.Sprint("keys=", keys), func(b *testing.B) {
			db := open(b)
			var names [64][]byte
			for i := range names {
				names[i] = fmt.Append(nil, "counter", i%keys)
			}
			spread(b, 64, 2000, func(g int) error { return increment(db, names[g]) })
			before := db.Stats()
			b.ReportAllocs()
			b.ResetTimer()
			spread(b, 64, b.N, func(g int) error { return increment(db, names[g]) })
			b.StopTimer()
			report(b, db, before, "incr")
		})
	}
}

const accounts, each = 100, 1000

func account(i int) []byte { return fmt.Appendf(nil, "account%03d", i) }

func openBank(t testing.TB) *forebay.DB {
	db := open(t)
	require.NoError(t, db.Update(func(tx *forebay.Tx) error {
		for i := range accounts {
			if err := put(tx, account(i), each); err != nil {
				return err
			}
		}
		return nil
	}))
	return db
}

func transfer(db *forebay.DB) error {
	from, to := account(rand.IntN(accounts)), account(rand.IntN(accounts))
	return db.Update(func(tx *forebay.Tx) error {
		a, err := number(tx, from)
		if err != nil || a == 0 {
			return err
		}
		if err := put(tx, from, a-1); err != nil {
			return err
		}
		b, err := number(tx, to)
		if err != nil {
			return err
		}
		return put(tx, to, b+1)
	})
}

// watch compares the sum of all accounts with what it must be, by snapshots and
// by transactions, until it is told to stop.
func watch(t testing.TB, db *forebay.DB, stop chan struct{}) {
	for n := 0; ; n++ {
		select {
		case <-stop:
			t.Logf("%d sums", n)
			return
		case <-time.After(time.Millisecond): // it is not to take a core for itself
		}
		sum, count := uint64(0), 0
		add := func(r forebay.Reader) (err error) {
			sum, count = 0, 0
			for e, err := range r.Range(nil, nil) {
				if err != nil {
					return err
				}
				sum += binary.BigEndian.Uint64(e.Value)
				count++
			}
			return nil
		}
		var err error
		if n%2 == 0 {
			err = db.View(func(s *forebay.Snapshot) error { return add(s.Reader) })
		} else {
			err = db.Update(func(tx *forebay.Tx) error { return add(tx.Reader) })
		}
		if err != nil || count != accounts || sum != accounts*each {
			t.Errorf("%d accounts have %d together: %v", count, sum, err)
			return
		}
	}
}

func bank(t testing.TB, db *forebay.DB, n int) {
	stop := make(chan struct{})
	var watchers sync.WaitGroup
	watchers.Go(func() { watch(t, db, stop) })
	spread(t, 8, n, func(int) error { return transfer(db) })
	close(stop)
	watchers.Wait()
}

// TestBank: 8 goroutines transfer between accounts; the sum is always the same.
func TestBank(t *testing.T) {
	n := 10_000
	if testing.Short() {
		n = 1_000
	}
	db := openBank(t)
	bank(t, db, n)
	t.Logf("conflicts %d, turns %d, alone %d", db.Stats().Conflicts, db.Stats().Turns, db.Stats().Alone)
}

func BenchmarkBank(b *testing.B) {
	db := openBank(b)
	before := db.Stats()
	b.ResetTimer()
	bank(b, db, b.N)
	b.StopTimer()
	report(b, db, before, "transfer")
}
