package topic_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/topic"
	"github.com/forebaydb/forebay/vfs"
)

// clock is one that tests move.
type clock struct{ ns atomic.Int64 }

func (c *clock) now() time.Time          { return time.Unix(0, c.ns.Load()) }
func (c *clock) advance(d time.Duration) { c.ns.Add(int64(d)) }

func open(t *testing.T, fs vfs.FS) *forebay.DB {
	t.Helper()
	db, err := forebay.Open("data", &forebay.Options{FS: fs, MemtableSize: 64 << 10, LogFileSize: 64 << 10})
	require.NoError(t, err)
	t.Cleanup(func() { db.Close() })
	return db
}

func payloads(t *testing.T, tp *topic.Topic, from uint64) (out []string) {
	t.Helper()
	for m, err := range tp.Read(context.Background(), from) {
		require.NoError(t, err)
		require.Equal(t, from, m.Offset)
		from++
		out = append(out, string(m.Payload))
	}
	return out
}

func TestMessagesAndTheirTimes(t *testing.T) {
	var c clock
	fs := vfs.NewMem()
	db := open(t, fs)
	tp, err := topic.Open(db, "t", &topic.Options{Now: c.now})
	require.NoError(t, err)
	defer tp.Close()
	at, err := tp.SeekTime(context.Background(), time.Unix(5, 0))
	require.NoError(t, err)
	require.Zero(t, at)
	for i := range 400 { // one a second, but each tenth half a minute late
		c.ns.Store(int64(time.Duration(i) * time.Second))
		if i%10 == 9 {
			c.advance(-30 * time.Second)
		}
		at, err := tp.Append(fmt.Append(nil, i))
		require.NoError(t, err)
		require.Equal(t, uint64(i), at)
	}
	for _, s := range []int64{-100, 0, 1, 50, 108, 200, 398, 399, 500} {
		at, err := tp.SeekTime(context.Background(), time.Unix(s, 0))
		require.NoError(t, err)
		want := uint64(0)
		for m, err := range tp.Read(context.Background(), 0) {
			require.NoError(t, err)
			if !m.Time.Before(time.Unix(s, 0)) {
				break
			}
			want = m.Offset + 1
		}
		require.Equal(t, want, at, s)
	}
	require.NoError(t, db.Close())
	db = open(t, fs)
	tp, err = topic.Open(db, "t", nil)
	require.NoError(t, err)
	defer tp.Close()
	require.Len(t, payloads(t, tp, 100), 300)
	for m, err := range tp.Read(context.Background(), 11) {
		require.NoError(t, err)
		require.Equal(t, time.Unix(11, 0), m.Time)
		break
	}
	_, err = topic.Open(db, "", nil)
	require.Error(t, err)
	require.NoError(t, db.Apply(func() *forebay.Batch {
		b := db.NewBatch()
		require.NoError(t, b.Append(tp.Sequence(), []byte("short")))
		return b
	}(), forebay.Durable))
	for _, err = range tp.Read(context.Background(), 400) {
		require.ErrorIs(t, err, topic.ErrDamaged)
	}
	// It has no time, and is as old as what is known of those behind it.
	at, err = tp.SeekTime(context.Background(), time.Unix(500, 0))
	require.NoError(t, err)
	require.Equal(t, uint64(400), at)
	c.ns.Store(int64(500 * time.Second))
	old, err := topic.Open(db, "t", &topic.Options{Now: c.now})
	require.NoError(t, err)
	defer old.Close()
	for range 100 {
		_, err = old.Append(nil)
		require.NoError(t, err)
	}
	for s, want := range map[int64]uint64{399: 400, 500: 400, 501: 501} {
		at, err = tp.SeekTime(context.Background(), time.Unix(s, 0))
		require.NoError(t, err)
		require.Equal(t, want, at, s)
	}
}

// TestRetention: by each bound, and never what a reader has before it.
func TestRetention(t *testing.T) {
	for name, o := range map[string]topic.Options{
		"age":      {MaxAge: 100 * time.Second},
		"messages": {MaxMessages: 101},
		"bytes":    {MaxBytes: 101 * (8 + 2 + 8 + 1000)}, // offset, length, time, payload
	} {
		t.Run(name, func(t *testing.T) {
			var c clock
			o.Now, o.Every = c.now, -1
			fs := vfs.NewMem()
			db := open(t, fs)
			tp, err := topic.Open(db, "t", &o)
			require.NoError(t, err)
			defer tp.Close()
			fill := func(n int) {
				for range n {
					_, err := tp.Append(make([]byte, 1000))
					require.NoError(t, err)
					c.advance(time.Second)
				}
			}
			retain := func() uint64 {
				first, err := tp.Retain(context.Background())
				require.NoError(t, err)
				at, _, err := tp.Bounds()
				require.NoError(t, err)
				require.Equal(t, at, first)
				return first
			}
			fill(50)
			require.Zero(t, retain())
			fill(450)
			r, err := tp.Reader("r")
			require.NoError(t, err)
			require.Zero(t, retain())
			move := func(to uint64) {
				b := db.NewBatch()
				require.NoError(t, r.Move(b, to))
				require.NoError(t, db.Apply(b, forebay.Durable))
			}
			move(150)
			require.Equal(t, uint64(150), retain())
			move(500)
			require.InDelta(t, 400, retain(), 1)
			fill(100)
			move(600)
			require.InDelta(t, 500, retain(), 1)
			late, err := tp.Reader("late")
			require.NoError(t, err)
			at, err := late.Offset()
			require.NoError(t, err)
			require.InDelta(t, 500, at, 1)
			fill(100)
			move(700)
			require.InDelta(t, 500, retain(), 1)
			require.NoError(t, tp.DropReader("late"))
			require.NoError(t, tp.DropReader("late"))
			_, err = late.Offset()
			require.ErrorIs(t, err, forebay.ErrNotFound)
			require.InDelta(t, 600, retain(), 1)
			require.Len(t, payloads(t, tp, 650), 50)
		})
	}
}

// TestNothingGoesPastAReaderThatCannotBeRead: it may have everything before it.
func TestNothingGoesPastAReaderThatCannotBeRead(t *testing.T) {
	db := open(t, vfs.NewMem())
	tp, err := topic.Open(db, "t", &topic.Options{MaxMessages: 1, Every: -1})
	require.NoError(t, err)
	defer tp.Close()
	_, err = tp.Reader("r") // it has all before it
	require.NoError(t, err)
	ks, err := db.Keyspace("topic/t")
	require.NoError(t, err)
	require.NoError(t, ks.Put([]byte("a"), []byte("short"))) // it comes before r
	for range 10 {
		_, err := tp.Append([]byte("x"))
		require.NoError(t, err)
	}
	_, err = tp.Retain(context.Background())
	require.ErrorIs(t, err, topic.ErrDamaged)
	require.Len(t, payloads(t, tp, 0), 10)
	require.NoError(t, tp.DropReader("a"))
	readers, err := tp.Readers()
	require.NoError(t, err)
	require.Equal(t, map[string]uint64{"r": 0}, readers)
}

func TestRetentionInTheBackground(t *testing.T) {
	db := open(t, vfs.NewMem())
	tp, err := topic.Open(db, "t", &topic.Options{MaxMessages: 5, Every: time.Millisecond})
	require.NoError(t, err)
	for range 50 {
		_, err := tp.Append([]byte("x"))
		require.NoError(t, err)
	}
	require.Eventually(t, func() bool {
		first, _, err := tp.Bounds()
		return err == nil && first == 45
	}, time.Minute, time.Millisecond)
	require.NoError(t, tp.Close())
}

// TestReadersDoOnce: several that work under one name, killed in the middle: each message
// has its effect once, in the commit in which the reader moves.
func TestReadersDoOnce(t *testing.T) {
	mem := vfs.NewMem()
	db := open(t, mem)
	tp, err := topic.Open(db, "t", nil)
	require.NoError(t, err)
	for i := range 200 {
		_, err := tp.Append(fmt.Append(nil, i))
		require.NoError(t, err)
	}
	work := func(db *forebay.DB, most int64) {
		tp, err := topic.Open(db, "t", nil)
		require.NoError(t, err)
		r, err := tp.Reader("w")
		require.NoError(t, err)
		if at, err := r.Offset(); at == 200 { // nobody would ever be told to end
			require.NoError(t, err)
			return
		}
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		var done atomic.Int64
		var g sync.WaitGroup
		for range 3 {
			g.Go(func() {
				for ctx.Err() == nil {
					r, err := tp.Reader("w")
					if err != nil {
						t.Error(err)
						return
					}
					for m, err := range r.Messages(ctx) {
						if err == nil {
							err = db.Update(func(tx *forebay.Tx) error {
								if err := r.MoveTx(tx, m.Offset, m.Offset+1); err != nil {
									return err
								}
								if has, err := tx.Has(m.Payload); err != nil || has {
									return fmt.Errorf("%s twice: %w", m.Payload, err)
								}
								return tx.Put(m.Payload, nil)
							})
						}
						if err != nil {
							if !errors.Is(err, topic.ErrMoved) && !errors.Is(err, context.Canceled) {
								t.Error(err)
							}
							break
						}
						if done.Add(1) >= most || m.Offset == 199 {
							cancel()
						}
					}
				}
			})
		}
		g.Wait()
	}
	for round := range 5 {
		work(db, 40)
		db.Close()
		mem = mem.PowerCutSeed(uint64(round), vfs.SectorAtomic)
		db = open(t, mem)
	}
	n := 0
	for _, err := range db.Range(nil, nil) {
		require.NoError(t, err)
		n++
	}
	require.Equal(t, 200, n)
	tp, err = topic.Open(db, "t", nil)
	require.NoError(t, err)
	r, err := tp.Reader("w")
	require.NoError(t, err)
	at, err := r.Offset()
	require.NoError(t, err)
	require.Equal(t, uint64(200), at)
}
