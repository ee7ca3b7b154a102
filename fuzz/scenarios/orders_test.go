package scenarios

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/idem"
	"github.com/forebaydb/forebay/queue"
	"github.com/forebaydb/forebay/vfs"
)

// orders is order processing. A request is answered when the order is durable; a worker
// charges it and asks for a mail; another one sends the mail.
//
// Each step is one commit: the order, the answer under the client's key and the message to
// the worker; the charge, the order's new state, the mail to be sent and the
// acknowledgement. So none of them can be without the others, however often a step is
// begun. The mail server is outside: it gets a mail at least once, and knows it by its id.
type orders struct {
	w    *world
	seen int // of next

	db            *forebay.DB
	keys          *idem.Keys
	queue         *queue.Queue[string] // of ids
	mails         *queue.Queue[string]
	charge, sends *queue.Group[string]
	cancel        context.CancelFunc
	ctx           context.Context
	running       sync.WaitGroup

	// Outside: what clients were told, and what the mail server has.
	told  map[string]string // answers by request
	mailb map[string]int    // mails by order
}

const price = 3

func newOrders(w *world) system {
	return &orders{w: w, told: map[string]string{}, mailb: map[string]int{}}
}

func (o *orders) start(db *forebay.DB) (err error) {
	o.db = db
	if o.keys, err = idem.Open(db, "requests", nil); err != nil {
		return err
	}
	if o.queue, err = queue.Open(db, "orders", queue.JSON[string]{}, nil); err != nil {
		return err
	}
	if o.mails, err = queue.Open(db, "mails", queue.JSON[string]{}, nil); err != nil {
		return err
	}
	if o.charge, err = o.queue.Group("charge", nil); err != nil {
		return err
	}
	if o.sends, err = o.mails.Group("send", nil); err != nil {
		return err
	}
	o.ctx, o.cancel = context.WithCancel(context.Background())
	o.running.Go(func() { _ = o.charge.Run(o.ctx, 4, o.pay) })
	o.running.Go(func() { _ = o.sends.Run(o.ctx, 4, o.send) })
	return nil
}

func (o *orders) stop() {
	o.cancel()
	o.running.Wait()
	must(errors.Join(o.queue.Close(), o.mails.Close(), o.keys.Close()))
}

// request is what a client calls. It may come again with the same key, whatever happened
// before: the answer is the same, and there is one order.
func (o *orders) request(ctx context.Context, key, what string) (answer string, err error) {
	r, err := o.keys.Do(ctx, []byte(key), []byte(what), func(tx *forebay.Tx) ([]byte, error) {
		id := "order of " + key
		if err := tx.Put([]byte(id), []byte("received")); err != nil {
			return nil, err
		}
		return []byte(id), o.queue.EnqueueTx(ctx, tx, id, &queue.Meta{Key: key})
	})
	return string(r.Value), err
}

func (o *orders) pay(ctx context.Context, m *queue.Message[string]) error {
	return o.db.Update(func(tx *forebay.Tx) error {
		if err := m.AckTx(tx); err != nil {
			return err
		}
		was, err := tx.Get([]byte("charged"))
		if err != nil && !errors.Is(err, forebay.ErrNotFound) {
			return err
		}
		n, _ := strconv.Atoi(string(was))
		if err := tx.Put([]byte("charged"), fmt.Append(nil, n+price)); err != nil {
			return err
		}
		if err := tx.Put([]byte(m.Value), []byte("paid")); err != nil {
			return err
		}
		return o.mails.EnqueueTx(ctx, tx, m.Value, nil)
	})
}

func (o *orders) send(_ context.Context, m *queue.Message[string]) error {
	if !o.w.do(func() { o.mailb[m.Value] = 1 }) { // a mail with an id that is known is none
		return errors.New("dead")
	}
	return nil
}

func (o *orders) work(r *rand.Rand) {
	var clients sync.WaitGroup
	for c := range 4 {
		wait := r.IntN(20)
		first := o.seen
		clients.Go(func() {
			for i := range 30 {
				key := fmt.Sprint("request ", c, "-", first+i)
				for range 2 { // each client asks twice, as if the first answer was lost
					answer, err := o.request(o.ctx, key, "a book")
					if err != nil || !o.w.do(func() { o.told[key] = answer }) {
						return
					}
				}
				time.Sleep(time.Duration(wait) * time.Millisecond)
			}
		})
	}
	clients.Wait()
	o.seen += 30
}

func (o *orders) settled() error {
	for _, g := range []*queue.Group[string]{o.charge, o.sends} {
		for {
			s, err := g.Stats(o.ctx)
			if err != nil || s.Pending == 0 {
				if err != nil {
					return err
				}
				break
			}
			time.Sleep(time.Second)
		}
	}
	return nil
}

func (o *orders) check(t *testing.T, db *forebay.DB) {
	paid := 0
	for e, err := range db.Prefix([]byte("order of ")) {
		require.NoError(t, err)
		require.Equal(t, "paid", string(e.Value))
		require.Equal(t, 1, o.mailb[string(e.Key)], "a mail for each order")
		paid++
	}
	for key, answer := range o.told {
		require.Equal(t, "order of "+key, answer)
		_, err := db.Get([]byte(answer))
		require.NoError(t, err, "a client was told of it")
	}
	require.Positive(t, paid)
	require.Len(t, o.mailb, paid)
	v, err := db.Get([]byte("charged"))
	require.NoError(t, err)
	require.Equal(t, fmt.Sprint(price*paid), string(v), "each is charged once")
	s, err := o.sends.Stats(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, paid, s.Enqueued, "one mail is asked for each")
}

// An order is answered when it is durable; the rest follows. A request that comes again
// has the same answer, and no effect.
func Example_orders() {
	db, err := forebay.Open("shop", &forebay.Options{FS: vfs.NewMem()})
	must(err)
	defer db.Close()
	o := newOrders(&world{}).(*orders)
	must(o.start(db))
	for range 2 {
		fmt.Println(o.request(context.Background(), "17", "a book"))
	}
	for {
		s, err := o.sends.Stats(context.Background())
		must(err)
		if s.Done == 1 {
			break
		}
		time.Sleep(time.Millisecond)
	}
	state, err := db.Get([]byte("order of 17"))
	charged, _ := db.Get([]byte("charged"))
	fmt.Printf("%s, charged %s, mails %v, %v\n", state, charged, o.mailb, err)
	o.stop()
	// Output:
	// order of 17 <nil>
	// order of 17 <nil>
	// paid, charged 3, mails map[order of 17:1], <nil>
}
