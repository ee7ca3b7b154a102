package scenarios

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/queue"
	"github.com/forebaydb/forebay/vfs"
)

// notifications are push, e-mail and SMS about what users do. What a user did is one commit
// with a message for each channel, and takes no longer for them. A channel is a consumer
// group, so that one that is slow holds up nobody. A provider that fails is tried again,
// with a growing wait; a recipient that it refuses is a dead letter.
type notifications struct {
	w *world

	db      *forebay.DB
	queue   *queue.Queue[string]
	groups  map[string]*queue.Group[string]
	ctx     context.Context
	cancel  context.CancelFunc
	running sync.WaitGroup
	first   int

	// Outside.
	done     map[string]bool           // posts that clients know to be there
	provided map[string]map[string]int // by channel and message
	calls    int
}

var channels = []string{"push", "mail", "sms"}

func newNotifications(w *world) system {
	n := &notifications{w: w, done: map[string]bool{}, provided: map[string]map[string]int{}}
	for _, c := range channels {
		n.provided[c] = map[string]int{}
	}
	return n
}

func (n *notifications) start(db *forebay.DB) (err error) {
	n.db = db
	if n.queue, err = queue.Open(db, "notifications", queue.JSON[string]{}, nil); err != nil {
		return err
	}
	n.ctx, n.cancel = context.WithCancel(context.Background())
	n.groups = map[string]*queue.Group[string]{}
	for _, c := range channels {
		g, err := n.queue.Group(c, &queue.GroupOptions{MaxDeliveries: 100, Backoff: 10 * time.Millisecond, MaxBackoff: time.Second})
		if err != nil {
			return err
		}
		n.groups[c] = g
		n.running.Go(func() {
			_ = g.Run(n.ctx, 2, func(ctx context.Context, m *queue.Message[string]) error { return n.provide(c, m) })
		})
	}
	return nil
}

func (n *notifications) stop() {
	n.cancel()
	n.running.Wait()
	must(n.queue.Close())
}

// post is what a user does.
func (n *notifications) post(id string) error {
	return n.db.Update(func(tx *forebay.Tx) error {
		if err := tx.Put([]byte("post/"+id), nil); err != nil {
			return err
		}
		return n.queue.EnqueueTx(n.ctx, tx, id, nil)
	})
}

// provide calls a provider, who fails one time in three, and for good for each tenth post
// by SMS.
func (n *notifications) provide(channel string, m *queue.Message[string]) (err error) {
	if channel == "sms" && m.Value[len(m.Value)-1] == '7' {
		return fmt.Errorf("%w: no such number", queue.ErrPermanent)
	}
	alive := n.w.do(func() {
		if n.calls++; n.calls%3 == 0 {
			err = errors.New("the provider is busy")
			return
		}
		n.provided[channel][m.Value]++
		if n.calls%5 == 0 {
			err = errors.New("the provider's answer was lost") // it has been sent
		}
	})
	if !alive {
		return errors.New("dead")
	}
	return err
}

func (n *notifications) work(r *rand.Rand) {
	var users sync.WaitGroup
	for u := range 3 {
		wait, first := r.IntN(20), n.first
		users.Go(func() {
			for i := range 30 {
				id := fmt.Sprint(u, "-", first+i)
				start := time.Now()
				if n.post(id) != nil || !n.w.do(func() { n.done[id] = true }) {
					return
				}
				if waited := time.Since(start); waited > 0 {
					panic(fmt.Sprint("a user waited for ", waited)) // on the clock of a bubble
				}
				time.Sleep(time.Duration(wait) * time.Millisecond)
			}
		})
	}
	users.Wait()
	n.first += 30
}

func (n *notifications) settled() error {
	for _, g := range n.groups {
		for {
			s, err := g.Stats(n.ctx)
			if err != nil {
				return err
			}
			if s.Enqueued != s.Done+s.Dead+s.Pending {
				return fmt.Errorf("%+v", s)
			}
			if s.Pending == 0 {
				break
			}
			time.Sleep(time.Second)
		}
	}
	return nil
}

func (n *notifications) check(t *testing.T, db *forebay.DB) {
	posts, bad := 0, 0
	for e, err := range db.Prefix([]byte("post/")) {
		require.NoError(t, err)
		id := string(e.Key[len("post/"):])
		posts++
		dead := id[len(id)-1] == '7'
		if dead {
			bad++
		}
		for _, c := range channels {
			if dead && c == "sms" {
				require.Zero(t, n.provided[c][id])
			} else {
				require.GreaterOrEqual(t, n.provided[c][id], 1, "%s of %s", c, id)
			}
		}
	}
	for id := range n.done {
		has, err := db.Has([]byte("post/" + id))
		require.NoError(t, err)
		require.True(t, has, "the user was told that it is there")
	}
	for c, g := range n.groups {
		s, err := g.Stats(t.Context())
		require.NoError(t, err)
		require.EqualValues(t, posts, s.Enqueued)
		want := 0
		if c == "sms" {
			want = bad
		}
		require.EqualValues(t, want, s.Dead)
		letters := 0
		for d, err := range g.DeadLetters() {
			require.NoError(t, err)
			require.Contains(t, d.Reason, "no such number")
			letters++
		}
		require.Equal(t, want, letters)
	}
	require.Positive(t, bad)
}

// A provider's failures are tried again, a number that there is not is a dead letter, and
// the user has noticed neither.
func Example_notifications() {
	db, err := forebay.Open("site", &forebay.Options{FS: vfs.NewMem()})
	must(err)
	defer db.Close()
	n := newNotifications(&world{}).(*notifications)
	must(n.start(db))
	must(n.post("41"))
	must(n.post("47"))
	for _, c := range channels {
		for {
			s, err := n.groups[c].Stats(context.Background())
			must(err)
			if s.Pending == 0 {
				fmt.Println(c, s.Done, "done,", s.Dead, "dead")
				break
			}
			time.Sleep(time.Millisecond)
		}
	}
	n.stop()
	// Output:
	// push 2 done, 0 dead
	// mail 2 done, 0 dead
	// sms 1 done, 1 dead
}
