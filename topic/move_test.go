package topic_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/topic"
	"github.com/forebaydb/forebay/vfs"
)

// A reader that was moved back between Retain's look at the readers and its trim lost what
// it had before it then: the move succeeded, and the messages went all the same.
func TestMoveBackBesideRetain(t *testing.T) {
	byBatch := func(db *forebay.DB, r *topic.Reader) error {
		b := db.NewBatch()
		return errors.Join(r.Move(b, 2), db.Apply(b, forebay.Durable))
	}
	byTx := func(db *forebay.DB, r *topic.Reader) error {
		return db.UpdateLevel(context.Background(), forebay.Durable, func(tx *forebay.Tx) error { return r.MoveTx(tx, 10, 2) })
	}
	for _, c := range []struct {
		name  string
		move  func(*forebay.DB, *topic.Reader) error
		first string // whose commit is before the disk when the other one begins
	}{{"a batch", byBatch, "move"}, {"a transaction", byTx, "move"}, {"a transaction", byTx, "retain"}} {
		t.Run(fmt.Sprintf("%s, %s first", c.name, c.first), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				in := vfs.NewInjector(vfs.NewMem())
				db := open(t, in)
				tp, err := topic.Open(db, "t", &topic.Options{MaxMessages: 1, Every: -1})
				require.NoError(t, err)
				for range 10 {
					_, err := tp.Append([]byte("x"))
					require.NoError(t, err)
				}
				r, err := tp.Reader("r")
				require.NoError(t, err)
				b := db.NewBatch()
				require.NoError(t, r.Move(b, 10))
				require.NoError(t, db.Apply(b, forebay.Durable))

				gate := vfs.NewGate()
				defer gate.Release()
				in.Add(vfs.Rule{Call: vfs.CallSyncData, Gate: gate})
				in.Add(vfs.Rule{Call: vfs.CallSync, Gate: gate})
				moved, retained := make(chan error, 1), make(chan error, 1)
				move := func() { moved <- c.move(db, r) }
				retain := func() { _, err := tp.Retain(context.Background()); retained <- err }
				one, other := move, retain
				if c.first == "retain" {
					one, other = retain, move
				}
				go one()
				<-gate.Arrived()
				go other()
				synctest.Wait()
				gate.Release()
				require.NoError(t, <-retained)
				first, _, err := tp.Bounds()
				require.NoError(t, err)
				at, oerr := r.Offset()
				require.NoError(t, oerr)
				if err := <-moved; err != nil {
					require.ErrorIs(t, err, topic.ErrGone)
					require.Equal(t, "retain", c.first)
					require.Equal(t, uint64(9), first)
					require.Equal(t, uint64(10), at)
					require.ErrorIs(t, byBatch(db, r), topic.ErrGone)
				} else {
					require.Equal(t, "move", c.first)
					require.Equal(t, uint64(2), at)
					require.Equal(t, uint64(2), first, "what the reader has before it")
					require.Len(t, payloads(t, tp, at), 8)
				}
				// Whoever comes now begins with what is there.
				late, err := tp.Reader("late")
				require.NoError(t, err)
				at, err = late.Offset()
				require.NoError(t, err)
				require.Equal(t, first, at)
				readers, err := tp.Readers()
				require.NoError(t, err)
				require.Len(t, readers, 2)
				require.NoError(t, db.Close())
			})
		})
	}
}
