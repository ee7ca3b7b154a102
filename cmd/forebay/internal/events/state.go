package events

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/cmd/forebay/internal/cli"
	"github.com/forebaydb/forebay/eventstore"
)

// stated is what state was told.
type stated struct {
	store, at      string
	sums, subtract []string
	json           bool
}

// moment is an --at that was read.
type moment struct {
	last    bool // the last version
	version uint64
	timed   bool // time counts
	time    time.Time
}

func stateCommand() *cobra.Command {
	st := &stated{}
	cmd := &cobra.Command{
		Use:   "state DIR STREAM",
		Short: "Show the state that a stream's events make, at a version or a time",
		Long: `Fold the events of a stream into a state, and show it: as it is now, or as it was
behind a version or at a time (--at).

What a service makes of its events only the service knows. Here payloads are JSON
objects, and the rule is a simple one, from the first event to the last:

  - a field of a payload overwrites the field of that name in the state, whole;
  - a field that --sum names is a number, and is added up, exactly; --sum NAME=FIELD
    adds FIELD up under another NAME;
  - in events of a type that --subtract names, it is subtracted.

Events without a JSON object for a payload, those that are erased or sealed too, change
nothing, and are counted as ignored. --at is a version (3), or a time
(2026-11-26T21:40:28Z): the state behind the last event that is not later. Of a stream
whose first events were taken out there is no state.`,
		Example: `  forebay events state /tmp/s account-42
  forebay events state /tmp/s account-42 --at 3 --sum balance=amount --subtract Withdrawn
  forebay events state /tmp/s account-42 --at 2026-11-26T21:40:28Z --sum amount --json`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := parseRules(st.sums, st.subtract)
			if err != nil {
				return cli.Usage(err)
			}
			at, err := parseMoment(st.at)
			if err != nil {
				return cli.Usagef("--at: %w", err)
			}
			return reading(cmd, args[0], st.store, func(w *bufio.Writer, s *eventstore.Store) error {
				l, err := load(cmd.Context(), s, args[1], r, at)
				if errors.Is(err, forebay.ErrNotFound) {
					return noStream(args[0], args[1])
				}
				if err != nil {
					return err
				}
				return st.write(w, args[1], l)
			})
		},
	}
	storeFlag(cmd.Flags(), &st.store)
	cmd.Flags().StringVar(&st.at, "at", "", "the state behind this `version`, or at this time; default: now")
	cmd.Flags().StringSliceVar(&st.sums, "sum", nil, "`fields` that are numbers and add up: FIELD or NAME=FIELD, separated by commas")
	cmd.Flags().StringSliceVar(&st.subtract, "subtract", nil, "`types` of events in which these fields are subtracted")
	cmd.Flags().BoolVar(&st.json, "json", false, "print one JSON object")
	return cmd
}

func parseMoment(s string) (moment, error) {
	if s == "" {
		return moment{last: true}, nil
	}
	if v, err := strconv.ParseUint(s, 10, 64); err == nil {
		return moment{version: v}, nil
	}
	at, err := parseTime(s)
	if err != nil {
		err = fmt.Errorf("%q is neither a version nor a time; a time is 2026-11-26T21:40:28Z, or 2026-11-26", s)
	}
	return moment{timed: true, time: at}, err
}

// load folds a stream. forebay.ErrNotFound: it has no events.
func load(ctx context.Context, s *eventstore.Store, stream string, r rules, at moment) (eventstore.Loaded[*folded], error) {
	a := &eventstore.Aggregate[*folded]{Name: "forebay events state", New: newFolded, Apply: r.apply}
	info, err := s.Info(stream)
	switch {
	case err != nil:
		return eventstore.Loaded[*folded]{}, err
	case at.last:
		return a.AtVersion(ctx, s, stream, info.Version)
	case !at.timed:
		if at.version > info.Version {
			return eventstore.Loaded[*folded]{}, fmt.Errorf("stream %q has %d versions, and none %d yet", stream, info.Version, at.version)
		}
		return a.AtVersion(ctx, s, stream, at.version)
	}
	return a.AtTime(ctx, s, stream, at.time)
}

func (st *stated) write(w io.Writer, stream string, l eventstore.Loaded[*folded]) error {
	state := l.State.state()
	if st.json {
		out := map[string]any{"stream": stream, "version": l.Version, "ignored": l.State.ignored, "state": state}
		if l.Version > 0 {
			out["time"] = l.Time.UTC()
		}
		return cli.WriteJSON(w, out)
	}
	if l.Version == 0 {
		_, err := fmt.Fprintf(w, "%s had no events then\n", cli.Escape([]byte(stream)))
		return err
	}
	fmt.Fprintf(w, "%s at version %d, %s\n", cli.Escape([]byte(stream)), l.Version, cli.Time(l.Time))
	for _, name := range slices.Sorted(maps.Keys(state)) {
		fmt.Fprintf(w, "  %-16s %s\n", cli.Escape([]byte(name)), shown(state[name]))
	}
	if n := l.State.ignored; n > 0 {
		fmt.Fprintf(w, "  (%s ignored: without a JSON object)\n", cli.Plural(n, "event"))
	}
	return nil
}

// shown is a value as text: a string without quotes, all else as JSON.
func shown(v json.RawMessage) string {
	var s string
	if json.Unmarshal(v, &s) == nil && string(v) != "null" {
		return cli.Escape([]byte(s))
	}
	return cli.Escape(v)
}
