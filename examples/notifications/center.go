package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"strconv"
	"strings"
	"time"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/queue"
)

// notification is what a user is to be told.
type notification struct{ ID, User, Text string }

// The priorities of the queue.
const (
	newsletter = iota
	code
	priorities
)

// center is the queue and the channels that it is read by.
type center struct {
	db       *forebay.DB
	queue    *queue.Queue[notification]
	channels []*channel
	gateways client
	say      *log.Logger
}

// channel is a way to a user.
type channel struct {
	*center
	name  string
	group *queue.Group[notification]
}

func open(dir, gateways string, say *log.Logger) (c *center, err error) {
	c = &center{gateways: client{url: gateways, http: newHTTP()}, say: say}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.close())
		}
	}()
	if c.db, err = forebay.Open(dir, nil); err != nil {
		return c, err
	}
	if c.queue, err = queue.Open(c.db, "notifications", queue.JSON[notification]{}, &queue.Options{Priorities: priorities}); err != nil {
		return c, err
	}
	// The waits of a real one would be seconds and hours; its story would be as long.
	for _, ch := range []struct {
		name string
		o    queue.GroupOptions
	}{
		{"push", queue.GroupOptions{MaxDeliveries: 5, Backoff: 5 * time.Millisecond, MaxBackoff: 50 * time.Millisecond}},
		{"mail", queue.GroupOptions{MaxDeliveries: 8, Backoff: 20 * time.Millisecond, MaxBackoff: 500 * time.Millisecond}},
		{"sms", queue.GroupOptions{MaxDeliveries: 3, Backoff: 10 * time.Millisecond, MaxBackoff: 100 * time.Millisecond}},
	} {
		g, err := c.queue.Group(ch.name, &ch.o)
		if err != nil {
			return c, err
		}
		c.channels = append(c.channels, &channel{center: c, name: ch.name, group: g})
	}
	return c, nil
}

// close closes what open has opened.
func (c *center) close() (err error) {
	if c.queue != nil {
		err = errors.Join(err, c.queue.Close())
	}
	if c.db != nil {
		err = errors.Join(err, c.db.Close())
	}
	return err
}

var users = []string{"alice", "bob", "carol", "nobody"} // nobody has a telephone number that is none

// notifyAll enqueues what is not enqueued yet. How far it has come is in the commit of
// each notification: so none is enqueued twice, and none forgotten.
func (c *center) notifyAll(ctx context.Context, n int) error {
	for done := false; !done; {
		if err := c.db.Update(func(tx *forebay.Tx) error {
			i := 0
			switch v, err := tx.Get([]byte("enqueued")); {
			case errors.Is(err, forebay.ErrNotFound):
			case err != nil:
				return err
			default:
				if i, err = strconv.Atoi(string(v)); err != nil {
					return err
				}
			}
			if done = i >= n; done {
				return nil
			}
			note := notification{ID: fmt.Sprintf("n-%04d", i), User: users[i%len(users)], Text: "what is new"}
			meta := queue.Meta{Priority: newsletter}
			if i%5 == 4 {
				note.Text, meta.Priority = "your code is 1234", code
			}
			if err := c.queue.EnqueueTx(ctx, tx, note, &meta); err != nil {
				return err
			}
			return tx.Put([]byte("enqueued"), strconv.AppendInt(nil, int64(i+1), 10))
		}); err != nil {
			return err
		}
	}
	return nil
}

// deliver hands a notification to the gateway of a channel.
func (ch *channel) deliver(ctx context.Context, m *queue.Message[notification]) error {
	err := ch.gateways.send(ctx, ch.name, m.Value)
	switch {
	case errors.Is(err, errAddress):
		ch.say.Printf("%s %s: %v; dead at once", m.Value.ID, ch.name, err)
		return fmt.Errorf("%w: %w", queue.ErrPermanent, err)
	case err != nil:
		ch.say.Printf("%s %s: attempt %d: %v", m.Value.ID, ch.name, m.Attempt, err)
		return err
	}
	if err := ch.db.Update(func(tx *forebay.Tx) error {
		if err := m.AckTx(tx); err != nil {
			return err
		}
		sent, err := tx.Keyspace("sent")
		if err != nil {
			return err
		}
		key := []byte(ch.name + " " + m.Value.ID)
		if has, err := sent.Has(key); err != nil || has {
			return errors.Join(err, fmt.Errorf("%s is noted twice", key))
		}
		return sent.Put(key, []byte(strconv.Itoa(m.Attempt)))
	}); err != nil {
		return err
	}
	ch.say.Printf("%s %s: sent to %s, attempt %d: %s", m.Value.ID, ch.name, m.Value.User, m.Attempt, m.Value.Text)
	return nil
}

// operator waits until nothing is pending, and looks at what is dead. What another attempt
// may help is delivered again, once somebody has paid for it; then once more.
func (c *center) operator(ctx context.Context) error {
	for again := true; again; {
		if err := c.drained(ctx); err != nil {
			return err
		}
		again = false
		for _, ch := range c.channels {
			var ids []queue.ID
			reasons := map[string]int{}
			for d, err := range ch.group.DeadLetters() {
				if err != nil {
					return err
				}
				if !strings.Contains(d.Reason, errAddress.Error()) {
					ids = append(ids, d.ID)
					reasons[d.Reason]++
				}
			}
			if len(ids) == 0 {
				continue
			}
			c.say.Printf("the operator sees dead letters of %s: %v; they are sent again, when the bill is paid", ch.name, reasons)
			if ch.name == "sms" {
				if err := c.gateways.pay(ctx); err != nil {
					return err
				}
			}
			if err := ch.group.Redrive(ctx, ids...); err != nil {
				return err
			}
			again = true
		}
	}
	return nil
}

// drained returns when nothing is pending in any channel.
func (c *center) drained(ctx context.Context) error {
	for {
		pending := int64(0)
		for _, ch := range c.channels {
			s, err := ch.group.Stats(ctx)
			if err != nil {
				return err
			}
			pending += s.Pending
		}
		if pending == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// figures returns those of a channel, and an error if they do not fit.
func (ch *channel) figures(ctx context.Context) (queue.Stats, error) {
	s, err := ch.group.Stats(ctx)
	if err == nil && s.Enqueued != s.Done+s.Dead+s.Pending {
		err = fmt.Errorf("%s: in %d, done %d, dead %d, pending %d", ch.name, s.Enqueued, s.Done, s.Dead, s.Pending)
	}
	return s, err
}

func (c *center) report(ctx context.Context, when string) error {
	for _, ch := range c.channels {
		s, err := ch.figures(ctx)
		if err != nil {
			return err
		}
		c.say.Printf("%s, %s: in %d = done %d + dead %d + pending %d", ch.name, when, s.Enqueued, s.Done, s.Dead, s.Pending)
	}
	return nil
}
