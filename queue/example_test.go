package queue_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/queue"
	"github.com/forebaydb/forebay/vfs"
)

type mail struct{ To, Text string }

// State, the message about it, its acknowledgement and what was done for it: each pair is
// one commit.
func Example() {
	db, err := forebay.Open("shop", &forebay.Options{FS: vfs.NewMem()})
	if err != nil {
		panic(err)
	}
	defer db.Close()
	mails, err := queue.Open(db, "mails", queue.JSON[mail]{}, nil)
	if err != nil {
		panic(err)
	}
	defer mails.Close()
	sender, err := mails.Group("sender", nil)
	if err != nil {
		panic(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	for _, id := range []string{"o-1", "o-2"} {
		if err := db.Update(func(tx *forebay.Tx) error {
			if err := tx.Put([]byte(id), []byte("ordered")); err != nil {
				return err
			}
			return mails.EnqueueTx(ctx, tx, mail{"alice", "thank you for " + id}, &queue.Meta{Key: "alice"})
		}); err != nil {
			panic(err)
		}
	}
	err = sender.Run(ctx, 4, func(ctx context.Context, m *queue.Message[mail]) error {
		fmt.Println(m.ID, m.Value.To, m.Value.Text)
		if m.ID.Offset == 1 {
			cancel()
		}
		return db.Update(func(tx *forebay.Tx) error {
			if err := m.AckTx(tx); err != nil {
				return err
			}
			return tx.Put(fmt.Append(nil, "sent ", m.ID), nil)
		})
	})
	fmt.Println(err)
	// Output:
	// 0-0 alice thank you for o-1
	// 0-1 alice thank you for o-2
	// context canceled
}

// What fails again and again, or for good, is a dead letter: it is listed, and delivered
// again once it can be handled.
func ExampleGroup_Redrive() {
	db, err := forebay.Open("shop", &forebay.Options{FS: vfs.NewMem()})
	if err != nil {
		panic(err)
	}
	defer db.Close()
	q, err := queue.Open(db, "jobs", queue.Bytes{}, &queue.Options{Priorities: 2})
	if err != nil {
		panic(err)
	}
	defer q.Close()
	g, err := q.Group("workers", &queue.GroupOptions{MaxDeliveries: 3, Backoff: time.Millisecond})
	if err != nil {
		panic(err)
	}
	ctx := context.Background()
	if _, err := q.EnqueueBatch(ctx, []queue.Item[[]byte]{
		{Value: []byte("job")},
		{Value: []byte("urgent job"), Meta: queue.Meta{Priority: 1, DedupeID: "j-17"}},
	}); err != nil {
		panic(err)
	}
	_, err = q.Enqueue(ctx, []byte("urgent job"), &queue.Meta{Priority: 1, DedupeID: "j-17"})
	fmt.Println(errors.Is(err, queue.ErrDuplicate))
	for m, err := range g.Messages(ctx) {
		if err != nil {
			panic(err)
		}
		if string(m.Value) == "job" {
			if err := m.Ack(ctx); err != nil {
				panic(err)
			}
			break
		}
		if err := m.Kill(ctx, errors.New("no such customer")); err != nil {
			panic(err)
		}
	}
	for d, err := range g.DeadLetters() {
		if err != nil {
			panic(err)
		}
		fmt.Printf("%v %s: %s\n", d.ID, d.Payload, d.Reason)
		if err := g.Redrive(ctx, d.ID); err != nil {
			panic(err)
		}
	}
	s, err := g.Stats(ctx)
	fmt.Println(s.Pending, s.Dead, s.Done, err)
	// Output:
	// true
	// 1-0 urgent job: no such customer
	// 1 0 1 <nil>
}
