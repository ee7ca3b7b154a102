package wal

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/vfs"
)

// TestOneRecordOfTheFileThatIsWritten: a reader that begins somewhere in the file that is
// written goes to its record at once, also while the file fills, is left and is cut.
func TestOneRecordOfTheFileThatIsWritten(t *testing.T) {
	l, err := Open("log", &Options{FS: vfs.NewMem(), FirstFileSize: 1 << 20, FileSize: 1 << 20, MarkDelay: -1})
	require.NoError(t, err)
	const n = 6000
	for i := range n {
		_, err := l.Append(fmt.Appendf(nil, "record %d %200d", i+1, 0))
		require.NoError(t, err)
		if i%997 != 0 {
			continue
		}
		for at := uint64(1); at <= uint64(i+1); at += 97 {
			tail, err := l.NewTail(Position{Epoch: l.EpochAt(at - 1), LSN: at - 1})
			require.NoError(t, err)
			_, err = tail.ready()
			require.NoError(t, err)
			require.NoError(t, tail.openFile())
			if files := l.Files(); at >= files[len(files)-1].First+40 { // of the file that is written
				require.True(t, tail.sought, "record %d of %d", at, i+1)
			}
			pos, rec, ok, err := tail.TryNext()
			require.NoError(t, err)
			require.True(t, ok)
			require.Equal(t, at, pos.LSN)
			require.Equal(t, fmt.Sprintf("record %d", at), string(rec[:len(fmt.Sprintf("record %d", at))]))
			require.NoError(t, tail.Close())
		}
	}
	require.Greater(t, len(l.Files()), 1)
	require.NoError(t, l.TruncateBack(n-10))
	_, err = l.Append([]byte("another"))
	require.NoError(t, err)
	tail, err := l.NewTail(Position{Epoch: l.EpochAt(n - 10), LSN: n - 10})
	require.NoError(t, err)
	_, rec, ok, err := tail.TryNext()
	require.NoError(t, err)
	require.True(t, ok)
	require.Equal(t, "another", string(rec))
	require.NoError(t, tail.Close())
	require.NoError(t, l.Close())
}
