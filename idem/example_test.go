package idem_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/idem"
	"github.com/forebaydb/forebay/vfs"
)

// A client whose answer was lost sends its request again.
func Example() {
	db, err := forebay.Open("bank", &forebay.Options{FS: vfs.NewMem()})
	if err != nil {
		panic(err)
	}
	defer db.Close()
	keys, err := idem.Open(db, "api", nil)
	if err != nil {
		panic(err)
	}
	defer keys.Close()
	deposit := func(key, body string) {
		r, err := keys.Do(context.Background(), []byte(key), []byte(body), func(tx *forebay.Tx) ([]byte, error) {
			was, err := tx.Get([]byte("alice"))
			if err != nil && !errors.Is(err, forebay.ErrNotFound) {
				return nil, err
			}
			return []byte("deposited"), tx.Put([]byte("alice"), append(was, body...))
		})
		fmt.Printf("%s, replayed: %t, %v\n", r.Value, r.Replayed, err)
	}
	deposit("request 1", "+100")
	deposit("request 1", "+100")
	deposit("request 1", "+999")
	balance, err := db.Get([]byte("alice"))
	fmt.Printf("%s %v\n", balance, err)
	// Output:
	// deposited, replayed: false, <nil>
	// deposited, replayed: true, <nil>
	// , replayed: false, idem: the key belongs to another request: "request 1"
	// +100 <nil>
}

// An effect outside of the store of which nobody knows whether it happened is not repeated
// before somebody has looked.
func ExampleKeys_DoOutside() {
	db, err := forebay.Open("shop", &forebay.Options{FS: vfs.NewMem()})
	if err != nil {
		panic(err)
	}
	defer db.Close()
	keys, err := idem.Open(db, "payments", &idem.Options{Owner: "worker 7"})
	if err != nil {
		panic(err)
	}
	defer keys.Close()
	pay := func() {
		r, err := keys.DoOutside(context.Background(), []byte("order 1"), nil, func(context.Context) ([]byte, error) {
			return nil, idem.Unknown(errors.New("the bank does not answer"))
		})
		fmt.Printf("%q %t\n", r.Value, err != nil)
	}
	pay()
	pay() // it is not called again
	for m, err := range keys.Marks(context.Background()) {
		fmt.Printf("%s of %s: %v\n", m.Key, m.Owner, err)
	}
	if err := keys.Resolve(context.Background(), []byte("order 1"), []byte("receipt 42"), nil); err != nil {
		panic(err)
	}
	pay()
	// Output:
	// "" true
	// "" true
	// order 1 of worker 7: <nil>
	// "receipt 42" false
}
