// Orders is order processing on one store. What must not come apart is one commit:
//
//   - shop.place: the order's row, the message that has it charged (the outbox), and the
//     answer to the request's idempotency key. A client that asks again gets the same order.
//   - shop.charge: the payment, the order's new status, the message that has a mail sent,
//     and the acknowledgement of the message that asked for all this (AckTx).
//   - shop.mail: the note that the mail was sent, and the acknowledgement.
//
// What is not in the store cannot be in its commits: the bank and the mail service. Look
// at what each of them is told with every attempt. The bank remembers idempotency keys, so
// however often it is asked it charges once. The mail service does not: a mail is sent at
// least once, and a second copy, after a crash or an answer that was lost, has the same
// Message-ID.
//
//	go run ./examples/orders
//	go run ./examples/orders -dir /tmp/shop -orders 1000 # kill it, and run it again
//
// Its test kills it at random moments, and compares what the shop, the bank and the mail
// service know.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync"
)

func main() {
	dir := flag.String("dir", "", "where the store is; empty: a temporary directory that is removed")
	orders := flag.Int("orders", 12, "how many orders come in")
	services := flag.String("services", "", "URL of bank and mail service; empty: some that forget everything when this ends")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *dir, *services, *orders, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "orders:", err)
		os.Exit(1)
	}
}

// run has orders come in, and returns when they are paid or declined, and all mails sent.
func run(ctx context.Context, dir, services string, orders int, out io.Writer) (err error) {
	if dir == "" {
		if dir, err = os.MkdirTemp("", "orders"); err != nil {
			return err
		}
		defer os.RemoveAll(dir)
	}
	if services == "" {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		server := &http.Server{Handler: newServices(1)}
		go func() { _ = server.Serve(l) }() // until it is closed
		defer server.Close()
		services = "http://" + l.Addr().String()
	}
	s, err := open(dir, services, log.New(out, "", 0))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()

	ctx, cancel := context.WithCancelCause(ctx)
	var workers sync.WaitGroup
	defer workers.Wait()
	defer cancel(nil)
	for _, work := range []func(context.Context) error{s.runCharges, s.runMails} {
		workers.Go(func() {
			if err := work(ctx); ctx.Err() == nil {
				cancel(err)
			}
		})
	}

	// Four clients. Each third answer is lost on its way, and the client asks again.
	var clients sync.WaitGroup
	for c := range 4 {
		clients.Go(func() {
			for i := c; i < orders && ctx.Err() == nil; i += 4 {
				key, o := fmt.Sprint("request ", i), order{Customer: customers[i%len(customers)], Item: items[i%len(items)], Cents: int64(500 + i)}
				id, again, err := s.place(ctx, key, o)
				if err == nil && !again {
					s.say.Printf("%s  %s orders a %s for %d.%02d", id, o.Customer, o.Item, o.Cents/100, o.Cents%100)
					if i%3 == 0 {
						if id, again, err = s.place(ctx, key, o); err == nil {
							s.say.Printf("%s  %s asks again: the same order, done before: %t", id, o.Customer, again)
						}
					}
				}
				if err != nil {
					cancel(err)
				}
			}
		})
	}
	clients.Wait()
	if err := s.drained(ctx); err != nil {
		return cmp.Or(context.Cause(ctx), err)
	}
	return s.report()
}

var (
	customers = []string{"alice", "bob", "carol", "mallory", "dave"} // mallory's card is declined
	items     = []string{"teapot", "kettle", "cup", "spoon"}
)
