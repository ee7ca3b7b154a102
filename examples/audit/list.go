package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"log"
	"strconv"
	"time"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/topic"
)

// list is the price list and its log.
type list struct {
	db     *forebay.DB
	prices *forebay.Keyspace
	audit  *topic.Topic
	say    *log.Logger
}

// record is what the log says of a change. nil: the product is not on the list.
type record struct {
	Who, Product  string
	Before, After *int
	at            time.Time // the topic has it
}

func (r record) String() string {
	price := func(p *int) string {
		if p == nil {
			return "none"
		}
		return strconv.Itoa(*p)
	}
	return fmt.Sprintf("%s: %s → %s, by %s", r.Product, price(r.Before), price(r.After), r.Who)
}

func open(dir string, say *log.Logger) (*list, error) {
	db, err := forebay.Open(dir, nil)
	if err != nil {
		return nil, err
	}
	l := &list{db: db, say: say}
	if l.prices, err = db.Keyspace("prices"); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	// Ten years of records are kept, and no reader is asked: they are there for whoever
	// looks.
	if l.audit, err = topic.Open(db, "audit", &topic.Options{MaxAge: 10 * 365 * 24 * time.Hour}); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return l, nil
}

func (l *list) close() error { return errors.Join(l.audit.Close(), l.db.Close()) }

// change sets the price of a product, or takes it off the list (nil), and writes down who
// did it: all by one commit. decide is told what the price was, and may be called again.
func (l *list) change(tx *forebay.Tx, who, product string, decide func(before *int) (after *int)) (r record, err error) {
	prices, err := tx.Keyspace(l.prices.Name())
	if err != nil {
		return r, err
	}
	before, err := price(prices.Reader, product)
	if err != nil {
		return r, err
	}
	r = record{Who: who, Product: product, Before: before, After: decide(before)}
	if r.After == nil {
		err = prices.Delete([]byte(product))
	} else {
		err = prices.Put([]byte(product), strconv.AppendInt(nil, int64(*r.After), 10))
	}
	if err != nil {
		return r, err
	}
	b, err := json.Marshal(r)
	if err != nil {
		return r, err
	}
	return r, l.audit.AppendTo(tx, b)
}

// price returns the price of a product, nil: it is not on the list.
func price(r forebay.Reader, product string) (*int, error) {
	v, err := r.Get([]byte(product))
	switch {
	case errors.Is(err, forebay.ErrNotFound):
		return nil, nil
	case err != nil:
		return nil, err
	}
	n, err := strconv.Atoi(string(v))
	return &n, err
}

// work is a clerk's: some changes, each once, of which those are left that are not done yet.
func (l *list) work(ctx context.Context, who string, seed, changes int) error {
	for {
		var r record
		var done bool
		if err := l.db.UpdateLevel(ctx, forebay.Durable, func(tx *forebay.Tx) error {
			n, err := price(tx.Reader, who) // where the clerk is, beside the change as well
			if err != nil {
				return err
			}
			if n == nil {
				n = new(int)
			}
			if done = *n >= changes; done {
				return nil
			}
			i := *n*3 + seed
			r, err = l.change(tx, who, products[i*7%len(products)], func(before *int) *int {
				switch {
				case before == nil:
					first := 10 + i
					return &first
				case i%4 == 3:
					return nil
				default:
					more := *before + i%5 + 1
					return &more
				}
			})
			if err != nil {
				return err
			}
			return tx.Put([]byte(who), strconv.AppendInt(nil, int64(*n+1), 10))
		}); err != nil {
			return err
		}
		if done {
			return nil
		}
		l.say.Print(r)
	}
}

// state reads the price list.
func (l *list) state() (map[string]int, error) {
	state := map[string]int{}
	for row, err := range l.prices.Range(nil, nil) {
		if err != nil {
			return nil, err
		}
		n, err := strconv.Atoi(string(row.Value))
		if err != nil {
			return nil, err
		}
		state[string(row.Key)] = n
	}
	return state, nil
}

// records iterates over the log.
func (l *list) records(ctx context.Context) iter.Seq2[record, error] {
	return func(yield func(record, error) bool) {
		first, _, err := l.audit.Bounds()
		if err != nil {
			yield(record{}, err)
			return
		}
		for m, err := range l.audit.Read(ctx, first) {
			r := record{at: m.Time}
			if err == nil {
				err = json.Unmarshal(m.Payload, &r)
			}
			if !yield(r, err) || err != nil {
				return
			}
		}
	}
}

// fold makes the state of the log alone. Each record must go on where the one before of
// its product ended.
func (l *list) fold(ctx context.Context) (state map[string]int, n int, err error) {
	state = map[string]int{}
	for r, err := range l.records(ctx) {
		if err != nil {
			return nil, n, err
		}
		switch was, on := state[r.Product]; {
		case on != (r.Before != nil) || on && was != *r.Before:
			return nil, n, fmt.Errorf("record %d: %v, and it was %d (on the list: %t)", n, r, was, on)
		case r.After == nil:
			delete(state, r.Product)
		default:
			state[r.Product] = *r.After
		}
		n++
	}
	return state, n, nil
}
