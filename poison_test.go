package forebay

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/manifest"
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

// TestFailedDirectorySyncPoisons: when the sync of a directory has failed, no
// later one proves anything, and so there is no next log file, and no checkpoint,
// until the store is opened again. It says so: that it is full would be a promise
// that it goes on by itself.
func TestFailedDirectorySyncPoisons(t *testing.T) {
	for _, cause := range []error{syscall.EIO, syscall.ENOSPC} {
		t.Run("log/"+cause.Error(), func(t *testing.T) {
			mem := vfs.NewMem()
			in := vfs.NewInjector(mem)
			o := &Options{FS: in, MarkDelay: -1, LogFileSize: 16 << 10}
			db := open(t, o)
			in.Add(vfs.Rule{Call: vfs.CallSyncDir, Err: cause}) // once
			n := 0
			var err error
			for ; err == nil && n < 100; n++ {
				err = db.Put(fmt.Appendf(nil, "%d", n), make([]byte, 1000))
			}
			require.ErrorIs(t, err, ErrPoisoned)
			require.NotErrorIs(t, err, ErrFull)
			require.ErrorIs(t, err, cause)
			require.ErrorIs(t, db.Put([]byte("k"), nil), ErrPoisoned)
			require.Error(t, db.Close())
			db = open(t, o)
			require.Len(t, contents(t, db), n-1)
			require.NoError(t, db.Put([]byte("k"), nil))
			require.NoError(t, db.Close())
		})
		t.Run("checkpoint/"+cause.Error(), func(t *testing.T) {
			in := vfs.NewInjector(vfs.NewMem())
			o := &Options{FS: in, MarkDelay: -1}
			db := open(t, o)
			require.NoError(t, db.Put([]byte("k"), nil))
			in.Add(vfs.Rule{Call: vfs.CallSyncDir, Err: cause}) // once
			require.ErrorIs(t, db.Checkpoint(context.Background()), cause)
			require.ErrorIs(t, db.Checkpoint(context.Background()), ErrPoisoned)
			require.ErrorIs(t, db.Put([]byte("l"), nil), ErrPoisoned)
			_, err := db.Get([]byte("k"))
			require.NoError(t, err)
			require.Error(t, db.Close())
			db = open(t, o)
			require.Len(t, contents(t, db), 1)
			require.NoError(t, db.Checkpoint(context.Background()))
			require.NoError(t, db.Close())
		})
	}
}

// TestNobodyHearsOfAPoisonTooSoon: between the failure of an edit of the manifest
// and the poison of the log a writer that waits for room could be told that the
// store is poisoned, and the next be accepted.
func TestNobodyHearsOfAPoisonTooSoon(t *testing.T) {
	in := vfs.NewInjector(vfs.NewMem())
	db := open(t, &Options{FS: in, MarkDelay: -1})
	require.NoError(t, db.Put([]byte("k"), nil))
	in.Add(vfs.Rule{Call: vfs.CallWrite, Name: "MANIFEST-*", Err: syscall.EIO})
	require.ErrorIs(t, db.man.Apply(&manifest.Edit{}), syscall.EIO) // as a compaction does
	require.ErrorIs(t, db.stuck(), ErrPoisoned)
	err := db.Put([]byte("k"), nil)
	require.ErrorIs(t, err, ErrPoisoned)
	require.ErrorIs(t, err, syscall.EIO)
	require.ErrorIs(t, db.Close(), syscall.EIO)
}
