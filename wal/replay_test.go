package wal_test

import (
	"errors"
	"fmt"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/vfs"
	"github.com/forebaydb/forebay/wal"
)

// replayed returns the records that a log replays from an LSN on.
func replayed(l *wal.Log, from wal.LSN) (got []string, err error) {
	err = l.Replay(from, func(lsn wal.LSN, rec []byte) error {
		if lsn != from+wal.LSN(len(got)) {
			return fmt.Errorf("record %d where %d is due", lsn, from+wal.LSN(len(got)))
		}
		got = append(got, string(rec))
		return nil
	})
	return got, err
}

// TestReplayIsWhatTheOpenRead: from every LSN on, also of logs of which the open had
// to copy the end.
func TestReplayIsWhatTheOpenRead(t *testing.T) {
	for _, codec := range []wal.Codec{wal.NoCompression, wal.S2} {
		mem := vfs.NewMem()
		o := testOptions(mem)
		o.Compression = codec
		for round := range 3 {
			l, want := openAll(t, o)
			got, err := replayed(l, 1)
			require.NoError(t, err)
			require.Equal(t, want, got)
			for from := 1; from <= len(want)+2; from += 7 {
				got, err := replayed(l, wal.LSN(from))
				require.NoError(t, err)
				require.Equal(t, len(want[min(from-1, len(want)):]), len(got))
			}
			files(t, l, round+3, 0)
			put(t, l, wal.Written, "not proven")
			mem = mem.Snapshot() // a kill
			o.FS = mem
		}
		l, want := openAll(t, o)
		require.Positive(t, l.Recovery().Copied)
		// What has been let go is not there any more; the rest is.
		all := l.Files()
		require.NoError(t, l.TruncateFront(all[0].Last))
		got, err := replayed(l, all[1].First)
		require.NoError(t, err)
		require.Equal(t, want[all[0].Last:], got)
		enough := errors.New("enough")
		require.ErrorIs(t, l.Replay(1, func(wal.LSN, []byte) error { return enough }), enough)
		require.NoError(t, l.Close())
	}
}

// TestReplayMeetsFaults: each call that fails is named; and a record that verified
// when the log was opened, and does not any more, is damage.
func TestReplayMeetsFaults(t *testing.T) {
	mem := grown(t)
	tries := 0
	for _, call := range []vfs.Call{vfs.CallOpen, vfs.CallSize, vfs.CallRead} {
		for k := 1; ; k++ {
			in := vfs.NewInjector(mem.Snapshot())
			l, want := openAll(t, testOptions(in))
			rule := in.Add(vfs.Rule{Call: call, K: k, Err: syscall.EIO})
			got, err := replayed(l, l.Floor()+1)
			rule.Remove()
			if rule.Hits() == 0 {
				require.NoError(t, err)
				require.Equal(t, want, got)
				require.NoError(t, l.Close())
				break
			}
			tries++
			require.ErrorIs(t, err, syscall.EIO)
			require.NoError(t, l.Close())
		}
	}
	require.Greater(t, tries, 5)
	for _, off := range []int64{5, 5000} {
		disk := mem.Snapshot()
		l, _ := openAll(t, testOptions(disk))
		all := l.Files()
		name := "db/" + all[len(all)-2].Name
		require.NoError(t, disk.Corrupt(name, off, 1, func(b []byte) { b[0] ^= 1 }))
		_, err := replayed(l, l.Floor()+1)
		var damage *wal.CorruptionError
		require.ErrorAs(t, err, &damage)
		require.Equal(t, name, damage.File)
		require.NoError(t, l.Close())
	}
}
