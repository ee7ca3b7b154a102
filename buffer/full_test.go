package buffer_test

import (
	"context"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/buffer"
	"github.com/forebaydb/forebay/sink/sinktest"
	"github.com/forebaydb/forebay/vfs"
)

// TestLettersOfAFullStore: Redrive says that the store is full, and does not wait until
// it is not.
func TestLettersOfAFullStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := vfs.NewInjector(vfs.NewMem())
		db := openDB(t, in)
		var target sinktest.Memory
		target.Refuse(refuseBad)
		b, err := buffer.Open(db, "b", &target, nil)
		require.NoError(t, err)
		_, err = b.Add(buffer.Row{Value: []byte("bad")})
		require.NoError(t, err)
		require.NoError(t, b.Flush(t.Context()))
		full := in.Add(vfs.Rule{Call: vfs.CallCreate, Err: syscall.ENOSPC, Forever: true})
		seq, err := db.Sequence("other")
		require.NoError(t, err)
		for err == nil {
			_, err = seq.Append(make([]byte, 10<<10))
		}
		require.ErrorIs(t, err, forebay.ErrFull)
		large := func(l *buffer.DeadLetter) bool { // which is for a log file of its own
			l.Value = append([]byte("good"), make([]byte, 200<<10)...)
			return true
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		at := time.Now()
		_, err = b.Redrive(ctx, large)
		require.ErrorIs(t, err, forebay.ErrFull)
		require.Less(t, time.Since(at), time.Minute)
		full.Remove()
		n, err := b.Redrive(ctx, large)
		require.NoError(t, err)
		require.Equal(t, 1, n)
		require.NoError(t, b.Shutdown(t.Context()))
		require.Len(t, target.Rows(), 1)
		require.NoError(t, db.Close())
	})
}

// TestTrimIsTriedAgain: also when no row comes any more.
func TestTrimIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, buffer.Options{})
		readers, err := w.db.Keyspace("topic/buffer/b")
		require.NoError(t, err)
		require.NoError(t, readers.Put([]byte("damaged"), []byte("short")))
		w.add(0, 100)
		w.flush()
		time.Sleep(5 * time.Second)
		first, _, err := w.b.Topic().Bounds()
		require.NoError(t, err)
		require.Zero(t, first)
		require.NoError(t, readers.Delete([]byte("damaged")))
		time.Sleep(5 * time.Second)
		first, _, err = w.b.Topic().Bounds()
		require.NoError(t, err)
		require.EqualValues(t, 99, first)
		w.close()
	})
}

// TestLettersBehindAHungDisk: who waits for his turn leaves when his context ends.
func TestLettersBehindAHungDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := vfs.NewInjector(vfs.NewMem())
		db := openDB(t, in)
		var target sinktest.Memory
		target.Refuse(refuseBad)
		b, err := buffer.Open(db, "b", &target, nil)
		require.NoError(t, err)
		for range 2 {
			_, err = b.Add(buffer.Row{Value: []byte("bad")})
			require.NoError(t, err)
		}
		require.NoError(t, b.Flush(t.Context()))
		gate := vfs.NewGate()
		rule := in.Add(vfs.Rule{Call: vfs.CallSyncData, Gate: gate})
		hung := make(chan error, 1)
		go func() {
			_, err := b.Purge(t.Context(), nil)
			hung <- err
		}()
		<-gate.Arrived()
		for _, do := range []func(context.Context, func(*buffer.DeadLetter) bool) (int, error){b.Redrive, b.Purge} {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			n, err := do(ctx, nil)
			cancel()
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.Zero(t, n)
		}
		gate.Release()
		require.NoError(t, <-hung)
		rule.Remove()
		require.NoError(t, b.Shutdown(t.Context()))
		require.NoError(t, db.Close())
	})
}
