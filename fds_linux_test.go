package forebay_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay"
)

// TestOutOfFileDescriptors runs a store in a process that may open few files more:
// none, one, two and so on. Calls are refused with an error that says so, or the
// store is poisoned; nothing acknowledged is lost, and when the limit is lifted all
// goes on, if need be after a reopen.
//
// The limit is the process's, so it is a process of its own.
func TestOutOfFileDescriptors(t *testing.T) {
	cmd := exec.Command(os.Args[0], "-test.run", "^TestFileDescriptorsChild$", "-test.count=1", "-test.v")
	cmd.Env = append(os.Environ(), "FOREBAY_FDS="+t.TempDir())
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Contains(t, string(out), "--- PASS: TestFileDescriptorsChild")
	t.Logf("%s", out)
}

// TestFileDescriptorsChild is run by TestOutOfFileDescriptors.
func TestFileDescriptorsChild(t *testing.T) {
	dir := os.Getenv("FOREBAY_FDS")
	if dir == "" {
		t.Skip("a child of TestOutOfFileDescriptors")
	}
	var outcomes [3]int
	for more := range 10 {
		for _, open := range []bool{false, true} {
			outcomes[fewDescriptors(t, filepath.Join(dir, fmt.Sprint(more, open)), more, open)]++
		}
	}
	t.Logf("not refused %d, went on by itself %d, after a reopen %d", outcomes[0], outcomes[1], outcomes[2])
	require.NotZero(t, outcomes[0])
	require.NotZero(t, outcomes[1]+outcomes[2])
}

// fewDescriptors plays a store with so many descriptors more, counted from before
// its Open or from behind it. It says how it went on: 0 nothing was refused, 1 by
// itself, 2 by a reopen.
func fewDescriptors(t *testing.T, dir string, more int, opened bool) int {
	ctx := context.Background()
	open := func() (*forebay.DB, error) {
		return forebay.Open(dir, &forebay.Options{MarkDelay: -1, LogFileSize: 16 << 10, MemtableSize: 8 << 10})
	}
	proper := func(err error) {
		var damage *forebay.CorruptionError
		require.False(t, errors.As(err, &damage), "%v", err)
		require.ErrorIs(t, err, syscall.EMFILE)
	}
	lift := func() {}
	if !opened {
		lift = limitFiles(t, more)
	}
	db, err := open()
	if err != nil {
		proper(err)
		lift()
		db, err = open()
		require.NoError(t, err)
		require.NoError(t, db.Put([]byte("k"), []byte("v")))
		require.NoError(t, db.Close())
		return 2
	}
	if opened {
		lift = limitFiles(t, more)
	}
	refused := 0
	acked := map[string]string{}
	for i := range 24 {
		key, value := fmt.Sprintf("key %d", i%9), fmt.Sprintf("value %d %0900d", i, i)
		if err := db.Put([]byte(key), []byte(value)); err == nil {
			acked[key] = value
		} else {
			proper(err)
			refused++
		}
		if i%8 == 7 {
			if err := db.Checkpoint(ctx); err != nil {
				proper(err)
				refused++
			}
		}
		if i == 12 {
			if _, err := db.Backup(ctx, dir+"-copy"); err != nil {
				proper(err)
				refused++
			}
		}
		for key, value := range acked {
			if got, err := db.Get([]byte(key)); err != nil {
				proper(err)
			} else {
				require.Equal(t, value, string(got))
			}
		}
	}
	lift()
	how := min(refused, 1)
	err = db.Put([]byte("after"), nil)
	for range 1000 { // a memtable that could not be settled is tried again, but not at once
		if !errors.Is(err, forebay.ErrFull) {
			break
		}
		proper(err)
		time.Sleep(10 * time.Millisecond)
		err = db.Put([]byte("after"), nil)
	}
	if err != nil {
		require.ErrorIs(t, err, forebay.ErrPoisoned)
		proper(err)
		how = 2
	} else {
		require.NoError(t, db.Checkpoint(ctx))
		require.NoError(t, db.Compact(ctx))
	}
	if err := db.Close(); err != nil {
		proper(err)
	}
	db, err = open()
	require.NoError(t, err)
	for key, value := range acked {
		got, err := db.Get([]byte(key))
		require.NoError(t, err)
		require.Equal(t, value, string(got))
	}
	require.NoError(t, db.Put([]byte("k"), []byte("v")))
	_, err = db.Verify(ctx)
	require.NoError(t, err)
	require.NoError(t, db.Close())
	return how
}

// limitFiles lets the process open so many files more, until lift is called.
func limitFiles(t *testing.T, more int) (lift func()) {
	var old syscall.Rlimit
	require.NoError(t, syscall.Getrlimit(syscall.RLIMIT_NOFILE, &old))
	// The limit is on the numbers: those that are free below the highest are taken.
	var fill []*os.File
	highest := 0
	for fd := range 1024 {
		var st syscall.Stat_t
		if syscall.Fstat(fd, &st) == nil {
			highest = fd
		}
	}
	for {
		f, err := os.Open(os.DevNull)
		require.NoError(t, err)
		if int(f.Fd()) > highest {
			highest = int(f.Fd()) - 1
			require.NoError(t, f.Close())
			break
		}
		fill = append(fill, f)
	}
	low := old
	low.Cur = uint64(highest + 1 + more)
	require.NoError(t, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &low))
	return func() {
		require.NoError(t, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &old))
		for _, f := range fill {
			require.NoError(t, f.Close())
		}
	}
}
