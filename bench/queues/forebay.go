package main

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/queue"
)

func forebayEngine() *Engine {
	return &Engine{
		Name: Home, Module: "github.com/forebaydb/forebay",
		Notes:    "defaults; a batch is one EnqueueBatch; each worker receives up to 64 messages, handles one after another, and acknowledges them by one Ack, which shares its sync with those of other workers and of producers",
		Enqueued: "committed and synced",
		Acked:    "committed and synced",
		open:     openForebay,
	}
}

// forebayFetch is how many messages a worker receives at once.
const forebayFetch = 64

type forebayQueue struct {
	db    *forebay.DB
	queue *queue.Queue[[]byte]
	group *queue.Group[[]byte]
}

func openForebay(_ context.Context, dir string, _ Config) (_ Queue, err error) {
	db, err := forebay.Open(dir, nil)
	if err != nil {
		return nil, err
	}
	f := &forebayQueue{db: db}
	if f.queue, err = queue.Open(db, "bench", queue.Bytes{}, nil); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	// Nobody dies here: no message is to come again.
	if f.group, err = f.queue.Group("workers", &queue.GroupOptions{Lease: time.Hour}); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func (f *forebayQueue) Enqueue(ctx context.Context, msgs [][]byte) error {
	if len(msgs) == 1 {
		_, err := f.queue.Enqueue(ctx, msgs[0], nil)
		return err
	}
	items := make([]queue.Item[[]byte], len(msgs))
	for i, m := range msgs {
		items[i].Value = m
	}
	_, err := f.queue.EnqueueBatch(ctx, items)
	return err
}

func (f *forebayQueue) Consume(ctx context.Context, workers int, handle, acked func([]byte)) error {
	var wg sync.WaitGroup
	errs := make([]error, workers)
	for i := range errs {
		wg.Go(func() { errs[i] = f.worker(ctx, handle, acked) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (f *forebayQueue) worker(ctx context.Context, handle, acked func([]byte)) error {
	for {
		ms, err := f.group.Receive(ctx, forebayFetch)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		for _, m := range ms {
			handle(m.Value)
		}
		if err := f.group.Ack(context.WithoutCancel(ctx), ms...); err != nil {
			return err
		}
		for _, m := range ms {
			acked(m.Value)
		}
	}
}

func (f *forebayQueue) Close() error { return errors.Join(f.queue.Close(), f.db.Close()) }
