package main

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/riverdriver/riversqlite"
	"github.com/riverqueue/river/rivermigrate"
)

const riverNotes = "; a batch is one InsertManyFast; MaxWorkers 1,000 whatever the cell says, as they are the size of its fetches, too; what is completed is written in batches, as River does it, and counted when its event says so"

func riverSQLite() *Engine {
	return &Engine{
		Name: "river-sqlite", Module: "github.com/riverqueue/river/riverdriver/riversqlite",
		Notes:    sqliteNotes + " (driver " + sqliteModule + "); polls each 10 ms" + riverNotes,
		Enqueued: "committed and synced",
		Acked:    "set to completed, committed and synced; the row stays for a day, as is River's default",
		open: func(ctx context.Context, dir string, _ Config) (Queue, error) {
			db, err := openSQLite(ctx, dir)
			if err != nil {
				return nil, err
			}
			return openRiver(ctx, riversqlite.New(db), true, db.Close)
		},
	}
}

func riverPostgres() *Engine {
	return &Engine{
		Name: "river-postgres", Module: "github.com/riverqueue/river/riverdriver/riverpgxv5",
		Notes:    "not embedded: a server of PostgreSQL beside the program, over a Unix socket, with fsync and synchronous_commit on, shared_buffers 256 MB, max_wal_size 4 GB; a connection for each producer; jobs are told by NOTIFY, and fetched each 5 ms at most" + riverNotes,
		Enqueued: "committed and synced",
		Acked:    "set to completed, committed and synced; the row stays for a day, as is River's default",
		server:   postgresVersion,
		absent: func() error {
			_, err := findPostgres()
			return err
		},
		open: func(ctx context.Context, dir string, cfg Config) (Queue, error) {
			server, err := startPostgres(ctx, dir)
			if err != nil {
				return nil, err
			}
			pool, err := server.pool(ctx, cfg.Producers+16)
			if err != nil {
				return nil, errors.Join(err, server.stop())
			}
			return openRiver[pgx.Tx](ctx, riverpgxv5.New(pool), false, func() error {
				pool.Close()
				return server.stop()
			})
		},
	}
}

func (s *postgres) pool(ctx context.Context, conns int) (*pgxpool.Pool, error) {
	cfg, err := pgxpool.ParseConfig(s.url())
	if err != nil {
		return nil, err
	}
	cfg.MaxConns = int32(min(conns, postgresConns-10))
	return pgxpool.NewWithConfig(ctx, cfg)
}

// riverMessage are the arguments of a job.
type riverMessage struct {
	Body string `json:"body"`
}

func (riverMessage) Kind() string { return "message" }

// riverQueue is River on a database; T is the transaction of its driver.
type riverQueue[T any] struct {
	driver riverdriver.Driver[T]
	poll   bool
	client *river.Client[T]
	close  func() error
}

func openRiver[T any](ctx context.Context, d riverdriver.Driver[T], poll bool, closeDB func() error) (Queue, error) {
	q := &riverQueue[T]{driver: d, poll: poll, close: closeDB}
	if err := q.start(ctx); err != nil {
		return nil, errors.Join(err, closeDB())
	}
	return q, nil
}

func (q *riverQueue[T]) start(ctx context.Context) error {
	m, err := rivermigrate.New(q.driver, &rivermigrate.Config{Logger: riverLogger()})
	if err != nil {
		return err
	}
	if _, err := m.Migrate(ctx, rivermigrate.DirectionUp, nil); err != nil {
		return err
	}
	q.client, err = river.NewClient(q.driver, &river.Config{Logger: riverLogger(), PollOnly: q.poll})
	return err
}

// riverLogger writes what goes wrong; standard output is for results.
func riverLogger() *slog.Logger {
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
}

func (q *riverQueue[T]) Enqueue(ctx context.Context, msgs [][]byte) error {
	if len(msgs) == 1 {
		_, err := q.client.Insert(ctx, riverMessage{string(msgs[0])}, nil)
		return err
	}
	params := make([]river.InsertManyParams, len(msgs))
	for i, m := range msgs {
		params[i].Args = riverMessage{string(m)}
	}
	_, err := q.client.InsertManyFast(ctx, params)
	return err
}

// riverWorker works on jobs.
type riverWorker struct {
	river.WorkerDefaults[riverMessage]
	handle func([]byte)
}

func (w *riverWorker) Work(_ context.Context, job *river.Job[riverMessage]) error {
	w.handle([]byte(job.Args.Body))
	return nil
}

func (q *riverQueue[T]) Consume(ctx context.Context, _ int, handle, acked func([]byte)) error {
	workers := river.NewWorkers()
	river.AddWorker(workers, &riverWorker{handle: handle})
	client, err := river.NewClient(q.driver, &river.Config{
		Logger: riverLogger(), PollOnly: q.poll, Workers: workers,
		Queues:        map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: 1000}},
		FetchCooldown: 5 * time.Millisecond, FetchPollInterval: 10 * time.Millisecond,
	})
	if err != nil {
		return err
	}
	// Events that nobody takes are dropped: there is room for more than can be out.
	events, unsubscribe := client.SubscribeConfig(&river.SubscribeConfig{
		ChanSize: 100_000, Kinds: []river.EventKind{river.EventKindJobCompleted, river.EventKindJobFailed},
	})
	var wg sync.WaitGroup
	var failed error
	wg.Go(func() {
		for e := range events {
			var m riverMessage
			if err := json.Unmarshal(e.Job.EncodedArgs, &m); err != nil {
				failed = errors.Join(failed, err)
			} else if e.Kind == river.EventKindJobCompleted {
				acked([]byte(m.Body))
			}
		}
	})
	err = client.Start(context.WithoutCancel(ctx))
	if err == nil {
		<-ctx.Done()
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		err = client.Stop(stop)
		cancel()
	}
	unsubscribe() // closes events
	wg.Wait()
	return errors.Join(err, failed)
}

func (q *riverQueue[T]) Close() error { return q.close() }
