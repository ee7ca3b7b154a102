package queues

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/cmd/forebay/internal/cli"
	"github.com/forebaydb/forebay/queue"
)

// figures are those of a group, as JSON has them.
type figures struct {
	Queue string `json:"queue"`
	// Group is nil for the first group that is still to be made.
	Group     *string `json:"group"`
	Enqueued  int64   `json:"enqueued"`
	Done      int64   `json:"done"`
	Dead      int64   `json:"dead"`
	Pending   int64   `json:"pending"`
	InFlight  int64   `json:"in_flight"`
	Delayed   int64   `json:"delayed"`
	Bytes     int64   `json:"bytes"`
	OldestAge float64 `json:"oldest_age_s"`
	// DrainETA is nil where nothing is known of a rate.
	DrainETA *float64 `json:"drain_eta_s"`
}

func statsCommand() *cobra.Command {
	var asJSON bool
	var rate float64
	cmd := &cobra.Command{
		Use:   "stats DIR [QUEUE]",
		Short: "Show depth, in flight, age and dead letters of all queues and groups",
		Long: `Show the figures of each consumer group of a queue, or of all queues:

  pending    the depth: what is neither done nor dead
  in flight  of these, what was delivered and not settled when the store was closed:
             it will be delivered again
  delayed    of these, what waits for its time
  dead       dead letters
  oldest     how long ago the oldest pending message was enqueued
  drain      how long it takes until nothing is pending, at --rate messages a second:
             while the store is closed nothing drains, so there is no rate to go by

The messages of a queue without a group wait for the first one to come.`,
		Example: `  forebay queue stats /tmp/s
  forebay queue stats /tmp/s mails --rate 500
  forebay queue stats /tmp/s --json | jq 'select(.dead > 0)'`,
		Args: cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !(rate >= 0) {
				return cli.Usagef("--rate is a number of messages a second")
			}
			db, err := cli.OpenExisting(args[0], nil)
			if err != nil {
				return err
			}
			names := args[1:]
			if len(names) == 0 {
				names, err = queue.Names(db)
			}
			w := bufio.NewWriter(cmd.OutOrStdout())
			if err == nil {
				err = stats(cmd.Context(), w, db, args[0], names, rate, asJSON)
			}
			return errors.Join(err, w.Flush(), db.Close())
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print a JSON object for each group; times are in seconds")
	cmd.Flags().Float64Var(&rate, "rate", 0, "`messages` a second at which the groups will drain; 0: not known")
	return cmd
}

func stats(ctx context.Context, w io.Writer, db *forebay.DB, dir string, names []string, rate float64, asJSON bool) error {
	if len(names) == 0 && !asJSON {
		_, err := fmt.Fprintf(w, "%s has no queues\n", dir)
		return err
	}
	for i, name := range names {
		v, err := queue.Inspect(db, name)
		if errors.Is(err, forebay.ErrNotFound) {
			return noQueue(db, dir, name)
		}
		if err != nil {
			return err
		}
		if !asJSON && i > 0 {
			fmt.Fprintln(w)
		}
		if !asJSON {
			fmt.Fprintf(w, "queue %s\n  %10s %10s %10s %10s %10s %12s %12s  group\n", cli.Escape([]byte(name)), "pending", "in flight", "delayed", "dead", "done", "oldest", "drain")
		}
		groups := v.Groups()
		if len(groups) == 0 {
			groups = []string{""}
		}
		for _, g := range groups {
			s, err := v.Stats(ctx, g)
			if err != nil {
				return err
			}
			if err := printFigures(w, figuresOf(name, g, s, rate), asJSON); err != nil {
				return err
			}
		}
	}
	return nil
}

func figuresOf(name, group string, s queue.Stats, rate float64) figures {
	f := figures{
		Queue: name, Group: &group, Enqueued: s.Enqueued, Done: s.Done, Dead: s.Dead, Pending: s.Pending,
		InFlight: s.InFlight, Delayed: s.Delayed, Bytes: s.Bytes, OldestAge: s.OldestAge.Seconds(),
	}
	if group == "" {
		f.Group = nil
	}
	switch eta := 0.0; {
	case s.Pending == 0:
		f.DrainETA = &eta
	case rate > 0:
		eta = float64(s.Pending) / rate
		f.DrainETA = &eta
	}
	return f
}

func printFigures(w io.Writer, f figures, asJSON bool) error {
	if asJSON {
		return cli.WriteJSON(w, f)
	}
	name, drain := "(none yet)", "-"
	if f.Group != nil {
		name = cli.Escape([]byte(*f.Group))
	}
	if f.DrainETA != nil {
		drain = cli.Age(seconds(*f.DrainETA))
	}
	oldest := "-"
	if f.Pending > 0 {
		oldest = cli.Age(seconds(f.OldestAge))
	}
	_, err := fmt.Fprintf(w, "  %10s %10s %10s %10s %10s %12s %12s  %s\n", cli.Count(f.Pending), cli.Count(f.InFlight), cli.Count(f.Delayed),
		cli.Count(f.Dead), cli.Count(f.Done), oldest, drain, name)
	return err
}

// seconds is a duration, a century at most.
func seconds(s float64) time.Duration {
	return time.Duration(min(s, 100*365*24*3600) * float64(time.Second))
}

// message is a pending message or a dead letter, as JSON has them.
type message struct {
	ID       string            `json:"id"`
	Key      string            `json:"key,omitempty"`
	Priority int               `json:"priority,omitempty"`
	Headers  map[string]string `json:"headers,omitempty"`
	DedupeID string            `json:"dedupe_id,omitempty"`
	Enqueued time.Time         `json:"enqueued"`
	Due      *time.Time        `json:"due,omitempty"`
	Died     *time.Time        `json:"died,omitempty"`
	Attempts int               `json:"attempts"`
	Reason   string            `json:"reason,omitempty"`
	InFlight bool              `json:"in_flight,omitempty"`
	Damaged  bool              `json:"damaged,omitempty"`
	cli.Payload
}

func limitFlag(cmd *cobra.Command, limit *int, most int) {
	cmd.Flags().IntVar(limit, "limit", most, "at most so many; 0: all")
}

func peekCommand() *cobra.Command {
	var t target
	var limit int
	cmd := &cobra.Command{
		Use:   "peek DIR QUEUE",
		Short: "Show messages that wait, without taking them",
		Long: `Show messages that a group has not settled, without taking them: nothing is
delivered, counted or moved. They come by priority, each in the order in which they
were enqueued, then those that are delayed or are to be tried again, by their time.
Without a group yet, what waits for the first one is shown.

Each line is the id, the time at which the message was enqueued, what there is to say,
and the beginning of the payload. --json has all of it.`,
		Example: `  forebay queue peek /tmp/s mails
  forebay queue peek /tmp/s mails --group sender --limit 0 --json`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if limit < 0 {
				return cli.Usagef("--limit %d is below 0", limit)
			}
			return inspect(args[0], args[1], func(_ *forebay.DB, v *queue.Inspector) error {
				g, err := t.choose(v, args[1])
				if err != nil {
					return err
				}
				w := bufio.NewWriter(cmd.OutOrStdout())
				return errors.Join(peek(cmd.Context(), w, v, g, limit, t.json), w.Flush())
			})
		},
	}
	t.flags(cmd.Flags())
	limitFlag(cmd, &limit, 10)
	return cmd
}

func peek(ctx context.Context, w io.Writer, v *queue.Inspector, group string, limit int, asJSON bool) error {
	n := 0
	for p, err := range v.Peek(ctx, group) {
		if err != nil {
			return err
		}
		if asJSON {
			m := message{ID: p.ID.String(), Key: p.Key, Priority: p.Priority, Headers: p.Headers, DedupeID: p.DedupeID, Enqueued: p.Time.UTC(),
				Attempts: p.Attempts, Reason: p.Reason, InFlight: p.InFlight, Damaged: p.Damaged, Payload: cli.NewPayload(p.Payload)}
			if !p.Due.IsZero() {
				due := p.Due.UTC()
				m.Due = &due
			}
			err = cli.WriteJSON(w, m)
		} else {
			_, err = fmt.Fprintf(w, "%s  %s  %s%s\n", p.ID, cli.Time(p.Time), notes(p), cli.Preview(p.Payload))
		}
		if err != nil {
			return err
		}
		if n++; n == limit {
			break
		}
	}
	return nil
}

// notes says what is not plain about a message.
func notes(p queue.Pending) string {
	var s string
	add := func(format string, args ...any) { s += fmt.Sprintf(format, args...) + "; " }
	if p.Key != "" {
		add("key %s", cli.Escape([]byte(p.Key)))
	}
	if p.Damaged {
		add("damaged")
	}
	if p.InFlight {
		add("in flight")
	}
	if !p.Due.IsZero() {
		add("due %s", cli.Time(p.Due))
	}
	if p.Attempts > 0 {
		add("attempts %d", p.Attempts)
	}
	if p.Reason != "" {
		add("%s", cli.Preview([]byte(p.Reason)))
	}
	return s
}

func dlqCommand() *cobra.Command {
	var t target
	var limit int
	cmd := &cobra.Command{
		Use:   "dlq DIR QUEUE",
		Short: "List dead letters, with reason, attempts and payload",
		Long: `List the dead letters of a group: id, when it died, how often it was attempted,
why it was given up, and the beginning of the payload. --json has all of it.
` + "`forebay queue redrive`" + ` has them delivered again, ` + "`forebay queue purge`" + ` forgets them.`,
		Example: `  forebay queue dlq /tmp/s mails
  forebay queue dlq /tmp/s mails --group sender --json | jq -r .reason | sort | uniq -c`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if limit < 0 {
				return cli.Usagef("--limit %d is below 0", limit)
			}
			return inspect(args[0], args[1], func(_ *forebay.DB, v *queue.Inspector) error {
				g, err := t.must(v, args[1])
				if err != nil {
					return err
				}
				w := bufio.NewWriter(cmd.OutOrStdout())
				return errors.Join(dlq(cmd.Context(), w, v, g, limit, t.json), w.Flush())
			})
		},
	}
	t.flags(cmd.Flags())
	limitFlag(cmd, &limit, 0)
	return cmd
}

func dlq(ctx context.Context, w io.Writer, v *queue.Inspector, group string, limit int, asJSON bool) error {
	n := 0
	for d, err := range v.DeadLetters(group) {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return err
		}
		if asJSON {
			died := d.Died.UTC()
			err = cli.WriteJSON(w, message{ID: d.ID.String(), Key: d.Key, Priority: d.Priority, Headers: d.Headers, Enqueued: d.Time.UTC(),
				Died: &died, Attempts: d.Attempts, Reason: d.Reason, Payload: cli.NewPayload(d.Payload)})
		} else {
			_, err = fmt.Fprintf(w, "%s  %s  attempts %d; %s; %s\n", d.ID, cli.Time(d.Died), d.Attempts, cli.Preview([]byte(d.Reason)), cli.Preview(d.Payload))
		}
		if err != nil {
			return err
		}
		if n++; n == limit {
			break
		}
	}
	return nil
}
