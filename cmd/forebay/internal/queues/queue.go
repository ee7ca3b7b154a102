// Package queues has the commands that look at the queues of a store and mend them:
// queue stats, peek, dlq, redrive and purge. What shows something goes by
// queue.Inspector, and changes nothing; redrive and purge open the queue itself.
package queues

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/cmd/forebay/internal/cli"
	"github.com/forebaydb/forebay/queue"
)

// Commands returns the command queue.
func Commands() []*cobra.Command {
	cmd := &cobra.Command{
		Use:   "queue",
		Short: "Look at queues: depth, waiting messages, dead letters; redrive and purge those",
		Long: `Look at the queues of a store, and see to their dead letters.

A store is open in one process at a time, and to read messages takes the store for
writing: while a service has it open these commands say so and do nothing. A service
shows the same by Group.Stats, DeadLetters, Redrive and Purge of its own.`,
	}
	cmd.AddCommand(statsCommand(), peekCommand(), dlqCommand(), redriveCommand(), purgeCommand())
	return []*cobra.Command{cmd}
}

// target says which queue and group a command is about.
type target struct {
	group string
	json  bool
}

func (t *target) flags(fl *pflag.FlagSet) {
	fl.StringVar(&t.group, "group", "", "the consumer `group`; may be left out where there is only one")
	fl.BoolVar(&t.json, "json", false, "print a JSON object for each")
}

// inspect runs fn on a queue of a store.
func inspect(dir, name string, fn func(*forebay.DB, *queue.Inspector) error) error {
	db, err := cli.OpenExisting(dir, nil)
	if err != nil {
		return err
	}
	v, err := queue.Inspect(db, name)
	if errors.Is(err, forebay.ErrNotFound) {
		err = noQueue(db, dir, name)
	}
	if err == nil {
		err = fn(db, v)
	}
	return errors.Join(err, db.Close())
}

// noQueue is the error where there is no queue with a name.
func noQueue(db *forebay.DB, dir, name string) error {
	names, err := queue.Names(db)
	if err != nil {
		return err
	}
	if len(names) == 0 {
		return fmt.Errorf("no queue %q: %s has no queues", name, dir)
	}
	return fmt.Errorf("no queue %q in %s; it has %s", name, dir, quoted(names))
}

// choose returns the group that is meant. "": there is none, which only some can do with.
func (t *target) choose(v *queue.Inspector, name string) (string, error) {
	groups := v.Groups()
	if t.group == "" && len(groups) > 1 {
		return "", cli.Usagef("queue %q has the groups %s; say which by --group", name, quoted(groups))
	}
	if t.group == "" && len(groups) == 1 {
		return groups[0], nil
	}
	for _, g := range groups {
		if g == t.group {
			return g, nil
		}
	}
	if t.group == "" {
		return "", nil
	}
	if len(groups) == 0 {
		return "", fmt.Errorf("no group %q: queue %q has no groups", t.group, name)
	}
	return "", fmt.Errorf("no group %q of queue %q; it has %s", t.group, name, quoted(groups))
}

// must is choose where there must be a group.
func (t *target) must(v *queue.Inspector, name string) (string, error) {
	g, err := t.choose(v, name)
	if err == nil && g == "" {
		err = fmt.Errorf("queue %q has no groups, and so no dead letters", name)
	}
	return g, err
}

func quoted(names []string) string {
	out := make([]string, len(names))
	for i, n := range names {
		out[i] = fmt.Sprintf("%q", n)
	}
	return strings.Join(out, ", ")
}
