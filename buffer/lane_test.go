package buffer_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/bits"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/buffer"
	"github.com/forebaydb/forebay/sink"
)

// refuseBad refuses rows whose value begins with "bad".
func refuseBad(r sink.Row) error {
	if bytes.HasPrefix(r.Value, []byte("bad")) {
		return errors.New("a bad row")
	}
	return nil
}

// addSome adds n rows with some of them bad, by their places.
func (w *world) addSome(n int, bad ...int) (good []string) {
	w.t.Helper()
	rows := make([]buffer.Row, n)
	for i := range rows {
		rows[i].Value = fmt.Append(nil, i)
	}
	for _, i := range bad {
		rows[i].Value = fmt.Append(nil, "bad ", i)
	}
	for _, r := range rows {
		if !bytes.HasPrefix(r.Value, []byte("bad")) {
			good = append(good, string(r.Value))
		}
	}
	_, err := w.b.AddBatch(rows)
	require.NoError(w.t, err)
	return good
}

// TestBisection: bad rows that are not named are found in at most 2·log2 n + 1 writes
// each, and all others are written, in their order.
func TestBisection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		seed := rand.Uint64()
		defer func() {
			if t.Failed() {
				t.Logf("seed %d", seed)
			}
		}()
		r := rand.New(rand.NewPCG(seed, 0))
		for _, n := range []int{1, 2, 3, 7, 64, 100, 1000} {
			for _, k := range []int{1, 1, 2, 5, n} {
				bad := r.Perm(n)[:min(k, n)]
				w := newWorld(t, buffer.Options{Items: n})
				w.sink.Refuse(refuseBad)
				good := w.addSome(n, bad...)
				synctest.Wait() // one batch
				w.flush()
				require.Equal(t, good, values(w.sink.Rows()))
				dead := letters(t, w.b)
				require.Len(t, dead, len(bad))
				for i, l := range dead {
					require.Equal(t, "a bad row", l.Reason)
					require.Equal(t, fmt.Sprint("bad ", l.Offset), string(l.Value))
					require.EqualValues(t, i, l.Number)
					require.False(t, l.Damaged)
					require.GreaterOrEqual(t, l.Attempts, uint64(1))
					require.NotEmpty(t, l.Batch)
				}
				log := bits.Len(uint(n - 1)) // rounded up
				require.LessOrEqual(t, w.sink.Writes(), len(bad)*(2*log+1), "%d bad of %d", len(bad), n)
				s := w.balanced()
				require.EqualValues(t, len(bad), s.Dead)
				require.EqualValues(t, len(good), s.Done)
				require.EqualValues(t, w.sink.Writes(), s.Writes)
				w.close()
			}
		}
	})
}

// TestNamedRows: what the sink names is dead at once; the rest is another batch.
func TestNamedRows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, buffer.Options{Items: 100})
		w.sink.Name = true
		w.sink.Refuse(refuseBad)
		good := w.addSome(100, 0, 1, 50, 99)
		w.flush()
		require.Equal(t, good, values(w.sink.Rows()))
		require.Len(t, letters(t, w.b), 4)
		require.Equal(t, 2, w.sink.Writes())
		good = w.addSome(3, 0, 1, 2)
		require.Empty(t, good)
		w.flush()
		require.Equal(t, 3, w.sink.Writes())
		require.Len(t, letters(t, w.b), 7)
		w.close()
	})
}

// TestStrangeNames: indexes that are no rows say nothing.
func TestStrangeNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, buffer.Options{Items: 4})
		require.NoError(t, w.b.Close())
		n := 0
		var err error
		w.b, err = buffer.Open(w.db, "b", sink.Func(func(ctx context.Context, b sink.Batch) error {
			if n++; n == 1 {
				return &sink.Rejected{Rows: []int{-1, 4, 1 << 30, 2, 2}}
			}
			if n == 2 {
				return &sink.Rejected{Rows: []int{-1, 7}, Err: errors.New("none of them")}
			}
			return w.sink.Write(ctx, b)
		}), &w.o)
		require.NoError(t, err)
		w.addSome(4)
		w.flush()
		require.Equal(t, []string{"0", "1", "3"}, values(w.sink.Rows()))
		require.Equal(t, []int{1, 2}, sizes(w.sink.Batches()))
		dead := letters(t, w.b)
		require.Len(t, dead, 1)
		require.Equal(t, "no reason", dead[0].Reason)
		w.close()
	})
}

// TestManyLargeDeaths: more dead letters than go into one commit.
func TestManyLargeDeaths(t *testing.T) {
	if testing.Short() {
		t.Skip("it moves some hundred megabytes")
	}
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, buffer.Options{Items: 100, Bytes: 1 << 30, Age: time.Hour})
		w.sink.Name = true
		w.sink.Refuse(refuseBad)
		for range 7 {
			_, err := w.b.Add(buffer.Row{Value: append([]byte("bad"), make([]byte, 3<<20)...)})
			require.NoError(t, err)
		}
		w.flush()
		require.Len(t, letters(t, w.b), 7)
		require.EqualValues(t, 7, w.balanced().Dead)
		w.sink.Refuse(nil)
		n, err := w.b.Redrive(t.Context(), nil)
		require.NoError(t, err)
		require.Equal(t, 7, n)
		w.flush()
		require.Len(t, w.sink.Rows(), 7)
		w.close()
	})
}

// keyed adds rows with keys; each value says which of its key it is.
type keyed struct {
	next map[string]int
}

func (k *keyed) add(t *testing.T, b *buffer.Buffer, key string) {
	t.Helper()
	_, err := b.Add(buffer.Row{Key: []byte(key), Value: fmt.Append(nil, k.next[key])})
	require.NoError(t, err)
	k.next[key]++
}

// inOrder looks that the rows of each key are there once, in their order.
func (k *keyed) inOrder(t *testing.T, rows []sink.Row) {
	t.Helper()
	seen := map[string]int{}
	for _, r := range rows {
		require.Equal(t, fmt.Sprint(seen[string(r.Key)]), string(r.Value), "key %s", r.Key)
		seen[string(r.Key)]++
	}
	require.Equal(t, k.next, seen)
}

// TestLanesKeepTheOrderOfKeys: by any number of lanes, that changes at each open, with a
// sink that fails now and then and answers in any order.
func TestLanesKeepTheOrderOfKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		seed := rand.Uint64()
		defer func() {
			if t.Failed() {
				t.Logf("seed %d", seed)
			}
		}()
		r := rand.New(rand.NewPCG(seed, 0))
		var mu sync.Mutex
		draw := func(n int) int {
			mu.Lock()
			defer mu.Unlock()
			return r.IntN(n)
		}
		w := newWorld(t, buffer.Options{Items: 20, Lanes: 3, Backoff: time.Millisecond, MaxBackoff: 20 * time.Millisecond})
		w.sink.Fault(func(int, sink.Batch) (bool, error) {
			time.Sleep(time.Duration(draw(30)) * time.Millisecond)
			if draw(4) == 0 {
				return draw(2) == 0, errors.New("now and then")
			}
			return true, nil
		})
		k := keyed{next: map[string]int{}}
		most := 0
		for _, lanes := range []int{3, 8, 1, 2, 16, 5} {
			w.o.Lanes = lanes
			w.reopen()
			for range 150 {
				k.add(t, w.b, fmt.Sprint("key ", draw(25)))
				if draw(5) == 0 {
					time.Sleep(time.Duration(draw(40)) * time.Millisecond)
				}
				most = max(most, w.b.Stats().Writing)
			}
		}
		require.Greater(t, most, 2, "writes at once")
		w.flush()
		k.inOrder(t, w.sink.Rows())
		w.close()
	})
}

// TestOtherLanesDoNotCutAgain: what is cut is written by the lanes that it was cut for.
func TestOtherLanesDoNotCutAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, buffer.Options{Items: 10, Lanes: 4, Age: time.Hour})
		ids := map[string][]string{}
		var mu sync.Mutex
		away := func(_ int, b sink.Batch) (bool, error) {
			mu.Lock()
			defer mu.Unlock()
			ids[b.ID] = values(b.Rows)
			return true, errors.New("the answer is lost")
		}
		w.sink.Fault(away)
		k := keyed{next: map[string]int{}}
		for i := range 200 {
			k.add(t, w.b, fmt.Sprint("key ", i%13))
		}
		time.Sleep(10 * time.Minute) // so that all lanes have had their turn
		synctest.Wait()
		require.Len(t, ids, 4)
		was := len(ids)
		for _, lanes := range []int{1, 7, 2} {
			w.o.Lanes = lanes
			w.reopen()
			time.Sleep(time.Minute)
			synctest.Wait()
			require.Len(t, ids, was)
		}
		w.sink.Fault(nil)
		w.reopen()
		w.flush()
		k.inOrder(t, w.sink.Rows())
		for _, b := range w.sink.Batches() {
			if rows, ok := ids[b.ID]; ok {
				require.Equal(t, rows, values(b.Rows))
				delete(ids, b.ID)
			}
		}
		require.Empty(t, ids)
		w.close()
	})
}

// TestKeylessRowsUseAllLanes: in batches that are full.
func TestKeylessRowsUseAllLanes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, buffer.Options{Items: 10, Lanes: 4})
		w.sink.Fault(func(int, sink.Batch) (bool, error) {
			time.Sleep(time.Second)
			return true, nil
		})
		rows := make([]buffer.Row, 200)
		_, err := w.b.AddBatch(rows)
		require.NoError(t, err)
		synctest.Wait()
		require.Equal(t, 4, w.b.Stats().Writing)
		at := time.Now()
		w.flush()
		require.Equal(t, 5*time.Second, time.Since(at))
		for _, n := range sizes(w.sink.Batches()) {
			require.Equal(t, 10, n)
		}
		w.close()
	})
}

// TestMemoryIsBounded: with the sink away, only so many rows are read.
func TestMemoryIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, lanes := range []int{1, 4} {
			w := newWorld(t, buffer.Options{Items: 10, Lanes: lanes, Age: time.Millisecond})
			w.sink.Fault(func(int, sink.Batch) (bool, error) { return false, errors.New("away") })
			for i := range 30 {
				rows := make([]buffer.Row, 50)
				for j := range rows {
					rows[j].Key = fmt.Append(nil, j+i)
				}
				_, err := w.b.AddBatch(rows)
				require.NoError(t, err)
				time.Sleep(100 * time.Millisecond)
			}
			s := w.balanced()
			require.EqualValues(t, 1500, s.Pending)
			require.LessOrEqual(t, s.Held, int64(2*lanes*10))
			require.LessOrEqual(t, s.Batches, 4*lanes)
			require.GreaterOrEqual(t, s.OldestAge, 2*time.Second)
			require.True(t, s.Away)
			w.sink.Fault(nil)
			time.Sleep(time.Minute)
			w.flush()
			require.Len(t, w.sink.Rows(), 1500)
			require.Zero(t, w.b.Stats().Held)
			w.close()
		}
	})
}

// TestRetries: the waits are within their bounds, and the batch is the same.
func TestRetries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, buffer.Options{Backoff: time.Second, MaxBackoff: 10 * time.Second})
		type try struct {
			at   time.Time
			id   string
			rows string
		}
		var mu sync.Mutex
		var tries []try
		var answer error
		w.sink.Fault(func(_ int, b sink.Batch) (bool, error) {
			mu.Lock()
			defer mu.Unlock()
			tries = append(tries, try{time.Now(), b.ID, strings.Join(values(b.Rows), " ")})
			return true, answer // it is done, and the answer is lost
		})
		// next takes what was tried, and says what is answered from now on.
		next := func(err error) []try {
			mu.Lock()
			defer mu.Unlock()
			was := tries
			tries, answer = nil, err
			return was
		}
		next(errors.New("away"))
		w.add(0, 3)
		time.Sleep(5 * time.Minute)
		tried := next(&sink.Later{After: time.Minute, Err: errors.New("busy")})
		require.Greater(t, len(tried), 20)
		total := time.Duration(0)
		for i, x := range tried[1:] {
			wait := x.at.Sub(tried[i].at)
			require.LessOrEqual(t, wait, min(time.Second<<min(i, 20), 10*time.Second))
			total += wait
			require.Equal(t, tried[0].id, x.id)
			require.Equal(t, tried[0].rows, x.rows)
		}
		require.Greater(t, total/time.Duration(len(tried)), 2*time.Second, "it is not always short")
		time.Sleep(10 * time.Minute)
		tried = next(&sink.Later{After: 1000 * time.Hour})
		for i, x := range tried {
			if i > 0 {
				require.GreaterOrEqual(t, x.at.Sub(tried[i-1].at), time.Minute)
			}
		}
		time.Sleep(4 * time.Hour)
		require.Contains(t, []int{3, 4}, len(next(nil)), "no more than an hour")
		time.Sleep(2 * time.Hour)
		w.flush()
		require.Equal(t, count(0, 3), values(w.sink.Rows()))
		w.close()
	})
}

// TestLateAnswer: the sink goes on when the context ends, and says yes when nobody hears
// it: the row is there once, for it is tried again by the same id.
func TestLateAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, buffer.Options{Timeout: time.Second, Backoff: time.Millisecond})
		require.NoError(t, w.b.Close())
		n := 0
		late := sink.Func(func(ctx context.Context, b sink.Batch) error {
			if n++; n > 1 {
				return w.sink.Write(ctx, b)
			}
			go func() {
				time.Sleep(1500 * time.Millisecond)
				require.NoError(t, w.sink.Write(context.Background(), b))
			}()
			<-ctx.Done()
			return ctx.Err()
		})
		var err error
		w.b, err = buffer.Open(w.db, "b", late, &w.o)
		require.NoError(t, err)
		w.add(0, 5)
		w.flush()
		time.Sleep(time.Minute)
		require.Equal(t, count(0, 5), values(w.sink.Rows()))
		require.EqualValues(t, 1, w.b.Stats().Failed)
		w.close()
	})
}

// TestOneTriesWhileAllFail: a sink that is away is tried by one lane.
func TestOneTriesWhileAllFail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, buffer.Options{Items: 1, Lanes: 8, Backoff: time.Second, MaxBackoff: 10 * time.Second})
		away := true
		ids := map[string]bool{}
		var mu sync.Mutex
		w.sink.Fault(func(_ int, b sink.Batch) (bool, error) {
			time.Sleep(time.Second)
			mu.Lock()
			defer mu.Unlock()
			if away {
				ids[b.ID] = true
				return false, errors.New("away")
			}
			return true, nil
		})
		w.add(0, 100)
		time.Sleep(20 * time.Second) // all have failed by then
		before := w.b.Stats()
		for range 1000 {
			time.Sleep(300 * time.Millisecond)
			require.LessOrEqual(t, w.b.Stats().Writing, 1)
		}
		tried := w.b.Stats().Writes - before.Writes
		require.Less(t, tried, uint64(100), "in 300 s, some 6 s each")
		require.Greater(t, tried, uint64(20))
		mu.Lock()
		require.Len(t, ids, 8, "they take turns")
		away = false
		mu.Unlock()
		w.flush()
		require.Len(t, w.sink.Rows(), 100)
		w.close()
	})
}

// TestOnePoisonDoesNotStopTheOthers: one that always fails has its lane for itself.
func TestOnePoisonDoesNotStopTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, buffer.Options{Items: 10, Lanes: 3, Age: -1, Backoff: time.Millisecond, MaxBackoff: time.Second})
		w.sink.Fault(func(_ int, b sink.Batch) (bool, error) {
			if string(b.Rows[0].Value) == "poison" {
				return false, errors.New("500")
			}
			return true, nil
		})
		_, err := w.b.Add(buffer.Row{Key: []byte("p"), Value: []byte("poison")})
		require.NoError(t, err)
		for i := range 40 {
			_, err := w.b.Add(buffer.Row{Key: fmt.Append(nil, i), Value: fmt.Append(nil, i)})
			require.NoError(t, err)
			time.Sleep(10 * time.Second)
		}
		// All but those behind it in its lane, until there are too many of them.
		require.Greater(t, len(w.sink.Rows()), 15)
		w.sink.Fault(nil)
		w.flush()
		require.Len(t, w.sink.Rows(), 41)
		w.close()
	})
}

// TestTheNextBatchIsReady: while one is written the next one is cut, as long as rows wait.
func TestTheNextBatchIsReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, lanes := range []int{1, 2} {
			w := newWorld(t, buffer.Options{Items: 10, Lanes: lanes, Age: time.Hour})
			w.sink.Fault(func(int, sink.Batch) (bool, error) {
				time.Sleep(time.Second)
				return true, nil
			})
			_, err := w.b.AddBatch(make([]buffer.Row, 400*lanes))
			require.NoError(t, err)
			time.Sleep(500 * time.Millisecond)
			for i := range 35 {
				synctest.Wait()
				s := w.b.Stats()
				require.Equal(t, lanes, s.Writing)
				require.Greater(t, s.Batches, lanes, "behind %d batches", i)
				time.Sleep(time.Second)
			}
			w.flush()
			w.close()
		}
	})
}
