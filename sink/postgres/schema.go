package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// schemaLock is an advisory lock: two CREATE TABLE IF NOT EXISTS at once can fail.
const schemaLock = 0x666f7265626179 // "forebay"

// EnsureSchema makes the inbox and, unless Options.Columns is set, the target, where they
// are not there yet. A schema that Options name must exist. What is there is not changed.
func (s *Sink) EnsureSchema(ctx context.Context) error {
	err := pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock($1)", int64(schemaLock)); err != nil {
			return err
		}
		for _, sql := range s.Schema() {
			if _, err := tx.Exec(ctx, sql); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("postgres: schema: %w", err)
	}
	return nil
}

// Schema returns the statements of EnsureSchema.
func (s *Sink) Schema() []string {
	inbox := s.o.Inbox.Sanitize()
	index := s.o.Inbox[len(s.o.Inbox)-1]
	index = pgx.Identifier{index[:min(len(index), maxName-3)] + "_at"}.Sanitize()
	all := []string{
		`CREATE TABLE IF NOT EXISTS ` + inbox + ` (id bytea PRIMARY KEY, at timestamptz NOT NULL DEFAULT clock_timestamp())`,
		`CREATE INDEX IF NOT EXISTS ` + index + ` ON ` + inbox + ` (at)`,
	}
	if s.ownTable {
		all = append(all, `CREATE TABLE IF NOT EXISTS `+s.o.Table.Sanitize()+
			` ("offset" bigint NOT NULL, "time" timestamptz NOT NULL, "key" bytea, "value" bytea NOT NULL, "headers" jsonb)`)
	}
	return all
}

const (
	prunePiece = 10_000          // rows of one transaction of Prune
	pruneTime  = 5 * time.Second // how long a Write prunes at most
)

// Prune deletes all IDs older than KeepInbox from the inbox, some thousand at a time, and
// returns how many. Any number of processes may do it at once.
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

func (s *Sink) prunePiece(ctx context.Context) (int64, error) {
	tag, err := s.pool.Exec(ctx, s.sql.prune, s.o.KeepInbox.Seconds(), prunePiece)
	if err != nil {
		return 0, fmt.Errorf("postgres: prune: %w", err)
	}
	return tag.RowsAffected(), nil
}

// pruneSometimes does a piece of Prune when the time has come. Its error is nobody's: the
// batch is written, and the next one that prunes tries again.
func (s *Sink) pruneSometimes(ctx context.Context) {
	if s.o.KeepInbox < 0 || s.o.PruneEvery < 0 {
		return
	}
	now, last := int64(time.Since(s.start)), s.pruned.Load()
	if last >= 0 && now-last < int64(s.o.PruneEvery) || !s.pruned.CompareAndSwap(last, now) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, pruneTime)
	defer cancel()
	_, _ = s.prunePiece(ctx)
}
