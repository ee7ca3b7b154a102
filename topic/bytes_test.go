package topic_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/topic"
	"github.com/forebaydb/forebay/vfs"
)

// TestBytes: a message costs the disk little more than its length, and once, when its
// readers follow; and then the log on the disk is what is live and three files at most:
// the oldest of which some is gone, the one that is written, and one ahead.
func TestBytes(t *testing.T) {
	const file, size, group = 256 << 10, 500, 100
	mem := vfs.NewMem()
	db, err := forebay.Open("data", &forebay.Options{FS: mem, LogFileSize: file, MarkDelay: -1})
	require.NoError(t, err)
	defer db.Close()
	tp, err := topic.Open(db, "t", &topic.Options{MaxMessages: 1, Every: -1})
	require.NoError(t, err)
	defer tp.Close()
	quick, err := tp.Reader("quick")
	require.NoError(t, err)
	slow, err := tp.Reader("slow") // 2,000 behind
	require.NoError(t, err)
	n, most := uint64(0), 0.0 // files beside what is live
	for range 300 {
		b := db.NewBatch()
		for range group {
			require.NoError(t, tp.AppendTo(b, make([]byte, size)))
		}
		require.NoError(t, quick.Move(b, n))
		if n >= 2000 {
			require.NoError(t, slow.Move(b, n-2000))
		}
		require.NoError(t, db.Apply(b, forebay.Durable))
		if n += group; n%1000 == 0 {
			_, err := tp.Retain(context.Background())
			require.NoError(t, err)
		}
		if n%5000 == 0 {
			require.NoError(t, db.Checkpoint(context.Background()))
			first, next, err := tp.Bounds()
			require.NoError(t, err)
			require.LessOrEqual(t, next-first, uint64(2000+2*group+1000))
			log := db.Stats().Log
			live := int64(next-first) * size
			most = max(most, float64(log.FileBytes+log.SpareBytes-live*11/10)/file)
			require.LessOrEqual(t, log.FileBytes+log.SpareBytes, live*11/10+3*file, "at %d", n)
		}
	}
	s := db.Stats()
	user := float64(n * size)
	t.Logf("log %.3f, segments %.3f bytes for each byte of a message; at most %.2f files beside what is live", float64(s.Log.Bytes)/user, float64(s.SettledBytes+s.CompactionWritten)/user, most)
	require.LessOrEqual(t, float64(s.Log.Bytes+s.SettledBytes+s.CompactionWritten)/user, 1.1)
}
