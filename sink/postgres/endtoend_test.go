package postgres_test

import (
	"context"
	"flag"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/buffer"
	"github.com/forebaydb/forebay/queue"
	"github.com/forebaydb/forebay/sink"
	"github.com/forebaydb/forebay/sink/postgres"
	"github.com/forebaydb/forebay/sink/postgres/internal/pgtest"
	"github.com/forebaydb/forebay/topic"
	"github.com/forebaydb/forebay/vfs"
)

var flagAway = flag.Duration("postgres.away", time.Second, "how long the server of TestServerIsAway is away, each time")

// store opens a store in memory.
func store(t *testing.T, fs vfs.FS) *forebay.DB {
	t.Helper()
	db, err := forebay.Open("data", &forebay.Options{FS: fs})
	require.NoError(t, err)
	t.Cleanup(func() { db.Close() })
	return db
}

// once looks that events holds the rows of n different offsets, from 0 on, each once, and
// with the value that it was added with.
func once(t *testing.T, pool *pgxpool.Pool, n uint64) {
	t.Helper()
	var rows, different, most, right int64
	require.NoError(t, pool.QueryRow(t.Context(), `SELECT count(*), count(DISTINCT "offset"), max("offset"), count(*) FILTER (WHERE convert_from("value", 'UTF8') = 'row ' || "offset") FROM events`).
		Scan(&rows, &different, &most, &right))
	require.Equal(t, [4]int64{int64(n), int64(n), int64(n) - 1, int64(n)}, [4]int64{rows, different, most, right}, "rows, different ones, the last, right ones")
}

// TestServerIsAway: rows go through a buffer into a table while the server is stopped, and
// then crashes, in the middle. Who adds rows does not notice, all of them are there, once,
// and none is dead. The store is reopened while the server is away.
func TestServerIsAway(t *testing.T) {
	pgtest.Require(t)
	c, err := pgtest.New(pgtest.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	pool := c.Pool(t)
	exec(t, pool, events)
	s := open(t, pool, postgres.Options{})
	fs := vfs.NewMem()
	o := &buffer.Options{Items: 500, Age: 10 * time.Millisecond, Lanes: 2, Backoff: 10 * time.Millisecond, MaxBackoff: 100 * time.Millisecond}
	var db *forebay.DB
	var b *buffer.Buffer
	begin := func() {
		db = store(t, fs)
		b, err = buffer.Open(db, "events", s, o)
		require.NoError(t, err)
		handle := b
		t.Cleanup(func() { handle.Close() })
	}
	end := func() {
		require.NoError(t, b.Close())
		require.NoError(t, db.Close())
	}
	added := uint64(0)
	add := func(n int) {
		for end := added + uint64(n); added < end; {
			rows := make([]buffer.Row, 50)
			for i := range rows {
				rows[i] = buffer.Row{Key: fmt.Append(nil, "key ", i%7), Value: fmt.Append(nil, "row ", added+uint64(i))}
			}
			first, err := b.AddBatch(rows)
			require.NoError(t, err)
			require.Equal(t, added, first)
			added += uint64(len(rows))
		}
	}
	eventually := func(ok func(buffer.Stats) bool) {
		require.Eventually(t, func() bool { return ok(b.Stats()) }, time.Minute, time.Millisecond)
	}
	flush := func() {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		require.NoError(t, b.Flush(ctx))
		st := b.Stats()
		require.Equal(t, [4]uint64{added, added, 0, 0}, [4]uint64{st.In, st.Done, st.Dead, st.Pending})
	}
	begin()
	for _, stop := range []func() error{c.Stop, c.Crash} {
		done := b.Stats().Done
		add(5000)
		eventually(func(s buffer.Stats) bool { return s.Done > done })
		require.NoError(t, stop()) // in the middle of a write, as good as always
		add(3000)
		eventually(func(s buffer.Stats) bool { return s.Failed > 0 && s.Pending >= 3000 })
		end()
		begin() // it goes on with what waits
		add(3000)
		eventually(func(s buffer.Stats) bool { return s.Failed > 0 && s.Pending >= 6000 })
		time.Sleep(*flagAway)
		add(1000)
		require.NoError(t, c.Start())
		add(1000)
		flush()
		pool.Reset() // no query of the test meets a connection of before
		once(t, pool, added)
	}
	end()
	fs = fs.PowerCutSeed(1, vfs.SectorAtomic)
	begin() // nothing comes again
	add(1000)
	flush()
	once(t, pool, added)
	end()
	t.Logf("%d rows", added)
}

// TestSpikeThroughQueue is the arithmetic of a spike, a thousandth of it: 100 rows a second
// come for five minutes, a batch of 10 a second goes from a queue into a table; 5,400 wait
// after a minute, 27,000 after five, none after fifty. A second is a step of a loop. Now
// and then the reply to COMMIT is lost, and the batch is written again.
func TestSpikeThroughQueue(t *testing.T) {
	const in, out = 100, 10
	c := cluster.Get(t)
	var cut cutter
	pool := c.Pool(t, cut.dial)
	exec(t, pool, events)
	s := open(t, pool, postgres.Options{})
	q, err := queue.Open(store(t, vfs.NewMem()), "events", queue.Bytes{}, nil)
	require.NoError(t, err)
	t.Cleanup(func() { q.Close() })
	g, err := q.Group("table", nil)
	require.NoError(t, err)
	again := 0
	write := func(ms []*queue.Message[[]byte]) {
		b := sink.Batch{ID: fmt.Sprint("events/", ms[0].ID, "/", ms[0].Delivery, "/", len(ms))}
		for _, m := range ms {
			b.Rows = append(b.Rows, sink.Row{Offset: m.ID.Offset, Time: m.Time, Value: m.Value})
		}
		for s.Write(t.Context(), b) != nil {
			again++
		}
		require.NoError(t, g.Ack(t.Context(), ms...))
	}
	items := make([]queue.Item[[]byte], in)
	for second := 1; ; second++ {
		if second <= 300 {
			for i := range items {
				items[i].Value = fmt.Append(nil, "row ", (second-1)*in+i)
			}
			_, err := q.EnqueueBatch(t.Context(), items)
			require.NoError(t, err)
		}
		if second%500 == 0 {
			cut.text.Store("commit")
		}
		for left := out; left > 0; {
			ms, err := g.Receive(t.Context(), left)
			require.NoError(t, err)
			left -= len(ms)
			write(ms)
		}
		if second%60 != 0 {
			continue
		}
		st, err := g.Stats(t.Context())
		require.NoError(t, err)
		require.Equal(t, int64(in*min(second, 300)-out*second), st.Pending, "second %d", second)
		if st.Pending == 0 {
			require.Equal(t, 50*60, second)
			require.Zero(t, st.Dead)
			break
		}
	}
	require.Equal(t, 6, again)
	once(t, pool, in*300)
}

// TestTableIsMadeAgain: the log keeps seven days, on a clock of the test's; a table that is
// dropped is made again from it, with the same counts and checksums. What is older than
// that is gone from the log, and from nowhere else.
func TestTableIsMadeAgain(t *testing.T) {
	const day, each = 24 * time.Hour, 500
	pool := cluster.Get(t).Pool(t)
	var now atomic.Int64
	start := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	clock := func() time.Time { return start.Add(time.Duration(now.Load())) }
	db := store(t, vfs.NewMem())
	log, err := topic.Open(db, "events", &topic.Options{MaxAge: 7 * day, Every: -1, Now: clock})
	require.NoError(t, err)
	t.Cleanup(func() { log.Close() })
	at, err := log.Reader("table")
	require.NoError(t, err)
	s := open(t, pool, postgres.Options{})

	// copyTo writes what is in the log from an offset on, in batches, and returns how far
	// it came; name is of the ids.
	copyTo := func(from uint64, name string) uint64 {
		var b sink.Batch
		write := func() {
			if len(b.Rows) > 0 {
				b.ID = fmt.Sprintf("%s/%d", name, b.Rows[0].Offset)
				require.NoError(t, s.Write(t.Context(), b))
				b.Rows = nil
			}
		}
		for m, err := range log.Read(t.Context(), from) {
			require.NoError(t, err)
			b.Rows = append(b.Rows, sink.Row{Offset: m.Offset, Time: m.Time, Value: append([]byte(nil), m.Payload...)})
			if from = m.Offset + 1; len(b.Rows) == 300 {
				write()
			}
		}
		write()
		return from
	}
	live := func() {
		for range each {
			now.Add(int64(day / each))
			n := now.Load()
			_, err := log.Append(fmt.Append(nil, "event of ", n, " ", n*7919%1000))
			require.NoError(t, err)
		}
		from, err := at.Offset()
		require.NoError(t, err)
		b := db.NewBatch()
		require.NoError(t, at.Move(b, copyTo(from, "live")))
		require.NoError(t, db.Apply(b, forebay.Durable))
	}
	sum := func(where string) string {
		return strs(t, pool, `SELECT count(*) || ' ' || sum(hashtext(("offset", "time", "key", "value", headers)::text)::bigint) || ' ' || coalesce(md5(string_agg("value"::text, ',' ORDER BY "offset")), '') FROM events `+where)[0]
	}
	rebuild := func(name string) {
		exec(t, pool, `DROP TABLE events`)
		require.NoError(t, s.EnsureSchema(t.Context()))
		require.Zero(t, count(t, pool, "events"))
		first, err := log.Retain(t.Context())
		require.NoError(t, err)
		copyTo(first, name)
	}
	for range 7 {
		live()
		_, err := log.Retain(t.Context())
		require.NoError(t, err)
	}
	require.Equal(t, 7*each, count(t, pool, "events"))
	was := sum("")
	rebuild("again")
	require.Equal(t, was, sum(""))
	// Two days later the table has nine days, and the log seven. A message goes when it is
	// older than seven, with those of its commit.
	live()
	live()
	require.Equal(t, 9*each, count(t, pool, "events"))
	first, err := log.Retain(t.Context())
	require.NoError(t, err)
	require.InDelta(t, 2*each, first, 1)
	was = sum(fmt.Sprintf(`WHERE "offset" >= %d`, first))
	rebuild("once_more")
	require.Equal(t, was, sum(""))
}

// TestAddIsNotTheSinksMatter: sixty-four who add rows at once are all acknowledged while
// the table is locked, and the rows are written when it is not.
func TestAddIsNotTheSinksMatter(t *testing.T) {
	pool := cluster.Get(t).Pool(t)
	exec(t, pool, events)
	s := open(t, pool, postgres.Options{Mode: postgres.Unnest})
	b, err := buffer.Open(store(t, vfs.NewMem()), "events", s, &buffer.Options{Items: 100, Age: time.Millisecond})
	require.NoError(t, err)
	t.Cleanup(func() { b.Close() })
	tx, err := pool.Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), `LOCK TABLE events IN ACCESS EXCLUSIVE MODE`)
	require.NoError(t, err)
	var work sync.WaitGroup
	for range 64 {
		work.Go(func() {
			for range 20 {
				if _, err := b.Add(buffer.Row{Value: []byte("row")}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	work.Wait()
	st := b.Stats()
	require.Equal(t, [2]uint64{64 * 20, 64 * 20}, [2]uint64{st.In, st.Pending})
	require.NoError(t, tx.Commit(t.Context()))
	require.NoError(t, b.Flush(t.Context()))
	require.Equal(t, 64*20, count(t, pool, "events"))
	require.Zero(t, b.Stats().Dead)
}
