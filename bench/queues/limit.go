package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
)

// limitEngine is no queue: each call writes its messages into a file that was
// filled with zeros, one after another, and syncs it. With one producer who waits
// for each call nothing that is durable is faster by much.
func limitEngine() *Engine {
	return &Engine{
		Name: "write+sync", Limit: true,
		Notes:    "no queue, but the limit of this disk for who waits for each call: a write and a sync of data, one call after another, into a file that is filled already",
		Enqueued: "written and synced",
		Acked:    "nothing is consumed",
		open:     openLimit,
	}
}

const limitSize = 64 << 20 // bytes; it is written from the front again

type limitQueue struct {
	mu  sync.Mutex // guards what follows
	f   *os.File
	buf []byte
	at  int64
}

func openLimit(_ context.Context, dir string, _ Config) (Queue, error) {
	f, err := os.Create(filepath.Join(dir, "file"))
	if err != nil {
		return nil, err
	}
	zeros := make([]byte, 1<<20)
	for range limitSize / len(zeros) {
		if _, err := f.Write(zeros); err != nil {
			return nil, errors.Join(err, f.Close())
		}
	}
	if err := f.Sync(); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &limitQueue{f: f}, nil
}

func (q *limitQueue) Enqueue(_ context.Context, msgs [][]byte) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.buf = q.buf[:0]
	for _, m := range msgs {
		q.buf = append(q.buf, m...)
	}
	if q.at+int64(len(q.buf)) > limitSize {
		q.at = 0
	}
	if _, err := q.f.WriteAt(q.buf, q.at); err != nil {
		return err
	}
	q.at += int64(len(q.buf))
	return syncData(q.f)
}

func (q *limitQueue) Consume(context.Context, int, func([]byte), func([]byte)) error {
	return errors.New("the limit consumes nothing")
}

func (q *limitQueue) Close() error { return q.f.Close() }
