package buffer_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/buffer"
	"github.com/forebaydb/forebay/sink"
	"github.com/forebaydb/forebay/vfs"
)

// Rows are durable when Add returns, and flow on in batches. One that the target refuses
// is a dead letter; the others are written.
func Example() {
	db, err := forebay.Open("shop", &forebay.Options{FS: vfs.NewMem()})
	if err != nil {
		panic(err)
	}
	defer db.Close()
	target := sink.Func(func(_ context.Context, b sink.Batch) error {
		for i, r := range b.Rows {
			if string(r.Value) == "-1" {
				return &sink.Rejected{Rows: []int{i}, Err: errors.New("a negative amount")}
			}
		}
		for _, r := range b.Rows {
			fmt.Printf("%d %s = %s\n", r.Offset, r.Key, r.Value)
		}
		return nil
	})
	amounts, err := buffer.Open(db, "amounts", target, &buffer.Options{Items: 1000, Age: time.Hour})
	if err != nil {
		panic(err)
	}
	for _, amount := range []string{"10", "-1", "30"} {
		if _, err := amounts.Add(buffer.Row{Key: []byte("o-1"), Value: []byte(amount)}); err != nil {
			panic(err)
		}
	}
	// It shares a commit with the state that it tells of.
	if err := db.Update(func(tx *forebay.Tx) error {
		if err := tx.Put([]byte("o-1"), []byte("paid")); err != nil {
			return err
		}
		return amounts.AddTx(tx, buffer.Row{Key: []byte("o-1"), Value: []byte("40")})
	}); err != nil {
		panic(err)
	}
	if err := amounts.Flush(context.Background()); err != nil {
		panic(err)
	}
	for l, err := range amounts.DeadLetters(context.Background(), 0) {
		fmt.Println(l.Offset, string(l.Value), l.Reason, err)
	}
	// It is mended, and written.
	n, err := amounts.Redrive(context.Background(), func(l *buffer.DeadLetter) bool {
		l.Value = []byte("1")
		return true
	})
	fmt.Println(n, err)
	err = amounts.Shutdown(context.Background())
	s := amounts.Stats()
	fmt.Println(s.In, s.Done, s.Dead, s.Pending, err)
	// Unordered output:
	// 0 o-1 = 10
	// 2 o-1 = 30
	// 3 o-1 = 40
	// 1 -1 a negative amount <nil>
	// 1 <nil>
	// 4 o-1 = 1
	// 4 4 0 0 <nil>
}
