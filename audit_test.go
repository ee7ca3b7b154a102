package forebay_test

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/vfs"
)

// A record that is changed in place, and beside it, in the same commit, a line in an audit
// log of who changed what. It is what most programs need in place of event sourcing: the
// state is one read, the history is there, and neither can be without the other. A record
// that is deleted keeps its place, with a mark.
func ExampleDB_Update_auditLog() {
	type user struct {
		Name    string `json:"name"`
		Deleted bool   `json:"deleted,omitempty"`
	}
	db, err := forebay.Open("crm", &forebay.Options{FS: vfs.NewMem()})
	if err != nil {
		panic(err)
	}
	defer db.Close()
	audit, err := db.Sequence("audit") // appended to, never changed
	if err != nil {
		panic(err)
	}
	change := func(who, id string, fn func(u *user)) {
		err := db.Update(func(tx *forebay.Tx) error {
			var u user
			was, err := tx.Get([]byte("user/" + id))
			if err == nil {
				err = json.Unmarshal(was, &u)
			} else if errors.Is(err, forebay.ErrNotFound) {
				was, err = []byte("null"), nil
			}
			if err != nil {
				return err
			}
			fn(&u)
			is, err := json.Marshal(u)
			if err != nil {
				return err
			}
			if err := tx.Put([]byte("user/"+id), is); err != nil {
				return err
			}
			return tx.Append(audit, fmt.Appendf(nil, "%s: user %s: %s → %s", who, id, was, is))
		})
		if err != nil {
			panic(err)
		}
	}
	change("eve", "42", func(u *user) { u.Name = "Alice" })
	change("bob", "42", func(u *user) { u.Name = "Alicia" })
	change("bob", "42", func(u *user) { u.Deleted = true })

	now, err := db.Get([]byte("user/42"))
	fmt.Printf("%s %v\n", now, err)
	for it, err := range audit.Read(background, 0) {
		if err != nil {
			panic(err)
		}
		fmt.Printf("%d %s\n", it.Offset, it.Value)
	}
	// Output:
	// {"name":"Alicia","deleted":true} <nil>
	// 0 eve: user 42: null → {"name":"Alice"}
	// 1 bob: user 42: {"name":"Alice"} → {"name":"Alicia"}
	// 2 bob: user 42: {"name":"Alicia"} → {"name":"Alicia","deleted":true}
}
