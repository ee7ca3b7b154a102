// Analytics brings page views of web servers into a database, in batches. A view is
// acknowledged when it is in the log of the buffer, which takes as long as an fsync that
// all share, and does not need the database. The database gets a thousand at a time.
//
// What to look at:
//
//   - server.serve: views are added by the commit that notes how far the server is
//     (AddTx). A buffer that is full says so, and when to come again.
//   - the table has no unique key. That each view is in it once, whatever crashes, is by
//     the ids of batches: the sink notes an id in the transaction of the batch's rows.
//   - mend: a view that the table refuses is a dead letter, and its neighbours are written.
//     It is looked at, mended and sent again.
//   - buffer.Stats: in = done + dead + purged + pending, behind every crash.
//
// The database is SQLite, in a file beside the store, or PostgreSQL:
//
//	go run ./examples/analytics
//	go run ./examples/analytics -dir /tmp/views -views 100000 # kill it, and run it again
//	go run ./examples/analytics -postgres postgres:///shop
//
// Its test kills it at random moments, and counts.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"time"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/buffer"
)

func main() {
	dir := flag.String("dir", "", "where the store is; empty: a temporary directory that is removed")
	views := flag.Int("views", 2000, "how many page views each of three servers has")
	postgres := flag.String("postgres", "", "where PostgreSQL is; empty: SQLite in a file in the directory")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *dir, *postgres, *views, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "analytics:", err)
		os.Exit(1)
	}
}

const servers = 3

// run has servers see views, and returns when all of them are in the database.
func run(ctx context.Context, dir, postgres string, views int, out io.Writer) (err error) {
	if dir == "" {
		if dir, err = os.MkdirTemp("", "analytics"); err != nil {
			return err
		}
		defer os.RemoveAll(dir)
	}
	say := log.New(out, "", 0)
	db, err := forebay.Open(filepath.Join(dir, "store"), nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	var w *warehouse
	if postgres != "" {
		w, err = openPostgres(ctx, postgres)
	} else {
		w, err = openSQLite(ctx, filepath.Join(dir, "views.db"))
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	b, err := buffer.Open(db, "views", w.sink, &buffer.Options{Items: 1000, Age: 50 * time.Millisecond, MaxRows: 10_000})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Close()) }()

	began, had := time.Now(), b.Stats()
	errs := make([]error, servers)
	var work sync.WaitGroup
	for i := range servers {
		work.Go(func() { errs[i] = (&server{number: i, db: db, to: b, say: say}).serve(ctx, views) })
	}
	work.Wait()
	acknowledged := time.Since(began)
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if err := b.Flush(ctx); err != nil {
		return err
	}
	if err := mend(ctx, b, say); err != nil {
		return err
	}
	s := b.Stats()
	say.Printf("%d new views, acknowledged in %v, in the database after %v, by %d writes",
		s.In-had.In, acknowledged.Round(time.Millisecond), time.Since(began).Round(time.Millisecond), s.Writes)
	say.Printf("in %d = done %d + dead %d + purged %d + pending %d", s.In, s.Done, s.Dead, s.Purged, s.Pending)
	if s.In != s.Done+s.Dead+s.Purged+s.Lost+s.Pending {
		return errors.New("that does not fit")
	}
	return w.report(ctx, say)
}

// mend looks at what the database has refused, and sends it again with what was missing.
func mend(ctx context.Context, b *buffer.Buffer, say *log.Logger) error {
	shown := false
	n, err := b.Redrive(ctx, func(l *buffer.DeadLetter) bool {
		if !shown {
			say.Printf("refused: %s: %s", l.Value, l.Reason)
			shown = true
		}
		v, err := decode(l.Value)
		if err != nil {
			return false // it stays dead, until somebody knows better
		}
		v.Page = "/unknown"
		l.Value = v.encode()
		return true
	})
	if err != nil || n == 0 {
		return err
	}
	say.Printf("%d views without a page are mended, and sent again", n)
	return b.Flush(ctx)
}
