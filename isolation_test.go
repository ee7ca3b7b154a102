package forebay_test

import (
	"fmt"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay"
)

// The examples of docs/transactions.md. In each something is committed while a
// transaction is under way, at the worst moment: in the middle of its first
// attempt.

// get returns the number at key, 0 if there is none.
func get(r interface{ Get([]byte) ([]byte, error) }, key string) int {
	value, _ := r.Get([]byte(key))
	n, _ := strconv.Atoi(string(value))
	return n
}

func number(n int) []byte { return strconv.AppendInt(nil, int64(n), 10) }

// Two add to one counter at once, and none of the additions is lost.
func ExampleDB_Update_lostUpdate() {
	db := openInMemory()
	defer db.Close()
	attempts := 0
	err := db.Update(func(tx *forebay.Tx) error {
		attempts++
		n := get(tx, "visits")
		if attempts == 1 {
			db.Put([]byte("visits"), number(n+1)) // somebody else
		}
		return tx.Put([]byte("visits"), number(n+1))
	})
	fmt.Println(get(db, "visits"), "visits,", attempts, "attempts,", err)
	// Output: 2 visits, 2 attempts, <nil>
}

// Of two doctors one must be on call. Each looks that the other is, and leaves.
// They write different keys, so that nothing is overwritten, and yet only one of
// them may go.
func ExampleDB_Update_writeSkew() {
	db := openInMemory()
	defer db.Close()
	db.Put([]byte("on call/ada"), number(1))
	db.Put([]byte("on call/grace"), number(1))
	leave := func(name string, meanwhile func()) error {
		return db.Update(func(tx *forebay.Tx) error {
			onCall := get(tx, "on call/ada") + get(tx, "on call/grace")
			meanwhile()
			if onCall < 2 {
				return fmt.Errorf("%s must stay", name)
			}
			return tx.Put([]byte("on call/"+name), number(0))
		})
	}
	first := true
	fmt.Println(leave("ada", func() {
		if first {
			first = false
			fmt.Println(leave("grace", func() {}))
		}
	}))
	// Output:
	// <nil>
	// ada must stay
}

// What was not there counts as read, too: a room is booked once.
func ExampleDB_Update_phantom() {
	db := openInMemory()
	defer db.Close()
	book := func(by string, meanwhile func()) error {
		return db.Update(func(tx *forebay.Tx) error {
			for entry, err := range tx.Prefix([]byte("booked/room 1/")) {
				if err != nil {
					return err
				}
				return fmt.Errorf("%s: already booked by %s", by, entry.Value)
			}
			meanwhile()
			return tx.Put([]byte("booked/room 1/"+by), []byte(by))
		})
	}
	first := true
	fmt.Println(book("ada", func() {
		if first {
			first = false
			fmt.Println(book("grace", func() {}))
		}
	}))
	// Output:
	// <nil>
	// ada: already booked by grace
}

// An account of checking and savings may be overdrawn for a fee of 1. A withdrawal
// of 10 is under way while 20 are paid in and a statement is made. The statement
// shows the 20, so that the withdrawal must not act as if they came later. With
// snapshots alone it would: a reader that writes nothing makes the history
// impossible.
func ExampleDB_Update_readOnlyAnomaly() {
	db := openInMemory()
	defer db.Close()
	first := true
	err := db.Update(func(tx *forebay.Tx) error {
		amount := 10
		if get(tx, "checking")+get(tx, "savings") < amount {
			amount++ // the fee
		}
		if first {
			first = false
			db.Put([]byte("savings"), number(20))
			db.View(func(s *forebay.Snapshot) error {
				fmt.Println("statement: checking", get(s, "checking"), "savings", get(s, "savings"))
				return nil
			})
		}
		return tx.Put([]byte("checking"), number(get(tx, "checking")-amount))
	})
	fmt.Println("in the end: checking", get(db, "checking"), "savings", get(db, "savings"), err)
	// Output:
	// statement: checking 0 savings 20
	// in the end: checking -10 savings 20 <nil>
}

// TestNestedWrites: a transaction that writes by other ways to what it reads
// conflicts with itself, until it runs alone; then the write is refused where it
// would wait for itself. Reads by other ways are allowed at any time.
func TestNestedWrites(t *testing.T) {
	db := openInMemory()
	defer db.Close()
	attempts := 0
	err := db.Update(func(tx *forebay.Tx) error {
		attempts++
		before := get(tx, "key")
		require.Equal(t, attempts-1, before, "an attempt sees what was committed before it")
		require.Equal(t, before, get(db, "key"))
		require.NoError(t, db.View(func(s *forebay.Snapshot) error {
			require.Equal(t, before, get(s, "key"))
			return nil
		}))
		require.NoError(t, tx.Put([]byte("other"), number(1)))
		if err := db.Put([]byte("key"), number(before+1)); err != nil {
			for _, nested := range []func() error{
				func() error { return db.Update(func(tx *forebay.Tx) error { return tx.Put([]byte("key"), nil) }) },
				func() error { return db.Apply(db.NewBatch(), forebay.Buffered) },
				func() error { _, err := db.Submit(db.NewBatch(), forebay.Buffered); return err },
				func() error { _, err := db.Keyspace("new"); return err },
			} {
				require.ErrorIs(t, nested(), forebay.ErrNested)
			}
			return err
		}
		return nil
	})
	require.ErrorIs(t, err, forebay.ErrNested)
	require.Equal(t, 9, attempts, "docs/transactions.md: after eight attempts one runs alone")
	require.Equal(t, 8, get(db, "key"), "writes by other ways are commits of their own")
	require.Equal(t, 0, get(db, "other"))
	require.NoError(t, db.Put([]byte("key"), nil), "nobody is alone any more")
}
