package buffer_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/buffer"
	"github.com/forebaydb/forebay/sink"
	"github.com/forebaydb/forebay/sink/sinktest"
	"github.com/forebaydb/forebay/vfs"
)

func openDB(t *testing.T, fs vfs.FS) *forebay.DB {
	t.Helper()
	db, err := forebay.Open("data", &forebay.Options{FS: fs, MemtableSize: 64 << 10, LogFileSize: 64 << 10, MarkDelay: -1})
	require.NoError(t, err)
	return db
}

// world is a store, a buffer, and a sink beside it that outlives both.
type world struct {
	t    *testing.T
	mem  *vfs.Mem
	sink *sinktest.Memory
	o    buffer.Options
	db   *forebay.DB
	b    *buffer.Buffer
}

func newWorld(t *testing.T, o buffer.Options) *world {
	t.Helper()
	w := &world{t: t, mem: vfs.NewMem(), sink: &sinktest.Memory{}, o: o}
	w.open()
	return w
}

func (w *world) open() {
	w.t.Helper()
	w.db = openDB(w.t, w.mem)
	var err error
	w.b, err = buffer.Open(w.db, "b", w.sink, &w.o)
	require.NoError(w.t, err)
	b, db := w.b, w.db
	w.t.Cleanup(func() { // also of a test that failed
		b.Close()
		db.Close()
	})
}

func (w *world) close() {
	w.t.Helper()
	require.NoError(w.t, w.b.Close())
	require.NoError(w.t, w.db.Close())
}

func (w *world) reopen() {
	w.t.Helper()
	w.close()
	w.open()
}

// add adds rows with values from a number on.
func (w *world) add(from, n int) {
	w.t.Helper()
	for i := from; i < from+n; i++ {
		_, err := w.b.Add(buffer.Row{Value: fmt.Append(nil, i)})
		require.NoError(w.t, err)
	}
}

func (w *world) flush() {
	w.t.Helper()
	synctest.Wait() // a flush of rows that are not read yet has two batches
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	require.NoError(w.t, w.b.Flush(ctx))
	w.balanced()
}

func (w *world) balanced() buffer.Stats {
	w.t.Helper()
	s := w.b.Stats()
	require.Equal(w.t, s.In, s.Done+s.Dead+s.Purged+s.Lost+s.Pending, "%+v", s)
	return s
}

func values(rows []sink.Row) (out []string) {
	for _, r := range rows {
		out = append(out, string(r.Value))
	}
	return out
}

func sizes(batches []sink.Batch) (out []int) {
	for _, b := range batches {
		out = append(out, len(b.Rows))
	}
	return out
}

func count(from, n int) (out []string) {
	for i := from; i < from+n; i++ {
		out = append(out, fmt.Sprint(i))
	}
	return out
}

// letters returns all dead letters.
func letters(t *testing.T, b *buffer.Buffer) (out []buffer.DeadLetter) {
	t.Helper()
	for l, err := range b.DeadLetters(t.Context(), 0) {
		require.NoError(t, err)
		out = append(out, l)
	}
	return out
}

func TestRowsArriveAsTheyWere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, buffer.Options{})
		rows := []buffer.Row{
			{},
			{Value: []byte("v")},
			{Key: []byte("k"), Value: []byte{0, 1, 0xff}, Headers: map[string]string{"traceparent": "00-ab", "": "", "b": "c"}},
			{Key: []byte("k"), Headers: map[string]string{}},
			{Value: make([]byte, 1<<20)},
		}
		var want []sink.Row
		at := time.Now()
		for i, r := range rows {
			offset, err := w.b.Add(r)
			require.NoError(t, err)
			require.EqualValues(t, i, offset)
			clear(r.Key[:0])
			want = append(want, sink.Row{Offset: offset, Time: at, Key: r.Key, Value: r.Value, Headers: r.Headers})
		}
		first, err := w.b.AddBatch(rows)
		require.NoError(t, err)
		require.EqualValues(t, 5, first)
		w.flush()
		got := w.sink.Rows()
		require.Len(t, got, 10)
		for i, r := range got {
			require.EqualValues(t, i, r.Offset)
			x := want[i%5]
			require.True(t, x.Time.Equal(r.Time))
			require.Equal(t, string(x.Key), string(r.Key))
			require.Equal(t, string(x.Value), string(r.Value))
			require.Len(t, r.Headers, len(x.Headers))
			for name := range x.Headers {
				require.Equal(t, x.Headers[name], r.Headers[name])
			}
		}
		s := w.balanced()
		require.EqualValues(t, 10, s.Done)
		require.Zero(t, s.Pending)
		require.Zero(t, s.PendingBytes)
		w.close()
	})
}

func TestFlushBySize(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, buffer.Options{Items: 10, Age: time.Hour})
		w.add(0, 25)
		synctest.Wait()
		require.Equal(t, []int{10, 10}, sizes(w.sink.Batches()))
		w.flush()
		require.Equal(t, []int{10, 10, 5}, sizes(w.sink.Batches()))
		require.Equal(t, count(0, 25), values(w.sink.Rows()))
		w.close()

		w = newWorld(t, buffer.Options{Bytes: 1000, Age: time.Hour})
		for range 5 { // of some 300 bytes
			_, err := w.b.Add(buffer.Row{Value: make([]byte, 300)})
			require.NoError(t, err)
		}
		_, err := w.b.Add(buffer.Row{Value: make([]byte, 5000)})
		require.NoError(t, err)
		synctest.Wait()
		require.Equal(t, []int{3, 2, 1}, sizes(w.sink.Batches()))
		w.close()
	})
}

// TestAgeAtATrickle: no row waits longer than the limit, and 10 ms, from when it was
// added, whenever the last flush was; also those of transactions.
func TestAgeAtATrickle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, buffer.Options{Items: 1000, Age: 100 * time.Millisecond})
		waits := make(chan time.Duration, 1000)
		w.sink.Fault(func(_ int, b sink.Batch) (bool, error) {
			for _, r := range b.Rows {
				waits <- time.Since(r.Time)
			}
			return true, nil
		})
		for i, pause := range []time.Duration{0, 30, 99, 100, 101, 1, 1, 50, 1000, 3, 97, 100, 99, 1, 250} {
			time.Sleep(pause * time.Millisecond)
			if i%2 == 0 {
				w.add(i, 1)
				continue
			}
			require.NoError(t, w.db.Update(func(tx *forebay.Tx) error {
				return w.b.AddTx(tx, buffer.Row{Value: fmt.Append(nil, i)})
			}))
		}
		time.Sleep(110 * time.Millisecond)
		synctest.Wait()
		require.Equal(t, count(0, 15), values(w.sink.Rows()))
		require.Less(t, len(w.sink.Batches()), 14, "those that wait go together")
		w.sink.Fault(nil)
		close(waits)
		longest := time.Duration(0)
		for d := range waits {
			longest = max(longest, d)
		}
		require.LessOrEqual(t, longest, 110*time.Millisecond)
		require.GreaterOrEqual(t, longest, 99*time.Millisecond)

		// Rows of before an Open have waited already.
		w.o.Age = time.Hour
		w.reopen()
		w.add(15, 1)
		time.Sleep(59 * time.Minute)
		w.reopen()
		synctest.Wait()
		require.Len(t, w.sink.Rows(), 15)
		time.Sleep(time.Minute)
		synctest.Wait()
		require.Len(t, w.sink.Rows(), 16)
		w.close()
	})
}

func TestAddTx(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, buffer.Options{MaxRows: 2, Age: time.Hour})
		fail := errors.New("no")
		for range 5 { // what does not come to be takes no room
			require.ErrorIs(t, w.db.Update(func(tx *forebay.Tx) error {
				require.NoError(t, w.b.AddTx(tx, buffer.Row{Value: []byte("never")}))
				return fail
			}), fail)
		}
		tries := 0
		require.NoError(t, w.db.Update(func(tx *forebay.Tx) error {
			tries++
			_, err := tx.Get([]byte("k"))
			require.True(t, err == nil || errors.Is(err, forebay.ErrNotFound))
			if tries < 3 {
				require.NoError(t, w.db.Put([]byte("k"), fmt.Append(nil, tries)))
			}
			return errors.Join(tx.Put([]byte("k"), []byte("mine")), w.b.AddTx(tx, buffer.Row{Value: []byte("once")}))
		}))
		require.Equal(t, 3, tries)
		w.add(1, 1)
		var full *buffer.FullError
		require.ErrorAs(t, w.db.Update(func(tx *forebay.Tx) error { return w.b.AddTx(tx, buffer.Row{}) }), &full)
		require.EqualValues(t, 2, full.Rows)
		w.flush()
		require.Equal(t, []string{"once", "1"}, values(w.sink.Rows()))
		w.close()
	})
}

func TestFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, buffer.Options{MaxRows: 10, MaxBytes: 4000, Items: 4})
		away := errors.New("away")
		var stopped atomic.Bool
		stopped.Store(true)
		w.sink.Fault(func(int, sink.Batch) (bool, error) {
			if stopped.Load() {
				return false, &sink.Later{After: time.Minute, Err: away}
			}
			return true, nil
		})
		w.add(0, 10)
		synctest.Wait()
		var full *buffer.FullError
		_, err := w.b.Add(buffer.Row{})
		require.ErrorAs(t, err, &full)
		require.ErrorIs(t, err, buffer.ErrFull)
		require.EqualValues(t, 10, full.Rows)
		require.InDelta(t, time.Minute, full.RetryAfter, float64(time.Second))
		require.ErrorContains(t, err, "10 rows of ")
		w.reopen() // and it knows
		_, err = w.b.AddBatch(make([]buffer.Row, 1))
		require.ErrorIs(t, err, buffer.ErrFull)
		s := w.b.Stats()
		synctest.Wait()
		require.ErrorIs(t, w.b.Stats().LastError, away)
		require.True(t, w.b.Stats().Away)
		require.EqualValues(t, 10, s.Pending)
		stopped.Store(false)
		time.Sleep(time.Hour + time.Minute)
		w.flush()
		require.Equal(t, count(0, 10), values(w.sink.Rows()))
		var limit *buffer.LimitError // no time to wait helps
		_, err = w.b.Add(buffer.Row{Value: make([]byte, 5000)})
		require.ErrorAs(t, err, &limit)
		require.EqualValues(t, 4000, limit.Limit)
		_, err = w.b.AddBatch(make([]buffer.Row, 11))
		require.ErrorAs(t, err, &limit)
		require.Equal(t, buffer.LimitError{What: "rows", Size: 11, Limit: 10}, *limit)
		_, err = w.b.Add(buffer.Row{Value: make([]byte, 3900)})
		require.NoError(t, err)
		w.flush()
		require.Zero(t, w.b.Stats().PendingBytes)
		w.close()
	})
}

// TestBacklogIsCutWhole: what has waited longer than Age is written in batches of Items,
// not of what happened to be read.
func TestBacklogIsCutWhole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const rows, items = 50_000, 10_000
		w := newWorld(t, buffer.Options{Items: items, Age: time.Second})
		require.NoError(t, w.b.Close())
		var err error
		w.b, err = buffer.Open(w.db, "b", w.sink, &buffer.Options{Items: 1 << 30, Age: time.Hour, Bytes: 1 << 40})
		require.NoError(t, err)
		for range rows / 1000 {
			_, err := w.b.AddBatch(make([]buffer.Row, 1000))
			require.NoError(t, err)
		}
		before := w.sink.Writes()
		require.NoError(t, w.b.Close())
		waits := w.balanced().Pending
		time.Sleep(time.Minute)
		w.b, err = buffer.Open(w.db, "b", w.sink, &w.o)
		require.NoError(t, err)
		time.Sleep(time.Minute) // without a flush
		require.Zero(t, w.balanced().Pending)
		require.Equal(t, int((waits+items-1)/items), w.sink.Writes()-before)
		require.NoError(t, w.b.Close())
		require.NoError(t, w.db.Close())
	})
}

func TestBadArguments(t *testing.T) {
	w := newWorld(t, buffer.Options{})
	for _, name := range []string{"", "a b", "a/b", "ä", string(make([]byte, 65))} {
		_, err := buffer.Open(w.db, name, w.sink, nil)
		require.Error(t, err, name)
	}
	_, err := buffer.Open(w.db, "x", nil, nil)
	require.ErrorContains(t, err, "no sink")
	for _, o := range []buffer.Options{{Items: -1}, {Bytes: -1}, {Lanes: -1}, {Lanes: 257}, {MaxRows: -1}, {MaxBytes: -1}, {Backoff: -1}, {MaxBackoff: -1}, {Keep: -1}} {
		_, err := buffer.Open(w.db, "x", w.sink, &o)
		require.Error(t, err, "%+v", o)
	}
	var limit *forebay.LimitError
	for _, r := range []buffer.Row{
		{Value: make([]byte, buffer.MaxRow+1)},
		{Key: make([]byte, buffer.MaxRow), Value: []byte("x")},
		{Headers: map[string]string{string(make([]byte, buffer.MaxRow)): ""}},
	} {
		_, err := w.b.Add(r)
		require.ErrorAs(t, err, &limit)
		require.ErrorAs(t, w.db.Update(func(tx *forebay.Tx) error { return w.b.AddTx(tx, r) }), &limit)
	}
	_, err = w.b.AddBatch([]buffer.Row{{Value: make([]byte, 16<<20)}, {Value: make([]byte, 16<<20)}})
	require.ErrorAs(t, err, &limit)
	_, err = w.b.AddBatch(nil)
	require.NoError(t, err)
	require.Zero(t, w.balanced().In)
	require.Equal(t, "b", w.b.Name())
	require.Equal(t, "buffer/b", w.b.Topic().Name())
	w.close()
}

// TestWaitsForTheNextOpen: what is not written is in the store.
func TestWaitsForTheNextOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, buffer.Options{Age: time.Hour, Items: 7})
		w.sink.Fault(func(int, sink.Batch) (bool, error) { return false, errors.New("away") })
		w.add(0, 100)
		synctest.Wait()
		var mu sync.Mutex
		ids := map[string]bool{}
		for range 4 {
			w.sink.Fault(func(_ int, b sink.Batch) (bool, error) {
				mu.Lock()
				defer mu.Unlock()
				ids[b.ID] = true
				return false, errors.New("away")
			})
			w.reopen()
			synctest.Wait()
		}
		require.Len(t, ids, 1, "the same batch, by the same id")
		w.sink.Fault(nil)
		w.reopen()
		w.flush()
		require.Equal(t, count(0, 100), values(w.sink.Rows()))
		require.True(t, ids[w.sink.Batches()[0].ID])
		w.close()
	})
}

// TestCloseDoesNotHang: in a wait behind a failure, in a write that ends with its
// context, with nothing to do, and while others flush.
func TestCloseDoesNotHang(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, buffer.Options{Lanes: 4, Items: 1})
		w.sink.Fault(func(int, sink.Batch) (bool, error) {
			return false, &sink.Later{After: time.Hour, Err: errors.New("away")}
		})
		w.add(0, 20)
		synctest.Wait()
		flushed := make(chan error, 1)
		go func() { flushed <- w.b.Flush(t.Context()) }()
		synctest.Wait()
		at := time.Now()
		require.NoError(t, w.b.Close())
		require.Zero(t, time.Since(at))
		require.ErrorIs(t, <-flushed, buffer.ErrClosed)
		_, err := w.b.Add(buffer.Row{})
		require.ErrorIs(t, err, buffer.ErrClosed)
		require.ErrorIs(t, w.b.Flush(t.Context()), buffer.ErrClosed)
		require.NoError(t, w.b.Close())
		require.NoError(t, w.b.Shutdown(t.Context()))
		require.NoError(t, w.db.Close())

		w.db = openDB(t, w.mem)
		hang := sink.Func(func(ctx context.Context, _ sink.Batch) error {
			<-ctx.Done()
			return ctx.Err()
		})
		w.b, err = buffer.Open(w.db, "b", hang, &w.o)
		require.NoError(t, err)
		synctest.Wait()
		require.Equal(t, 4, w.b.Stats().Writing)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		require.ErrorIs(t, w.b.Shutdown(ctx), context.DeadlineExceeded)
		cancel()
		w.close()

		w.sink.Fault(nil)
		w.open()
		require.NoError(t, w.b.Shutdown(t.Context()))
		require.Len(t, w.sink.Rows(), 20)
		require.NoError(t, w.db.Close())
	})
}

// TestShutdownLeavesAWriteThatHangs: it goes on by itself.
func TestShutdownLeavesAWriteThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, buffer.Options{})
		free := make(chan struct{})
		var err error
		require.NoError(t, w.b.Close())
		w.b, err = buffer.Open(w.db, "b", sink.Func(func(_ context.Context, b sink.Batch) error {
			<-free
			return w.sink.Write(context.Background(), b)
		}), nil)
		require.NoError(t, err)
		w.add(0, 3)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, w.b.Shutdown(ctx), context.DeadlineExceeded)
		close(free)
		require.NoError(t, w.b.Close())
		require.NoError(t, w.db.Close())
		require.Len(t, w.sink.Rows(), 3)
		w.open() // which does not know that it was done
		w.flush()
		require.Len(t, w.sink.Rows(), 3)
		w.close()
	})
}

// TestFlush: it waits for what was added before, and no longer.
func TestFlush(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, buffer.Options{Age: time.Hour})
		w.flush()
		w.add(0, 3)
		at := time.Now()
		w.flush()
		require.Zero(t, time.Since(at))
		w.sink.Fault(func(int, sink.Batch) (bool, error) { return false, errors.New("away") })
		w.add(3, 1)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, w.b.Flush(ctx), context.DeadlineExceeded)
		w.close()
	})
}

// TestTakeover: an open takes the buffer from the handle of before.
func TestTakeover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, buffer.Options{Age: time.Hour})
		old := w.b
		w.add(0, 5)
		synctest.Wait()
		var err error
		w.b, err = buffer.Open(w.db, "b", w.sink, &w.o)
		require.NoError(t, err)
		go func() { _ = old.Flush(t.Context()) }()
		w.add(5, 5)
		w.flush()
		synctest.Wait()
		require.ErrorIs(t, old.Stats().Err, buffer.ErrMoved)
		_, err = old.Add(buffer.Row{})
		require.ErrorIs(t, err, buffer.ErrMoved)
		require.ErrorIs(t, old.Flush(t.Context()), buffer.ErrMoved)
		_, err = old.Purge(t.Context(), nil)
		require.NoError(t, err) // there is nothing
		require.ErrorIs(t, old.Close(), buffer.ErrMoved)
		require.Equal(t, count(0, 10), values(w.sink.Rows()))
		w.close()
	})
}

// TestStoreGoesFirst: the buffer says why it works no more.
func TestStoreGoesFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, buffer.Options{})
		w.add(0, 5)
		require.NoError(t, w.db.Close())
		synctest.Wait()
		require.ErrorIs(t, w.b.Stats().Err, forebay.ErrClosed)
		_, err := w.b.Add(buffer.Row{})
		require.ErrorIs(t, err, forebay.ErrClosed)
		require.ErrorIs(t, w.b.Flush(t.Context()), forebay.ErrClosed)
		require.ErrorIs(t, w.b.Close(), forebay.ErrClosed)
		w.open()
		w.flush()
		require.Equal(t, count(0, 5), values(w.sink.Rows()))
		w.close()
	})
}

// TestTrims: what is written goes from the topic, but for what another reader has before
// him, or Keep.
func TestTrims(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first := func(w *world) uint64 {
			time.Sleep(2 * time.Second)
			synctest.Wait()
			first, _, err := w.b.Topic().Bounds()
			require.NoError(t, err)
			return first
		}
		w := newWorld(t, buffer.Options{})
		w.add(0, 100)
		w.flush()
		require.EqualValues(t, 99, first(w))
		_, err := w.b.Topic().Reader("audit")
		require.NoError(t, err)
		w.add(100, 100)
		w.flush()
		require.EqualValues(t, 99, first(w))
		w.reopen()
		require.EqualValues(t, 99, first(w))
		require.NoError(t, w.b.Topic().DropReader("audit"))
		w.o.Keep = time.Hour
		w.reopen()
		require.EqualValues(t, 99, first(w))
		time.Sleep(time.Hour)
		w.add(200, 1)
		w.flush()
		require.EqualValues(t, 200, first(w))
		w.close()
	})
}

// TestTakeoverOfABusyHandle: an open also takes over what has a commit under way.
func TestTakeoverOfABusyHandle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := vfs.NewInjector(vfs.NewMem())
		db := openDB(t, in)
		var target sinktest.Memory
		free := make(chan struct{})
		old, err := buffer.Open(db, "b", sink.Func(func(ctx context.Context, b sink.Batch) error {
			<-free
			return target.Write(ctx, b)
		}), &buffer.Options{Age: -1})
		require.NoError(t, err)
		_, err = old.Add(buffer.Row{Value: []byte("v")})
		require.NoError(t, err)
		synctest.Wait() // in the sink
		gate := vfs.NewGate()
		in.Add(vfs.Rule{Call: vfs.CallSyncData, Gate: gate})
		close(free)
		<-gate.Arrived() // what is finished is in the tables, and not to be seen
		opened := make(chan error, 1)
		var b *buffer.Buffer
		go func() {
			var err error
			b, err = buffer.Open(db, "b", &target, nil)
			opened <- err
		}()
		synctest.Wait()
		gate.Release()
		require.NoError(t, <-opened)
		require.NoError(t, b.Flush(t.Context()))
		require.Len(t, target.Rows(), 1)
		_ = old.Close()
		require.NoError(t, b.Close())
		require.NoError(t, db.Close())
	})
}

// TestRowsOfAnOldHandle: what it adds when it has not seen that it was taken over is
// written, and counts for what waits no more than it should.
func TestRowsOfAnOldHandle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, buffer.Options{MaxRows: 5, Age: time.Hour})
		old := w.b
		synctest.Wait()
		var err error
		w.b, err = buffer.Open(w.db, "b", w.sink, &w.o)
		require.NoError(t, err)
		for range 3 {
			_, err := old.Add(buffer.Row{Value: []byte("old")})
			require.NoError(t, err)
		}
		w.flush()
		require.Len(t, w.sink.Rows(), 3)
		require.Zero(t, w.b.Stats().PendingBytes)
		w.add(0, 5)
		_, err = w.b.Add(buffer.Row{})
		require.ErrorIs(t, err, buffer.ErrFull)
		_ = old.Close()
		w.flush()
		w.close()
	})
}
