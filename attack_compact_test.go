package forebay

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/vfs"
)

// handler is a log handler that looks at the store.
type handler struct {
	slog.Handler
	each func(slog.Record)
}

func (h handler) Enabled(context.Context, slog.Level) bool { return true }

func (h handler) Handle(_ context.Context, r slog.Record) error {
	h.each(r)
	return nil
}

// fill makes n segments of level 0.
func fill(t *testing.T, db *DB, n int) {
	t.Helper()
	for i := range n {
		for j := range 20 {
			require.NoError(t, db.Put(fmt.Appendf(nil, "key %02d", j), bytes.Repeat([]byte{byte(i)}, 500)))
		}
		require.NoError(t, db.Checkpoint(context.Background()))
	}
}

func TestAttackLoggerLooksAtTheStore(t *testing.T) {
	mem := vfs.NewMem()
	in := vfs.NewInjector(mem)
	var db *DB
	told := make(chan struct{}, 1000)
	o := small(in)
	o.Logger = slog.New(handler{each: func(r slog.Record) {
		if strings.Contains(r.Message, "compaction") || strings.Contains(r.Message, "damage") {
			db.Stats()
			told <- struct{}{}
		}
	}})
	db = open(t, o)
	fill(t, db, 1)
	bad := in.Add(vfs.Rule{Call: vfs.CallRead, Name: "000001.seg", Forever: true, Err: syscall.EIO})
	fill(t, db, 8)
	select {
	case <-told:
	case <-time.After(3 * time.Second):
		t.Fatal("the logger waits for a lock of the store")
	}
	bad.Remove()
	require.NoError(t, db.Close())
}

// A compaction that fails for long is tried less and less often.
func TestAttackCompactionBacksOff(t *testing.T) {
	in := vfs.NewInjector(vfs.NewMem())
	db := open(t, small(in))
	defer db.Close()
	var last time.Duration
	for i := range 4 {
		db.compact.mu.Lock()
		db.compact.failed(db)
		wait := db.compact.delay
		db.compact.mu.Unlock()
		require.Greater(t, wait, last, i)
		last = wait
		require.Eventually(t, func() bool {
			db.compact.mu.Lock()
			defer db.compact.mu.Unlock()
			return !db.compact.waiting
		}, 5*time.Second, time.Millisecond)
	}
}

// A segment that the disk does not let be read keeps no other from being
// compacted.
func TestAttackUnreadableSegmentStandsAlone(t *testing.T) {
	in := vfs.NewInjector(vfs.NewMem())
	db := open(t, small(in))
	defer db.Close()
	at := func(prefix string, i int) {
		for j := range 20 {
			require.NoError(t, db.Put(fmt.Appendf(nil, "%s %02d", prefix, j), bytes.Repeat([]byte{byte(i)}, 500)))
		}
		require.NoError(t, db.Checkpoint(context.Background()))
	}
	at("a", 0)
	in.Add(vfs.Rule{Call: vfs.CallRead, Name: "000001.seg", Forever: true, Err: syscall.EIO})
	for i := range 7 {
		at("a", i) // more of them: they would always be the first
	}
	for i := range 5 {
		at("b", i)
	}
	require.Eventually(t, func() bool { return db.Stats().Compactions > 0 && len(db.view.Load().zero) <= 9 }, 5*time.Second, 5*time.Millisecond)
}
