// Package events has the commands that look at event stores: events streams, read,
// replay and state. None of them changes anything. Payloads are shown as they were
// appended: the upcasters of a service are not known here, and neither are its master
// keys, so what needs one is shown as sealed.
package events

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/forebaydb/forebay/cmd/forebay/internal/cli"
	"github.com/forebaydb/forebay/eventstore"
)

// Commands returns the command events.
func Commands() []*cobra.Command {
	cmd := &cobra.Command{
		Use:   "events",
		Short: "Look at event stores: streams, events, replay, the state at a version or a time",
		Long: `Look at the event stores of a store: their streams, what happened in them, and what
the state of something was at a version or a time.

A store is open in one process at a time, and to read events takes the store for
writing, although nothing is changed: while a service has it open these commands say
so and do nothing.`,
	}
	cmd.AddCommand(streamsCommand(), readCommand(), replayCommand(), stateCommand())
	return []*cobra.Command{cmd}
}

// storeFlag adds --store.
func storeFlag(fl *pflag.FlagSet, name *string) {
	fl.StringVar(name, "store", "", "the `name` of the event store; may be left out where there is only one")
}

// reading runs fn on the event store with a name in dir, "": the only one, with a
// buffered standard output.
func reading(cmd *cobra.Command, dir, name string, fn func(w *bufio.Writer, s *eventstore.Store) error) error {
	db, err := cli.OpenExisting(dir, nil)
	if err != nil {
		return err
	}
	names, err := eventstore.Names(db)
	if err == nil {
		name, err = choose(dir, name, names)
	}
	if err == nil {
		var s *eventstore.Store
		if s, err = eventstore.Open(db, name, &eventstore.Options{LeaveSealed: true}); err == nil {
			w := bufio.NewWriterSize(cmd.OutOrStdout(), 64<<10)
			err = errors.Join(fn(w, s), w.Flush())
		}
	}
	return errors.Join(err, db.Close())
}

func choose(dir, name string, names []string) (string, error) {
	for _, n := range names {
		if n == name || name == "" && len(names) == 1 {
			return n, nil
		}
	}
	quoted := make([]string, len(names))
	for i, n := range names {
		quoted[i] = strconv.Quote(n)
	}
	switch has := strings.Join(quoted, ", "); {
	case len(names) == 0:
		return "", fmt.Errorf("%s has no event stores", dir)
	case name == "":
		return "", cli.Usagef("%s has the event stores %s; say which by --store", dir, has)
	default:
		return "", fmt.Errorf("no event store %q in %s; it has %s", name, dir, has)
	}
}

// event is an event as a JSON line.
type event struct {
	Offset      uint64            `json:"offset"`
	LSN         uint64            `json:"lsn"`
	Stream      string            `json:"stream"`
	Version     uint64            `json:"version"`
	ID          string            `json:"id"`
	Type        string            `json:"type"`
	Schema      uint32            `json:"schema"`
	Time        time.Time         `json:"time"`
	Correlation string            `json:"correlation,omitempty"`
	Causation   string            `json:"causation,omitempty"`
	Headers     map[string]string `json:"headers,omitempty"`
	Subject     string            `json:"subject,omitempty"`
	Erased      bool              `json:"erased,omitempty"`
	Sealed      bool              `json:"sealed,omitempty"`
	cli.Payload
}

func writeJSON(w io.Writer, ev eventstore.Event) error {
	return cli.WriteJSON(w, event{ev.Offset, ev.LSN, ev.Stream, ev.Version, ev.ID.String(), ev.Type, ev.Schema, ev.Time.UTC(),
		ev.Correlation, ev.Causation, ev.Headers, ev.Subject, ev.Erased, ev.Sealed, cli.NewPayload(ev.Payload)})
}

func writeLine(w io.Writer, ev eventstore.Event) error {
	payload := cli.Preview(ev.Payload)
	switch {
	case ev.Erased:
		payload = "(erased)"
	case ev.Sealed:
		payload = "(sealed)"
	}
	_, err := fmt.Fprintf(w, "%8d  %s  %s/%d  %s  %s\n", ev.Offset, cli.Time(ev.Time), cli.Escape([]byte(ev.Stream)), ev.Version, cli.Escape([]byte(ev.Type)), payload)
	return err
}

// parseTime reads a time, or a date, in UTC unless it says otherwise.
func parseTime(s string) (time.Time, error) {
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02 15:04:05", "2006-01-02"} {
		if at, err := time.Parse(layout, s); err == nil {
			return at, nil
		}
	}
	return time.Time{}, fmt.Errorf("%q is no time; one is 2026-11-26T21:40:28Z, or 2026-11-26", s)
}
