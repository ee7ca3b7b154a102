package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/sink"
	"github.com/forebaydb/forebay/sink/postgres"
)

func batch(id string, values ...string) sink.Batch {
	b := sink.Batch{ID: id}
	for i, v := range values {
		b.Rows = append(b.Rows, sink.Row{Offset: uint64(i), Time: time.UnixMicro(1_700_000_000_000_000), Value: []byte(v)})
	}
	return b
}

// texts makes a sink of one column, v, of a table t.
func texts(mode postgres.Mode) postgres.Options {
	return postgres.Options{
		Table: pgx.Identifier{"t"}, Mode: mode, Columns: []string{"v"},
		Map: func(r sink.Row, dst []any) error { dst[0] = string(r.Value); return nil },
	}
}

func count(t *testing.T, pool *pgxpool.Pool, table string) (n int) {
	t.Helper()
	require.NoError(t, pool.QueryRow(t.Context(), `SELECT count(*) FROM `+table).Scan(&n))
	return n
}

func strs(t *testing.T, pool *pgxpool.Pool, sql string) []string {
	t.Helper()
	rows, err := pool.Query(t.Context(), sql)
	require.NoError(t, err)
	all, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(t, err)
	return all
}

func transient(t *testing.T, err error) {
	t.Helper()
	require.Error(t, err)
	require.False(t, errors.As(err, new(*sink.Rejected)), "not for good: %v", err)
}

func rejected(t *testing.T, err error, rows ...int) {
	t.Helper()
	var r *sink.Rejected
	require.ErrorAs(t, err, &r)
	require.ElementsMatch(t, rows, r.Rows)
}

func TestNew(t *testing.T) {
	pool, err := pgxpool.New(t.Context(), "host=/nowhere user=u")
	require.NoError(t, err)
	defer pool.Close()
	table := pgx.Identifier{"t"}
	fill := func(sink.Row, []any) error { return nil }
	_, err = postgres.New(nil, postgres.Options{Table: table})
	require.ErrorContains(t, err, "no pool")
	for want, o := range map[string]postgres.Options{
		"Table has 0 parts":   {},
		"Table has 3 parts":   {Table: pgx.Identifier{"a", "b", "c"}},
		`Table ""`:            {Table: pgx.Identifier{""}},
		"a name has 1 to 63":  {Table: pgx.Identifier{strings.Repeat("x", 64)}},
		`Inbox "a\x00b"`:      {Table: table, Inbox: pgx.Identifier{"a\x00b"}},
		"go together":         {Table: table, Columns: []string{"a"}},
		"0 columns":           {Table: table, Columns: []string{}, Map: fill},
		"there twice":         {Table: table, Columns: []string{"a", "a"}, Map: fill},
		"of the sink's own":   {Table: table, Columns: []string{"forebay ordinal"}, Map: fill},
		`column "": `:         {Table: table, Columns: []string{""}, Map: fill},
		"no mode 4":           {Table: table, Mode: 4},
		"no conflict 3":       {Table: table, Conflict: 3},
		"Key and Version":     {Table: table, Key: []string{"offset"}},
		"Version is for":      {Table: table, Conflict: postgres.ConflictIgnore, Version: "time"},
		"needs Key":           {Table: table, Conflict: postgres.ConflictUpdate},
		`key "x" is none`:     {Table: table, Conflict: postgres.ConflictUpdate, Key: []string{"x"}},
		`version "x" is none`: {Table: table, Conflict: postgres.ConflictUpdate, Key: []string{"key"}, Version: "x"},
	} {
		_, err := postgres.New(pool, o)
		require.ErrorContains(t, err, want)
	}
	s, err := postgres.New(pool, postgres.Options{Table: table})
	require.NoError(t, err)
	require.ErrorContains(t, s.Write(t.Context(), sink.Batch{}), "an ID of 0 bytes")
	require.ErrorContains(t, s.Write(t.Context(), sink.Batch{ID: strings.Repeat("x", 201)}), "an ID of 201 bytes")
	transient(t, s.Write(t.Context(), batch("a", "b"))) // there is no server
	require.Error(t, s.EnsureSchema(t.Context()))
	_, err = s.Prune(t.Context())
	require.Error(t, err)
	require.Equal(t, "mode 9", postgres.Mode(9).String())
}

// TestCutEverywhere loses the connection at each message of a write, before the server
// has it and behind it, and writes again.
func TestCutEverywhere(t *testing.T) {
	c := cluster.Get(t)
	for _, mode := range []postgres.Mode{postgres.Copy, postgres.Unnest} {
		for _, staged := range []bool{false, true} {
			var cut cutter
			pool := c.Pool(t, cut.dial)
			exec(t, pool, `CREATE TABLE events ("offset" bigint NOT NULL, "time" timestamptz, "key" bytea, "value" bytea, headers jsonb)`)
			o := postgres.Options{Mode: mode, PruneEvery: -1}
			if staged {
				o.Conflict = postgres.ConflictIgnore
			}
			s := open(t, pool, o)
			written := 0
			for _, passes := range []bool{false, true} {
				for n := 1; ; n++ {
					require.Less(t, n, 40)
					b := batch(fmt.Sprint("cut-", passes, n), "a", "b", "c")
					cut.arm(n, passes)
					err := s.Write(t.Context(), b)
					fired := cut.fired.Load()
					cut.arm(0, false)
					if fired {
						transient(t, err)
						require.NoError(t, s.Write(t.Context(), b))
					} else {
						require.NoError(t, err)
					}
					written++
					require.Equal(t, 3*written, count(t, pool, "events"), "%s, message %d", mode, n)
					require.Equal(t, written, count(t, pool, "forebay_inbox"))
					if !fired {
						require.Greater(t, n, 4)
						break
					}
				}
			}
		}
	}
}

// TestRollbackLost: what the server refused is not rejected before it is known to be
// rolled back.
func TestRollbackLost(t *testing.T) {
	var cut cutter
	pool := cluster.Get(t).Pool(t, cut.dial)
	exec(t, pool, `CREATE TABLE t (v text CHECK (v <> 'bad'))`)
	s := open(t, pool, texts(postgres.Copy))
	b := batch("a", "good", "bad")
	cut.text.Store("rollback")
	transient(t, s.Write(t.Context(), b))
	require.True(t, cut.fired.Load())
	rejected(t, s.Write(t.Context(), b))
	require.Zero(t, count(t, pool, "t"))
	require.Zero(t, count(t, pool, "forebay_inbox"))
}

// TestSameIDWaits: who comes second waits for what becomes of the first.
func TestSameIDWaits(t *testing.T) {
	pool := cluster.Get(t).Pool(t)
	exec(t, pool, `CREATE TABLE t (v text)`)
	s := open(t, pool, texts(postgres.Copy))
	b := batch("a", "x")
	for _, commit := range []bool{false, true} {
		first, err := pool.Begin(t.Context())
		require.NoError(t, err)
		_, err = first.Exec(t.Context(), `INSERT INTO forebay_inbox (id) VALUES ('a')`)
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		err = s.Write(ctx, b)
		cancel()
		transient(t, err)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		second := make(chan error, 1)
		go func() { second <- s.Write(t.Context(), b) }()
		require.Eventually(t, func() bool {
			var n int
			return pool.QueryRow(t.Context(), `SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'transactionid'`).Scan(&n) == nil && n > 0
		}, time.Minute, time.Millisecond)
		if commit {
			require.NoError(t, first.Commit(t.Context()))
			require.NoError(t, <-second)
			require.Zero(t, count(t, pool, "t"), "it was written, by somebody else")
			break
		}
		require.NoError(t, first.Rollback(t.Context()))
		require.NoError(t, <-second)
		require.Equal(t, 1, count(t, pool, "t"))
		exec(t, pool, `DELETE FROM forebay_inbox`)
		exec(t, pool, `DELETE FROM t`)
	}
}

// TestErrors has the server say no in all ways: for good, or until somebody mends it.
func TestErrors(t *testing.T) {
	c := cluster.Get(t)
	for _, mode := range modes {
		pool := c.Pool(t)
		exec(t, pool, `CREATE TABLE parent (v text PRIMARY KEY); INSERT INTO parent VALUES ('good')`)
		s := open(t, pool, texts(mode))
		i := 0
		write := func(values ...string) error {
			i++
			return s.Write(t.Context(), batch(fmt.Sprint(i), values...))
		}
		var one []int // only INSERTs say which row it was
		if mode == postgres.Insert {
			one = []int{1}
		}
		for table, bad := range map[string]string{
			`v varchar(4)`:                    "longer",
			`v text NOT NULL CHECK (v <> '')`: "",
			`v text UNIQUE`:                   "good",
			`v text REFERENCES parent`:        "nobody",
			`v text`:                          "a\x00b",
			`v text PRIMARY KEY`:              strings.Repeat("x", 100) + random(20_000),
		} {
			exec(t, pool, `CREATE TABLE t (`+table+`)`)
			rejected(t, write("good", bad, "fine"), one...)
			require.Zero(t, count(t, pool, "t"), table)
			exec(t, pool, `DROP TABLE t`)
		}
		exec(t, pool, `CREATE TABLE t (v text REFERENCES parent DEFERRABLE INITIALLY DEFERRED)`)
		rejected(t, write("good", "nobody")) // by COMMIT
		require.NoError(t, write("good"))

		exec(t, pool, `CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
			IF NEW.v = 'raise' THEN RAISE 'I will not have it'; END IF; RETURN NEW; END $$`)
		exec(t, pool, `CREATE TRIGGER no BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION no()`)
		rejected(t, write("good", "raise"), one...)

		// What a migration mends.
		exec(t, pool, `ALTER TABLE t RENAME TO other`)
		b := batch("later", "good")
		transient(t, s.Write(t.Context(), b))
		exec(t, pool, `CREATE TABLE t (w text)`)
		transient(t, s.Write(t.Context(), b))
		exec(t, pool, `ALTER TABLE t RENAME w TO v; ALTER TABLE t ALTER v TYPE int USING 1`)
		rejected(t, s.Write(t.Context(), b), 0) // "good" is no number
		exec(t, pool, `ALTER TABLE t ALTER v TYPE varchar(2)`)
		rejected(t, s.Write(t.Context(), b), one0(one)...)
		exec(t, pool, `ALTER TABLE t ALTER v TYPE varchar(20)`)
		exec(t, pool, `ALTER TABLE forebay_inbox RENAME TO away`)
		transient(t, s.Write(t.Context(), b))
		exec(t, pool, `ALTER TABLE away RENAME TO forebay_inbox; ALTER TABLE forebay_inbox ADD CHECK (id <> 'later')`)
		transient(t, s.Write(t.Context(), b)) // no row of the batch is bad
		exec(t, pool, `ALTER TABLE forebay_inbox DROP CONSTRAINT forebay_inbox_id_check`)
		require.NoError(t, s.Write(t.Context(), b))
		require.Equal(t, 1, count(t, pool, "t"))
	}
}

func one0(one []int) []int {
	if one == nil {
		return nil
	}
	return []int{0}
}

// random returns text that does not compress.
func random(n int) string {
	b := make([]byte, n)
	x := uint32(7)
	for i := range b {
		x = x*1664525 + 1013904223
		b[i] = byte('!' + x>>24%90)
	}
	return string(b)
}

func TestPermanent(t *testing.T) {
	for code, want := range map[string]bool{
		"21000": true, "22001": true, "22P02": true, "23505": true, "44000": true, "54000": true, "54001": true, "P0001": true,
		"": false, "2": false, "08006": false, "0A000": false, "25006": false, "28000": false, "40001": false, "40P01": false, "42501": false,
		"42P01": false, "42703": false, "53100": false, "53300": false, "54011": false, "55P03": false, "57014": false, "57P01": false, "58030": false, "XX000": false, "XX001": false,
	} {
		require.Equal(t, want, postgres.Permanent(&pgconn.PgError{Code: code}), code)
	}
	pool := cluster.Get(t).Pool(t)
	exec(t, pool, `CREATE TABLE t (v text UNIQUE)`)
	o := texts(postgres.Copy)
	var asked string
	o.Permanent = func(e *pgconn.PgError) bool { asked = e.Code; return false }
	s := open(t, pool, o)
	transient(t, s.Write(t.Context(), batch("a", "x", "x")))
	require.Equal(t, "23505", asked)
}

// TestMap: what Map refuses is rejected by number, but not what was written before.
func TestMap(t *testing.T) {
	pool := cluster.Get(t).Pool(t)
	exec(t, pool, `CREATE TABLE t (v int)`)
	strict := false
	wrong := errors.New("wrong")
	s := open(t, pool, postgres.Options{
		Table: pgx.Identifier{"t"}, Columns: []string{"v"},
		Map: func(r sink.Row, dst []any) error {
			switch v := string(r.Value); {
			case v == "wrong" || strict:
				return wrong
			case v == "large":
				dst[0] = int64(1) << 40
			case v == "chan":
				dst[0] = make(chan int)
			default:
				dst[0] = len(v)
			}
			return nil
		},
	})
	err := s.Write(t.Context(), batch("a", "x", "wrong", "y", "wrong"))
	rejected(t, err, 1, 3)
	require.ErrorIs(t, err, wrong)
	rejected(t, s.Write(t.Context(), batch("b", "large", "x", "large")), 0, 2)
	transient(t, s.Write(t.Context(), batch("c", "x", "chan"))) // a mistake of the program, not of the row
	require.Zero(t, count(t, pool, "t"))
	require.NoError(t, s.Write(t.Context(), batch("d", "x")))
	strict = true
	require.NoError(t, s.Write(t.Context(), batch("d", "x")))
	require.Equal(t, 1, count(t, pool, "t"))
	// The default has a limit, too.
	exec(t, pool, events)
	d := open(t, pool, postgres.Options{})
	rejected(t, d.Write(t.Context(), sink.Batch{ID: "e", Rows: []sink.Row{{Offset: 1 << 63}}}), 0)
	rejected(t, d.Write(t.Context(), sink.Batch{ID: "f", Rows: []sink.Row{{Headers: map[string]string{"a": "\x00"}}}}))
}

// TestSession: neither the isolation nor the durability of the session counts.
func TestSession(t *testing.T) {
	pool := cluster.Get(t).Pool(t, func(c *pgxpool.Config) {
		c.ConnConfig.RuntimeParams["synchronous_commit"] = "off"
		c.ConnConfig.RuntimeParams["default_transaction_isolation"] = "serializable"
		c.MaxConns = 1 // and a write needs no second connection
	})
	exec(t, pool, `CREATE TABLE t (v text, how text DEFAULT current_setting('synchronous_commit'), level text DEFAULT current_setting('transaction_isolation'))`)
	s := open(t, pool, texts(postgres.Copy))
	require.NoError(t, s.Write(t.Context(), batch("a", "x")))
	require.Equal(t, []string{"on, read committed"}, strs(t, pool, `SELECT how || ', ' || level FROM t`))
	require.Equal(t, []string{"off"}, strs(t, pool, `SHOW synchronous_commit`))
	pool.Close()
	transient(t, s.Write(t.Context(), batch("b", "x")))
}

func TestPrune(t *testing.T) {
	pool := cluster.Get(t).Pool(t)
	exec(t, pool, `CREATE TABLE t (v text)`)
	o := texts(postgres.Copy)
	o.KeepInbox, o.PruneEvery = time.Hour, -1
	s := open(t, pool, o)
	exec(t, pool, `INSERT INTO forebay_inbox SELECT ('old' || i)::bytea, now() - interval '2 hours' FROM generate_series(1, 25000) i`)
	require.NoError(t, s.Write(t.Context(), batch("a", "x")))
	require.Equal(t, 25001, count(t, pool, "forebay_inbox"), "a write leaves that to Prune")
	n, err := s.Prune(t.Context())
	require.NoError(t, err)
	require.Equal(t, int64(25000), n)
	require.Equal(t, []string{"a"}, strs(t, pool, `SELECT convert_from(id, 'UTF8') FROM forebay_inbox`))

	exec(t, pool, `INSERT INTO forebay_inbox VALUES ('old', now() - interval '2 hours')`)
	o.PruneEvery = 0
	s = open(t, pool, o)
	require.NoError(t, s.Write(t.Context(), batch("b", "x")))
	require.Equal(t, 2, count(t, pool, "forebay_inbox"))
	exec(t, pool, `UPDATE forebay_inbox SET at = now() - interval '2 hours'`)
	require.NoError(t, s.Write(t.Context(), batch("c", "x")))
	require.Equal(t, 3, count(t, pool, "forebay_inbox"), "not yet again")
	o.KeepInbox = -1
	s = open(t, pool, o)
	require.NoError(t, s.Write(t.Context(), batch("d", "x")))
	n, err = s.Prune(t.Context())
	require.NoError(t, err)
	require.Zero(t, n)
	require.Equal(t, 4, count(t, pool, "forebay_inbox"))
}
