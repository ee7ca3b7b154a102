package forebay_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/vfs"
)

// TestFollowNewKeyspaces: who follows the changes as they become durable knows
// the names of keyspaces that have just been made, and what he is told of is
// there to be read.
func TestFollowNewKeyspaces(t *testing.T) {
	db := openSmall(t, vfs.NewMem())
	require.NoError(t, db.Pin("follower", 0))
	const n = 2000
	ctx, cancel := context.WithCancel(background)
	defer cancel()
	followed := make(chan error, 1)
	go func() {
		followed <- func() error {
			for c, err := range db.Follow(ctx, forebay.Position{}) {
				if err != nil {
					return err
				}
				if v := db.Stats().VisibleLSN; v < c.LSN {
					return fmt.Errorf("commit %d is told of, and %d is visible", c.LSN, v)
				}
				if c.LSN == n {
					return nil
				}
			}
			return ctx.Err()
		}()
	}()
	for i := range n {
		require.NoError(t, db.Update(func(tx *forebay.Tx) error {
			ks, err := tx.Keyspace(fmt.Sprint("space ", i))
			if err != nil {
				return err
			}
			return ks.DeleteRange([]byte("a"), []byte("b"))
		}))
	}
	require.NoError(t, <-followed)
	require.NoError(t, db.Close())
}
