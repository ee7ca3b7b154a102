package buffer_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/buffer"
	"github.com/forebaydb/forebay/sink"
	"github.com/forebaydb/forebay/vfs"
)

// TestAddDoesNotWaitForTheSink: the sink hangs, and then is away, for minutes. Rows are
// taken as before, and each in no time on the clock of a bubble, on which nothing but a
// wait takes time; until the bound of bytes is reached, and then the error says when to
// come again. When the sink is back it gets all that was acknowledged, once.
func TestAddDoesNotWaitForTheSink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, buffer.Options{Items: 100, Age: 10 * time.Millisecond, MaxBytes: 128 << 10, Timeout: -1})
		n := 0
		add := func() error {
			start := time.Now()
			_, err := w.b.Add(buffer.Row{Value: fmt.Append(nil, n)})
			require.Zero(t, time.Since(start))
			if err == nil {
				n++
			}
			return err
		}
		minutes := func(m int) {
			for range m * 60 {
				for range 2 {
					require.NoError(t, add())
				}
				time.Sleep(time.Second)
			}
		}
		minutes(1)
		require.LessOrEqual(t, w.b.Stats().Pending, uint64(2))
		back := make(chan struct{})
		w.sink.Fault(func(int, sink.Batch) (bool, error) { <-back; return true, nil })
		minutes(5)
		require.GreaterOrEqual(t, w.b.Stats().Pending, uint64(5*60*2))
		var away atomic.Bool
		away.Store(true)
		w.sink.Fault(func(int, sink.Batch) (bool, error) {
			if away.Load() {
				return false, errors.New("away")
			}
			return true, nil
		})
		close(back)
		minutes(5)
		require.GreaterOrEqual(t, w.b.Stats().Pending, uint64(5*60*2))
		var err error
		for err == nil {
			err = add()
		}
		var full *buffer.FullError
		require.ErrorAs(t, err, &full)
		require.Positive(t, full.RetryAfter)
		require.LessOrEqual(t, w.balanced().PendingBytes, int64(128<<10))
		away.Store(false)
		time.Sleep(time.Minute)
		w.flush()
		require.Equal(t, count(0, n), values(w.sink.Rows()))
		require.NoError(t, add())
		w.flush()
		w.close()
	})
}

// TestTenThousandWait: ten thousand rows are buffered, none is written yet, and the power
// is cut. None is lost.
func TestTenThousandWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, buffer.Options{Items: 20_000, Age: time.Hour})
		for i := range 100 {
			rows := make([]buffer.Row, 100)
			for j := range rows {
				rows[j].Value = fmt.Append(nil, 100*i+j)
			}
			_, err := w.b.AddBatch(rows)
			require.NoError(t, err)
		}
		synctest.Wait()
		require.Zero(t, w.sink.Writes())
		cut := w.mem.PowerCutSeed(36, vfs.SectorAtomic)
		w.close()
		w.mem = cut
		w.open()
		require.EqualValues(t, 10_000, w.b.Stats().Pending)
		require.NoError(t, w.b.Flush(context.Background()))
		require.Equal(t, count(0, 10_000), values(w.sink.Rows()))
		w.close()
	})
}
