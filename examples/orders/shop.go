package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"strconv"
	"time"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/idem"
	"github.com/forebaydb/forebay/queue"
)

// order is what a customer wants, and what became of it.
type order struct {
	Customer, Item string
	Cents          int64
	Status         status
	Receipt        string `json:",omitempty"` // of the bank
	MailSent       bool   `json:",omitempty"`
}

type status string

const (
	ordered  status = "ordered"
	paid     status = "paid"
	declined status = "declined" // the bank will not pay, and there was no charge
)

// mail is a mail about an order; its Message-ID is made of the order's.
type mail struct{ Order, To, Text string }

// The keyspaces, queues and idempotency keys of the shop are all in one store: so they
// can be in one commit.
type shop struct {
	db       *forebay.DB
	keys     *idem.Keys           // of the requests of clients
	charges  *queue.Queue[string] // ids of orders that are to be charged
	cashier  *queue.Group[string]
	mails    *queue.Queue[mail]
	postman  *queue.Group[mail]
	services client
	say      *log.Logger
}

func open(dir, services string, say *log.Logger) (s *shop, err error) {
	s = &shop{services: newClient(services), say: say}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	if s.db, err = forebay.Open(dir, nil); err != nil {
		return s, err
	}
	if s.keys, err = idem.Open(s.db, "requests", nil); err != nil {
		return s, err
	}
	if s.charges, err = queue.Open(s.db, "charges", queue.JSON[string]{}, nil); err != nil {
		return s, err
	}
	if s.mails, err = queue.Open(s.db, "mails", queue.JSON[mail]{}, nil); err != nil {
		return s, err
	}
	// No payment and no mail is ever given up: a bank that is away comes back.
	o := &queue.GroupOptions{MaxDeliveries: -1, Backoff: 10 * time.Millisecond, MaxBackoff: time.Second}
	if s.cashier, err = s.charges.Group("cashier", o); err != nil {
		return s, err
	}
	s.postman, err = s.mails.Group("postman", o)
	return s, err
}

// close closes what open has opened.
func (s *shop) close() (err error) {
	if s.mails != nil {
		err = errors.Join(err, s.mails.Close())
	}
	if s.charges != nil {
		err = errors.Join(err, s.charges.Close())
	}
	if s.keys != nil {
		err = errors.Join(err, s.keys.Close())
	}
	if s.db != nil {
		err = errors.Join(err, s.db.Close())
	}
	return err
}

// place takes an order, once for each key. When it returns, the order will be charged,
// whatever crashes. again: it was placed before, and this is its id.
func (s *shop) place(ctx context.Context, key string, o order) (id string, again bool, err error) {
	o.Status = ordered
	body, err := json.Marshal(o)
	if err != nil {
		return "", false, err
	}
	r, err := s.keys.Do(ctx, []byte(key), body, func(tx *forebay.Tx) ([]byte, error) {
		orders, err := tx.Keyspace("orders")
		if err != nil {
			return nil, err
		}
		n, err := count(tx, "last order")
		if err != nil {
			return nil, err
		}
		id := fmt.Sprintf("o-%05d", n)
		if err := orders.Put([]byte(id), body); err != nil {
			return nil, err
		}
		return []byte(id), s.charges.EnqueueTx(ctx, tx, id, nil)
	})
	return string(r.Value), r.Replayed, err
}

// count adds one to a number of the store. Those who count at the same time conflict, and
// take turns.
func count(tx *forebay.Tx, key string) (n int, err error) {
	v, err := tx.Get([]byte(key))
	switch {
	case err == nil:
		if n, err = strconv.Atoi(string(v)); err != nil {
			return 0, err
		}
	case !errors.Is(err, forebay.ErrNotFound):
		return 0, err
	}
	return n + 1, tx.Put([]byte(key), strconv.AppendInt(nil, int64(n+1), 10))
}

// change changes the row of an order inside of a transaction.
func change(tx *forebay.Tx, id string, fn func(o *order) error) error {
	orders, err := tx.Keyspace("orders")
	if err != nil {
		return err
	}
	v, err := orders.Get([]byte(id))
	if err != nil {
		return err
	}
	var o order
	if err := json.Unmarshal(v, &o); err != nil {
		return err
	}
	if err := fn(&o); err != nil {
		return err
	}
	if v, err = json.Marshal(o); err != nil {
		return err
	}
	return orders.Put([]byte(id), v)
}

func (s *shop) get(id string) (o order, err error) {
	orders, err := s.db.Keyspace("orders")
	if err != nil {
		return o, err
	}
	v, err := orders.Get([]byte(id))
	if err != nil {
		return o, err
	}
	return o, json.Unmarshal(v, &o)
}

func (s *shop) runCharges(ctx context.Context) error { return s.cashier.Run(ctx, 4, s.charge) }

// charge has the bank charge an order, and writes down what it said. Whatever it returns
// as an error has the message delivered again, and the bank asked again, with the same
// key.
func (s *shop) charge(ctx context.Context, m *queue.Message[string]) error {
	id := m.Value
	o, err := s.get(id)
	if err != nil {
		return err
	}
	receipt, err := s.services.charge(ctx, id, o.Customer, o.Cents)
	to, text := paid, "thank you, receipt "+receipt
	switch {
	case errors.Is(err, errDeclined):
		to, text = declined, "your card was declined"
	case err != nil:
		s.say.Printf("%s  the bank, attempt %d: %v", id, m.Attempt, err)
		return err
	}
	if err := s.db.Update(func(tx *forebay.Tx) error {
		if err := m.AckTx(tx); err != nil { // somebody else has done it: nothing of this is committed
			return err
		}
		if err := change(tx, id, func(o *order) error {
			if o.Status != ordered {
				return fmt.Errorf("%s is %s already", id, o.Status)
			}
			o.Status, o.Receipt = to, receipt
			return nil
		}); err != nil {
			return err
		}
		return s.mails.EnqueueTx(ctx, tx, mail{Order: id, To: o.Customer, Text: text}, nil)
	}); err != nil {
		return err
	}
	s.say.Printf("%s  %s, attempt %d", id, to, m.Attempt)
	return nil
}

func (s *shop) runMails(ctx context.Context) error { return s.postman.Run(ctx, 4, s.mail) }

// mail sends a mail, and then notes that it did. Between the two it can crash: then the
// mail is sent again.
func (s *shop) mail(ctx context.Context, m *queue.Message[mail]) error {
	if err := s.services.mail(ctx, "<"+m.Value.Order+"@shop>", m.Value.To, m.Value.Text); err != nil {
		s.say.Printf("%s  the mail service, attempt %d: %v", m.Value.Order, m.Attempt, err)
		return err
	}
	if err := s.db.Update(func(tx *forebay.Tx) error {
		if err := m.AckTx(tx); err != nil {
			return err
		}
		return change(tx, m.Value.Order, func(o *order) error {
			if o.MailSent {
				return fmt.Errorf("there is a second mail for %s", m.Value.Order)
			}
			o.MailSent = true
			return nil
		})
	}); err != nil {
		return err
	}
	s.say.Printf("%s  mail to %s: %s", m.Value.Order, m.Value.To, m.Value.Text)
	return nil
}

// drained returns when nothing is pending any more.
func (s *shop) drained(ctx context.Context) error {
	for {
		// In this order: what leaves the charges comes into the mails by the same commit.
		charges, err := s.cashier.Stats(ctx)
		if err != nil {
			return err
		}
		mails, err := s.postman.Stats(ctx)
		if err != nil {
			return err
		}
		if charges.Pending+mails.Pending == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// all calls fn for all orders, by their ids.
func (s *shop) all(fn func(id string, o order) error) error {
	orders, err := s.db.Keyspace("orders")
	if err != nil {
		return err
	}
	for row, err := range orders.Range(nil, nil) {
		if err != nil {
			return err
		}
		var o order
		if err := json.Unmarshal(row.Value, &o); err != nil {
			return err
		}
		if err := fn(string(row.Key), o); err != nil {
			return err
		}
	}
	return nil
}

func (s *shop) report() error {
	n, sent, sum := map[status]int{}, 0, int64(0)
	if err := s.all(func(_ string, o order) error {
		n[o.Status]++
		if o.Status == paid {
			sum += o.Cents
		}
		if o.MailSent {
			sent++
		}
		return nil
	}); err != nil {
		return err
	}
	s.say.Printf("%d orders: %d paid (%d.%02d together), %d declined; mails for %d",
		n[ordered]+n[paid]+n[declined], n[paid], sum/100, sum%100, n[declined], sent)
	return nil
}
