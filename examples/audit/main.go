// Audit is a price list that clerks change, with a log of who changed what: plain rows,
// overwritten and deleted as ever, and a topic to which each change appends a record in the
// commit of the change itself. So the log has every change that happened, none that did
// not, and all of them in the order in which they happened.
//
// For most programs that are asked "who did this, when, and what was it before?" this is
// enough, and event sourcing (eventstore, examples/account) is too much. Here
//
//   - the rows are the state: a read is a Get, a new column is a new column, and nobody
//     has to fold, snapshot, project or upcast anything;
//   - the log is beside it: it can be kept for some years and no longer, by age or bytes
//     (topic.Options), without the loss of any state, and who never reads it pays one
//     append for it, in a commit that is made anyway;
//   - records have the row before and after, so the price of any day can be looked up, and a
//     mistake be taken back, by hand.
//
// What it is not: the state is not made from the log, so a new question about the past is
// answered only as far as records say it; two writers do not agree on the version of a thing
// (a transaction does that for rows); and there is no chain of hashes over records as over
// events. Who needs these things, for a few kinds of data, takes eventstore for those.
//
// What to look at: list.change, which is all there is to it.
//
//	go run ./examples/audit
//	go run ./examples/audit -dir /tmp/prices -changes 1000 # kill it, and run it again
//
// Its test kills it at random moments, and looks that the log, folded, is the state.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"sync"
	"time"
)

func main() {
	dir := flag.String("dir", "", "where the store is; empty: a temporary directory that is removed")
	changes := flag.Int("changes", 5, "how many changes each of three clerks makes")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *dir, *changes, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "audit:", err)
		os.Exit(1)
	}
}

var products = []string{"cup", "kettle", "spoon", "teapot"}

// run has three clerks make changes at once, and shows what the log says of them.
func run(ctx context.Context, dir string, changes int, out io.Writer) (err error) {
	if dir == "" {
		if dir, err = os.MkdirTemp("", "audit"); err != nil {
			return err
		}
		defer os.RemoveAll(dir)
	}
	l, err := open(dir, log.New(out, "", 0))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.close()) }()

	clerks := []string{"ann", "ben", "cleo"}
	errs := make([]error, len(clerks))
	var work sync.WaitGroup
	for i, who := range clerks {
		work.Go(func() { errs[i] = l.work(ctx, who, i, changes) })
	}
	work.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}

	l.say.Print("the price list:")
	state, err := l.state()
	if err != nil {
		return err
	}
	for _, p := range products {
		if price, ok := state[p]; ok {
			l.say.Printf("  %-7s %d", p, price)
		}
	}
	l.say.Print("the teapot, by the log:")
	for r, err := range l.records(ctx) {
		if err != nil {
			return err
		}
		if r.Product == "teapot" {
			l.say.Printf("  %s  %s", r.at.Format(time.TimeOnly), r)
		}
	}
	folded, n, err := l.fold(ctx)
	if err != nil {
		return err
	}
	if fmt.Sprint(folded) != fmt.Sprint(state) { // maps are printed in order
		return fmt.Errorf("%d records come to %v, and the state is %v", n, folded, state)
	}
	l.say.Printf("%d records, folded, are the price list", n)
	return nil
}
