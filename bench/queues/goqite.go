package main

import (
	"context"
	"database/sql"
	"errors"
	"sync"
	"time"

	"maragu.dev/goqite"
)

func goqiteEngine() *Engine {
	return &Engine{
		Name: "goqite", Module: "maragu.dev/goqite",
		Notes:    sqliteNotes + " (driver " + sqliteModule + "); a batch is one transaction of SendTx; one transaction deletes all that the workers have finished and receives up to 100 more, for all workers; an enqueue wakes it, so that nothing polls",
		Enqueued: "committed and synced",
		Acked:    "deleted, committed and synced",
		open:     openGoqite,
	}
}

type goqiteQueue struct {
	db    *sql.DB
	queue *goqite.Queue
	wake  chan struct{} // one is in it when something was put in since it was looked at
}

// goqiteSchema is schema_sqlite.sql of the module, which it does not export.
const goqiteSchema = `
create table goqite (
  id text primary key default ('m_' || lower(hex(randomblob(16)))),
  created text not null default (strftime('%Y-%m-%dT%H:%M:%fZ')),
  updated text not null default (strftime('%Y-%m-%dT%H:%M:%fZ')),
  queue text not null,
  body blob not null,
  timeout text not null default (strftime('%Y-%m-%dT%H:%M:%fZ')),
  received integer not null default 0,
  priority integer not null default 0
) strict;
create trigger goqite_updated_timestamp after update on goqite begin
  update goqite set updated = strftime('%Y-%m-%dT%H:%M:%fZ') where id = old.id;
end;
create index goqite_queue_priority_created_idx on goqite (queue, priority desc, created);`

func openGoqite(ctx context.Context, dir string, _ Config) (Queue, error) {
	db, err := openSQLite(ctx, dir)
	if err != nil {
		return nil, err
	}
	if _, err := db.ExecContext(ctx, goqiteSchema); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return &goqiteQueue{
		db: db, wake: make(chan struct{}, 1),
		// Nobody dies here: no message is to come again.
		queue: goqite.New(goqite.NewOpts{DB: db, Name: "bench", Timeout: time.Hour}),
	}, nil
}

func (q *goqiteQueue) Enqueue(ctx context.Context, msgs [][]byte) error {
	var err error
	if len(msgs) == 1 {
		err = q.queue.Send(ctx, goqite.Message{Body: msgs[0]})
	} else {
		err = q.inTx(ctx, func(tx *sql.Tx) error {
			for _, m := range msgs {
				if err := q.queue.SendTx(ctx, tx, goqite.Message{Body: m}); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err != nil {
		return err
	}
	select {
	case q.wake <- struct{}{}:
	default:
	}
	return nil
}

func (q *goqiteQueue) inTx(ctx context.Context, fn func(*sql.Tx) error) error {
	tx, err := q.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if err := fn(tx); err != nil {
		return errors.Join(err, tx.Rollback())
	}
	return tx.Commit()
}

const goqiteFetch = 100

// Consume is one loop: the writers of a database take turns anyway.
func (q *goqiteQueue) Consume(ctx context.Context, workers int, handle, acked func([]byte)) error {
	todo, finished := make(chan *goqite.Message, goqiteFetch), make(chan *goqite.Message, goqiteFetch)
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for m := range todo {
				handle(m.Body)
				finished <- m
			}
		})
	}
	err := q.pump(ctx, todo, finished, acked)
	close(todo)
	go func() {
		wg.Wait()
		close(finished)
	}()
	for range finished { // what was not acknowledged when ctx ended
	}
	if ctx.Err() != nil {
		return nil
	}
	return err
}

func (q *goqiteQueue) pump(ctx context.Context, todo chan<- *goqite.Message, finished <-chan *goqite.Message, acked func([]byte)) error {
	out := 0 // messages that the workers have
	for first := true; ; first = false {
		var done []*goqite.Message
		select {
		case <-ctx.Done():
			return ctx.Err()
		case m := <-finished:
			done = gather(m, finished, out)
		case <-q.wake:
		case <-already(first):
		}
		var got []*goqite.Message
		// A transaction that was begun is ended, whatever becomes of ctx.
		ctx := context.WithoutCancel(ctx)
		err := q.inTx(ctx, func(tx *sql.Tx) error {
			for _, m := range done {
				if err := q.queue.DeleteTx(ctx, tx, m.ID); err != nil {
					return err
				}
			}
			for out-len(done)+len(got) < goqiteFetch {
				m, err := q.queue.ReceiveTx(ctx, tx)
				if err != nil || m == nil {
					return err
				}
				got = append(got, m)
			}
			return nil
		})
		if err != nil {
			return err
		}
		for _, m := range done {
			acked(m.Body)
		}
		out += len(got) - len(done)
		for _, m := range got {
			todo <- m // it has room for all that are out
		}
	}
}

// already returns a channel that is ready if yes: there may be messages from before.
func already(yes bool) <-chan struct{} {
	if !yes {
		return nil
	}
	c := make(chan struct{})
	close(c)
	return c
}

// gather waits a moment for what the workers are about to finish: a transaction
// costs more than that.
func gather(m *goqite.Message, finished <-chan *goqite.Message, out int) []*goqite.Message {
	done := []*goqite.Message{m}
	timer := time.NewTimer(200 * time.Microsecond)
	defer timer.Stop()
	for len(done) < out {
		select {
		case m := <-finished:
			done = append(done, m)
		case <-timer.C:
			return done
		}
	}
	return done
}

func (q *goqiteQueue) Close() error { return q.db.Close() }
