package forebay

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/vfs"
)

// A transaction whose function failed, and whose context ended while it waited for what
// it had read, told its hooks that it was committed.
func TestOutcomeOfAFailureThatWasNotWaitedFor(t *testing.T) {
	db := open(t, small(vfs.NewMem()))
	defer db.Close()
	require.NoError(t, db.Put([]byte("x"), []byte("old")))
	for ahead := false; !ahead; { // until the second comes into the lane in time
		failure := errors.New("no")
		ctx, cancel := context.WithCancel(context.Background())
		both := make(chan bool, 2)
		enter := make(chan bool)
		first, second := make(chan error, 1), make(chan error, 1)
		told := make(chan Outcome, 1)
		read := make(chan string, 1)
		in := make(chan bool)
		go func() {
			calls := 0
			first <- db.UpdateLevel(context.Background(), Durable, func(tx *Tx) error {
				if calls++; calls == 1 {
					return ErrConflict
				}
				both <- true
				<-enter
				return tx.Put([]byte("x"), []byte("new"))
			})
		}()
		<-both // it has its turn
		go func() {
			calls := 0
			second <- db.UpdateLevel(ctx, Durable, func(tx *Tx) error {
				if calls++; calls == 1 {
					close(in)
					return ErrConflict
				}
				tx.OnDone(func(o Outcome) { told <- o })
				v, err := tx.Get([]byte("x"))
				if err != nil {
					return err
				}
				ahead = tx.ahead
				read <- string(v)
				return failure
			})
		}()
		<-in
		time.Sleep(time.Millisecond) // so that it waits for its turn
		require.NoError(t, db.log.Exclusive(func() {
			close(enter)
			select {
			case <-read:
			case <-time.After(100 * time.Millisecond): // it came too late
			}
			cancel()
			require.Error(t, <-second)
		}))
		require.NoError(t, <-first)
		if ahead {
			require.ErrorIs(t, (<-told).Err, failure)
		}
		require.NoError(t, db.Put([]byte("x"), []byte("old")))
	}
}
