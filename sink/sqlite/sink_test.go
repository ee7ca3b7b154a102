package sqlite_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	driver "modernc.org/sqlite"

	"github.com/forebaydb/forebay/sink"
	"github.com/forebaydb/forebay/sink/sinktest"
	"github.com/forebaydb/forebay/sink/sqlite"
)

const events = `CREATE TABLE events ("offset" INTEGER NOT NULL, "time" INTEGER NOT NULL, "key" BLOB, "value" BLOB NOT NULL CHECK ("value" <> x'626164'), headers TEXT)`

// other is a connection of another program.
func other(t *testing.T, path string) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Path: path}).String())
	require.NoError(t, err)
	db.SetMaxOpenConns(1)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	return db
}

func run(t *testing.T, db *sql.DB, sql string, args ...any) {
	t.Helper()
	_, err := db.Exec(sql, args...)
	require.NoError(t, err)
}

func open(t *testing.T, path string, o sqlite.Options) *sqlite.Sink {
	t.Helper()
	if o.Table == "" {
		o.Table = "events"
	}
	s, err := sqlite.Open(t.Context(), path, o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

// texts are the options of a table t with a column v.
func texts() sqlite.Options {
	return sqlite.Options{
		Table: "t", Columns: []string{"v"},
		Map: func(r sink.Row, dst []any) error { dst[0] = string(r.Value); return nil },
	}
}

func batch(id string, values ...string) sink.Batch {
	b := sink.Batch{ID: id}
	for i, v := range values {
		b.Rows = append(b.Rows, sink.Row{Offset: uint64(i), Value: []byte(v)})
	}
	return b
}

func strs(t *testing.T, db *sql.DB, query string) (all []string) {
	t.Helper()
	rows, err := db.Query(query)
	require.NoError(t, err)
	defer rows.Close()
	for rows.Next() {
		var s string
		require.NoError(t, rows.Scan(&s))
		all = append(all, s)
	}
	require.NoError(t, rows.Err())
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

func read(db *sql.DB) func(*testing.T) []sink.Row {
	return func(t *testing.T) (all []sink.Row) {
		rows, err := db.Query(`SELECT "offset", "time", "key", "value", headers FROM events ORDER BY rowid`)
		require.NoError(t, err)
		defer rows.Close()
		for rows.Next() {
			var r sink.Row
			var at int64
			var headers *string
			require.NoError(t, rows.Scan(&r.Offset, &at, &r.Key, &r.Value, &headers))
			r.Time = time.UnixMicro(at)
			if headers != nil {
				require.NoError(t, json.Unmarshal([]byte(*headers), &r.Headers))
			}
			all = append(all, r)
		}
		require.NoError(t, rows.Err())
		return all
	}
}

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

func TestSuite(t *testing.T) {
	for name, o := range map[string]sqlite.Options{
		"plain":  {},
		"ignore": {Conflict: sqlite.ConflictIgnore},
		"update": {Conflict: sqlite.ConflictUpdate, Key: []string{"offset"}, Version: "time"},
	} {
		t.Run(name, func(t *testing.T) {
			var lock *sql.DB
			sinktest.Run(t, sinktest.Harness{
				New: func(t *testing.T) (sink.Sink, func(*testing.T) []sink.Row) {
					path := filepath.Join(t.TempDir(), "a #b?c%20.db")
					lock = other(t, path) // before the sink, to be closed after it
					db := lock
					o := o
					o.Busy = 100 * time.Millisecond
					run(t, db, strings.Replace(events, "CREATE TABLE", "CREATE TABLE IF NOT EXISTS", 1))
					if o.Key != nil {
						run(t, db, `CREATE UNIQUE INDEX by_offset ON events ("offset")`)
					}
					s := open(t, path, o)
					require.FileExists(t, path)
					run(t, db, `PRAGMA busy_timeout = 5000`)
					return s, read(db)
				},
				ExactlyOnce: true,
				Same:        same,
				Bad:         func() []byte { return []byte("bad") },
				// Unreachable is a database that somebody else has locked.
				Stop:  func(t *testing.T) { run(t, lock, `BEGIN IMMEDIATE`) },
				Start: func(t *testing.T) { run(t, lock, `ROLLBACK`) },
			})
		})
	}
}

func TestOpen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	fill := func(sink.Row, []any) error { return nil }
	for want, o := range map[string]sqlite.Options{
		`"" is no name`:       {},
		`"a\x00" is no`:       {Table: "a\x00"},
		"go together":         {Table: "t", Map: fill},
		"0 columns":           {Table: "t", Map: fill, Columns: []string{}},
		"no conflict 3":       {Table: "t", Conflict: 3},
		"Key and Version":     {Table: "t", Version: "time"},
		"Version is for":      {Table: "t", Conflict: sqlite.ConflictIgnore, Version: "time"},
		"needs Key":           {Table: "t", Conflict: sqlite.ConflictUpdate},
		`key "x" is none`:     {Table: "t", Conflict: sqlite.ConflictIgnore, Key: []string{"x"}},
		`version "x" is none`: {Table: "t", Conflict: sqlite.ConflictUpdate, Key: []string{"key"}, Version: "x"},
	} {
		_, err := sqlite.Open(t.Context(), path, o)
		require.ErrorContains(t, err, want)
	}
	_, err := sqlite.Open(t.Context(), "", sqlite.Options{Table: "t"})
	require.ErrorContains(t, err, "no path")
	_, err = sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "not", "there"), sqlite.Options{Table: "t"})
	require.Error(t, err)
	require.NoError(t, os.WriteFile(path, []byte(strings.Repeat("no database ", 1000)), 0o600))
	_, err = sqlite.Open(t.Context(), path, sqlite.Options{Table: "t"})
	require.ErrorContains(t, err, "not a database")
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Len(t, b, 12000)

	s := open(t, filepath.Join(t.TempDir(), ":memory:"), sqlite.Options{}) // a name like others
	require.ErrorContains(t, s.Write(t.Context(), sink.Batch{}), "an ID of 0 bytes")
	require.NoError(t, s.Write(t.Context(), batch("a", "b")))
	require.Len(t, s.Schema(), 3)
}

func TestErrors(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	db := other(t, path)
	s := open(t, path, texts())
	i := 0
	write := func(values ...string) error {
		i++
		return s.Write(t.Context(), batch(fmt.Sprint(i), values...))
	}
	run(t, db, `CREATE TABLE parent (v TEXT PRIMARY KEY); INSERT INTO parent VALUES ('good')`)
	for table, bad := range map[string]string{
		`(v TEXT CHECK (v <> 'x'))`:                                    "x",
		`(v TEXT UNIQUE)`:                                              "good",
		`(v TEXT UNIQUE ON CONFLICT ROLLBACK)`:                         "good",
		`(v TEXT UNIQUE ON CONFLICT FAIL)`:                             "good",
		`(v TEXT REFERENCES parent)`:                                   "nobody",
		`(v ANY CHECK (length(v) < 1e6)) STRICT`:                       strings.Repeat("x", 2e6),
		`(v TEXT PRIMARY KEY, w INT NOT NULL DEFAULT 1) WITHOUT ROWID`: "good",
	} {
		run(t, db, `CREATE TABLE t `+table)
		rejected(t, write("good", bad, "fine"), 1)
		require.Empty(t, strs(t, db, `SELECT v FROM t`), table)
		require.Empty(t, strs(t, db, `SELECT id FROM forebay_inbox`), table)
		run(t, db, `DROP TABLE t`)
	}
	run(t, db, `CREATE TABLE t (v INTEGER) STRICT`)
	rejected(t, write("1", "x"), 1)
	run(t, db, `DROP TABLE t; CREATE TABLE t (v INTEGER PRIMARY KEY)`)
	rejected(t, write("1", "x"), 1) // a mismatch
	run(t, db, `DROP TABLE t; CREATE TABLE t (v TEXT REFERENCES parent DEFERRABLE INITIALLY DEFERRED)`)
	rejected(t, write("good", "nobody")) // by COMMIT, which leaves the transaction open
	require.NoError(t, write("good"))
	run(t, db, `CREATE TRIGGER no BEFORE INSERT ON t WHEN NEW.v = 'no' BEGIN SELECT RAISE(ABORT, 'I will not have it'); END`)
	err := write("good", "no")
	rejected(t, err, 1)
	require.ErrorContains(t, err, "I will not have it")
	require.Equal(t, []string{"good"}, strs(t, db, `SELECT v FROM t`))

	// What somebody mends.
	run(t, db, `ALTER TABLE t RENAME TO away`)
	b := batch("later", "good")
	transient(t, s.Write(t.Context(), b))
	run(t, db, `CREATE TABLE t (w TEXT)`)
	transient(t, s.Write(t.Context(), b))
	run(t, db, `ALTER TABLE t RENAME w TO v; ALTER TABLE forebay_inbox RENAME TO hidden`)
	transient(t, s.Write(t.Context(), b))
	run(t, db, `ALTER TABLE hidden RENAME TO forebay_inbox`)
	run(t, db, `CREATE TRIGGER full BEFORE INSERT ON forebay_inbox BEGIN SELECT RAISE(ABORT, 'not now'); END`)
	transient(t, s.Write(t.Context(), b)) // no row of the batch is bad
	run(t, db, `DROP TRIGGER full`)
	require.NoError(t, s.Write(t.Context(), b))
	require.Equal(t, []string{"good"}, strs(t, db, `SELECT v FROM t`))

	o := texts()
	var asked int
	o.Permanent = func(e *driver.Error) bool { asked = e.Code(); return false }
	o.Map = func(r sink.Row, dst []any) error { dst[0] = make(chan int); return nil }
	transient(t, open(t, path, o).Write(t.Context(), batch("x", "x"))) // a mistake of the program, not of the row
	require.Zero(t, asked)
	o.Map = texts().Map
	run(t, db, `CREATE UNIQUE INDEX u ON t (v)`)
	transient(t, open(t, path, o).Write(t.Context(), batch("x", "good")))
	require.Equal(t, 2067, asked) // SQLITE_CONSTRAINT_UNIQUE
}

func TestMap(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	db := other(t, path)
	run(t, db, `CREATE TABLE t (v TEXT)`)
	wrong, strict := errors.New("wrong"), false
	o := texts()
	o.Map = func(r sink.Row, dst []any) error {
		if dst[0] = string(r.Value); strict || dst[0] == "wrong" {
			return wrong
		}
		return nil
	}
	s := open(t, path, o)
	err := s.Write(t.Context(), batch("a", "x", "wrong", "y", "wrong"))
	rejected(t, err, 1, 3)
	require.ErrorIs(t, err, wrong)
	require.NoError(t, s.Write(t.Context(), batch("b", "x")))
	strict = true
	require.NoError(t, s.Write(t.Context(), batch("b", "x")))
	require.Equal(t, []string{"x"}, strs(t, db, `SELECT v FROM t`))
	d := open(t, path, sqlite.Options{})
	rejected(t, d.Write(t.Context(), sink.Batch{ID: "e", Rows: []sink.Row{{Offset: 1 << 63}}}), 0)
	require.NoError(t, d.Write(t.Context(), sink.Batch{ID: "e", Rows: []sink.Row{{}}}))
}

func TestUpsert(t *testing.T) {
	for _, version := range []string{"", "n"} {
		path := filepath.Join(t.TempDir(), "db")
		db := other(t, path)
		run(t, db, `CREATE TABLE t (k TEXT UNIQUE, v TEXT, n INTEGER)`)
		s := open(t, path, sqlite.Options{
			Table: "t", Columns: []string{"k", "v", "n"}, Conflict: sqlite.ConflictUpdate, Key: []string{"k"}, Version: version,
			Map: func(r sink.Row, dst []any) error {
				dst[0], dst[1], dst[2] = string(r.Key), string(r.Value), int64(r.Offset)
				return nil
			},
		})
		require.NoError(t, s.Write(t.Context(), sink.Batch{ID: "1", Rows: []sink.Row{
			{Key: []byte("a"), Value: []byte("one"), Offset: 1}, {Key: []byte("b"), Value: []byte("one"), Offset: 5}, {Key: []byte("a"), Value: []byte("two"), Offset: 2},
		}}))
		require.NoError(t, s.Write(t.Context(), sink.Batch{ID: "2", Rows: []sink.Row{{Key: []byte("b"), Value: []byte("old"), Offset: 4}}}))
		want := []string{"a two", "b old"}
		if version != "" {
			want[1] = "b one"
		}
		require.Equal(t, want, strs(t, db, `SELECT k || ' ' || v FROM t ORDER BY k`))
	}
	path := filepath.Join(t.TempDir(), "db")
	db := other(t, path)
	run(t, db, `CREATE TABLE "odd ""name" ("v ""x" TEXT UNIQUE)`)
	for i, c := range []sqlite.Conflict{sqlite.ConflictIgnore, sqlite.ConflictUpdate} {
		o := texts()
		o.Table, o.Inbox, o.Columns, o.Conflict, o.Key = `odd "name`, `in "box`, []string{`v "x`}, c, []string{`v "x`}
		require.NoError(t, open(t, path, o).Write(t.Context(), batch(fmt.Sprint(i), "a", "b", "a")))
		require.Equal(t, []string{"a", "b"}, strs(t, db, `SELECT * FROM "odd ""name"`))
	}
}

// TestKnownIsSynced: an ID that is there already is committed again, so that a sync
// covers it.
func TestKnownIsSynced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	s := open(t, path, sqlite.Options{})
	db := other(t, path)
	require.NoError(t, s.Write(t.Context(), batch("a", "b")))
	run(t, db, `UPDATE forebay_inbox SET at = 1 << 60`) // the clock was wrong
	size := func() int64 {
		fi, err := os.Stat(path + "-wal")
		require.NoError(t, err)
		return fi.Size()
	}
	before := size()
	require.NoError(t, s.Write(t.Context(), batch("a", "b")))
	require.Greater(t, size(), before)
	require.Equal(t, []string{"1"}, strs(t, db, `SELECT count(*) FROM events`))
}

func TestPrune(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	o := sqlite.Options{KeepInbox: time.Hour, PruneEvery: -1}
	s := open(t, path, o)
	db := other(t, path)
	old := func() {
		run(t, db, `WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 12000) INSERT INTO forebay_inbox SELECT 'old' || i, i FROM n`)
	}
	count := func() []string { return strs(t, db, `SELECT count(*) FROM forebay_inbox`) }
	old()
	require.NoError(t, s.Write(t.Context(), batch("a", "x")))
	require.Equal(t, []string{"12001"}, count(), "a write leaves that to Prune")
	n, err := s.Prune(t.Context())
	require.NoError(t, err)
	require.Equal(t, int64(12000), n)
	old()
	o.PruneEvery = 0
	s = open(t, path, o)
	require.NoError(t, s.Write(t.Context(), batch("b", "x")))
	require.Equal(t, []string{"2002"}, count())
	require.NoError(t, s.Write(t.Context(), batch("c", "x")))
	require.Equal(t, []string{"2003"}, count(), "not yet again")
	o.KeepInbox = -1
	s = open(t, path, o)
	n, err = s.Prune(t.Context())
	require.NoError(t, err)
	require.Zero(t, n)
}

// TestClose: who waits gets ErrClosed, from Close on everybody does, and what runs is
// rolled back or committed.
func TestClose(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	db := other(t, path)
	s := open(t, path, sqlite.Options{Busy: time.Hour})
	run(t, db, `BEGIN IMMEDIATE`)
	done := make(chan error)
	for i := range 3 {
		go func() { done <- s.Write(context.Background(), batch(fmt.Sprint(i), "x")) }()
	}
	time.Sleep(20 * time.Millisecond) // some are in it
	require.NoError(t, s.Close())
	for range 3 {
		err := <-done
		transient(t, err)
		require.ErrorIs(t, err, sqlite.ErrClosed)
	}
	require.ErrorIs(t, s.Write(t.Context(), batch("z", "x")), sqlite.ErrClosed)
	_, err := s.Prune(t.Context())
	require.ErrorIs(t, err, sqlite.ErrClosed)
	require.NoError(t, s.Close())
	run(t, db, `ROLLBACK`)
	require.Equal(t, []string{"0"}, strs(t, db, `SELECT count(*) FROM events`))
}

// TestBusyEnds: the wait for another program honours the context and has an end.
func TestBusyEnds(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	db := other(t, path)
	s := open(t, path, sqlite.Options{Busy: time.Hour})
	brief := open(t, path, sqlite.Options{Busy: -1})
	run(t, db, `BEGIN IMMEDIATE`)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	err := s.Write(ctx, batch("a", "x"))
	transient(t, err)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	var lite *driver.Error
	err = brief.Write(t.Context(), batch("a", "x"))
	transient(t, err)
	require.ErrorAs(t, err, &lite)
	require.Equal(t, 5, lite.Code()&0xff)
	go func() {
		time.Sleep(50 * time.Millisecond)
		_, _ = db.Exec(`ROLLBACK`)
	}()
	require.NoError(t, s.Write(t.Context(), batch("a", "x")))
}

// TestKill kills a process that writes, again and again: each batch is there whole or not
// at all, and once after it came again.
func TestKill(t *testing.T) {
	if path := os.Getenv("FOREBAY_SQLITE_CHILD"); path != "" {
		s, err := sqlite.Open(t.Context(), path, sqlite.Options{})
		require.NoError(t, err)
		for i := 0; ; i++ {
			require.NoError(t, s.Write(t.Context(), numbered(i)))
			fmt.Println("written", i)
		}
	}
	path := filepath.Join(t.TempDir(), "db")
	rounds := 5
	if testing.Short() {
		rounds = 2
	}
	for round := range rounds {
		cmd := exec.Command(os.Args[0], "-test.run=^TestKill$", "-test.v")
		cmd.Env = append(os.Environ(), "FOREBAY_SQLITE_CHILD="+path)
		var out strings.Builder
		cmd.Stdout = &out
		require.NoError(t, cmd.Start())
		time.Sleep(time.Duration(100+37*round) * time.Millisecond)
		require.NoError(t, cmd.Process.Kill())
		_ = cmd.Wait()
		acknowledged := strings.Count(out.String(), "written")
		s := open(t, path, sqlite.Options{})
		db := other(t, path)
		ids := strs(t, db, `SELECT id FROM forebay_inbox`)
		require.GreaterOrEqual(t, len(ids), acknowledged)
		require.Equal(t, []string{fmt.Sprint(10 * len(ids))}, strs(t, db, `SELECT count(*) FROM events`))
		for i := range len(ids) + 1 {
			require.NoError(t, s.Write(t.Context(), numbered(i)))
		}
		require.Equal(t, []string{fmt.Sprint(10 * (len(ids) + 1))}, strs(t, db, `SELECT count(DISTINCT "offset") FROM events`))
		require.Equal(t, []string{fmt.Sprint(10 * (len(ids) + 1))}, strs(t, db, `SELECT count(*) FROM events`))
	}
}

func numbered(i int) sink.Batch {
	b := sink.Batch{ID: fmt.Sprint("batch-", i)}
	for j := range 10 {
		b.Rows = append(b.Rows, sink.Row{Offset: uint64(10*i + j), Value: []byte(strings.Repeat("v", 500))})
	}
	return b
}
