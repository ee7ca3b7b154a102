package wal_test

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/vfs"
	"github.com/forebaydb/forebay/wal"
)

// TestQueueIsBounded: while the disk hangs, Submit takes some megabytes of records
// and then waits, so that who submits and does not wait does not fill the memory.
func TestQueueIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := vfs.NewInjector(vfs.NewMem())
		l, _ := openAll(t, testOptions(in))
		put(t, l, wal.Durable, "1")
		gate := vfs.NewGate()
		in.Add(vfs.Rule{Call: vfs.CallSyncData, Name: "*.log", Gate: gate})
		record := make([]byte, 64<<10)
		var taken atomic.Int64
		const submits = 1000
		done := make(chan []*wal.Request)
		go func() {
			var reqs []*wal.Request
			for range submits {
				r := &wal.Request{Level: wal.Durable, Records: []wal.Record{{Data: record}}}
				if err := l.Submit(r); err != nil {
					t.Error(err)
				}
				taken.Add(int64(len(record)))
				reqs = append(reqs, r)
			}
			done <- reqs
		}()
		time.Sleep(time.Hour)
		require.Greater(t, taken.Load(), int64(1<<20))
		require.Less(t, taken.Load(), int64(submits*len(record)/2))
		t.Logf("%d bytes wait", taken.Load())
		gate.Release()
		for _, r := range <-done {
			require.NoError(t, l.Wait(context.Background(), r))
		}
		require.Equal(t, wal.LSN(submits+1), l.DurableLSN())
		require.NoError(t, l.Close())
	})
}
