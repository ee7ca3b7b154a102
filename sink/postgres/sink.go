package postgres

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/forebaydb/forebay/sink"
)

// rollbackTime is how long an answer to ROLLBACK is waited for, also when the caller's
// context has ended. After it the connection is closed, which ends the transaction, too.
const rollbackTime = 5 * time.Second

// Sink writes batches into a table. Any number of goroutines may call its methods at once.
type Sink struct {
	pool     *pgxpool.Pool
	o        Options // not changed
	sql      statements
	ownTable bool // EnsureSchema makes the target

	// pruned is when the inbox was looked at last, as time since start; -1: never.
	pruned atomic.Int64
	start  time.Time

	mu    sync.Mutex // guards types; not held while the server is asked
	types map[uint32]pgType
}

var _ sink.Sink = (*Sink)(nil)

// Write is sink.Sink: one transaction, exactly once. When ctx ends, whether the batch was
// written is unknown, as with any other error but *sink.Rejected.
func (s *Sink) Write(ctx context.Context, b sink.Batch) error {
	if len(b.ID) < 1 || len(b.ID) > sink.MaxID {
		return fmt.Errorf("postgres: an ID of %d bytes: it has 1 to %d", len(b.ID), sink.MaxID)
	}
	if len(b.Rows) == 0 {
		return ctx.Err()
	}
	// User code runs before a connection is taken. What it refuses counts only after the
	// inbox was asked: a batch may have been written when Map was milder.
	values, bad := s.mapRows(b.Rows)
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return fmt.Errorf("postgres: no connection: %w", err)
	}
	err = s.transact(ctx, conn.Conn(), b, values, bad)
	conn.Release()
	if err != nil {
		return err
	}
	s.pruneSometimes(ctx)
	return nil
}

func (s *Sink) mapRows(rows []sink.Row) (values []any, bad *badRows) {
	n := len(s.o.Columns)
	values = make([]any, n*len(rows))
	for i, r := range rows {
		if err := s.o.Map(r, values[i*n:(i+1)*n:(i+1)*n]); err != nil {
			if bad == nil {
				bad = &badRows{err: err}
			}
			bad.rows = append(bad.rows, i)
		}
	}
	return values, bad
}

// errKnown: the ID is in the inbox.
var errKnown = errors.New("postgres: this batch was written already")

// beginSQL is READ COMMITTED whatever the default of the database is: under the others
// the INSERT into the inbox would fail where it is to wait and look. Commits are durable.
const beginSQL = `begin isolation level read committed read write;
select set_config('synchronous_commit', 'on', true) where current_setting('synchronous_commit') = 'off'`

func (s *Sink) transact(ctx context.Context, conn *pgx.Conn, b sink.Batch, values []any, bad *badRows) error {
	tx, err := conn.BeginTx(ctx, pgx.TxOptions{BeginQuery: beginSQL})
	if err != nil {
		// Half of it may be done: pgx has sent two statements.
		_ = conn.Close(ctx)
		return fmt.Errorf("postgres: begin: %w", err)
	}
	err = s.fill(ctx, tx, b, values, bad)
	if err == nil {
		err = tx.Commit(ctx)
		if err == nil {
			return nil
		}
		err = fmt.Errorf("postgres: commit: %w", err)
		// An error that the server sends for COMMIT (of a deferred constraint) means that
		// it is rolled back; with all else the reply may be what was lost.
		if conn.IsClosed() || conn.PgConn().TxStatus() != 'I' {
			return err
		}
		return s.judge(err)
	}
	rctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), rollbackTime)
	defer cancel()
	rerr := tx.Rollback(rctx)
	if errors.Is(err, errKnown) {
		return nil
	}
	if rerr != nil || conn.PgConn().TxStatus() != 'I' {
		_ = conn.Close(rctx)
		return fmt.Errorf("postgres: %w; and then the rollback failed: %v", err, rerr)
	}
	return s.judge(fmt.Errorf("postgres: %w", err))
}

// fill does all of a transaction between begin and commit.
func (s *Sink) fill(ctx context.Context, tx pgx.Tx, b sink.Batch, values []any, bad *badRows) error {
	tag, err := tx.Exec(ctx, s.sql.inbox, []byte(b.ID))
	if err != nil {
		return fmt.Errorf("inbox: %w", keepOut(err))
	}
	if tag.RowsAffected() == 0 {
		return errKnown
	}
	if bad != nil {
		return bad
	}
	cols, err := s.columns(ctx, tx)
	if err != nil {
		return fmt.Errorf("columns of the target: %w", keepOut(err))
	}
	rows, err := s.encode(tx.Conn().TypeMap(), cols, values)
	if err != nil {
		return err
	}
	return s.load(ctx, tx, cols, rows)
}

// keepOut takes an error of the server for a statement that no row is in out of what
// judge sees: whatever it is, it is not of a row.
func keepOut(err error) error { return &notOfARow{err} }

type notOfARow struct{ err error }

func (e *notOfARow) Error() string { return e.err.Error() }
func (e *notOfARow) Unwrap() error { return e.err }
