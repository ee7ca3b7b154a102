package topic_test

import (
	"context"
	"fmt"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/topic"
	"github.com/forebaydb/forebay/vfs"
)

// A message shares the commit of the state that it tells of, and a reader moves in the
// commit of what it made of it.
func Example() {
	db, err := forebay.Open("shop", &forebay.Options{FS: vfs.NewMem()})
	if err != nil {
		panic(err)
	}
	defer db.Close()
	orders, err := topic.Open(db, "orders", nil)
	if err != nil {
		panic(err)
	}
	defer orders.Close()
	mailer, err := orders.Reader("mailer")
	if err != nil {
		panic(err)
	}
	for _, id := range []string{"o-1", "o-2"} {
		if err := db.Update(func(tx *forebay.Tx) error {
			if err := tx.Put([]byte(id), []byte("ordered")); err != nil {
				return err
			}
			return orders.AppendTo(tx, []byte("ordered "+id))
		}); err != nil {
			panic(err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	for m, err := range mailer.Messages(ctx) {
		if err != nil {
			break // it was cancelled
		}
		if err := db.Update(func(tx *forebay.Tx) error {
			if err := tx.Put(fmt.Append(nil, "mail ", m.Offset), m.Payload); err != nil {
				return err
			}
			return mailer.MoveTx(tx, m.Offset, m.Offset+1)
		}); err != nil {
			panic(err)
		}
		fmt.Printf("%d %s\n", m.Offset, m.Payload)
		if m.Offset == 1 {
			cancel()
		}
	}
	// Output:
	// 0 ordered o-1
	// 1 ordered o-2
}
