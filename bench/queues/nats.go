package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

func natsEngine() *Engine {
	return &Engine{
		Name: "jetstream", Module: "github.com/nats-io/nats-server/v2",
		Notes:    "NATS JetStream, the server in the process, connections without a network; a file store with sync_interval: always; a stream with work-queue retention (with another one an acknowledgement is faster, and synced up to 100 ms later); a batch is one atomic batch publish, which is synced once; one pull consumer with up to 10,000 unacknowledged messages, 64 goroutines that acknowledge for all workers, and wait (DoubleAck)",
		Enqueued: "written and synced, one sync for each message or batch",
		Acked:    "removed from the stream by a tombstone, written and synced, one sync for each message",
		open:     openNATS,
	}
}

const (
	natsStream  = "bench"
	natsTimeout = 30 * time.Second
	natsAckers  = 64
)

type natsQueue struct {
	server   *server.Server
	in, out  *nats.Conn // of producers, and of the consumer
	js       jetstream.JetStream
	stream   jetstream.Stream
	batches  atomic.Int64
	batchKey string
}

func openNATS(ctx context.Context, dir string, cfg Config) (_ Queue, err error) {
	s, err := server.NewServer(&server.Options{
		ServerName: "bench", DontListen: true, NoLog: true, NoSigs: true,
		JetStream: true, StoreDir: dir, SyncAlways: true,
		JetStreamLimits: server.JSLimitOpts{MaxBatchInflightPerStream: max(50, 2*cfg.Producers)},
	})
	if err != nil {
		return nil, err
	}
	q := &natsQueue{server: s, batchKey: strconv.FormatInt(time.Now().UnixNano(), 36)}
	defer func() {
		if err != nil {
			err = errors.Join(err, q.Close())
		}
	}()
	s.Start()
	if !s.ReadyForConnections(natsTimeout) {
		return nil, errors.New("the server is not ready")
	}
	if q.in, err = nats.Connect("", nats.InProcessServer(s)); err != nil {
		return nil, err
	}
	if q.out, err = nats.Connect("", nats.InProcessServer(s)); err != nil {
		return nil, err
	}
	if q.js, err = jetstream.New(q.in); err != nil {
		return nil, err
	}
	q.stream, err = q.js.CreateStream(ctx, jetstream.StreamConfig{
		Name: natsStream, Subjects: []string{natsStream}, Storage: jetstream.FileStorage,
		Retention: jetstream.WorkQueuePolicy, AllowAtomicPublish: true,
	})
	return q, err
}

func (q *natsQueue) Enqueue(ctx context.Context, msgs [][]byte) error {
	if len(msgs) == 1 {
		_, err := q.js.Publish(ctx, natsStream, msgs[0])
		return err
	}
	id := q.batchKey + "-" + strconv.FormatInt(q.batches.Add(1), 36)
	for i, m := range msgs {
		msg := nats.NewMsg(natsStream)
		msg.Data = m
		msg.Header.Set("Nats-Batch-Id", id)
		msg.Header.Set("Nats-Batch-Sequence", strconv.Itoa(i+1))
		if i+1 < len(msgs) {
			if err := q.in.PublishMsg(msg); err != nil {
				return err
			}
			continue
		}
		msg.Header.Set("Nats-Batch-Commit", "1")
		if err := q.commit(ctx, msg, len(msgs)); err != nil {
			return err
		}
	}
	return nil
}

// commit sends the last message of a batch: the answer to it says what became of
// all.
func (q *natsQueue) commit(ctx context.Context, last *nats.Msg, n int) error {
	ctx, cancel := context.WithTimeout(ctx, natsTimeout)
	defer cancel()
	answer, err := q.in.RequestMsgWithContext(ctx, last)
	if err != nil {
		return err
	}
	var ack server.JSPubAckResponse
	if err := json.Unmarshal(answer.Data, &ack); err != nil {
		return err
	}
	if ack.Error != nil {
		return fmt.Errorf("a batch was not taken: %w", ack.Error)
	}
	if ack.PubAck == nil || ack.BatchSize != uint64(n) {
		return fmt.Errorf("a batch of %d was answered %s", n, answer.Data)
	}
	return nil
}

func (q *natsQueue) Consume(ctx context.Context, workers int, handle, acked func([]byte)) (err error) {
	js, err := jetstream.New(q.out)
	if err != nil {
		return err
	}
	c, err := js.CreateConsumer(context.WithoutCancel(ctx), natsStream, jetstream.ConsumerConfig{
		Durable: "workers", AckPolicy: jetstream.AckExplicitPolicy, AckWait: time.Hour, MaxAckPending: 10_000,
	})
	if err != nil {
		return err
	}
	var (
		todo, finished = make(chan jetstream.Msg, 1000), make(chan jetstream.Msg, 1000)
		wg, ackers     sync.WaitGroup
		mu             sync.Mutex // guards failed
		failed         error
	)
	for range workers {
		wg.Go(func() {
			for m := range todo {
				handle(m.Data())
				finished <- m
			}
		})
	}
	for range natsAckers {
		ackers.Go(func() {
			for m := range finished {
				if err := q.ack(ctx, m); err != nil {
					mu.Lock()
					failed = errors.Join(failed, err)
					mu.Unlock()
					continue
				}
				acked(m.Data())
			}
		})
	}
	sub, err := c.Consume(func(m jetstream.Msg) { todo <- m }, jetstream.PullMaxMessages(1000))
	if err == nil {
		<-ctx.Done()
		sub.Stop()
		<-sub.Closed()
	}
	close(todo)
	wg.Wait()
	close(finished)
	ackers.Wait()
	return errors.Join(err, failed)
}

func (q *natsQueue) ack(ctx context.Context, m jetstream.Msg) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), natsTimeout)
	defer cancel()
	return m.DoubleAck(ctx)
}

func (q *natsQueue) Close() error {
	for _, c := range []*nats.Conn{q.in, q.out} {
		if c != nil {
			c.Close()
		}
	}
	q.server.Shutdown()
	q.server.WaitForShutdown()
	return nil
}
