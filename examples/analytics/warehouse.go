package main

import (
	"context"
	"database/sql"
	"errors"
	"log"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	_ "modernc.org/sqlite" // the driver "sqlite"

	"github.com/forebaydb/forebay/sink"
	"github.com/forebaydb/forebay/sink/postgres"
	"github.com/forebaydb/forebay/sink/sqlite"
)

// warehouse is the database: a sink for batches, and questions to it.
type warehouse struct {
	sink  sink.Sink
	db    *sql.DB
	close func() error
}

// table is the same in all of them. It has no unique key, and does not need one.
const table = `CREATE TABLE IF NOT EXISTS views (
	server  INTEGER NOT NULL,
	n       INTEGER NOT NULL,
	page    TEXT    NOT NULL CHECK (page <> ''),
	visitor TEXT    NOT NULL,
	millis  INTEGER NOT NULL
)`

func openSQLite(ctx context.Context, file string) (*warehouse, error) {
	s, err := sqlite.Open(ctx, file, sqlite.Options{Table: "views", Columns: columns, Map: fill})
	if err != nil {
		return nil, err
	}
	db, err := sql.Open("sqlite", file)
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	w := &warehouse{sink: s, db: db, close: func() error { return errors.Join(db.Close(), s.Close()) }}
	if _, err := db.ExecContext(ctx, table); err != nil {
		return nil, errors.Join(err, w.close())
	}
	return w, nil
}

func openPostgres(ctx context.Context, dsn string) (*warehouse, error) {
	pool, err := pgxpool.New(ctx, dsn)
	if err != nil {
		return nil, err
	}
	db := stdlib.OpenDBFromPool(pool)
	w := &warehouse{db: db, close: func() error {
		defer pool.Close()
		return db.Close()
	}}
	s, err := postgres.New(pool, postgres.Options{Table: pgx.Identifier{"views"}, Columns: columns, Map: fill})
	if err == nil {
		err = s.EnsureSchema(ctx)
	}
	if err == nil {
		_, err = db.ExecContext(ctx, table)
	}
	if err != nil {
		return nil, errors.Join(err, w.close())
	}
	w.sink = s
	return w, nil
}

// report asks the database what people look at.
func (w *warehouse) report(ctx context.Context, say *log.Logger) error {
	rows, err := w.db.QueryContext(ctx, `
		SELECT page, count(*), count(DISTINCT visitor), CAST(avg(millis) AS INTEGER)
		FROM views GROUP BY page ORDER BY count(*) DESC, page`)
	if err != nil {
		return err
	}
	defer rows.Close()
	say.Printf("%-22s %8s %8s %6s", "page", "views", "visitors", "ms")
	for rows.Next() {
		var page string
		var views, visitors, millis int64
		if err := rows.Scan(&page, &views, &visitors, &millis); err != nil {
			return err
		}
		say.Printf("%-22s %8d %8d %6d", page, views, visitors, millis)
	}
	return rows.Err()
}
