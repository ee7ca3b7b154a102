package main

import (
	"context"
	"database/sql"
	"errors"
)

// openSQLite opens a database whose commits are durable when they return. One
// connection is the fastest for writers alone: several would wait for the one
// lock of the file by polling.
func openSQLite(ctx context.Context, dir string) (*sql.DB, error) {
	db, err := sql.Open(sqliteDriver, sqliteURL(dir))
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1)
	// The log is settled after 64 MiB; at the default of 4 MiB each settling costs
	// two syncs more.
	if _, err := db.ExecContext(ctx, "PRAGMA wal_autocheckpoint = 16384"); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	var mode string
	var level int
	err = errors.Join(
		db.QueryRowContext(ctx, "PRAGMA journal_mode").Scan(&mode),
		db.QueryRowContext(ctx, "PRAGMA synchronous").Scan(&level),
	)
	if err == nil && (mode != "wal" || level != 2) {
		err = errors.New("the database is not durable: journal_mode " + mode)
	}
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

const sqliteNotes = "SQLite in WAL mode, synchronous=FULL, cache 256 MiB, wal_autocheckpoint 64 MiB, one connection, transactions that begin IMMEDIATE"
