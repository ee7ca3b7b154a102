package topic_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/check"
	"github.com/forebaydb/forebay/topic"
	"github.com/forebaydb/forebay/vfs"
)

// Where a salvage had left a hole, SeekTime took all before it for older than it was
// asked for, and Retain took out what was young; or it failed.
func TestSeekTimeWithHoles(t *testing.T) {
	for _, lost := range []int{0, 2, 4} {
		var c clock
		fs := vfs.NewMem()
		db := open(t, fs)
		tp, err := topic.Open(db, "t", &topic.Options{Now: c.now})
		require.NoError(t, err)
		const many = 500
		for i := range many {
			c.ns.Store(int64(time.Duration(i) * time.Minute))
			_, err := tp.Append(make([]byte, 700))
			require.NoError(t, err)
		}
		require.NoError(t, db.Checkpoint(context.Background()))
		require.NoError(t, db.Close())
		names, err := fs.List("data")
		require.NoError(t, err)
		var logs []string
		for _, name := range names {
			if strings.HasSuffix(name, ".log") {
				logs = append(logs, "data/"+name)
			}
		}
		require.NoError(t, fs.Remove(logs[lost]))
		out, err := check.Salvage(context.Background(), &check.Config{FS: fs, Dir: "data"}, "saved")
		require.NoError(t, err)
		require.Positive(t, out.LostItems)
		db, err = forebay.Open("saved", &forebay.Options{FS: fs})
		require.NoError(t, err)
		tp, err = topic.Open(db, "t", &topic.Options{Now: c.now, MaxAge: many * time.Minute, Every: -1})
		require.NoError(t, err)
		first, _, err := tp.Bounds()
		require.NoError(t, err)
		var there []uint64
		for m, err := range tp.Read(context.Background(), first) {
			require.NoError(t, err)
			there = append(there, m.Offset)
		}
		require.Len(t, there, many-int(out.LostItems))
		for i := 0; i < many; i += 13 {
			at, err := tp.SeekTime(context.Background(), time.Unix(0, 0).Add(time.Duration(i)*time.Minute))
			require.NoError(t, err)
			want := there[0]
			for k := 0; want < uint64(i); k++ {
				want = there[k]
			}
			require.Equal(t, want, at, i)
		}
		at, err := tp.Retain(context.Background())
		require.NoError(t, err)
		require.Equal(t, first, at)
		require.NoError(t, db.Close())
	}
}

// asked is a context that does something when it is asked for the nth time.
type asked struct {
	context.Context
	n  int
	do func()
}

func (c *asked) Err() error {
	if c.n--; c.n == 0 {
		c.do()
	}
	return c.Context.Err()
}

// SeekTime failed when what it was about to read was taken out meanwhile.
func TestSeekTimeBesideTrim(t *testing.T) {
	ended := false
	for n := 1; !ended; n++ {
		var c clock
		db := open(t, vfs.NewMem())
		tp, err := topic.Open(db, "t", &topic.Options{Now: c.now})
		require.NoError(t, err)
		for i := range 20 {
			c.ns.Store(int64(time.Duration(i) * time.Hour))
			_, err := tp.Append(make([]byte, 20_000))
			require.NoError(t, err)
		}
		ctx := &asked{Context: context.Background(), n: n, do: func() {
			require.NoError(t, tp.Sequence().Trim(15))
			require.NoError(t, db.Checkpoint(context.Background()))
		}}
		at, err := tp.SeekTime(ctx, time.Unix(0, 0).Add(10*time.Hour))
		require.NoError(t, err)
		if ended = ctx.n > 0; ended {
			require.Equal(t, uint64(10), at)
		} else {
			require.Contains(t, []uint64{10, 15}, at, n)
		}
		require.NoError(t, db.Close())
	}
}
