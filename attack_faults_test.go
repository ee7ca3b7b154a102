package forebay

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/vfs"
)

// faulty runs a workload with checkpoints, compactions, keyspaces and a backup,
// and returns what checks that nothing of it that was acknowledged is missing.
func faulty(t *testing.T, in *vfs.Injector) (check func(db *DB, when string, damaged bool)) {
	o := &Options{FS: in, MarkDelay: -1, LogFileSize: 16 << 10, MemtableSize: 8 << 10}
	db, err := Open("db", o)
	if err != nil {
		return nil
	}
	ctx := context.Background()
	acked := map[string]string{}
	unknown := map[string][]string{}
	note := func(key, value string, err error) {
		switch {
		case err == nil:
			acked[key] = value
			delete(unknown, key)
		case errors.Is(err, ErrUnknown):
			unknown[key] = append(unknown[key], value)
		}
	}
	ks, kerr := db.Keyspace("space")
	for i := range 24 {
		key, value := fmt.Sprintf("key %d", i%7), fmt.Sprintf("%d %s", i, bytes.Repeat([]byte("v"), 900))
		note(key, value, db.Put([]byte(key), []byte(value)))
		if kerr == nil && i%3 == 0 {
			_ = ks.Put([]byte(key), []byte(value))
		}
		if i%5 == 4 {
			_ = db.Checkpoint(ctx)
		}
		if i%8 == 7 {
			key := fmt.Sprintf("key %d", i%5)
			note(key, "", db.DeleteRange([]byte(key), append([]byte(key), 0)))
		}
		if i == 12 {
			_, _ = db.Backup(ctx, "copy")
		}
		if i%10 == 9 {
			_ = db.Compact(ctx)
		}
	}
	check = func(db *DB, when string, damaged bool) {
		for key, value := range acked {
			v, err := db.Get([]byte(key))
			if damaged && err != nil && !errors.Is(err, ErrNotFound) {
				continue // the disk may not let it be read
			}
			got := string(v)
			require.True(t, err == nil || errors.Is(err, ErrNotFound), "%s: %v", when, err)
			require.True(t, got == value || slices.Contains(unknown[key], got), "%s: %s is %.10q, acknowledged %.10q, unknown %d", when, key, got, value, len(unknown[key]))
		}
	}
	check(db, "before the close", true)
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		_ = db.Close()
	}()
	select {
	case <-closed:
	case <-time.After(30 * time.Second):
		t.Fatal("Close hangs")
	}
	return check
}

// Whatever call fails, once or from then on: what was acknowledged stays, is read
// where the disk lets it be read, and is there after a power cut.
func TestAttackEveryCallFails(t *testing.T) {
	run := func(rule vfs.Rule) (*vfs.Mem, int, func(*DB, string, bool)) {
		mem := vfs.NewMem()
		in := vfs.NewInjector(mem)
		in.Add(rule)
		check := faulty(t, in)
		return mem, in.Count(vfs.CallNone), check
	}
	_, n, _ := run(vfs.Rule{Call: vfs.CallMark, Err: syscall.EIO})
	step := 3
	if testing.Short() {
		step = 41
	}
	for _, err := range []error{syscall.EIO, syscall.ENOSPC} {
		for _, forever := range []bool{false, true} {
			for k := 1; k <= n; k += step {
				rule := vfs.Rule{K: k, Forever: forever, Err: err}
				mem, _, check := run(rule)
				db, err := Open("db", &Options{FS: mem.PowerCutSeed(uint64(k), vfs.SectorAtomic), MarkDelay: -1, LogFileSize: 16 << 10, MemtableSize: 8 << 10})
				require.NoError(t, err, "%+v", rule)
				_, err = db.Verify(context.Background())
				require.NoError(t, err, "%+v", rule)
				if check != nil {
					check(db, fmt.Sprintf("%+v", rule), false)
				}
				require.NoError(t, db.Put([]byte("k"), nil))
				require.NoError(t, db.Compact(context.Background()))
				require.NoError(t, db.Close())
			}
		}
	}
}
