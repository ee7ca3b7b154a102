package postgres_test

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/sink"
	"github.com/forebaydb/forebay/sink/postgres"
	"github.com/forebaydb/forebay/sink/postgres/internal/pgtest"
	"github.com/forebaydb/forebay/sink/sinktest"
)

var modes = []postgres.Mode{postgres.Copy, postgres.Unnest, postgres.Values, postgres.Insert}

// events is the table of the default columns, with the order in which rows came, and a
// check that refuses one value.
const events = `CREATE TABLE events (
	"offset" bigint NOT NULL, "time" timestamptz NOT NULL, "key" bytea, "value" bytea NOT NULL CHECK ("value" <> 'refused'), headers jsonb,
	came bigint GENERATED ALWAYS AS IDENTITY)`

func exec(t testing.TB, pool *pgxpool.Pool, sql string, args ...any) {
	t.Helper()
	_, err := pool.Exec(t.Context(), sql, args...)
	require.NoError(t, err)
}

// read reads the default columns of events back.
func read(pool *pgxpool.Pool) func(*testing.T) []sink.Row {
	return func(t *testing.T) []sink.Row {
		rows, err := pool.Query(t.Context(), `SELECT "offset", "time", "key", "value", headers FROM events ORDER BY came`)
		require.NoError(t, err)
		all, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (row sink.Row, err error) {
			var offset int64
			err = r.Scan(&offset, &row.Time, &row.Key, &row.Value, &row.Headers)
			row.Offset = uint64(offset)
			return row, err
		})
		require.NoError(t, err)
		return all
	}
}

// same compares all that the default columns keep.
func same(wrote, read sink.Row) bool {
	if len(wrote.Headers) != len(read.Headers) {
		return false
	}
	for k, v := range wrote.Headers {
		if w, ok := read.Headers[k]; !ok || v != w {
			return false
		}
	}
	return wrote.Offset == read.Offset && wrote.Time.Equal(read.Time) && string(wrote.Key) == string(read.Key) && string(wrote.Value) == string(read.Value)
}

func open(t testing.TB, pool *pgxpool.Pool, o postgres.Options) *postgres.Sink {
	t.Helper()
	if o.Table == nil {
		o.Table = pgx.Identifier{"events"}
	}
	s, err := postgres.New(pool, o)
	require.NoError(t, err)
	require.NoError(t, s.EnsureSchema(t.Context()))
	return s
}

// TestSuite runs the suite of all sinks in each mode, with and without a stage.
func TestSuite(t *testing.T) {
	c := cluster.Get(t)
	update := postgres.Options{Conflict: postgres.ConflictUpdate, Key: []string{"offset"}, Version: "time"}
	for _, o := range []postgres.Options{
		{Mode: postgres.Copy},
		{Mode: postgres.Copy, Conflict: postgres.ConflictIgnore},
		{Mode: postgres.Unnest},
		{Mode: postgres.Values},
		{Mode: postgres.Insert},
		update,
	} {
		if testing.Short() && o.Mode > postgres.Unnest {
			continue
		}
		name := o.Mode.String() + map[postgres.Conflict]string{1: "-ignore", 2: "-update"}[o.Conflict]
		t.Run(name, func(t *testing.T) {
			var cut cutter
			sinktest.Run(t, sinktest.Harness{
				New: func(t *testing.T) (sink.Sink, func(*testing.T) []sink.Row) {
					cut = cutter{}
					pool := c.Pool(t, cut.dial)
					exec(t, pool, events)
					if o.Key != nil {
						exec(t, pool, `CREATE UNIQUE INDEX ON events ("offset")`)
					}
					return open(t, pool, o), read(pool)
				},
				ExactlyOnce: true,
				Same:        same,
				Bad:         func() []byte { return []byte("refused") },
				Faults: map[string]func(*testing.T){
					"first message lost":   func(*testing.T) { cut.arm(1, false) },
					"first reply lost":     func(*testing.T) { cut.arm(1, true) },
					"third message lost":   func(*testing.T) { cut.arm(3, false) },
					"reply of COMMIT lost": func(*testing.T) { cut.text.Store("commit") },
				},
			})
		})
	}
}

// TestSuiteStopped runs it with a server that is stopped, and with one that crashes.
func TestSuiteStopped(t *testing.T) {
	pgtest.Require(t)
	c, err := pgtest.New(pgtest.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	for name, stop := range map[string]func() error{"Stop": c.Stop, "Crash": c.Crash} {
		t.Run(name, func(t *testing.T) {
			sinktest.Run(t, sinktest.Harness{
				New: func(t *testing.T) (sink.Sink, func(*testing.T) []sink.Row) {
					pool := c.Pool(t)
					exec(t, pool, events)
					return open(t, pool, postgres.Options{}), read(pool)
				},
				ExactlyOnce: true,
				Same:        same,
				Stop:        func(t *testing.T) { require.NoError(t, stop()) },
				Start:       func(t *testing.T) { require.NoError(t, c.Start()) },
			})
		})
	}
}

// cutter cuts connections: each write of a client is a message or some, and n messages
// after it was armed the connection ends, before the server has the message or behind it.
type cutter struct {
	after  atomic.Int64 // 0: not armed
	passes atomic.Bool
	fired  atomic.Bool
	text   atomic.Value // string: the statement after which it is cut, behind the server
}

func (c *cutter) arm(n int, passes bool) {
	c.passes.Store(passes)
	c.after.Store(int64(n))
	c.fired.Store(false)
}

func (c *cutter) dial(config *pgxpool.Config) {
	config.ConnConfig.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		var d net.Dialer
		conn, err := d.DialContext(ctx, network, addr)
		return &cutConn{Conn: conn, c: c}, err
	}
}

type cutConn struct {
	net.Conn
	c   *cutter
	cut atomic.Bool
}

var errCut = errors.New("the connection was cut")

func (c *cutConn) Write(b []byte) (int, error) {
	if c.cut.Load() {
		return 0, errCut
	}
	text, _ := c.c.text.Load().(string)
	named := text != "" && b[0] == 'Q' && string(b[5:]) == text+"\x00" && c.c.text.CompareAndSwap(text, "")
	if c.c.after.Load() > 0 && c.c.after.Add(-1) == 0 || named {
		c.c.fired.Store(true)
		if named || c.c.passes.Load() {
			_, _ = c.Conn.Write(b)
			// The server has done it when it answers, which the client never sees. A part
			// of a COPY has no answer.
			_ = c.Conn.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
			_, _ = c.Conn.Read(make([]byte, 1))
		}
		c.cut.Store(true)
		_ = c.Conn.Close()
		return 0, errCut
	}
	return c.Conn.Write(b)
}

func (c *cutConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if c.cut.Load() {
		return 0, errCut
	}
	return n, err
}
