package forebay_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/vfs"
)

// smallDisk mounts a file system of so many bytes. Where nobody may mount one, it
// is one in memory.
func smallDisk(t *testing.T, size int64) (vfs.FS, string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "disk")
	require.NoError(t, os.Mkdir(dir, 0o700))
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d", size)); err != nil {
		t.Logf("in memory: mounting a small file system needs root: %v", err)
		mem := vfs.NewMem()
		require.NoError(t, mem.MkdirAll(dir))
		mem.SetCapacity(size)
		return mem, dir
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	return vfs.OS(), dir
}

// TestDiskFull fills a real file system of 64 MiB, of which a ballast has a part.
// Writers get errors of their own kind and nothing else, reads go on; when the
// ballast goes, writes go on without a reopen; and nothing acknowledged is lost.
//
// With small memtables it is a checkpoint that finds no room, with large ones the
// log.
func TestDiskFull(t *testing.T) {
	t.Run("checkpoint", func(t *testing.T) { fillDisk(t, 1<<20) })
	t.Run("log", func(t *testing.T) { fillDisk(t, 16<<20) })
}

func fillDisk(t *testing.T, memtable int64) {
	fsys, dir := smallDisk(t, 64<<20)
	ballast := filepath.Join(dir, "ballast")
	f, err := fsys.Create(ballast, vfs.ReadWrite)
	require.NoError(t, err)
	require.NoError(t, f.Zero(0, 24<<20))
	require.NoError(t, f.Close())
	open := func() *forebay.DB {
		db, err := forebay.Open(filepath.Join(dir, "db"), &forebay.Options{FS: fsys, MemtableSize: memtable, MemoryLimit: 8 * memtable, LogFileSize: 2 << 20})
		require.NoError(t, err)
		return db
	}
	db := open()
	const writers = 4
	var acked [writers]atomic.Int64
	value := func(w int, n int64) []byte {
		v := make([]byte, 1000)
		r := rand.New(rand.NewPCG(uint64(w), uint64(n)))
		for i := 0; i < len(v); i += 8 {
			binary.LittleEndian.PutUint64(v[i:], r.Uint64())
		}
		return v
	}
	key := func(w int, n int64) []byte { return fmt.Appendf(nil, "%d/%06d", w, n) }
	// write puts until an error, or until each has count more.
	write := func(count int64) (errs []error) {
		var wg sync.WaitGroup
		var mu sync.Mutex
		for w := range writers {
			wg.Go(func() {
				for range count {
					n := acked[w].Load()
					if err := db.Put(key(w, n), value(w, n)); err != nil {
						mu.Lock()
						errs = append(errs, err)
						mu.Unlock()
						return
					}
					acked[w].Store(n + 1)
				}
			})
		}
		wg.Wait()
		return errs
	}
	check := func(what string) {
		t.Helper()
		for w := range writers {
			for n := range acked[w].Load() {
				got, err := db.Get(key(w, n))
				require.NoError(t, err, "%s: %d/%d", what, w, n)
				require.Equal(t, value(w, n), got, "%s: %d/%d", what, w, n)
			}
		}
	}
	errs := write(1 << 20)
	require.Len(t, errs, writers, "the disk is full")
	total := func() (n int64) {
		for w := range acked {
			n += acked[w].Load()
		}
		return n
	}
	full := total()
	poisoned := false
	for _, err := range errs {
		t.Log(err)
		require.True(t, errors.Is(err, forebay.ErrFull) || errors.Is(err, forebay.ErrUnknown) || errors.Is(err, forebay.ErrPoisoned), "%v", err)
		poisoned = poisoned || errors.Is(err, forebay.ErrUnknown) || errors.Is(err, forebay.ErrPoisoned)
	}
	check("while the disk is full")
	require.NoError(t, fsys.Remove(ballast))
	if poisoned { // a failed write of the log itself: the store must be opened again
		require.NoError(t, errors.Join(ignorePoison(db.Close())))
		db = open()
		check("after a reopen")
	}
	require.Eventually(t, func() bool { return len(write(500)) == 0 }, 30*time.Second, 50*time.Millisecond, "writes go on once there is room")
	check("after writes went on")
	require.NoError(t, db.Close())
	db = open()
	check("at last")
	_, err = db.Verify(background)
	require.NoError(t, err)
	require.NoError(t, db.Close())
	t.Logf("full after %d puts of 1,000 bytes, poisoned %v; %d at last", full, poisoned, total())
}

// ignorePoison is for the Close of a store whose log is poisoned.
func ignorePoison(err error) error {
	if errors.Is(err, forebay.ErrPoisoned) {
		return nil
	}
	return err
}
