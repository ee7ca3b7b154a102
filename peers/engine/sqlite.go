package engine

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	_ "modernc.org/sqlite" // the driver

	"github.com/forebaydb/forebay/vfs"
)

func sqliteEngine(settings, sets string, strict bool) *Engine {
	return &Engine{
		Name: "sqlite", Settings: settings, Sets: sets, Module: "modernc.org/sqlite",
		Kind: func(file string) string {
			switch {
			case strings.HasSuffix(file, "-wal"):
				return "log"
			case strings.HasSuffix(file, ".db"):
				return "data"
			}
			return Gone // -shm
		},
		Reason: func(column string) string {
			switch column {
			case "logbit", "logzero", "logstale":
				return "the log ends at the first frame that does not verify"
			case "removed":
				return oneFile
			case "databit", "datazero", "datastale", "datacut":
				return "pages have no checksum without the checksum VFS, which this build does not have"
			}
			return ""
		},
		Open: func(fsys vfs.FS, dir string) (Store, error) {
			if err := errors.Join(needOS(fsys), fsys.MkdirAll(dir)); err != nil {
				return nil, err
			}
			url := "file:" + filepath.ToSlash(filepath.Join(dir, "sqlite.db")) + "?_pragma=busy_timeout(1000)&_pragma=journal_mode(wal)"
			if strict {
				url += "&_pragma=synchronous(full)&_pragma=cell_size_check(on)"
			} else {
				url += "&_pragma=synchronous(full)"
			}
			db, err := sql.Open("sqlite", url)
			if err != nil {
				return nil, err
			}
			db.SetMaxOpenConns(1)
			s := &sqliteStore{db}
			if err := s.start(strict); err != nil {
				return nil, errors.Join(err, db.Close())
			}
			return s, nil
		},
	}
}

func sqliteDefault() *Engine {
	return sqliteEngine("default", "journal_mode WAL, synchronous FULL (the default)", false)
}

func sqliteStrict() *Engine {
	return sqliteEngine("strict", "journal_mode WAL, synchronous FULL, cell_size_check; integrity_check after the open; no checksum VFS in this build", true)
}

type sqliteStore struct{ db *sql.DB }

func (s *sqliteStore) start(check bool) error {
	if check {
		rows, err := s.db.Query("PRAGMA integrity_check")
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var line string
			if err := rows.Scan(&line); err != nil {
				return err
			}
			if line != "ok" {
				return fmt.Errorf("integrity_check: %s", line)
			}
		}
		if err := rows.Err(); err != nil {
			return err
		}
		rows.Close()
	}
	_, err := s.db.Exec("CREATE TABLE IF NOT EXISTS t (k BLOB PRIMARY KEY, v BLOB) WITHOUT ROWID")
	return err
}

func (s *sqliteStore) Apply(pairs ...[2]string) error {
	tx, err := s.db.BeginTx(context.Background(), nil)
	if err != nil {
		return err
	}
	for _, p := range pairs {
		if _, err := tx.Exec("INSERT OR REPLACE INTO t VALUES (?, ?)", []byte(p[0]), []byte(p[1])); err != nil {
			return errors.Join(err, tx.Rollback())
		}
	}
	return tx.Commit()
}

func (s *sqliteStore) Settle() error {
	_, err := s.db.Exec("PRAGMA wal_checkpoint(TRUNCATE)")
	return err
}

func (s *sqliteStore) Scan(reverse bool, each func(key, value []byte)) error {
	order := "ASC"
	if reverse {
		order = "DESC"
	}
	rows, err := s.db.Query("SELECT k, v FROM t ORDER BY k " + order)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var k, v []byte
		if err := rows.Scan(&k, &v); err != nil {
			return err
		}
		each(k, v)
	}
	return rows.Err()
}

func (s *sqliteStore) Get(key string) (value []byte, ok bool, err error) {
	err = s.db.QueryRow("SELECT v FROM t WHERE k = ?", []byte(key)).Scan(&value)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, false, nil
	}
	return value, err == nil, err
}

func (s *sqliteStore) Close() error { return s.db.Close() }
