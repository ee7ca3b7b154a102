// Notifications go out by push, mail and SMS: one queue, and a consumer group for each
// channel. A group has its own place in the queue, its own retries and its own dead
// letters, so that an SMS gateway without credit holds up no push.
//
// What to look at:
//
//   - open: what each channel does when it fails: how often a message is tried, and how the
//     wait between two attempts grows (exponential backoff with full jitter).
//   - channel.deliver: what is worth another attempt is returned as an error; what is not
//     wraps queue.ErrPermanent. What was sent is noted in the commit of the acknowledgement.
//     A gateway is told the same id with each attempt: a message is sent at least once, and
//     a gateway that knows the id drops the second copy.
//   - operator: looks at the dead letters, mends their cause, and has them delivered again
//     (Redrive). A number that does not exist stays dead.
//   - channel.figures: in = done + dead + pending, at any time.
//
// Codes that somebody waits for have a higher priority than the newsletter.
//
//	go run ./examples/notifications
//	go run ./examples/notifications -dir /tmp/notes -n 1000 # kill it, and run it again
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
	n := flag.Int("n", 6, "how many notifications there are")
	gateways := flag.String("gateways", "", "URL of the gateways; empty: some that forget everything when this ends")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *dir, *gateways, *n, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "notifications:", err)
		os.Exit(1)
	}
}

// run enqueues notifications, and returns when all are sent but those that never can be.
func run(ctx context.Context, dir, gateways string, n int, out io.Writer) (err error) {
	if dir == "" {
		if dir, err = os.MkdirTemp("", "notifications"); err != nil {
			return err
		}
		defer os.RemoveAll(dir)
	}
	if gateways == "" {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		server := &http.Server{Handler: newGateways(1)}
		go func() { _ = server.Serve(l) }() // until it is closed
		defer server.Close()
		gateways = "http://" + l.Addr().String()
	}
	c, err := open(dir, gateways, log.New(out, "", 0))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	if err := c.report(ctx, "at the beginning"); err != nil {
		return err
	}

	ctx, cancel := context.WithCancelCause(ctx)
	var workers sync.WaitGroup
	defer workers.Wait()
	defer cancel(nil)
	for _, ch := range c.channels {
		workers.Go(func() {
			if err := ch.group.Run(ctx, 4, ch.deliver); ctx.Err() == nil {
				cancel(err)
			}
		})
	}
	if err := c.notifyAll(ctx, n); err != nil {
		return cmp.Or(context.Cause(ctx), err)
	}
	if err := c.operator(ctx); err != nil {
		return cmp.Or(context.Cause(ctx), err)
	}
	return c.report(ctx, "at the end")
}
