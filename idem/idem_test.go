package idem_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/idem"
	"github.com/forebaydb/forebay/vfs"
)

var background = context.Background()

// clock is one that tests move.
type clock struct{ ns atomic.Int64 }

func newClock() *clock {
	c := new(clock)
	c.ns.Store(int64(1e18))
	return c
}

func (c *clock) now() time.Time          { return time.Unix(0, c.ns.Load()) }
func (c *clock) advance(d time.Duration) { c.ns.Add(int64(d)) }

func openStore(t testing.TB, fs vfs.FS) *forebay.DB {
	t.Helper()
	db, err := forebay.Open("data", &forebay.Options{FS: fs, MemtableSize: 64 << 10, LogFileSize: 64 << 10})
	require.NoError(t, err)
	t.Cleanup(func() { db.Close() })
	return db
}

func openKeys(t testing.TB, db *forebay.DB, o idem.Options) *idem.Keys {
	t.Helper()
	if o.Every == 0 {
		o.Every = -1
	}
	k, err := idem.Open(db, "api", &o)
	require.NoError(t, err)
	t.Cleanup(func() { k.Close() })
	return k
}

// add is a request that counts in the store how often it was done.
func add(key, value string) func(tx *forebay.Tx) ([]byte, error) {
	return func(tx *forebay.Tx) ([]byte, error) {
		n, err := tx.Get([]byte(key))
		if err != nil && !errors.Is(err, forebay.ErrNotFound) {
			return nil, err
		}
		return []byte(value), tx.Put([]byte(key), append(n, '+'))
	}
}

func times(t testing.TB, db *forebay.DB, key string) int {
	t.Helper()
	v, err := db.Get([]byte(key))
	if errors.Is(err, forebay.ErrNotFound) {
		return 0
	}
	require.NoError(t, err)
	return len(v)
}

func TestHundredRetries(t *testing.T) {
	db := openStore(t, vfs.NewMem())
	for _, handles := range []int{1, 3} {
		var some []*idem.Keys
		for range handles {
			some = append(some, openKeys(t, db, idem.Options{}))
		}
		key := fmt.Sprint("request ", handles)
		var first, ran atomic.Int64
		var g sync.WaitGroup
		for i := range 100 {
			g.Go(func() {
				r, err := some[i%handles].Do(background, []byte(key), []byte("body"), func(tx *forebay.Tx) ([]byte, error) {
					ran.Add(1)
					return add(key, fmt.Sprint("answer ", i))(tx)
				})
				if err != nil {
					t.Error(err)
				}
				if !r.Replayed {
					first.Add(1)
				}
			})
		}
		g.Wait()
		require.Equal(t, int64(1), first.Load())
		require.Equal(t, int64(1), ran.Load())
		require.Equal(t, 1, times(t, db, key))
		_, err := some[0].Do(background, []byte(key), []byte("another body"), add(key, ""))
		require.ErrorIs(t, err, idem.ErrMismatch)
		require.Equal(t, 1, times(t, db, key))
	}
}

func TestErrors(t *testing.T) {
	db := openStore(t, vfs.NewMem())
	k := openKeys(t, db, idem.Options{})
	do := func(fn func(tx *forebay.Tx) ([]byte, error)) (idem.Result, error) {
		return k.Do(background, []byte("k"), nil, fn)
	}
	broken := errors.New("broken")
	_, err := do(func(tx *forebay.Tx) ([]byte, error) {
		if _, err := add("n", "")(tx); err != nil {
			return nil, err
		}
		return []byte("never"), broken
	})
	require.ErrorIs(t, err, broken)
	require.Zero(t, times(t, db, "n"))
	require.Zero(t, k.Stats())
	refused := func(tx *forebay.Tx) ([]byte, error) {
		if _, err := add("n", "")(tx); err != nil {
			return nil, err
		}
		return []byte("402"), idem.Final(fmt.Errorf("refused: %w", broken))
	}
	r, err := do(refused)
	require.ErrorIs(t, err, broken)
	var final *idem.FinalError
	require.ErrorAs(t, err, &final)
	require.False(t, r.Replayed)
	require.Equal(t, "402", string(r.Value))
	require.Zero(t, times(t, db, "n"), "what a refused request wrote is not committed")
	r, err = do(add("n", ""))
	require.ErrorAs(t, err, &final)
	require.EqualError(t, err, "refused: broken")
	require.NotErrorIs(t, err, broken)
	require.True(t, r.Replayed)
	require.Equal(t, "402", string(r.Value))
	require.NoError(t, idem.Final(nil))
	require.NoError(t, idem.Unknown(nil))
	// A conflict that is final is not attempted again for ever; a long message is cut.
	_, err = k.Do(background, []byte("conflict"), nil, func(*forebay.Tx) ([]byte, error) {
		return nil, idem.Final(fmt.Errorf("%s: %w", strings.Repeat("x", 10_000), forebay.ErrConflict))
	})
	require.ErrorIs(t, err, forebay.ErrConflict)
	_, err = k.Do(background, []byte("conflict"), nil, nil)
	require.Len(t, err.Error(), 4<<10)

	for _, key := range []string{"", strings.Repeat("k", idem.MaxKeySize+1)} {
		_, err = k.Do(background, []byte(key), nil, nil)
		require.ErrorIs(t, err, idem.ErrKey)
	}
	_, err = k.Do(background, []byte(strings.Repeat("k", idem.MaxKeySize)), nil, add("n", ""))
	require.NoError(t, err)
	var limit *forebay.LimitError
	_, err = k.Do(background, []byte("large"), nil, func(tx *forebay.Tx) ([]byte, error) {
		return make([]byte, forebay.MaxValueSize), tx.Put([]byte("large"), nil)
	})
	require.ErrorAs(t, err, &limit)
	require.Zero(t, times(t, db, "large"))
	ctx, cancel := context.WithCancel(background)
	cancel()
	_, err = k.Do(ctx, []byte("c"), nil, nil)
	require.ErrorIs(t, err, context.Canceled)
	for _, name := range []string{"", strings.Repeat("n", 201)} {
		_, err = idem.Open(db, name, nil)
		require.Error(t, err)
	}
	require.Panics(t, func() { _, _ = do2(k, "p", func(*forebay.Tx) ([]byte, error) { panic("p") }) })
	_, err = do2(k, "p", add("p", ""))
	require.NoError(t, err)
	require.NoError(t, k.Close())
	require.NoError(t, k.Close())
	_, err = do(nil)
	require.ErrorIs(t, err, idem.ErrClosed)
	require.Zero(t, k.Stats())
}

func do2(k *idem.Keys, key string, fn func(*forebay.Tx) ([]byte, error)) (idem.Result, error) {
	return k.Do(background, []byte(key), nil, fn)
}

// TestWaiting: who comes while a call runs.
func TestWaiting(t *testing.T) {
	c := newClock()
	db := openStore(t, vfs.NewMem())
	k := openKeys(t, db, idem.Options{Now: c.now, Owner: "me"})
	eager := openKeys(t, db, idem.Options{Now: c.now, NoWait: true})
	leaving, err := idem.Open(db, "api", &idem.Options{Now: c.now, Every: -1})
	require.NoError(t, err)
	for _, outside := range []bool{false, true} {
		key := fmt.Append(nil, "key ", outside)
		before := int(k.Stats().Results)
		runs, goOn := make(chan struct{}), make(chan struct{})
		release := sync.OnceFunc(func() { close(goOn) })
		t.Cleanup(release) // Close waits for the call, also when the test fails
		done := make(chan error, 1)
		go func() {
			wait := func() ([]byte, error) { close(runs); <-goOn; return []byte("v"), nil }
			var err error
			if outside {
				_, err = k.DoOutside(background, key, nil, func(context.Context) ([]byte, error) { return wait() })
			} else {
				_, err = k.Do(background, key, nil, func(*forebay.Tx) ([]byte, error) { return wait() })
			}
			done <- err
		}()
		<-runs
		require.Equal(t, 1, k.Stats().Running)
		_, err := eager.Do(background, key, nil, nil)
		require.ErrorIs(t, err, idem.ErrInProgress)
		var in *idem.InProgressError
		require.ErrorAs(t, err, &in)
		require.True(t, in.Running)
		require.ErrorIs(t, eager.Forget(background, key), idem.ErrInProgress)
		require.ErrorIs(t, k.Resolve(background, key, nil, nil), idem.ErrInProgress)
		if outside {
			require.Equal(t, "me", in.Owner)
			require.WithinDuration(t, c.now(), in.Since, time.Microsecond)
			for m, err := range k.Marks(background) {
				require.NoError(t, err)
				m.Since = c.now()
				require.Equal(t, idem.Mark{Key: key, Owner: "me", Since: c.now(), Running: true}, m)
			}
		}
		_, err = k.Do(background, key, []byte("other"), nil)
		require.ErrorIs(t, err, idem.ErrMismatch)
		ctx, cancel := context.WithTimeout(background, time.Millisecond)
		_, err = k.Do(ctx, key, nil, nil)
		cancel()
		require.ErrorIs(t, err, context.DeadlineExceeded)
		// The mark of a call that runs stays, however long, whoever sweeps.
		c.advance(1000 * time.Hour)
		n, err := eager.Sweep(background)
		require.NoError(t, err)
		require.Equal(t, before, n, "what an earlier round left, and no mark")
		if outside {
			marks := 0
			for _, err := range k.Marks(background) {
				require.NoError(t, err)
				marks++
			}
			require.Equal(t, 1, marks)
		}
		_, err = eager.DoOutside(background, key, nil, nil)
		require.ErrorIs(t, err, idem.ErrInProgress)
		if outside { // a closed handle waits no more; that one has no call of its own
			left := make(chan error, 1)
			go func() { _, err := leaving.Do(background, key, nil, nil); left <- err }()
			require.NoError(t, leaving.Close())
			require.ErrorIs(t, <-left, idem.ErrClosed)
		}
		waiter := make(chan idem.Result, 1)
		go func() {
			r, err := k.Do(background, key, nil, nil)
			if err != nil {
				t.Error(err)
			}
			waiter <- r
		}()
		release()
		require.NoError(t, <-done)
		r := <-waiter
		require.Equal(t, "v", string(r.Value))
		require.True(t, r.Replayed)
		r, err = eager.DoOutside(background, key, nil, nil)
		require.NoError(t, err)
		require.True(t, r.Replayed)
	}
	// One that failed is done by who waited.
	runs, goOn := make(chan struct{}), make(chan struct{})
	go func() {
		_, _ = do2(k, "fails", func(*forebay.Tx) ([]byte, error) { close(runs); <-goOn; return nil, errors.New("failed") })
	}()
	<-runs
	waiter := make(chan error, 1)
	go func() {
		_, err := do2(k, "fails", add("fails", ""))
		waiter <- err
	}()
	close(goOn)
	require.NoError(t, <-waiter)
	require.Equal(t, 1, times(t, db, "fails"))
}

func TestOutside(t *testing.T) {
	c := newClock()
	mem := vfs.NewMem()
	db := openStore(t, mem)
	k := openKeys(t, db, idem.Options{Now: c.now, UnknownTTL: 2 * time.Hour, Owner: "worker 1"})
	ran := map[string]int{}
	call := func(key string, value string, err error) (idem.Result, error) {
		return k.DoOutside(background, []byte(key), []byte("body"), func(context.Context) ([]byte, error) {
			ran[key]++
			return []byte(value), err
		})
	}
	r, err := call("fine", "receipt", nil)
	require.NoError(t, err)
	require.WithinDuration(t, c.now(), r.At, time.Microsecond)
	require.Equal(t, idem.Result{Value: []byte("receipt"), At: r.At}, r)
	first := r
	r, err = call("fine", "", nil)
	require.NoError(t, err)
	first.Replayed = true
	require.Equal(t, first, r)
	r, err = k.Do(background, []byte("fine"), []byte("body"), nil)
	require.NoError(t, err)
	require.True(t, r.Replayed)

	broken := errors.New("broken")
	_, err = call("fails", "", broken)
	require.ErrorIs(t, err, broken)
	_, err = call("fails", "then not", nil)
	require.NoError(t, err)
	require.Equal(t, 2, ran["fails"])

	var final *idem.FinalError
	r, err = call("refused", "why", idem.Final(broken))
	require.ErrorIs(t, err, broken)
	require.Equal(t, "why", string(r.Value))
	r, err = call("refused", "", nil)
	require.ErrorAs(t, err, &final)
	require.Equal(t, "why", string(r.Value))

	r, err = call("large", strings.Repeat("x", forebay.MaxValueSize), nil)
	require.ErrorAs(t, err, &final)
	require.Len(t, r.Value, forebay.MaxValueSize)
	_, err = call("large", "", nil)
	require.ErrorAs(t, err, &final)
	require.Equal(t, 1, ran["large"])

	// Ways to end unknown.
	_, err = call("time-out", "", idem.Unknown(broken))
	require.ErrorIs(t, err, broken)
	c.advance(time.Second)
	require.Panics(t, func() {
		_, _ = k.DoOutside(background, []byte("panic"), nil, func(context.Context) ([]byte, error) { panic("p") })
	})
	var marks []idem.Mark
	for m, err := range k.Marks(background) {
		require.NoError(t, err)
		m.Since = m.Since.Truncate(time.Microsecond) // each has one of its own
		marks = append(marks, m)
	}
	require.Equal(t, []idem.Mark{
		{Key: []byte("time-out"), Owner: "worker 1", Since: c.now().Add(-time.Second)},
		{Key: []byte("panic"), Owner: "worker 1", Since: c.now()},
	}, marks)
	_, err = call("time-out", "", nil)
	require.ErrorIs(t, err, idem.ErrInProgress)
	require.ErrorContains(t, err, "worker 1")
	var in *idem.InProgressError
	require.ErrorAs(t, err, &in)
	require.False(t, in.Running)
	_, err = k.Do(background, []byte("time-out"), []byte("body"), nil)
	require.ErrorIs(t, err, idem.ErrInProgress)
	_, err = k.Do(background, []byte("time-out"), []byte("another"), nil)
	require.ErrorIs(t, err, idem.ErrMismatch)
	require.NoError(t, k.Resolve(background, []byte("time-out"), []byte("it was paid"), nil))
	require.ErrorIs(t, k.Resolve(background, []byte("time-out"), nil, nil), forebay.ErrNotFound)
	require.ErrorIs(t, k.Resolve(background, []byte("nobody"), nil, nil), forebay.ErrNotFound)
	r, err = call("time-out", "", nil)
	require.NoError(t, err)
	require.Equal(t, "it was paid", string(r.Value))
	require.Equal(t, 1, ran["time-out"])
	require.NoError(t, k.Forget(background, []byte("panic")))
	_, err = call("panic", "now it goes", nil)
	require.NoError(t, err)
	require.NoError(t, k.Forget(background, []byte("nobody")))
	_, err = call("refused 2", "", idem.Unknown(broken))
	require.ErrorIs(t, err, broken)
	require.NoError(t, k.Resolve(background, []byte("refused 2"), nil, errors.New("it was refused")))
	_, err = call("refused 2", "", nil)
	require.EqualError(t, err, "it was refused")
	// A mark expires.
	_, err = call("old", "", idem.Unknown(broken))
	require.ErrorIs(t, err, broken)
	c.advance(2*time.Hour - time.Microsecond)
	_, err = call("old", "", nil)
	require.ErrorIs(t, err, idem.ErrInProgress)
	c.advance(2 * time.Microsecond)
	_, err = call("old", "again", nil)
	require.NoError(t, err)
	require.Equal(t, 2, ran["old"])
	n, err := k.Sweep(background)
	require.NoError(t, err)
	require.Zero(t, n)
	require.Equal(t, int64(8), k.Stats().Results)
}

// TestOutsideCancelled: the context ends while the disk hangs, at each of the two commits.
func TestOutsideCancelled(t *testing.T) {
	for _, at := range []string{"mark", "result"} {
		t.Run(at, func(t *testing.T) {
			in := vfs.NewInjector(vfs.NewMem())
			db := openStore(t, in)
			k := openKeys(t, db, idem.Options{})
			gate := vfs.NewGate()
			hang := func() {
				in.Add(vfs.Rule{Call: vfs.CallSyncData, Gate: gate})
				in.Add(vfs.Rule{Call: vfs.CallSync, Gate: gate})
			}
			ctx, cancel := context.WithCancel(background)
			defer cancel()
			ran := 0
			if at == "mark" {
				hang()
			}
			go func() { <-gate.Arrived(); cancel() }()
			r, err := k.DoOutside(ctx, []byte("k"), nil, func(context.Context) ([]byte, error) {
				ran++
				if at == "result" {
					hang()
				}
				return []byte("v"), nil
			})
			require.ErrorIs(t, err, context.Canceled)
			short, cancel2 := context.WithTimeout(background, time.Millisecond)
			defer cancel2()
			_, err = k.Do(short, []byte("k"), nil, nil)
			require.ErrorIs(t, err, context.DeadlineExceeded, "its call has not ended yet")
			gate.Release()
			if at == "mark" {
				require.Zero(t, ran)
			} else {
				require.Equal(t, "v", string(r.Value))
			}
			r, err = k.DoOutside(background, []byte("k"), nil, func(context.Context) ([]byte, error) {
				ran++
				return []byte("v"), nil
			})
			require.NoError(t, err)
			require.Equal(t, "v", string(r.Value))
			require.Equal(t, 1, ran)
			require.Equal(t, at == "result", r.Replayed)
			require.NoError(t, k.Close())
		})
	}
}

// TestCancelledCommitCounts: a commit whose context ended first is counted when it comes.
func TestCancelledCommitCounts(t *testing.T) {
	in := vfs.NewInjector(vfs.NewMem())
	db := openStore(t, in)
	k := openKeys(t, db, idem.Options{})
	gate := vfs.NewGate()
	in.Add(vfs.Rule{Call: vfs.CallSyncData, Gate: gate})
	in.Add(vfs.Rule{Call: vfs.CallSync, Gate: gate})
	ctx, cancel := context.WithCancel(background)
	go func() { <-gate.Arrived(); cancel() }()
	_, err := k.Do(ctx, []byte("k"), nil, add("n", "v"))
	require.ErrorIs(t, err, context.Canceled)
	require.NoError(t, k.Close()) // the core outlives its handles
	k2, err := idem.Open(db, "api", &idem.Options{Every: -1})
	require.NoError(t, err)
	gate.Release()
	r, err := do2(k2, "k", add("n", "v"))
	require.NoError(t, err)
	require.True(t, r.Replayed)
	require.Equal(t, 1, times(t, db, "n"))
	require.Eventually(t, func() bool { return k2.Stats().Results == 1 }, time.Minute, time.Millisecond)
	want := k2.Stats().Bytes
	require.NoError(t, k2.Close())
	k3 := openKeys(t, db, idem.Options{})
	require.Equal(t, want, k3.Stats().Bytes)
}

// TestResultNotStored: the log takes no more when the effect has happened.
func TestResultNotStored(t *testing.T) {
	mem := vfs.NewMem()
	in := vfs.NewInjector(mem)
	db := openStore(t, in)
	k := openKeys(t, db, idem.Options{})
	r, err := k.DoOutside(background, []byte("k"), nil, func(context.Context) ([]byte, error) {
		in.Add(vfs.Rule{Call: vfs.CallSyncData, Err: syscall.EIO, Forever: true})
		in.Add(vfs.Rule{Call: vfs.CallSync, Err: syscall.EIO, Forever: true})
		return []byte("v"), nil
	})
	require.ErrorIs(t, err, forebay.ErrUnknown)
	require.Equal(t, "v", string(r.Value))
	require.NoError(t, k.Close())
	db.Close()
	k = openKeys(t, openStore(t, mem.PowerCutSeed(1, vfs.SectorAtomic)), idem.Options{})
	r, err = k.DoOutside(background, []byte("k"), nil, func(context.Context) ([]byte, error) {
		t.Error("it runs twice")
		return nil, nil
	})
	if err == nil {
		require.Equal(t, "v", string(r.Value))
	} else {
		require.ErrorIs(t, err, idem.ErrInProgress)
	}
}

func TestExpiry(t *testing.T) {
	c := newClock()
	db := openStore(t, vfs.NewMem())
	k := openKeys(t, db, idem.Options{Now: c.now, TTL: time.Hour})
	for i := range 1000 {
		_, err := do2(k, fmt.Sprint(i), add(fmt.Sprint("n", i), "v"))
		require.NoError(t, err)
		c.advance(time.Second)
	}
	n, err := k.Sweep(background)
	require.NoError(t, err)
	require.Zero(t, n)
	c.advance(time.Hour - 500*time.Second - time.Microsecond)
	r, err := do2(k, "0", add("n0", "new")) // expired, though nobody swept
	require.NoError(t, err)
	require.False(t, r.Replayed)
	n, err = k.Sweep(background)
	require.NoError(t, err)
	require.Equal(t, 499, n)
	require.Equal(t, int64(501), k.Stats().Results)
	require.Equal(t, int64(499), k.Stats().Expired)
	r, err = do2(k, "500", nil)
	require.NoError(t, err)
	require.True(t, r.Replayed)

	// The clock goes back: what is there stays, what comes is kept as long.
	c.advance(-100 * time.Hour)
	_, err = do2(k, "back", add("back", "v"))
	require.NoError(t, err)
	n, err = k.Sweep(background)
	require.NoError(t, err)
	require.Zero(t, n)
	for _, key := range []string{"0", "999", "back"} {
		r, err := do2(k, key, nil)
		require.NoError(t, err)
		require.True(t, r.Replayed)
	}
	// The same, when what was seen before it went back had not been stored.
	c.advance(300 * time.Hour)
	_, err = k.Sweep(background)
	require.NoError(t, err)
	require.Zero(t, k.Stats().Results)
	require.Zero(t, k.Stats().Bytes)
	c.advance(-300 * time.Hour)
	_, err = do2(k, "0", add("n0", "v"))
	require.NoError(t, err)
	c.advance(300 * time.Hour)
	n, err = k.Sweep(background)
	require.NoError(t, err)
	require.Zero(t, n)
	for _, ns := range []int64{-5e18, 9.2e18} { // 1811, 2261
		c.ns.Store(ns)
		_, err = do2(k, fmt.Sprint(ns), add("x", "v"))
		require.NoError(t, err)
	}
	far := openKeys(t, db, idem.Options{TTL: -1, MaxBytes: -1, Now: func() time.Time { return time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC) }})
	_, err = do2(far, "far", add("x", "v"))
	require.NoError(t, err)
	n, err = far.Sweep(background)
	require.NoError(t, err)
	require.Zero(t, n)
}

func TestBytesBound(t *testing.T) {
	c := newClock()
	db := openStore(t, vfs.NewMem())
	k := openKeys(t, db, idem.Options{Now: c.now, MaxBytes: 100 << 10})
	_, err := k.DoOutside(background, []byte("mark"), nil, func(context.Context) ([]byte, error) { return nil, idem.Unknown(errors.New("?")) })
	require.Error(t, err)
	for i := range 1000 {
		_, err := do2(k, fmt.Sprint(i), add("n", strings.Repeat("v", 1000)))
		require.NoError(t, err)
		require.LessOrEqual(t, k.Stats().Bytes, int64(100<<10+1100))
		if i%100 == 50 {
			c.advance(-time.Minute) // the oldest go, whatever the clock says
		}
	}
	_, err = k.Sweep(background)
	require.NoError(t, err)
	s := k.Stats()
	require.LessOrEqual(t, s.Bytes, int64(100<<10))
	require.Equal(t, int64(1000), s.Results+s.Evicted)
	require.Zero(t, s.Expired)
	for i := range 1000 {
		ran := false
		r, err := do2(k, fmt.Sprint(i), func(*forebay.Tx) ([]byte, error) { ran = true; return nil, errors.New("no") })
		require.Equal(t, i < int(s.Evicted), ran)
		require.Equal(t, !ran, err == nil && r.Replayed)
	}
	marks := 0
	for _, err := range k.Marks(background) {
		require.NoError(t, err)
		marks++
	}
	require.Equal(t, 1, marks)
}

func TestSweepInTheBackground(t *testing.T) {
	c := newClock()
	db := openStore(t, vfs.NewMem())
	k := openKeys(t, db, idem.Options{Now: c.now, TTL: time.Hour, Every: time.Millisecond})
	_, err := do2(k, "k", add("n", "v"))
	require.NoError(t, err)
	c.advance(2 * time.Hour)
	require.Eventually(t, func() bool { return k.Stats().Results == 0 }, time.Minute, time.Millisecond)
	require.NoError(t, k.Close())
	_, err = k.Sweep(background)
	require.ErrorIs(t, err, idem.ErrClosed)
	for _, err := range k.Marks(background) {
		require.ErrorIs(t, err, idem.ErrClosed)
	}
}

// TestDamaged: nothing that was stored is run again, nothing is allocated by what it says,
// and the rest is swept.
func TestDamaged(t *testing.T) {
	c := newClock()
	db := openStore(t, vfs.NewMem())
	k := openKeys(t, db, idem.Options{Now: c.now, TTL: time.Hour})
	ks, err := db.Keyspace("idem/api")
	require.NoError(t, err)
	_, err = do2(k, "good", add("n", "value"))
	require.NoError(t, err)
	good, err := ks.Get([]byte("egood"))
	require.NoError(t, err)
	forge := func(change func(b []byte) []byte) {
		t.Helper()
		require.NoError(t, ks.Put([]byte("ebad"), change(append([]byte(nil), good...))))
		_, err := do2(k, "bad", func(*forebay.Tx) ([]byte, error) { t.Error("it runs"); return nil, nil })
		require.ErrorIs(t, err, idem.ErrDamaged)
		_, err = k.DoOutside(background, []byte("bad"), nil, func(context.Context) ([]byte, error) { t.Error("it runs"); return nil, nil })
		require.ErrorIs(t, err, idem.ErrDamaged)
		require.ErrorIs(t, k.Resolve(background, []byte("bad"), nil, nil), idem.ErrDamaged)
	}
	for n := range good {
		forge(func(b []byte) []byte { return b[:n] })
	}
	forge(func(b []byte) []byte { return append(b, 0) })
	for i, v := range map[int]byte{0: 2, 1: 4, 2: 0xff, 42: 0xff} { // version, state, stamp, length
		forge(func(b []byte) []byte { b[i] = v; return b })
	}
	forge(func(b []byte) []byte { b[1] = 0; return b })
	index := append([]byte{'t'}, good[2:10]...)
	require.NoError(t, ks.Put(append(index, "bad"...), []byte{50}))
	require.NoError(t, ks.Put(append(index, "goodx"...), []byte("\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01")))
	require.NoError(t, ks.Put([]byte("tshort"), nil))
	c.advance(2 * time.Hour)
	n, err := k.Sweep(background)
	require.ErrorIs(t, err, idem.ErrDamaged)
	require.Equal(t, 1, n)
	_, err = do2(k, "good", add("n", "value"))
	require.NoError(t, err)
	require.NoError(t, k.Forget(background, []byte("bad")))
	_, err = do2(k, "bad", add("n", "value"))
	require.NoError(t, err)
	require.NoError(t, ks.Put([]byte("mshort"), nil))
	for _, err = range k.Marks(background) {
	}
	require.ErrorIs(t, err, idem.ErrDamaged)
	require.NoError(t, k.Close())
	k = openKeys(t, db, idem.Options{Now: c.now, TTL: time.Hour}) // opens, with what can be counted
	require.Equal(t, int64(3), k.Stats().Results)
}

// TestSweepsAndCalls: sweeps beside calls of the same keys, which expire at once.
func TestSweepsAndCalls(t *testing.T) {
	var tick atomic.Int64
	db := openStore(t, vfs.NewMem())
	now := func() time.Time { return time.Unix(0, 1e18+tick.Add(1)) }
	k := openKeys(t, db, idem.Options{Now: now, TTL: 1, UnknownTTL: 1})
	var inside [4]atomic.Int32
	var g sync.WaitGroup
	for w := range 4 {
		g.Go(func() {
			for i := range 100 {
				n := (w + i) % len(inside)
				var err error
				if i%2 == 0 {
					_, err = k.DoOutside(background, fmt.Append(nil, n), nil, func(context.Context) ([]byte, error) {
						if inside[n].Add(1) != 1 {
							t.Error("two at once")
						}
						defer inside[n].Add(-1)
						if i%3 == 0 {
							return nil, idem.Unknown(errors.New("?"))
						}
						return nil, nil
					})
				} else {
					_, err = do2(k, fmt.Sprint(n), add("n", ""))
				}
				if err != nil && err.Error() != "?" && !errors.Is(err, idem.ErrInProgress) {
					t.Error(err)
				}
			}
		})
	}
	ended := make(chan struct{})
	var s sync.WaitGroup
	for range 2 {
		s.Go(func() {
			for {
				select {
				case <-ended:
					return
				default:
				}
				if _, err := k.Sweep(background); err != nil {
					t.Error(err)
				}
			}
		})
	}
	g.Wait()
	close(ended)
	s.Wait()
	tick.Add(10)
	_, err := k.Sweep(background)
	require.NoError(t, err)
	s1 := k.Stats()
	require.Zero(t, s1.Results)
	require.Zero(t, s1.Bytes)
	require.Zero(t, s1.Running)
	ks, err := db.Keyspace("idem/api")
	require.NoError(t, err)
	for e, err := range ks.Range(nil, nil) {
		t.Errorf("%q is left, %v", e.Key, err)
	}
}

// TestBuffersAreTheCallers: what DoOutside leaves behind when its context ends uses nothing
// that is the caller's again.
func TestBuffersAreTheCallers(t *testing.T) {
	for _, stage := range []string{"mark", "result"} {
		t.Run(stage, func(t *testing.T) {
			db := openStore(t, vfs.NewMem())
			arrived, goOn := make(chan struct{}), make(chan struct{})
			release := sync.OnceFunc(func() { close(goOn) })
			t.Cleanup(release)
			var hang atomic.Bool
			k := openKeys(t, db, idem.Options{Now: func() time.Time {
				if hang.CompareAndSwap(true, false) {
					close(arrived)
					<-goOn
				}
				return time.Unix(0, 1e18)
			}})
			// Nothing is stored of the key: the clock is asked inside of the commit alone.
			ctx, cancel := context.WithCancel(background)
			go func() { <-arrived; cancel() }()
			hang.Store(stage == "mark")
			key, ran := []byte("key"), 0
			fn := func(context.Context) ([]byte, error) {
				ran++
				hang.Store(ran == 1 && stage == "result")
				return []byte("value"), nil
			}
			r, err := k.DoOutside(ctx, key, nil, fn)
			require.ErrorIs(t, err, context.Canceled)
			copy(key, "xxx")
			copy(r.Value, "xxxxx")
			release()
			patient, cancel2 := context.WithTimeout(background, time.Minute)
			defer cancel2()
			r, err = k.DoOutside(patient, []byte("key"), nil, fn)
			require.NoError(t, err)
			require.Equal(t, "value", string(r.Value))
			require.Equal(t, 1, ran)
			require.Equal(t, stage == "result", r.Replayed)
			for m, err := range k.Marks(background) {
				t.Errorf("%q, %v", m.Key, err)
			}
		})
	}
}

// TestErrorsKeepTheirKeys: the key in an error is not the caller's memory.
func TestErrorsKeepTheirKeys(t *testing.T) {
	db := openStore(t, vfs.NewMem())
	k := openKeys(t, db, idem.Options{NoWait: true})
	_, err := k.DoOutside(background, []byte("key"), nil, func(context.Context) ([]byte, error) {
		key := []byte("key")
		_, running := k.DoOutside(background, key, nil, nil)
		forget := k.Forget(background, key)
		copy(key, "xxx")
		for _, err := range []error{running, forget} {
			require.ErrorIs(t, err, idem.ErrInProgress)
			require.ErrorContains(t, err, `"key"`)
		}
		return nil, idem.Unknown(errors.New("?"))
	})
	require.Error(t, err)
	key := []byte("key")
	_, err = k.Do(background, key, nil, nil)
	copy(key, "xxx")
	require.ErrorIs(t, err, idem.ErrInProgress)
	require.ErrorContains(t, err, `"key"`)
}
