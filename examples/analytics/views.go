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
	"github.com/forebaydb/forebay/buffer"
	"github.com/forebaydb/forebay/sink"
)

// view is one page view. Server and N name it.
type view struct {
	Server, N int
	Page      string
	Visitor   string
	Millis    int // how long it took
}

func (v view) encode() []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // numbers and strings always can
	}
	return b
}

func decode(b []byte) (v view, err error) { return v, json.Unmarshal(b, &v) }

// columns are those of the table, and fill sets them to a row: for any database.
var columns = []string{"server", "n", "page", "visitor", "millis"}

func fill(r sink.Row, dst []any) error {
	v, err := decode(r.Value)
	if err != nil {
		return err // the row is refused
	}
	dst[0], dst[1], dst[2], dst[3], dst[4] = int64(v.Server), int64(v.N), v.Page, v.Visitor, int64(v.Millis)
	return nil
}

// server is a web server that is looked at.
type server struct {
	number int
	db     *forebay.DB
	to     *buffer.Buffer
	say    *log.Logger
}

// some is how many views a server hands on at once.
const some = 50

// serve makes the views of a server from where it was on.
func (s *server) serve(ctx context.Context, views int) error {
	key := fmt.Append(nil, "server ", s.number)
	for {
		n := 0
		err := s.db.UpdateLevel(ctx, forebay.Durable, func(tx *forebay.Tx) error {
			n = 0
			v, err := tx.Get(key)
			switch {
			case err == nil:
				if n, err = strconv.Atoi(string(v)); err != nil {
					return err
				}
			case !errors.Is(err, forebay.ErrNotFound):
				return err
			}
			for end := min(n+some, views); n < end; n++ {
				if err := s.to.AddTx(tx, buffer.Row{Value: look(s.number, n).encode()}); err != nil {
					return err
				}
			}
			return tx.Put(key, strconv.AppendInt(nil, int64(n), 10))
		})
		var full *buffer.FullError
		switch {
		case errors.As(err, &full): // nothing of it was added
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(full.RetryAfter):
			}
		case err != nil:
			return err
		case n >= views:
			return nil
		case n%500 == 0:
			s.say.Printf("server %d: %d views", s.number, n)
		}
	}
}

// look is what visitor number n of a server looks at: the same each time.
func look(server, n int) view {
	pages := []string{"/", "/teapots", "/teapots/brown-betty", "/basket", "/"}
	v := view{Server: server, N: n, Page: pages[(n*7+server)%len(pages)], Visitor: fmt.Sprint("v", n%97), Millis: 5 + n%40}
	if n%1000 == 500 {
		v.Page = "" // a bug of the server
	}
	return v
}
