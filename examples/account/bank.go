package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/eventstore"
	"github.com/forebaydb/forebay/idem"
)

// account is what the events of an account come to.
type account struct {
	Owner   string
	Balance int64
}

// money and name are the payloads of events.
type (
	money struct{ Amount int64 }
	name  struct{ Name string }
)

func opened(owner string) eventstore.New    { return event("Opened", name{owner}) }
func renamed(owner string) eventstore.New   { return event("Renamed", name{owner}) }
func deposited(amount int64) eventstore.New { return event("Deposited", money{amount}) }
func withdrawn(amount int64) eventstore.New { return event("Withdrawn", money{amount}) }

func event(kind string, payload any) eventstore.New {
	p, err := json.Marshal(payload)
	if err != nil {
		panic(err) // neither of the two types can
	}
	return eventstore.New{Type: kind, Payload: p}
}

// apply returns the state behind an event. It does not judge: what has happened has
// happened.
func (a account) apply(ev eventstore.Event) (account, error) {
	var m money
	var n name
	switch ev.Type {
	case "Opened", "Renamed":
		if err := json.Unmarshal(ev.Payload, &n); err != nil {
			return a, err
		}
		a.Owner = n.Name
	case "Deposited", "Withdrawn":
		if err := json.Unmarshal(ev.Payload, &m); err != nil {
			return a, err
		}
		if ev.Type == "Withdrawn" {
			m.Amount = -m.Amount
		}
		a.Balance += m.Amount
	}
	return a, nil
}

// bank is the accounts and what is made of them.
type bank struct {
	db        *forebay.DB
	events    *eventstore.Store
	commands  *idem.Keys
	accounts  *eventstore.Aggregate[account]
	customers *eventstore.Projection
	say       *log.Logger
}

func open(dir string, say *log.Logger) (b *bank, err error) {
	b = &bank{say: say}
	// With so few events a snapshot behind each fourth one is too many; it is to be seen.
	b.accounts = &eventstore.Aggregate[account]{Name: "account", Apply: account.apply, SnapshotEvery: 4, Keep: 2}
	defer func() {
		if err != nil {
			err = errors.Join(err, b.close())
		}
	}()
	if b.db, err = forebay.Open(dir, nil); err != nil {
		return b, err
	}
	if b.events, err = eventstore.Open(b.db, "bank", nil); err != nil {
		return b, err
	}
	// A command's id is never forgotten: it may be sent again after years.
	if b.commands, err = idem.Open(b.db, "commands", &idem.Options{TTL: -1, MaxBytes: -1}); err != nil {
		return b, err
	}
	b.customers, err = b.events.Projection(eventstore.ProjectionOptions{Name: "customers", Apply: applyRow, OnFail: eventstore.Stop})
	return b, err
}

// close closes what open has opened.
func (b *bank) close() (err error) {
	if b.commands != nil {
		err = errors.Join(err, b.commands.Close())
	}
	if b.db != nil {
		err = errors.Join(err, b.db.Close())
	}
	return err
}

// execute has a command take its effect once, whoever sends it how often. decide says
// which events follow for each of the accounts, nil: none; it may be called again with
// later states.
func (b *bank) execute(ctx context.Context, id string, names []string, decide func(states []account) ([][]eventstore.New, error)) error {
	for {
		states, at := make([]account, len(names)), make([]eventstore.Expected, len(names))
		for i, n := range names {
			loaded, err := b.accounts.Load(ctx, b.events, n)
			if err != nil {
				return err
			}
			states[i], at[i] = loaded.State, eventstore.Exactly(loaded.Version)
		}
		_, err := b.commands.Do(ctx, []byte(id), fmt.Append(nil, names), func(tx *forebay.Tx) ([]byte, error) {
			events, err := decide(states)
			if err != nil {
				return nil, err
			}
			for i, n := range names {
				var follow []eventstore.New
				if i < len(events) {
					follow = events[i]
				}
				for j := range follow {
					follow[j].Causation = id
				}
				// Without events it looks that what was decided by is still so.
				if _, err := b.events.AppendTx(tx, n, at[i], follow...); err != nil {
					return nil, err
				}
			}
			return nil, nil
		})
		if !errors.Is(err, eventstore.ErrConflict) {
			return err
		}
		// Another command came first, and had its effect: so this does not go on for ever.
	}
}

// applyRow folds an event into the table of customers.
func applyRow(rows forebay.Space, ev eventstore.Event) error {
	a, err := row(rows.Get([]byte(ev.Stream)))
	if err != nil {
		return err
	}
	if a, err = a.apply(ev); err != nil {
		return err
	}
	v, err := json.Marshal(a)
	if err != nil {
		return err
	}
	return rows.Put([]byte(ev.Stream), v)
}

func row(v []byte, err error) (a account, _ error) {
	switch {
	case errors.Is(err, forebay.ErrNotFound):
		return a, nil
	case err != nil:
		return a, err
	}
	return a, json.Unmarshal(v, &a)
}

// table reads the table of customers.
func (b *bank) table() (map[string]account, error) {
	table := map[string]account{}
	err := b.customers.View(func(rows forebay.Reader, _ uint64) error {
		for r, err := range rows.Range(nil, nil) {
			if err != nil {
				return err
			}
			a, err := row(r.Value, nil)
			if err != nil {
				return fmt.Errorf("%s: %w", r.Key, err)
			}
			table[string(r.Key)] = a
		}
		return nil
	})
	return table, err
}
