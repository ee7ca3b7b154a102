package wal_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/vfs"
	"github.com/forebaydb/forebay/wal"
)

// keepEvery commits records of which each nth is kept.
func keepEvery(t *testing.T, l *wal.Log, n, from, to int) {
	t.Helper()
	for i := from; i <= to; i++ {
		r := &wal.Request{Records: []wal.Record{{Data: fmt.Appendf(nil, "%d %s", i, strings.Repeat("x", 400))}}}
		if i%n == 0 {
			r.Records[0].Keep = 10
		}
		require.NoError(t, l.Commit(r))
		require.Equal(t, wal.LSN(i), r.First)
	}
}

// TestSkippingTailAtTheEndOfWhatIsHeld: behind a Trim nothing but retained files may be
// there; a reader goes over what is gone, and waits for what comes.
func TestSkippingTailAtTheEndOfWhatIsHeld(t *testing.T) {
	o := testOptions(vfs.NewMem())
	o.FirstFileSize = o.FileSize
	l, _ := openAll(t, o)
	defer l.Close()
	keepEvery(t, l, 300, 1, 700)
	require.NoError(t, l.TruncateFront(700))
	require.NoError(t, l.Unkeep(600, 0))
	require.NoError(t, l.Trim(700))
	files := l.Files()
	require.True(t, files[len(files)-1].Retained, "%+v", files)
	require.True(t, files[len(files)-1].Closed)
	require.Less(t, files[len(files)-1].Last, wal.LSN(700))
	tail, err := l.NewSkippingTail(wal.Position{Epoch: l.EpochAt(299), LSN: 299})
	require.NoError(t, err)
	defer tail.Close()
	var got []wal.LSN
	for {
		pos, rec, ok, err := tail.TryNext()
		require.NoError(t, err)
		if !ok {
			break
		}
		require.True(t, strings.HasPrefix(string(rec), fmt.Sprint(pos.LSN, " ")))
		got = append(got, pos.LSN)
	}
	require.Contains(t, got, wal.LSN(300))
	require.Contains(t, got, wal.LSN(600))
	require.Less(t, len(got), 600)
	keepEvery(t, l, 300, 701, 702)
	_, rec := next(t, tail, 701)
	require.True(t, strings.HasPrefix(rec, "701 "))
	next(t, tail, 702)
}

// TestCopyKept: through any record the copies have all that was kept until then, though
// the log lets go of it before they are made.
func TestCopyKept(t *testing.T) {
	mem := vfs.NewMem()
	o := testOptions(mem)
	l, _ := openAll(t, o)
	defer l.Close()
	keepEvery(t, l, 150, 1, 1000)
	for _, through := range []wal.LSN{1, 149, 150, 151, 400, 599, 600, 777, 1000} {
		dir := fmt.Sprint("copy", through)
		require.NoError(t, vfs.MkdirDurable(mem, dir))
		k, err := l.OpenKept(through)
		require.NoError(t, err)
		files, bytes, err := k.CopyTo(context.Background(), dir)
		require.NoError(t, err)
		k.Close()
		kept, n := map[wal.LSN]bool{}, int64(0)
		names, err := mem.List(dir)
		require.NoError(t, err)
		require.Len(t, names, len(files))
		for _, m := range files {
			require.True(t, m.Retained)
			require.LessOrEqual(t, m.Last, through)
			n += int64(len(mem.Bytes(dir + "/" + wal.FileName(m.Number))))
			sum := uint64(0)
			for lsn := wal.LSN(150); lsn <= through; lsn += 150 {
				if lsn >= m.First && lsn <= m.Last {
					kept[lsn] = true
					sum += 10
				}
			}
			require.Equal(t, sum, m.Keep)
		}
		require.Equal(t, n, bytes)
		require.Len(t, kept, int(through/150))
	}
	_, err := l.OpenKept(1001)
	require.ErrorIs(t, err, wal.ErrRange)

	k, err := l.OpenKept(1000)
	require.NoError(t, err)
	defer k.Close()
	require.NoError(t, l.TruncateFront(1000))
	for i := wal.LSN(150); i <= 1000; i += 150 {
		require.NoError(t, l.Unkeep(i, 10))
	}
	require.Len(t, l.Files(), 1, "all were let go")
	require.NoError(t, vfs.MkdirDurable(mem, "late"))
	files, _, err := k.CopyTo(context.Background(), "late")
	require.NoError(t, err)
	sum := uint64(0)
	for _, m := range files {
		sum += m.Keep
	}
	require.Equal(t, uint64(60), sum)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	require.NoError(t, vfs.MkdirDurable(mem, "never"))
	_, _, err = k.CopyTo(ctx, "never")
	require.ErrorIs(t, err, context.Canceled)
}

// TestCopyKeptOfADamagedFile: what does not verify is not copied for good.
func TestCopyKeptOfADamagedFile(t *testing.T) {
	mem := vfs.NewMem()
	l, _ := openAll(t, testOptions(mem))
	defer l.Close()
	keepEvery(t, l, 1, 1, 300)
	name := l.Files()[1].Name
	f, err := mem.Open("db/"+name, vfs.ReadWrite)
	require.NoError(t, err)
	var b [1]byte
	_, err = f.ReadAt(b[:], 9000)
	require.NoError(t, err)
	b[0] ^= 4
	_, err = f.WriteAt(b[:], 9000)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	require.NoError(t, vfs.MkdirDurable(mem, "copy"))
	k, err := l.OpenKept(300)
	require.NoError(t, err)
	defer k.Close()
	_, _, err = k.CopyTo(context.Background(), "copy")
	var bad *wal.CorruptionError
	require.ErrorAs(t, err, &bad)
	require.Contains(t, bad.File, name)
}
