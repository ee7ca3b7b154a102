package forebay

import (
	"context"
	"errors"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/vfs"
)

// TestTransactionEndsBehindAPoison: a commit that failed is remembered as one that
// others conflict with, and is never applied. A transaction on the same key does
// not try again for ever.
func TestTransactionEndsBehindAPoison(t *testing.T) {
	in := vfs.NewInjector(vfs.NewMem())
	db := open(t, &Options{FS: in, MarkDelay: -1})
	count := func(tx *Tx) error {
		n, err := tx.Get([]byte("k"))
		if err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
		return tx.Put([]byte("k"), append(n, '.'))
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	in.Add(vfs.Rule{Call: vfs.CallWrite, Name: "*.log", Err: syscall.EIO, K: 3})
	var err error
	for err == nil {
		require.NoError(t, ctx.Err())
		err = db.UpdateLevel(ctx, Written, count)
	}
	require.ErrorIs(t, err, ErrUnknown)
	err = db.UpdateLevel(ctx, Written, count)
	require.ErrorIs(t, err, ErrPoisoned)
	require.ErrorIs(t, err, syscall.EIO)
	require.ErrorIs(t, db.Close(), syscall.EIO)
}
