package forebay

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/check"
	"github.com/forebaydb/forebay/vfs"
)

// What a salvage left a hole in, and then was settled, was read up to the hole, and no
// further; what was settled behind it was passed over by who came from before.
func TestHolesBesideWhatIsSettled(t *testing.T) {
	ctx := context.Background()
	fs := vfs.NewMem()
	o := Options{FS: fs, MemtableSize: 64 << 10, LogFileSize: 64 << 10, SettleShare: 1, MarkDelay: -1}
	db := atkOpen(t, o)
	s := atkSeq(t, db)
	const many = 600
	for i := range many {
		_, err := s.Append(fmt.Appendf(nil, "%d %0700d", i, 0))
		require.NoError(t, err)
	}
	require.NoError(t, db.Checkpoint(ctx))
	require.NoError(t, db.Close())
	names, err := fs.List("data")
	require.NoError(t, err)
	logs := slices.DeleteFunc(names, func(name string) bool { return !strings.HasSuffix(name, ".log") })
	require.Greater(t, len(logs), 5)
	require.NoError(t, fs.Remove("data/"+logs[2]))
	out, err := check.Salvage(ctx, &check.Config{FS: fs, Dir: "data"}, "saved")
	require.NoError(t, err)
	require.Positive(t, out.LostItems)

	db, err = Open("saved", &o)
	require.NoError(t, err)
	defer func() { require.NoError(t, db.Close()) }()
	s = atkSeq(t, db)
	read := func(from uint64) (out []uint64, err error) {
		for it, err := range s.Read(ctx, from) {
			if err != nil {
				return out, err
			}
			require.Equal(t, fmt.Sprint(it.Offset), strings.Fields(string(it.Value))[0])
			out = append(out, it.Offset)
		}
		return out, nil
	}
	want, err := read(0)
	require.NoError(t, err)
	require.Len(t, want, many-int(out.LostItems))
	look := func() {
		t.Helper()
		for from := range uint64(many) {
			got, err := read(from)
			at, there := slices.BinarySearch(want, from)
			if !there {
				require.ErrorIs(t, err, ErrNotFound, from)
				require.Empty(t, got)
				continue
			}
			require.NoError(t, err, from)
			require.Equal(t, want[at:], got, from)
		}
	}
	look()

	// What lies on both sides of the hole is settled, and then what comes behind.
	atkFill(t, db, 100, Durable)
	require.NoError(t, db.Checkpoint(ctx))
	for _, f := range db.log.Files() {
		if f.Keep > 0 {
			require.NoError(t, db.settleFile(ctx, &f))
		}
	}
	look()
	for i := many; i < many+5; i++ {
		_, err := s.Append(fmt.Appendf(nil, "%d x", i))
		require.NoError(t, err)
		want = append(want, uint64(i))
	}
	look()
	_, err = db.Verify(ctx)
	require.NoError(t, err)

	// Who is at the hole when it is taken out is told.
	n := 0
	for it, err := range s.Read(ctx, 0) {
		if n++; n == 1 {
			require.NoError(t, s.Trim(^uint64(0)))
		}
		if err != nil {
			require.ErrorIs(t, err, ErrNotFound)
			break
		}
		_ = it
	}
}
