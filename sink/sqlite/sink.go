package sqlite

import (
	"context"
	"database/sql"
	sqldriver "database/sql/driver"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"time"

	driver "modernc.org/sqlite"

	"github.com/forebaydb/forebay/sink"
)

// ErrClosed comes from a sink that is closed.
var ErrClosed = errors.New("sqlite: the sink is closed")

const (
	busyStep     = 20 * time.Millisecond // how long SQLite waits for a lock before ctx is looked at again
	rollbackTime = 5 * time.Second
	prunePiece   = 10_000 // rows of one transaction of Prune
)

// Sink writes batches into a table. Any number of goroutines may call its methods at once;
// their transactions come one after another.
type Sink struct {
	db       *sql.DB
	o        Options // not changed
	insert   string
	ownTable bool // Schema has the target

	turn    chan struct{} // holds one token while a connection is in use
	closing context.Context
	close   context.CancelFunc
	once    sync.Once
	err     error // of Close

	// Of whose turn it is.
	pruned time.Time
}

var _ sink.Sink = (*Sink)(nil)

// Open opens or makes the file at path, and makes the tables that the package comment
// lists. Close ends it.
func Open(ctx context.Context, path string, o Options) (*Sink, error) {
	ownTable := o.Columns == nil
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	if path == "" || strings.IndexByte(path, 0) >= 0 {
		return nil, fmt.Errorf("sqlite: %q is no path", path)
	}
	// As a URI, so that no character of the path means something, ":memory:" included.
	if path, err = filepath.Abs(path); err != nil {
		return nil, err
	}
	path = filepath.ToSlash(path)
	if !strings.HasPrefix(path, "/") {
		path = "/" + path // of a volume
	}
	uri := url.URL{Scheme: "file", Path: path, RawQuery: url.Values{"_pragma": {
		fmt.Sprintf("busy_timeout(%d)", busyStep.Milliseconds()), "journal_mode(WAL)", "synchronous(FULL)", "foreign_keys(1)",
	}}.Encode()}
	db, err := sql.Open("sqlite", uri.String())
	if err != nil {
		return nil, fmt.Errorf("sqlite: %w", err)
	}
	db.SetMaxOpenConns(1)
	s := &Sink{db: db, o: o, insert: insertSQL(&o), ownTable: ownTable, turn: make(chan struct{}, 1)}
	s.closing, s.close = context.WithCancel(context.Background())
	if err := s.prepare(ctx); err != nil {
		_ = s.Close()
		return nil, err
	}
	return s, nil
}

// prepare looks that commits are durable, and makes the tables.
func (s *Sink) prepare(ctx context.Context) error {
	return s.transact(ctx, func(ctx context.Context, conn *sql.Conn) error {
		var mode string
		var sync int
		if err := conn.QueryRowContext(ctx, `PRAGMA journal_mode`).Scan(&mode); err != nil {
			return err
		}
		if err := conn.QueryRowContext(ctx, `PRAGMA synchronous`).Scan(&sync); err != nil {
			return err
		}
		if mode != "wal" || sync < 2 {
			return fmt.Errorf("journal_mode is %s and synchronous is %d, not wal and 2: commits are not durable here", mode, sync)
		}
		for _, ddl := range s.Schema() {
			if _, err := conn.ExecContext(ctx, ddl); err != nil {
				return err
			}
		}
		return nil
	})
}

// Schema returns the statements that Open executes.
func (s *Sink) Schema() []string {
	inbox := quote(s.o.Inbox)
	all := []string{
		`CREATE TABLE IF NOT EXISTS ` + inbox + ` (id TEXT PRIMARY KEY, at INTEGER NOT NULL) WITHOUT ROWID`,
		`CREATE INDEX IF NOT EXISTS ` + quote(s.o.Inbox+"_at") + ` ON ` + inbox + ` (at)`,
	}
	if !s.ownTable {
		return all
	}
	return append(all, `CREATE TABLE IF NOT EXISTS `+quote(s.o.Table)+
		` ("offset" INTEGER NOT NULL, "time" INTEGER NOT NULL, "key" BLOB, "value" BLOB NOT NULL, headers TEXT)`)
}

// Close waits for the write that runs, which is interrupted, and closes the file. Writes
// that wait for their turn get ErrClosed.
func (s *Sink) Close() error {
	s.close()
	s.once.Do(func() {
		s.turn <- struct{}{}
		s.err = s.db.Close()
	})
	return s.err
}

// Write is sink.Sink: one transaction, exactly once. When ctx ends, whether the batch was
// written is unknown, as with any other error but *sink.Rejected.
func (s *Sink) Write(ctx context.Context, b sink.Batch) error {
	if len(b.ID) < 1 || len(b.ID) > sink.MaxID {
		return fmt.Errorf("sqlite: an ID of %d bytes: it has 1 to %d", len(b.ID), sink.MaxID)
	}
	if len(b.Rows) == 0 {
		return ctx.Err()
	}
	// User code runs before it is our turn. What it refuses counts only after the inbox was
	// asked: a batch may have been written when Map was milder.
	values, bad := s.mapRows(b.Rows)
	prune := false
	err := s.transact(ctx, func(ctx context.Context, conn *sql.Conn) error {
		prune = s.o.KeepInbox >= 0 && s.o.PruneEvery >= 0 && time.Since(s.pruned) >= s.o.PruneEvery
		return s.fill(ctx, conn, b, values, bad)
	})
	if err == nil && prune {
		_, _ = s.prunePiece(ctx) // the batch is written; the next one that prunes tries again
	}
	return err
}

func (s *Sink) mapRows(rows []sink.Row) (values []any, bad *sink.Rejected) {
	n := len(s.o.Columns)
	values = make([]any, n*len(rows))
	for i, r := range rows {
		if err := s.o.Map(r, values[i*n:(i+1)*n:(i+1)*n]); err != nil {
			if bad == nil {
				bad = &sink.Rejected{Err: err}
			}
			bad.Rows = append(bad.Rows, i)
		}
	}
	return values, bad
}

// rowError is an error of the statement for one row, or of some row: -1.
type rowError struct {
	row int
	err error
}

func (e *rowError) Error() string { return e.err.Error() }
func (e *rowError) Unwrap() error { return e.err }

// fill does all of a write between begin and commit.
func (s *Sink) fill(ctx context.Context, conn *sql.Conn, b sink.Batch, values []any, bad *sink.Rejected) error {
	now := time.Now().UnixMilli()
	res, err := conn.ExecContext(ctx, `INSERT INTO main.`+quote(s.o.Inbox)+` (id, at) VALUES (?, ?) ON CONFLICT (id) DO NOTHING`, b.ID, now)
	if err != nil {
		return fmt.Errorf("inbox: %w", err)
	}
	if n, err := res.RowsAffected(); err != nil {
		return fmt.Errorf("inbox: %w", err)
	} else if n == 0 {
		// What was written before a crash may be in the file and not on the disk. This
		// changes a page, and so its commit syncs the log with all before it.
		_, err := conn.ExecContext(ctx, `UPDATE main.`+quote(s.o.Inbox)+` SET at = max(at + 1, ?) WHERE id = ?`, now, b.ID)
		return err
	}
	if bad != nil {
		return bad
	}
	insert, err := conn.PrepareContext(ctx, s.insert)
	if err != nil {
		return err
	}
	defer insert.Close()
	n := len(s.o.Columns)
	for i := range b.Rows {
		if _, err := insert.ExecContext(ctx, values[i*n:(i+1)*n]...); err != nil {
			return &rowError{i, err}
		}
	}
	return nil
}

// transact does f in a transaction when it is the caller's turn. It judges errors when it
// is known that nothing is left of it.
func (s *Sink) transact(ctx context.Context, f func(context.Context, *sql.Conn) error) (err error) {
	if s.closing.Err() != nil {
		return ErrClosed
	}
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-s.closing.Done():
		return ErrClosed
	case <-ctx.Done():
		return fmt.Errorf("sqlite: %w", ctx.Err())
	}
	if s.closing.Err() != nil {
		return ErrClosed
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(s.closing, func() { cancel(ErrClosed) })()
	conn, err := s.begin(ctx)
	if err != nil {
		return fmt.Errorf("sqlite: begin: %w", cause(ctx, err))
	}
	defer conn.Close()
	if err = f(ctx, conn); err == nil {
		// Once it is asked to, SQLite is let finish.
		if _, err = conn.ExecContext(context.WithoutCancel(ctx), `COMMIT`); err == nil {
			return nil
		}
		err = &rowError{-1, fmt.Errorf("commit: %w", err)} // a deferred constraint of some row
	}
	if rerr := rollback(ctx, conn); rerr != nil {
		return fmt.Errorf("sqlite: %w; and then the rollback failed: %v", cause(ctx, err), rerr)
	}
	return s.judge(cause(ctx, err))
}

// begin takes the connection and the lock for writing. SQLite itself waits for a lock
// without looking at ctx, and so only for a moment at a time.
func (s *Sink) begin(ctx context.Context) (*sql.Conn, error) {
	deadline := time.Now().Add(s.o.Busy)
	for {
		conn, err := s.db.Conn(ctx)
		if err == nil {
			if _, err = conn.ExecContext(ctx, `BEGIN IMMEDIATE`); err == nil {
				return conn, nil
			}
			_ = rollback(ctx, conn) // ctx may have ended when it had begun
			_ = conn.Close()
		}
		var lite *driver.Error
		if ctx.Err() != nil || !errors.As(err, &lite) || lite.Code()&0xff != 5 && lite.Code()&0xff != 6 || !time.Now().Before(deadline) {
			return nil, err
		}
	}
}

// rollback ends a transaction, or the connection. nil: nothing of it is left.
func rollback(ctx context.Context, conn *sql.Conn) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), rollbackTime)
	defer cancel()
	_, err := conn.ExecContext(ctx, `ROLLBACK`)
	if err == nil || strings.Contains(err.Error(), "no transaction is active") { // some errors roll back by themselves
		return nil
	}
	_ = conn.Raw(func(any) error { return sqldriver.ErrBadConn }) // closes it
	return err
}

// cause adds why a context ended to an error that came of it.
func cause(ctx context.Context, err error) error {
	if ctx.Err() == nil {
		return err
	}
	return fmt.Errorf("%w: %w", context.Cause(ctx), err)
}

// judge makes an answer of why a transaction failed. The caller knows that it is rolled
// back.
func (s *Sink) judge(err error) error {
	if bad := (*sink.Rejected)(nil); errors.As(err, &bad) {
		return bad
	}
	err = fmt.Errorf("sqlite: %w", err)
	var of *rowError
	var lite *driver.Error
	if !errors.As(err, &of) || !errors.As(err, &lite) || !s.o.Permanent(lite) {
		return err
	}
	rejected := &sink.Rejected{Err: err}
	if of.row >= 0 {
		rejected.Rows = []int{of.row}
	}
	return rejected
}

// Prune deletes all IDs older than KeepInbox from the inbox, some thousand at a time, and
// returns how many.
func (s *Sink) Prune(ctx context.Context) (deleted int64, err error) {
	if s.o.KeepInbox < 0 {
		return 0, nil
	}
	for {
		n, err := s.prunePiece(ctx)
		deleted += n
		if err != nil || n < prunePiece {
			return deleted, err
		}
	}
}

func (s *Sink) prunePiece(ctx context.Context) (n int64, err error) {
	inbox := quote(s.o.Inbox)
	err = s.transact(ctx, func(ctx context.Context, conn *sql.Conn) error {
		res, err := conn.ExecContext(ctx, `DELETE FROM main.`+inbox+` WHERE id IN (SELECT id FROM main.`+inbox+` WHERE at < ? ORDER BY at LIMIT ?)`,
			time.Now().Add(-s.o.KeepInbox).UnixMilli(), prunePiece)
		if err != nil {
			return err
		}
		n, err = res.RowsAffected()
		s.pruned = time.Now()
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("sqlite: prune: %w", err)
	}
	return n, nil
}
