package eventstore_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/eventstore"
	"github.com/forebaydb/forebay/vfs"
)

// An account is its events: what it holds now, what it held at any time, and a list of
// all balances beside it, come from them.
func Example() {
	ctx := context.Background()
	db, err := forebay.Open("bank", &forebay.Options{FS: vfs.NewMem()})
	if err != nil {
		panic(err)
	}
	defer db.Close()
	bank, err := eventstore.Open(db, "bank", nil)
	if err != nil {
		panic(err)
	}
	type moved struct{ Amount int }
	event := func(typ string, amount int) eventstore.New {
		p, _ := json.Marshal(moved{amount})
		return eventstore.New{Type: typ, Payload: p}
	}
	apply := func(balance int, ev eventstore.Event) (int, error) {
		var m moved
		err := json.Unmarshal(ev.Payload, &m)
		if ev.Type == "Withdrawn" {
			m.Amount = -m.Amount
		}
		return balance + m.Amount, err
	}
	account := &eventstore.Aggregate[int]{Name: "account", Apply: apply, SnapshotEvery: 1000}

	for i, n := range []eventstore.New{event("Deposited", 1000), event("Withdrawn", 300), event("Deposited", 100)} {
		if _, err := bank.Append(ctx, "account-1", eventstore.Exactly(uint64(i)), n); err != nil {
			panic(err)
		}
	}
	// A command decides by the state, and is appended if that is still so.
	withdraw := func(amount int) error {
		_, _, err := account.Execute(ctx, bank, "account-1", func(balance int, _ uint64) ([]eventstore.New, error) {
			if balance < amount {
				return nil, fmt.Errorf("only %d left", balance)
			}
			return []eventstore.New{event("Withdrawn", amount)}, nil
		})
		return err
	}
	fmt.Println(withdraw(300))
	fmt.Println(withdraw(1000))

	now, err := account.Load(ctx, bank, "account-1")
	if err != nil {
		panic(err)
	}
	then, err := account.AtVersion(ctx, bank, "account-1", 2)
	if err != nil {
		panic(err)
	}
	fmt.Println("now", now.State, "then", then.State)

	balances, err := bank.Projection(eventstore.ProjectionOptions{Name: "balances", Apply: func(rows forebay.Space, ev eventstore.Event) error {
		balance := 0
		had, err := rows.Get([]byte(ev.Stream))
		if err == nil {
			_, err = fmt.Sscan(string(had), &balance)
		} else if errors.Is(err, forebay.ErrNotFound) {
			err = nil
		}
		if err == nil {
			balance, err = apply(balance, ev)
		}
		if err != nil {
			return err
		}
		return rows.Put([]byte(ev.Stream), fmt.Append(nil, balance))
	}})
	if err != nil {
		panic(err)
	}
	if _, err := balances.CatchUp(ctx); err != nil {
		panic(err)
	}
	if err := balances.View(func(rows forebay.Reader, next uint64) error {
		for row, err := range rows.Range(nil, nil) {
			if err != nil {
				return err
			}
			fmt.Printf("%s %s, by %d events\n", row.Key, row.Value, next)
		}
		return nil
	}); err != nil {
		panic(err)
	}
	// Output:
	// <nil>
	// only 500 left
	// now 500 then 700
	// account-1 500, by 4 events
}

// What is known of a person is encrypted with a key of theirs. Without it the events
// stay, with their chain of hashes, and say no more than that something was.
func ExampleStore_Forget() {
	ctx := context.Background()
	db, err := forebay.Open("shop", &forebay.Options{FS: vfs.NewMem()})
	if err != nil {
		panic(err)
	}
	defer db.Close()
	shop, err := eventstore.Open(db, "shop", &eventstore.Options{MasterKeys: []eventstore.MasterKey{{ID: 1, Key: [32]byte{ /* from a vault */ }}}})
	if err != nil {
		panic(err)
	}
	if _, err := shop.Append(ctx, "order-1", eventstore.NoStream,
		eventstore.New{Type: "Addressed", Subject: "customer-17", Payload: []byte("12 Main Street")},
		eventstore.New{Type: "Paid", Payload: []byte("30 EUR")}); err != nil {
		panic(err)
	}
	show := func() {
		for ev, err := range shop.Stream(ctx, "order-1", 1) {
			if err != nil {
				panic(err)
			}
			fmt.Printf("%d %s erased=%v %q\n", ev.Version, ev.Type, ev.Erased, ev.Payload)
		}
	}
	show()
	if err := shop.Forget(ctx, "customer-17"); err != nil {
		panic(err)
	}
	show()
	_, err = shop.Verify(ctx)
	fmt.Println("verified:", err)
	// Output:
	// 1 Addressed erased=false "12 Main Street"
	// 2 Paid erased=false "30 EUR"
	// 1 Addressed erased=true ""
	// 2 Paid erased=false "30 EUR"
	// verified: <nil>
}
