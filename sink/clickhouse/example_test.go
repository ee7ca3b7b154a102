package clickhouse_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/forebaydb/forebay/sink"
	"github.com/forebaydb/forebay/sink/clickhouse"
)

// A batch is one INSERT, and its ID the token by which the table knows it again.
func Example() {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { // in place of a ClickHouse
		fmt.Println(r.FormValue("query"))
		fmt.Println(r.FormValue("insert_deduplication_token"))
		w.Header().Set("X-ClickHouse-Summary", "{}")
	}))
	defer server.Close()
	s, err := clickhouse.New(clickhouse.Options{
		URL: server.URL, Database: "shop", Table: "events",
		Columns: []string{"at", "what"}, Format: "Values",
		Encode: func(dst []byte, r sink.Row) ([]byte, error) {
			return fmt.Appendf(dst, "(%d, %q)", r.Time.Unix(), r.Value), nil
		},
	})
	if err != nil {
		panic(err)
	}
	fmt.Println(s.Write(context.Background(), sink.Batch{ID: "store/events/1-1/0", Rows: []sink.Row{
		{Offset: 1, Time: time.Unix(1_700_000_000, 0), Value: []byte("ordered")},
	}}))
	// Output:
	// INSERT INTO `shop`.`events` (`at`, `what`) FORMAT Values
	// store/events/1-1/0
	// <nil>
}
