// Account is Alice's account, kept as what happened to it: 1000 came in, 300 went out, 100
// came in, 300 went out, which makes 500, and Alice is called Alicia now. The balance is
// stored nowhere; it is made from the events, as it is now or as it was at any version.
//
// What to look at:
//
//   - account.apply: a state and an event make the next state. All else calls it.
//   - bank.execute: a command decides by states which events follow, and they are appended
//     if the accounts are still at these versions, in one commit with the command's id: a
//     command that is sent again has no second effect, and of two that decide by the same
//     state one decides again. A transfer is two accounts in one commit.
//   - the aggregate: snapshots are a cache of states, and change only how many events
//     are applied for a load.
//   - the projection: a table of all customers, made from the events, with its place in the
//     same commit. Rebuild makes it anew beside the one that serves.
//   - Verify: the chain of hashes of each account. Nothing can be changed unseen.
//
// Where nobody asks how a state came to be, rows and a log beside them do as well: see
// examples/audit.
//
//	go run ./examples/account
//	go run ./examples/account -dir /tmp/bank -transfers 1000 # kill it, and run it again
//
// Its test kills it at random moments, and looks that balances are the fold of the events,
// and that no money came or went.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"sync"

	"github.com/forebaydb/forebay/eventstore"
)

func main() {
	dir := flag.String("dir", "", "where the store is; empty: a temporary directory that is removed")
	transfers := flag.Int("transfers", 8, "how many transfers there are between other accounts")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *dir, *transfers, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "account:", err)
		os.Exit(1)
	}
}

// others are accounts beside Alice's, and what comes into each of them first.
var others = []string{"bob", "carol", "dave"}

const first = 1000

func run(ctx context.Context, dir string, transfers int, out io.Writer) (err error) {
	if dir == "" {
		if dir, err = os.MkdirTemp("", "account"); err != nil {
			return err
		}
		defer os.RemoveAll(dir)
	}
	b, err := open(dir, log.New(out, "", 0))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.close()) }()

	// The table of customers follows the events from here on.
	ctx, cancel := context.WithCancelCause(ctx)
	var work sync.WaitGroup
	defer work.Wait()
	defer cancel(nil)
	work.Go(func() {
		if err := b.customers.Run(ctx); ctx.Err() == nil {
			cancel(err)
		}
	})
	if err := b.alice(ctx); err != nil {
		return cmp.Or(context.Cause(ctx), err)
	}
	if err := b.trade(ctx, transfers); err != nil {
		return cmp.Or(context.Cause(ctx), err)
	}
	err = b.report(ctx)
	return cmp.Or(context.Cause(ctx), err)
}

// alice has everything happen to Alice's account that did, once.
func (b *bank) alice(ctx context.Context) error {
	for i, ev := range []eventstore.New{
		opened("Alice"), deposited(1000), withdrawn(300), deposited(100), withdrawn(300), renamed("Alicia"),
	} {
		if err := b.execute(ctx, fmt.Sprint("alice ", i), []string{"alice"}, func([]account) ([][]eventstore.New, error) {
			return [][]eventstore.New{{ev}}, nil
		}); err != nil {
			return err
		}
	}
	state := account{}
	for ev, err := range b.events.Stream(ctx, "alice", 1) {
		if err != nil {
			return err
		}
		if state, err = state.apply(ev); err != nil {
			return err
		}
		b.say.Printf("%d %-9s %-17s %6s has %d", ev.Version, ev.Type, ev.Payload, state.Owner, state.Balance)
	}
	for _, version := range []uint64{3, 6} {
		at, err := b.accounts.AtVersion(ctx, b.events, "alice", version)
		if err != nil {
			return err
		}
		b.say.Printf("at version %d: %s had %d (snapshot of version %d, and %d events)", version, at.State.Owner, at.State.Balance, at.Snapshot, at.Applied)
	}
	return nil
}

// trade has four clerks make transfers between the other accounts.
func (b *bank) trade(ctx context.Context, transfers int) error {
	for _, name := range others {
		if err := b.execute(ctx, "open "+name, []string{name}, func([]account) ([][]eventstore.New, error) {
			return [][]eventstore.New{{opened(name), deposited(first)}}, nil
		}); err != nil {
			return err
		}
	}
	errs := make([]error, 4)
	var clerks sync.WaitGroup
	for c := range errs {
		clerks.Go(func() {
			for i := c; i < transfers && errs[c] == nil; i += len(errs) {
				errs[c] = b.transfer(ctx, i)
			}
		})
	}
	clerks.Wait()
	return errors.Join(errs...)
}

// transfer is one of them: always the same, for the same number.
func (b *bank) transfer(ctx context.Context, i int) error {
	from, to, amount := others[i%3], others[(i+1+i/3%2)%3], int64(50+i*37%400)
	text := "" // stays so if it was done before
	err := b.execute(ctx, fmt.Sprint("transfer ", i), []string{from, to}, func(states []account) ([][]eventstore.New, error) {
		if states[0].Balance < amount {
			text = fmt.Sprintf("no: %s has only %d", from, states[0].Balance)
			return nil, nil // decided as well: it will not be tried again
		}
		text = "done"
		return [][]eventstore.New{{withdrawn(amount)}, {deposited(amount)}}, nil
	})
	if err == nil && text != "" {
		b.say.Printf("transfer %d, %d from %s to %s: %s", i, amount, from, to, text)
	}
	return err
}

// report shows the table of customers, makes it anew, and looks that everything fits.
func (b *bank) report(ctx context.Context) error {
	if _, err := b.customers.CatchUp(ctx); err != nil {
		return err
	}
	before, err := b.table()
	if err != nil {
		return err
	}
	b.say.Print("the table of customers, by a projection:")
	for _, name := range append([]string{"alice"}, others...) {
		b.say.Printf("  %-6s %-7s %5d", name, before[name].Owner, before[name].Balance)
	}
	if err := b.customers.Rebuild(ctx); err != nil {
		return err
	}
	after, err := b.table()
	if err != nil {
		return err
	}
	if fmt.Sprint(before) != fmt.Sprint(after) {
		return fmt.Errorf("rebuilt, the table is %v, and was %v", after, before)
	}
	verified, err := b.events.Verify(ctx)
	if err != nil {
		return err
	}
	b.say.Printf("made anew from %d events of %d accounts it is the same, and no chain of hashes is broken", verified.Events, verified.Streams)
	return nil
}
