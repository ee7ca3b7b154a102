package engines

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"sync"

	_ "modernc.org/sqlite" // the driver
)

func init() {
	register(&Engine{
		Name: "sqlite", Module: "modernc.org/sqlite",
		Notes: "SQLite translated to Go, through database/sql; one table WITHOUT ROWID, prepared statements, WAL; wal_autocheckpoint at the size of the memtable (default 4 MB); one connection for all writers, one for each reader, which share the cache evenly",
		Promise: [3]string{
			Durable: "synchronous FULL: survives a power cut",
			Written: "synchronous NORMAL: survives a crash of the process, and after a power cut is as of the last checkpoint or later. (OFF survives a crash of the process too, and a power cut may destroy the file)",
		},
		Settled: "wal_checkpoint(TRUNCATE)",
		NoLog:   "its log has whole pages, 4 KiB and more for each commit, and is settled all the while",
		Syncs:   "not known: SQLite syncs by itself, without a seam",
		open:    openSQLite,
	})
}

type sqliteStore struct {
	db *sql.DB

	mu       sync.Mutex // guards what follows: one writes at a time
	w        *sql.Conn
	put, del *sql.Stmt
}

func openSQLite(dir string, cfg Config) (Store, error) {
	synchronous := "full"
	if cfg.Level == Written {
		synchronous = "normal"
	}
	url := fmt.Sprintf("file:%s?_pragma=busy_timeout(60000)&_pragma=journal_mode(wal)&_pragma=synchronous(%s)&_pragma=cache_size(-%d)&_pragma=wal_autocheckpoint(%d)",
		filepath.ToSlash(filepath.Join(dir, "sqlite.db")), synchronous, max(cfg.Cache>>10/int64(cfg.Goroutines), 1), max(cfg.Memtable/4096, 1))
	db, err := sql.Open("sqlite", url)
	if err != nil {
		return nil, err
	}
	s := &sqliteStore{db: db}
	if err := s.start(); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return s, nil
}

func (s *sqliteStore) start() (err error) {
	ctx := context.Background()
	if s.w, err = s.db.Conn(ctx); err != nil {
		return err
	}
	if _, err = s.w.ExecContext(ctx, "CREATE TABLE IF NOT EXISTS t (k BLOB PRIMARY KEY, v BLOB) WITHOUT ROWID"); err != nil {
		return err
	}
	if s.put, err = s.w.PrepareContext(ctx, "INSERT OR REPLACE INTO t VALUES (?, ?)"); err != nil {
		return err
	}
	s.del, err = s.w.PrepareContext(ctx, "DELETE FROM t WHERE k = ?")
	return err
}

func (s *sqliteStore) Writer(Level) (Writer, error) { return sqliteWriter{s}, nil }

func (s *sqliteStore) Reader() (Reader, error) { return s.reader() }

func (s *sqliteStore) reader() (*sqliteReader, error) {
	ctx := context.Background()
	c, err := s.db.Conn(ctx)
	if err != nil {
		return nil, err
	}
	r := &sqliteReader{c: c}
	for stmt, text := range map[**sql.Stmt]string{
		&r.get:     "SELECT v FROM t WHERE k = ?",
		&r.first:   "SELECT k, v FROM t ORDER BY k",
		&r.from:    "SELECT k, v FROM t WHERE k >= ? ORDER BY k",
		&r.reverse: "SELECT k, v FROM t ORDER BY k DESC",
	} {
		if *stmt, err = c.PrepareContext(ctx, text); err != nil {
			return nil, errors.Join(err, c.Close())
		}
	}
	return r, nil
}

// Snapshot begins a transaction, which has its state from the first read on.
func (s *sqliteStore) Snapshot() (Reader, error) {
	r, err := s.reader()
	if err != nil {
		return nil, err
	}
	r.tx = true
	if _, err := r.c.ExecContext(context.Background(), "BEGIN"); err != nil {
		return nil, errors.Join(err, r.c.Close())
	}
	if _, err := r.Get([]byte{0}, func([]byte) {}); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

func (s *sqliteStore) Settle(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, err := s.w.ExecContext(ctx, "PRAGMA wal_checkpoint(TRUNCATE)")
	return err
}

func (s *sqliteStore) Stats() Stats { return Stats{Syncs: -1} }

func (s *sqliteStore) Close() error {
	return errors.Join(s.put.Close(), s.del.Close(), s.w.Close(), s.db.Close())
}

// within runs fn in a transaction of the one that writes.
func (s *sqliteStore) within(fn func() error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	ctx := context.Background()
	if _, err := s.w.ExecContext(ctx, "BEGIN IMMEDIATE"); err != nil {
		return err
	}
	if err := fn(); err != nil {
		_, back := s.w.ExecContext(ctx, "ROLLBACK")
		return errors.Join(err, back)
	}
	_, err := s.w.ExecContext(ctx, "COMMIT")
	return err
}

func (s *sqliteStore) Transform(_ Level, key []byte, fn func(old []byte) []byte) (int, error) {
	return 0, s.within(func() error {
		var old []byte
		err := s.w.QueryRowContext(context.Background(), "SELECT v FROM t WHERE k = ?", key).Scan(&old)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		_, err = s.put.Exec(key, fn(old))
		return err
	})
}

type sqliteWriter struct{ s *sqliteStore }

func (w sqliteWriter) Put(key, value []byte) error {
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	_, err := w.s.put.Exec(key, value)
	return err
}

func (w sqliteWriter) Delete(key []byte) error {
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	_, err := w.s.del.Exec(key)
	return err
}

func (w sqliteWriter) Batch(n int, at func(i int) (key, value []byte)) error {
	return w.s.within(func() error {
		for i := range n {
			k, v := at(i)
			if _, err := w.s.put.Exec(k, v); err != nil {
				return err
			}
		}
		return nil
	})
}

func (w sqliteWriter) Close() error { return nil }

type sqliteReader struct {
	c                         *sql.Conn
	tx                        bool
	get, first, from, reverse *sql.Stmt
	k, v                      sql.RawBytes // lent by the driver
}

func (r *sqliteReader) Get(key []byte, visit func([]byte)) (found bool, err error) {
	rows, err := r.get.Query(key)
	if err != nil {
		return false, err
	}
	if found = rows.Next(); found {
		if err = rows.Scan(&r.v); err == nil {
			visit(r.v)
		}
	}
	return found, errors.Join(err, rows.Err(), rows.Close())
}

func (r *sqliteReader) Scan(from []byte, limit int, reverse bool, visit func(key, value []byte)) (int, error) {
	var (
		rows *sql.Rows
		err  error
	)
	switch {
	case reverse:
		rows, err = r.reverse.Query()
	case from == nil:
		rows, err = r.first.Query()
	default:
		rows, err = r.from.Query(from)
	}
	if err != nil {
		return 0, err
	}
	n := 0
	for n < limit && rows.Next() {
		if err = rows.Scan(&r.k, &r.v); err != nil {
			break
		}
		visit(r.k, r.v)
		n++
	}
	return n, errors.Join(err, rows.Err(), rows.Close())
}

func (r *sqliteReader) Close() error {
	errs := []error{r.get.Close(), r.first.Close(), r.from.Close(), r.reverse.Close()}
	if r.tx {
		_, err := r.c.ExecContext(context.Background(), "ROLLBACK")
		errs = append(errs, err)
	}
	return errors.Join(append(errs, r.c.Close())...)
}
