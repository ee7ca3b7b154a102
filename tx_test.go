package forebay

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/vfs"
)

// heat makes a key one that transactions conflict over, for a few milliseconds.
func heat(t *testing.T, db *DB, key string) {
	t.Helper()
	calls := 0
	require.NoError(t, db.Update(func(tx *Tx) error {
		if calls++; calls == 1 {
			tx.Get([]byte(key))
			require.NoError(t, db.Put([]byte(key), []byte("hot")))
		}
		return tx.Put([]byte(key), []byte("hot"))
	}))
	require.Equal(t, 2, calls)
}

// A transaction whose iterator had looked at keys, but had not told so yet, met a
// contended key, entered the lane and so read at a later LSN: what the iterator
// had seen counted as read there.
func TestIteratorKeepsTransactionOutOfTheLane(t *testing.T) {
	for _, looked := range []bool{true, false} {
		t.Run(fmt.Sprint("looked=", looked), func(t *testing.T) {
			db := open(t, small(vfs.NewMem()))
			defer db.Close()
			require.NoError(t, db.Put([]byte("x"), []byte("old")))
			calls, turned := 0, false
			for !turned { // the heat may be gone in time
				heat(t, db, "hot")
				calls = 0
				require.NoError(t, db.Update(func(tx *Tx) error {
					calls++
					it := tx.NewIterator(nil)
					defer it.Close()
					if looked {
						require.True(t, it.SeekGE([]byte("x")))
					}
					if calls == 1 {
						require.NoError(t, db.Put([]byte("x"), []byte("new")))
					}
					turned = db.pipe.Hot(append(bytes.Clone(defaultPrefix), "hot"...))
					if _, err := tx.Get([]byte("hot")); err != nil {
						return err
					}
					if !looked {
						require.True(t, it.SeekGE([]byte("x")))
					}
					return tx.Put([]byte("copy"), it.Value())
				}))
				got, err := db.Get([]byte("copy"))
				require.NoError(t, err)
				require.Equal(t, "new", string(got), "what was read had been overwritten")
				require.NoError(t, db.Put([]byte("x"), []byte("old")))
			}
		})
	}
}

// A transaction whose caller did not wait for its commit any more lost what it
// had read, and was admitted without being validated.
func TestAbandonedCommitIsValidated(t *testing.T) {
	for _, lane := range []bool{false, true} {
		t.Run(fmt.Sprint("lane=", lane), func(t *testing.T) {
			db := open(t, small(vfs.NewMem()))
			defer db.Close()
			require.NoError(t, db.Put([]byte("x"), []byte("old")))
			ctx, cancel := context.WithCancel(context.Background())
			read, ordered, result := make(chan bool), make(chan bool), make(chan error)
			calls := 0
			go func() {
				result <- db.UpdateLevel(ctx, Durable, func(tx *Tx) error {
					if calls++; lane && calls == 1 {
						tx.Get([]byte("x"))
						return ErrConflict
					}
					value, err := tx.Get([]byte("x"))
					require.NoError(t, err)
					read <- true
					<-ordered
					return tx.Put([]byte("copy"), value)
				})
			}()
			<-read
			b := db.NewBatch()
			require.NoError(t, b.Put([]byte("x"), []byte("new")))
			var c *Commit
			require.NoError(t, db.log.Exclusive(func() {
				var err error
				c, err = db.Submit(b, Durable)
				require.NoError(t, err)
				ordered <- true
				time.Sleep(10 * time.Millisecond) // it is ordered behind c, and waits
				cancel()
				require.ErrorIs(t, <-result, context.Canceled)
			}))
			require.NoError(t, c.Wait(context.Background()))
			require.NoError(t, db.Sync(context.Background()))
			_, err := db.Get([]byte("copy"))
			require.ErrorIs(t, err, ErrNotFound)
		})
	}
}

// The garbage collector closed an iterator that a transaction had forgotten while
// the transaction went on: from another goroutine, and with a word to the logger.
func TestIteratorForgottenInTransaction(t *testing.T) {
	var log bytes.Buffer
	opts := small(vfs.NewMem())
	opts.Logger = slog.New(slog.NewTextHandler(&log, nil))
	db := open(t, opts)
	require.NoError(t, db.Put([]byte("x"), []byte("old")))
	calls := 0
	require.NoError(t, db.Update(func(tx *Tx) error {
		calls++
		func() { require.True(t, tx.NewIterator(nil).First()) }()
		for range 3 {
			runtime.GC()
			time.Sleep(time.Millisecond)
			tx.Get([]byte("y"))
		}
		if calls == 1 {
			require.NoError(t, db.Put([]byte("x"), []byte("new")))
		}
		return tx.Put([]byte("z"), nil)
	}))
	require.Equal(t, 2, calls)
	runtime.GC()
	time.Sleep(time.Millisecond)
	require.NoError(t, db.Close())
	require.Empty(t, log.String())
}

// A call that waited for the lane in the middle of a transaction did not end with
// the transaction's context.
func TestContextEndsWaitForTheLane(t *testing.T) {
	db := open(t, small(vfs.NewMem()))
	defer db.Close()
	for done := false; !done; { // until the key is still hot in time
		heat(t, db, "hot")
		calls, inside, leave := 0, make(chan bool), make(chan bool)
		var wg sync.WaitGroup
		wg.Go(func() {
			db.Update(func(tx *Tx) error {
				if calls++; calls == 1 {
					return ErrConflict
				}
				close(inside)
				<-leave
				return nil
			})
		})
		<-inside
		heat2(db, "hot")
		ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
		var got error
		err := db.UpdateLevel(ctx, Durable, func(tx *Tx) error {
			done = db.pipe.Hot(append(bytes.Clone(defaultPrefix), "hot"...))
			_, got = tx.Get([]byte("hot"))
			return nil
		})
		if done {
			require.ErrorIs(t, got, context.DeadlineExceeded)
			require.ErrorIs(t, err, context.DeadlineExceeded)
		}
		cancel()
		close(leave)
		wg.Wait()
	}
}

// heat2 is heat while somebody is in the lane.
func heat2(db *DB, key string) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	db.UpdateLevel(ctx, Durable, func(tx *Tx) error {
		tx.Get([]byte(key))
		db.Put([]byte(key), []byte("hot"))
		return tx.Put([]byte(key), []byte("hot"))
	})
}

// A handle that was looked up while its keyspace was dropped, and made when the
// drop was over, did not know of it: it wrote to where nobody reads, and stayed
// the one that Keyspace gave to everybody.
func TestKeyspaceBesideDrop(t *testing.T) {
	db := open(t, small(vfs.NewMem()))
	defer db.Close()
	end := time.Now().Add(2 * time.Second)
	if testing.Short() {
		end = time.Now().Add(200 * time.Millisecond)
	}
	var rounds int
	for ; time.Now().Before(end); rounds++ {
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for range 5 {
					_, err := db.Keyspace("k")
					if err != nil {
						t.Error(err)
					}
				}
			})
		}
		for range 2 {
			wg.Go(func() {
				for range 5 {
					db.DropKeyspace("k")
				}
			})
		}
		wg.Wait()
		ks, err := db.Keyspace("k")
		require.NoError(t, err)
		require.NoError(t, ks.Put([]byte("a"), []byte("1")))
		require.NoError(t, db.View(func(s *Snapshot) error {
			r, err := s.Keyspace("k")
			require.NoError(t, err, "after %d rounds", rounds)
			_, err = r.Get([]byte("a"))
			require.NoError(t, err, "after %d rounds", rounds)
			return nil
		}))
	}
	t.Log(rounds, "rounds")
}

// A transaction that was refused for a commit that was not applied yet began
// again at once, read the same, and was refused again.
func TestConflictWaits(t *testing.T) {
	in := vfs.NewInjector(vfs.NewMem())
	db := open(t, small(in))
	defer db.Close()
	require.NoError(t, db.Put([]byte("x"), []byte("old")))
	gate := vfs.NewGate()
	calls := 0
	var other sync.WaitGroup
	require.NoError(t, db.Update(func(tx *Tx) error {
		calls++
		value, err := tx.Get([]byte("x"))
		if calls == 1 {
			in.Add(vfs.Rule{Call: vfs.CallWrite, Name: "*.log", Gate: gate})
			other.Go(func() { db.Put([]byte("x"), []byte("new")) })
			<-gate.Arrived() // it has been admitted
			time.AfterFunc(20*time.Millisecond, gate.Release)
		} else {
			require.Equal(t, "new", string(value))
		}
		require.NoError(t, err)
		return tx.Put([]byte("y"), value)
	}))
	other.Wait()
	require.Equal(t, 2, calls)
}

// TestNothingIsLeft: however a transaction ends, nothing is left of it.
func TestNothingIsLeft(t *testing.T) {
	db := open(t, small(vfs.NewMem()))
	defer db.Close()
	idle := func() {
		t.Helper()
		require.Nil(t, db.alone.Load())
		require.Len(t, db.solo, 1)
		db.readers.mu.Lock()
		require.Empty(t, db.readers.floors)
		require.Empty(t, db.readers.snapshots)
		db.readers.mu.Unlock()
		for i := range db.view.Load().gate.shards {
			require.Zero(t, db.view.Load().gate.shards[i].n.Load())
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
		defer cancel()
		h, err := db.lane.Enter(ctx)
		require.NoError(t, err, "somebody is in the lane")
		h.Leave()
		require.NoError(t, db.Put([]byte("x"), []byte("1")))
	}
	for _, level := range []int{1, 2, aloneAfter + 1} { // optimistic, in the lane, alone
		for name, end := range map[string]func() error{
			"panic":  func() error { panic("end") },
			"goexit": func() error { runtime.Goexit(); return nil },
			"error":  func() error { return fmt.Errorf("end") },
			"nil":    func() error { return nil },
		} {
			t.Run(fmt.Sprint(name, level), func(t *testing.T) {
				calls := 0
				done := make(chan bool)
				go func() {
					defer close(done)
					defer func() { recover() }()
					db.Update(func(tx *Tx) error {
						calls++
						tx.Get([]byte("x"))
						it := tx.NewIterator(nil)
						it.First()
						require.NoError(t, tx.Put([]byte("x"), []byte("2")))
						tx.NewIterator(nil).Last()
						if calls < level {
							return ErrConflict
						}
						return end()
					})
				}()
				<-done
				require.Equal(t, level, calls)
				idle()
			})
		}
	}
}

// TestFail: whatever the function returns, nothing of the attempt is committed.
func TestFail(t *testing.T) {
	db, err := Open("data", &Options{FS: vfs.NewMem()})
	require.NoError(t, err)
	defer db.Close()
	first := errors.New("first")
	for _, end := range []error{nil, errors.New("other")} {
		require.ErrorIs(t, db.Update(func(tx *Tx) error {
			require.NoError(t, tx.Fail(nil))
			require.NoError(t, tx.Put([]byte("k"), []byte("v")))
			require.ErrorIs(t, tx.Fail(first), first)
			require.ErrorIs(t, tx.Fail(errors.New("second")), first)
			_, err := tx.Get([]byte("k"))
			require.ErrorIs(t, err, first)
			_ = tx.Put([]byte("l"), nil)
			return end
		}), first)
		_, err := db.Get([]byte("k"))
		require.ErrorIs(t, err, ErrNotFound)
	}
	calls := 0
	require.NoError(t, db.Update(func(tx *Tx) error {
		if calls++; calls < 3 {
			return tx.Fail(ErrConflict)
		}
		return tx.Put([]byte("k"), []byte("v"))
	}))
	require.Equal(t, 3, calls)
}
