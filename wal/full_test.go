package wal_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/vfs"
	"github.com/forebaydb/forebay/wal"
)

// logBytes sums the sizes of the log files on the disk.
func logBytes(t *testing.T, fs vfs.FS) (n int64) {
	t.Helper()
	names, err := fs.List("db")
	require.NoError(t, err)
	for _, name := range names {
		if _, ok := wal.ParseFileName(name); ok {
			info, _ := fs.Stat(filepath.Join("db", name)) // it may be gone by now
			n += info.Size
		}
	}
	return n
}

// TestFull: at MaxBytes appends are refused, reads and truncation go on, and
// then there is room again.
func TestFull(t *testing.T) {
	for _, max := range []int64{64 << 10, 100 << 10, 200 << 10, 1 << 20} {
		for _, noSpares := range []bool{true, false} {
			t.Run(fmt.Sprint(max>>10, "K/", noSpares), func(t *testing.T) {
				fs := vfs.NewMem()
				o := testOptions(fs)
				o.MaxBytes, o.NoSpares = max, noSpares
				l, _ := openAll(t, o)
				n := 0
				for range 5 {
					before := n
					var err error
					for {
						_, err = l.Append([]byte(longRecord(n + 1)))
						if err != nil {
							break
						}
						n++
						s := l.Stats()
						require.LessOrEqual(t, s.FileBytes+s.SpareBytes, max)
						require.LessOrEqual(t, logBytes(t, fs), max)
					}
					require.ErrorIs(t, err, wal.ErrFull)
					require.NoError(t, l.Err())
					require.Greater(t, n, before+5)
					require.Equal(t, wal.LSN(n), l.LastLSN())
					_, err = l.Append([]byte(longRecord(n + 1)))
					require.ErrorIs(t, err, wal.ErrFull)
					require.NoError(t, l.TruncateFront(l.DurableLSN()))
				}
				require.NoError(t, l.Close())
				l, got := openAll(t, o)
				require.Equal(t, wal.LSN(n), l.LastLSN())
				require.Equal(t, longRecord(n), got[len(got)-1])
				require.NoError(t, l.Close())
			})
		}
	}
}

// TestSpareIsNotInTheWay: a spare that is too small for a record must not take
// the room of the file that it needs: nothing that the owner may do would free it.
func TestSpareIsNotInTheWay(t *testing.T) {
	fs := vfs.NewMem()
	o := testOptions(fs)
	o.MaxBytes, o.FileSize, o.NoSpares = 64<<10, 64<<10, false
	l, _ := openAll(t, o)
	for l.Stats().SpareBytes == 0 {
		put(t, l, wal.Durable, longRecord(1))
		require.Len(t, l.Files(), 1)
		time.Sleep(time.Millisecond) // for the background
	}
	s := l.Stats()
	require.EqualValues(t, 16<<10, s.FileBytes)
	require.EqualValues(t, 16<<10, s.SpareBytes)
	require.Len(t, numbers(t, fs), 2)

	_, err := l.Append([]byte(strings.Repeat("x", 60<<10)))
	require.ErrorIs(t, err, wal.ErrFull)
	require.NoError(t, l.Err())
	require.EqualValues(t, 16<<10, l.Stats().SpareBytes, "it stays where it makes no difference")
	put(t, l, wal.Durable, strings.Repeat("x", 30<<10))
	require.LessOrEqual(t, logBytes(t, fs), o.MaxBytes)
	require.Equal(t, live(l), numbers(t, fs))
	s = l.Stats()
	require.Zero(t, s.SpareBytes)
	require.Equal(t, logBytes(t, fs), s.FileBytes)
	require.NoError(t, l.Close())
	_, got := openAll(t, o)
	require.Equal(t, strings.Repeat("x", 30<<10), got[len(got)-1])
}

// TestSpareBytes: files of the history and spares are all that there is.
func TestSpareBytes(t *testing.T) {
	fs := vfs.NewMem()
	o := testOptions(fs)
	o.NoSpares, o.FirstFileSize, o.FileSize = false, 32<<10, 32<<10
	l, _ := openAll(t, o)
	spares := false
	for i := range 400 {
		put(t, l, wal.Durable, longRecord(i+1))
		switch {
		case i%10 == 0:
			time.Sleep(100 * time.Microsecond) // for the background
		case i%37 == 0:
			require.NoError(t, l.TruncateBack(l.LastLSN()-1))
		case i%7 == 0:
			require.NoError(t, l.TruncateFront(l.DurableLSN()))
		}
		spares = spares || l.Stats().SpareBytes > 0
	}
	require.True(t, spares)
	require.Eventually(t, func() bool {
		s := l.Stats()
		return s.FileBytes+s.SpareBytes == logBytes(t, fs)
	}, 5*time.Second, time.Millisecond)
	require.NoError(t, l.Close())
	s := l.Stats()
	require.Zero(t, s.SpareBytes)
	require.Equal(t, logBytes(t, fs), s.FileBytes)
}
