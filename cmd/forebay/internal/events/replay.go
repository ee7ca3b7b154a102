package events

import (
	"bufio"
	"context"
	"fmt"
	"math"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"github.com/forebaydb/forebay/cmd/forebay/internal/cli"
	"github.com/forebaydb/forebay/eventstore"
)

// replayer is what replay was told.
type replayer struct {
	store, since string
	from         uint64
	rate         float64
	limit        uint64

	done atomic.Uint64 // events
}

func replayCommand() *cobra.Command {
	r := &replayer{}
	cmd := &cobra.Command{
		Use:   "replay DIR",
		Short: "Write all events from a position or a time on as JSON lines, at a rate",
		Long: `Write the events of all streams, in the order of their commits, as JSON lines: to
feed what is to be built again from them, or to look for a fault. They come as fast as
they are taken, or --rate of them a second. The lines are those of events read --json,
and the same at each replay.

Begin with --from OFFSET, the offset behind the last line that was handled, or with
--since TIME: the first event that is not older. By default with the first that is
kept. Times of different streams may be out of order by as long as commits take.`,
		Example: `  forebay events replay /tmp/s > events.jsonl
  forebay events replay /tmp/s --from 1200000 --rate 5000 | my-service load
  forebay events replay /tmp/s --since 2026-11-26T21:00:00Z --limit 100 | jq .type`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return r.run(cmd, args[0]) },
	}
	storeFlag(cmd.Flags(), &r.store)
	cmd.Flags().Uint64Var(&r.from, "from", 0, "begin with this `offset`")
	cmd.Flags().StringVar(&r.since, "since", "", "begin with the first event that is not older than this `time` (2026-11-26T21:40:28Z)")
	cmd.Flags().Float64Var(&r.rate, "rate", 0, "`events` a second; 0: as fast as it goes")
	cmd.Flags().Uint64Var(&r.limit, "limit", 0, "at most so many events; 0: all")
	return cmd
}

func (r *replayer) run(cmd *cobra.Command, dir string) error {
	var since time.Time
	if r.since != "" {
		var err error
		if since, err = parseTime(r.since); err != nil {
			return cli.Usagef("--since: %w", err)
		}
		if cmd.Flags().Changed("from") {
			return cli.Usagef("begin by --from or by --since, not by both")
		}
	}
	if !(r.rate >= 0) || math.IsInf(r.rate, 1) {
		return cli.Usagef("--rate is a number of events a second")
	}
	return reading(cmd, dir, r.store, func(w *bufio.Writer, s *eventstore.Store) (err error) {
		ctx := cmd.Context()
		from := r.from
		switch {
		case r.since != "":
			from, err = s.Topic().SeekTime(ctx, since)
		case !cmd.Flags().Changed("from"):
			from, err = s.First()
		}
		if err != nil {
			return err
		}
		_, next, err := s.Topic().Bounds()
		if err != nil {
			return err
		}
		start := time.Now()
		quiet := cli.IsTerminal(cmd.OutOrStdout()) // where the line would be among the events
		progress := cli.StartProgress(cmd.ErrOrStderr(), quiet, func() string {
			n := r.done.Load()
			return fmt.Sprintf("%s of %s events, %s/s", cli.Count(n), cli.Count(max(next, from)-from), cli.Count(int64(cli.Rate(n, time.Since(start)))))
		})
		defer progress.Stop()
		return r.events(ctx, w, s, from, newPace(r.rate))
	})
}

func (r *replayer) events(ctx context.Context, w *bufio.Writer, s *eventstore.Store, from uint64, p *pace) error {
	for ev, err := range s.All(ctx, from) {
		if err != nil {
			return err
		}
		if err := p.wait(ctx, w); err != nil {
			return err
		}
		if err := writeJSON(w, ev); err != nil {
			return err
		}
		if n := r.done.Add(1); n == r.limit {
			break
		}
	}
	return nil
}

// pace lets so many events pass a second. It makes up for at most credit of being late,
// so that whoever reads in fits and starts is not flooded.
type pace struct {
	every time.Duration // from event to event; 0: no pace
	next  time.Time     // when the next one is due
}

const credit = 100 * time.Millisecond

func newPace(rate float64) *pace {
	if rate == 0 {
		return &pace{}
	}
	return &pace{every: time.Duration(min(float64(time.Second)/rate, float64(math.MaxInt64/4)))}
}

// wait returns when the next event is due. What was written before is flushed then: who
// reads has it while nothing comes.
func (p *pace) wait(ctx context.Context, w *bufio.Writer) error {
	if p.every == 0 {
		return nil
	}
	now := time.Now()
	if earliest := now.Add(-credit); p.next.IsZero() {
		p.next = now
	} else if p.next.Before(earliest) {
		p.next = earliest
	}
	d := p.next.Sub(now)
	p.next = p.next.Add(p.every)
	if d <= 0 {
		return nil
	}
	if err := w.Flush(); err != nil {
		return err
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
