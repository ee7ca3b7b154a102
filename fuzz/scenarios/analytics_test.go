package scenarios

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/buffer"
	"github.com/forebaydb/forebay/sink"
	"github.com/forebaydb/forebay/sink/sinktest"
	"github.com/forebaydb/forebay/vfs"
)

// analytics are page views and clicks, which go in batches into a database for analysis.
// Who views a page waits for nothing but the log. The database is away now and then, and
// its answers are lost; it remembers the ids of batches, as the sinks of this module do,
// and so has each event once.
type analytics struct {
	w        *world
	db       *forebay.DB
	views    *buffer.Buffer
	database sinktest.Memory // outside
	first    int

	// Outside: the events of which pages know that they are kept.
	kept map[string]bool
}

func newAnalytics(w *world) system { return &analytics{w: w, kept: map[string]bool{}} }

// Write is the database.
func (a *analytics) Write(ctx context.Context, b sink.Batch) (err error) {
	if !a.w.do(func() { err = a.database.Write(ctx, b) }) {
		return fmt.Errorf("dead")
	}
	return err
}

func (a *analytics) start(db *forebay.DB) (err error) {
	a.db = db
	a.database.Fault(func(n int, _ sink.Batch) (done bool, err error) {
		switch n % 4 {
		case 1:
			return false, fmt.Errorf("the database is away")
		case 2:
			return true, fmt.Errorf("its answer was lost")
		}
		return true, nil
	})
	a.views, err = buffer.Open(db, "views", a, &buffer.Options{Items: 50, Age: 20 * time.Millisecond, Backoff: time.Millisecond, MaxBackoff: 50 * time.Millisecond})
	return err
}

func (a *analytics) stop() { must(a.views.Close()) }

func (a *analytics) work(r *rand.Rand) {
	var pages sync.WaitGroup
	for p := range 8 {
		wait, first := r.IntN(20), a.first
		pages.Go(func() {
			for i := range 50 {
				event := fmt.Sprint("page ", p, " view ", first+i)
				if _, err := a.views.Add(buffer.Row{Key: fmt.Append(nil, "page ", p), Value: []byte(event)}); err != nil || !a.w.do(func() { a.kept[event] = true }) {
					return
				}
				time.Sleep(time.Duration(wait) * time.Millisecond)
			}
		})
	}
	pages.Wait()
	a.first += 50
}

func (a *analytics) settled() error { return a.views.Flush(context.Background()) }

func (a *analytics) check(t *testing.T, _ *forebay.DB) {
	times := map[string]int{}
	for _, r := range a.database.Rows() {
		times[string(r.Value)]++
	}
	for event := range a.kept {
		require.Equal(t, 1, times[event], event)
		delete(times, event)
	}
	for event, n := range times { // of those that were not told: it was durable nevertheless
		require.Equal(t, 1, n, event)
	}
	s := a.views.Stats()
	require.EqualValues(t, len(a.database.Rows()), s.Done)
	require.Equal(t, [3]uint64{s.Done, 0, 0}, [3]uint64{s.In, s.Dead, s.Pending})
}

// Views are kept when Add returns, and come into the database a batch at a time.
func Example_analytics() {
	db, err := forebay.Open("site", &forebay.Options{FS: vfs.NewMem()})
	must(err)
	defer db.Close()
	a := newAnalytics(&world{}).(*analytics)
	must(a.start(db))
	for i := range 200 {
		_, err := a.views.Add(buffer.Row{Value: fmt.Append(nil, "view ", i)})
		must(err)
	}
	must(a.settled())
	fmt.Println(len(a.database.Rows()), "rows")
	a.stop()
	// Output: 200 rows
}
