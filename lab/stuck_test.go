package lab

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/vfs"
)

func openMem(t testing.TB) *forebay.DB {
	t.Helper()
	db, err := forebay.Open("db", &forebay.Options{FS: vfs.NewMem()})
	require.NoError(t, err)
	t.Cleanup(func() { db.Close() })
	return db
}

// within fails when do does not return in time: it is a deadlock, or a livelock.
func within(t *testing.T, d time.Duration, do func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		do()
	}()
	select {
	case <-done:
	case <-time.After(d):
		buf := make([]byte, 1<<20)
		t.Fatalf("it hangs:\n%s", buf[:runtime.Stack(buf, true)])
	}
}

// TestLongTransactionEnds: 16 goroutines overwrite without a pause what a long
// transaction reads. It ends, because in the end it runs alone.
func TestLongTransactionEnds(t *testing.T) {
	for _, how := range []string{"keys", "range"} {
		t.Run(how, func(t *testing.T) {
			db := openMem(t)
			stop := make(chan struct{})
			var writers sync.WaitGroup
			var writes atomic.Int64
			for g := range 16 {
				writers.Go(func() {
					for i := g; ; i++ {
						select {
						case <-stop:
							return
						default:
						}
						if err := db.Put(account(i%accounts), []byte("x")); err != nil {
							t.Error(err)
							return
						}
						writes.Add(1)
					}
				})
			}
			calls := 0
			within(t, time.Minute, func() {
				// The writers may leave it a gap before its ninth attempt; not always.
				for n := 0; n < 3 || db.Stats().Alone == 0; n++ {
					err := db.Update(func(tx *forebay.Tx) error {
						calls++
						if how == "range" {
							for _, err := range tx.Range(nil, nil) {
								if err != nil {
									return err
								}
								runtime.Gosched()
							}
						} else {
							for i := range accounts {
								if _, err := tx.Get(account(i)); err != nil && err != forebay.ErrNotFound {
									return err
								}
								runtime.Gosched()
							}
						}
						time.Sleep(time.Millisecond)
						return tx.Put([]byte("sum"), nil)
					})
					require.NoError(t, err)
				}
			})
			s := db.Stats()
			before := writes.Load()
			within(t, time.Minute, func() { // the writers go on
				for writes.Load() < before+100 {
					time.Sleep(time.Millisecond)
				}
			})
			close(stop)
			writers.Wait()
			t.Logf("%d calls, %d turns, %d alone, %d writes beside", calls, s.Turns, s.Alone, writes.Load())
			require.Positive(t, s.Alone)
		})
	}
}

// TestNested: a write of the store inside of a transaction is done or is an error,
// whatever state the transaction is in; nothing waits for itself.
func TestNested(t *testing.T) {
	key := []byte("k")
	batch := func(db *forebay.DB) *forebay.Batch {
		b := db.NewBatch()
		b.Put(key, nil)
		return b
	}
	inner := map[string]func(db *forebay.DB) error{
		"put":    func(db *forebay.DB) error { return db.Put(key, nil) },
		"delete": func(db *forebay.DB) error { return db.DeleteRange(nil, nil) },
		"apply":  func(db *forebay.DB) error { return db.Apply(batch(db), forebay.Buffered) },
		"submit": func(db *forebay.DB) error {
			c, err := db.Submit(batch(db), forebay.Durable)
			if err == nil {
				err = c.Wait(context.Background())
			}
			return err
		},
		"update":   func(db *forebay.DB) error { return increment(db, []byte("n")) },
		"conflict": func(db *forebay.DB) error { return increment(db, key) },
		"in turn": func(db *forebay.DB) error {
			calls := 0
			return db.Update(func(tx *forebay.Tx) error {
				if calls++; calls == 1 {
					return forebay.ErrConflict
				}
				return tx.Put(key, nil)
			})
		},
		"keyspace": func(db *forebay.DB) error {
			_, err := db.Keyspace("new")
			return errors.Join(err, db.DropKeyspace("new"))
		},
		"view":       func(db *forebay.DB) error { return db.View(func(*forebay.Snapshot) error { return nil }) },
		"checkpoint": func(db *forebay.DB) error { return db.Checkpoint(context.Background()) },
		"sync":       func(db *forebay.DB) error { return db.Sync(context.Background()) },
		"twice": func(db *forebay.DB) error {
			return db.Update(func(*forebay.Tx) error { return db.Put(key, nil) })
		},
	}
	for name, do := range inner {
		for _, attempts := range []int{1, 2, 9, 10} { // the last two run alone
			for _, fails := range []bool{true, false} { // with the inner error
				t.Run(fmt.Sprint(name, " attempts=", attempts, " fails=", fails), func(t *testing.T) {
					db := openMem(t)
					require.NoError(t, db.Put(key, make([]byte, 8)))
					within(t, 20*time.Second, func() {
						calls := 0
						var last error
						err := db.Update(func(tx *forebay.Tx) error {
							calls++
							if _, err := tx.Get(key); err != nil && err != forebay.ErrNotFound {
								return err
							}
							if calls < attempts {
								return forebay.ErrConflict
							}
							last = do(db)
							if err := tx.Put([]byte("done"), nil); err != nil || !fails {
								return err
							}
							return last
						})
						if fails && last != nil {
							require.ErrorIs(t, err, forebay.ErrNested)
						} else {
							require.NoError(t, err)
						}
						if last != nil {
							require.ErrorIs(t, last, forebay.ErrNested)
							require.GreaterOrEqual(t, calls, 9)
						}
						require.NoError(t, db.Put(key, nil))
						require.NoError(t, increment(db, []byte("n")))
					})
				})
			}
		}
	}
}

// TestNestedInAnother: transactions of two stores inside of each other.
func TestNestedInAnother(t *testing.T) {
	a, b := openMem(t), openMem(t)
	key := []byte("k")
	within(t, time.Minute, func() {
		var wg sync.WaitGroup
		for g := range 8 {
			outer, inner := a, b
			if g%2 == 0 {
				outer, inner = b, a
			}
			wg.Go(func() {
				for range 20 {
					if err := outer.Update(func(tx *forebay.Tx) error {
						n, err := number(tx, key)
						if err != nil {
							return err
						}
						if err := increment(inner, []byte("inner")); err != nil {
							return err
						}
						return put(tx, key, n+1)
					}); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
	})
	for _, db := range []*forebay.DB{a, b} {
		n, err := number(db, key)
		require.NoError(t, err)
		require.EqualValues(t, 80, n)
	}
}

// TestContextEnds: ctx ends before, in the first attempt, in the lane, while it
// waits to be alone and alone, and while the commit waits for the disk.
func TestContextEnds(t *testing.T) {
	for attempt := range 12 {
		for _, inside := range []bool{true, false} { // ctx ends in fn, or while others hold up
			t.Run(fmt.Sprint("attempt=", attempt, " inside=", inside), func(t *testing.T) {
				db := openMem(t)
				ctx, cancel := context.WithCancel(context.Background())
				defer cancel()
				calls := 0
				within(t, 20*time.Second, func() {
					if attempt == 0 {
						cancel()
					}
					release := make(chan bool)
					var others sync.WaitGroup
					err := db.UpdateLevel(ctx, forebay.Durable, func(tx *forebay.Tx) error {
						calls++
						tx.Get([]byte("k"))
						if calls < attempt {
							return forebay.ErrConflict
						}
						if inside {
							cancel()
						} else {
							// Somebody else runs alone and waits.
							ready := make(chan bool)
							others.Go(func() {
								n := 0
								db.Update(func(*forebay.Tx) error {
									if n++; n < 9 {
										return forebay.ErrConflict
									}
									close(ready)
									<-release
									return nil
								})
							})
							if calls <= 8 { // else it is this one that is alone
								<-ready
							}
							time.AfterFunc(time.Millisecond, cancel)
						}
						return forebay.ErrConflict
					})
					require.ErrorIs(t, err, context.Canceled)
					close(release)
					others.Wait()
					_, err = db.Get([]byte("k"))
					require.ErrorIs(t, err, forebay.ErrNotFound)
					require.NoError(t, db.Put([]byte("k"), nil))
					require.NoError(t, increment(db, []byte("n")))
				})
			})
		}
	}
}

// TestPanics: a transaction that panics in any attempt leaves the store as it was.
func TestPanics(t *testing.T) {
	for attempt := range 11 {
		db := openMem(t)
		within(t, 20*time.Second, func() {
			calls := 0
			require.PanicsWithValue(t, "end", func() {
				db.Update(func(tx *forebay.Tx) error {
					calls++
					tx.Get([]byte("k"))
					tx.NewIterator(nil).First()
					if calls <= attempt {
						return forebay.ErrConflict
					}
					tx.Put([]byte("k"), nil)
					panic("end")
				})
			})
			_, err := db.Get([]byte("k"))
			require.ErrorIs(t, err, forebay.ErrNotFound)
			require.NoError(t, db.Put([]byte("k"), nil))
			spread(t, 8, 100, func(int) error { return increment(db, []byte("n")) })
		})
	}
}
