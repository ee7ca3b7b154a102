package sqlite_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/forebaydb/forebay/sink"
	"github.com/forebaydb/forebay/sink/sqlite"
)

// A batch that comes twice is written once.
func Example() {
	dir, err := os.MkdirTemp("", "sqlite")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	ctx := context.Background()
	s, err := sqlite.Open(ctx, filepath.Join(dir, "shop.db"), sqlite.Options{Table: "events"})
	if err != nil {
		panic(err)
	}
	defer s.Close()
	batch := sink.Batch{ID: "store/events/1-2/0", Rows: []sink.Row{
		{Offset: 1, Time: time.Now(), Key: []byte("o-1"), Value: []byte("ordered")},
		{Offset: 2, Time: time.Now(), Key: []byte("o-1"), Value: []byte("paid")},
	}}
	fmt.Println(s.Write(ctx, batch))
	fmt.Println(s.Write(ctx, batch)) // the first answer was lost, say
	// Output:
	// <nil>
	// <nil>
}
