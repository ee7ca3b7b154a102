package forebay

import (
	"bytes"
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/vfs"
)

func TestAttackCheckpointEndsWithItsContext(t *testing.T) {
	in := vfs.NewInjector(vfs.NewMem())
	db := open(t, small(in))
	require.NoError(t, db.Put([]byte("k"), nil))
	gate := vfs.NewGate()
	in.Add(vfs.Rule{Call: vfs.CallSyncData, Name: "*.log", Forever: true, Gate: gate})
	go db.Put([]byte("l"), nil)
	<-gate.Arrived()
	for name, call := range map[string]func(ctx context.Context) error{
		"checkpoint": db.Checkpoint, "compact": db.Compact,
		"backup": func(ctx context.Context) error { _, err := db.Backup(ctx, "copy"); return err },
	} {
		done := make(chan error, 1)
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
			defer cancel()
			done <- call(ctx)
		}()
		select {
		case err := <-done:
			require.ErrorIs(t, err, context.DeadlineExceeded, name)
		case <-time.After(2 * time.Second):
			gate.Release()
			t.Fatalf("%s waits for a disk that hangs", name)
		}
	}
	gate.Release()
	require.NoError(t, db.Checkpoint(context.Background()))
	require.NoError(t, db.Close())
}

// A backup says at which position it was cut, also when the log has moved on while
// it copied.
func TestAttackBackupKnowsItsEpoch(t *testing.T) {
	in := vfs.NewInjector(vfs.NewMem())
	db := open(t, small(in))
	fill(t, db, 1)
	gate := vfs.NewGate()
	in.Add(vfs.Rule{Call: vfs.CallCreate, Name: "copy/*", Gate: gate, K: 1})
	type result struct {
		info BackupInfo
		err  error
	}
	done := make(chan result, 1)
	go func() {
		info, err := db.Backup(context.Background(), "copy")
		done <- result{info, err}
	}()
	<-gate.Arrived()
	for i := range 100 {
		require.NoError(t, db.Put(fmt.Append(nil, i), bytes.Repeat([]byte("v"), 1000)))
	}
	require.NoError(t, db.Checkpoint(context.Background()))
	gate.Release()
	r := <-done
	require.NoError(t, r.err)
	require.NotZero(t, r.info.At.LSN)
	require.NotZero(t, r.info.At.Epoch)
	require.NoError(t, db.Close())
}
