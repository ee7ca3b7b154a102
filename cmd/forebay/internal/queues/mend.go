package queues

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/spf13/cobra"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/cmd/forebay/internal/cli"
	"github.com/forebaydb/forebay/queue"
)

// mending is what redrive and purge were told.
type mending struct {
	target
	all bool
	// done is what was done with letters, and how to do it.
	done string
	some func(*queue.Group[[]byte], context.Context, ...queue.ID) error
	each func(*queue.Group[[]byte], context.Context) (int, error)
}

func redriveCommand() *cobra.Command {
	m := &mending{done: "redriven", some: (*queue.Group[[]byte]).Redrive, each: (*queue.Group[[]byte]).RedriveAll}
	cmd := &cobra.Command{
		Use:   "redrive DIR QUEUE ID... | redrive DIR QUEUE --all",
		Short: "Have dead letters delivered again",
		Long: `Have dead letters of a group delivered again, as if they had not been attempted:
those with the ids that dlq shows, all of them or none, or all that there are. They go to this
group alone, as soon as a service opens the store, and the same attempts decide
whether they die again.`,
		Example: `  forebay queue redrive /tmp/s mails 0-17 0-42
  forebay queue redrive /tmp/s mails --group sender --all`,
		Args: cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			ids, err := m.ids(args[2:])
			if err != nil {
				return err
			}
			return m.run(cmd, args[0], args[1], ids)
		},
	}
	m.flags(cmd)
	return cmd
}

func purgeCommand() *cobra.Command {
	m := &mending{done: "purged", some: (*queue.Group[[]byte]).Purge, each: (*queue.Group[[]byte]).PurgeAll}
	yes := false
	cmd := &cobra.Command{
		Use:   "purge DIR QUEUE ID... --yes | purge DIR QUEUE --all --yes",
		Short: "Forget dead letters for good",
		Long: `Forget dead letters of a group, those with the ids that dlq shows, all of them or
none, or all that there are. There is no way back, so it wants --yes. To keep a copy:

  forebay queue dlq DIR QUEUE --json > letters.jsonl

Messages that wait are not touched.`,
		Example: `  forebay queue purge /tmp/s mails 0-17 --yes
  forebay queue purge /tmp/s mails --group sender --all --yes`,
		Args: cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			ids, err := m.ids(args[2:])
			if err != nil {
				return err
			}
			if !yes {
				return cli.Usagef("purge forgets dead letters for good; say --yes if that is meant")
			}
			return m.run(cmd, args[0], args[1], ids)
		},
	}
	m.flags(cmd)
	cmd.Flags().BoolVar(&yes, "yes", false, "really forget them")
	return cmd
}

func (m *mending) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&m.group, "group", "", "the consumer `group`; may be left out where there is only one")
	cmd.Flags().BoolVar(&m.json, "json", false, "print the result as a JSON object")
	cmd.Flags().BoolVar(&m.all, "all", false, "all dead letters of the group")
}

func (m *mending) ids(args []string) ([]queue.ID, error) {
	if m.all != (len(args) == 0) {
		return nil, cli.Usagef("say the ids of dead letters, or --all")
	}
	had := map[queue.ID]bool{}
	var out []queue.ID
	for _, arg := range args {
		id, err := queue.ParseID(arg)
		if err != nil {
			return nil, cli.Usage(err)
		}
		if !had[id] {
			out = append(out, id)
		}
		had[id] = true
	}
	return out, nil
}

func (m *mending) run(cmd *cobra.Command, dir, name string, ids []queue.ID) error {
	return inspect(dir, name, func(db *forebay.DB, v *queue.Inspector) error {
		group, err := m.must(v, name)
		if err != nil {
			return err
		}
		n, err := m.mend(cmd, db, name, group, ids)
		if errors.Is(err, forebay.ErrNotFound) {
			return fmt.Errorf("%w; nothing was %s, and `forebay queue dlq` lists what there is", err, m.done)
		}
		if err != nil {
			return fmt.Errorf("%w; %s by then: %s", err, m.done, cli.Plural(n, "dead letter"))
		}
		if m.json {
			return cli.WriteJSON(cmd.OutOrStdout(), map[string]any{"queue": name, "group": group, m.done: n})
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s %s of group %q\n", m.done, cli.Plural(n, "dead letter"), group)
		return err
	})
}

// mend opens the queue so that nothing else happens in it than what was asked for: no
// dedupe id is forgotten before its time, no message dies.
func (m *mending) mend(cmd *cobra.Command, db *forebay.DB, name, group string, ids []queue.ID) (n int, err error) {
	q, err := queue.Open(db, name, queue.Bytes{}, &queue.Options{DedupeMax: math.MaxInt})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, q.Close()) }()
	g, err := q.Group(group, &queue.GroupOptions{MaxDeliveries: -1})
	if err != nil {
		return 0, err
	}
	if !m.all {
		if err := m.some(g, cmd.Context(), ids...); err != nil {
			return 0, err
		}
		return len(ids), nil
	}
	progress := cli.StartProgress(cmd.ErrOrStderr(), m.json, func() string {
		s, err := g.Stats(cmd.Context())
		if err != nil {
			return ""
		}
		return cli.Plural(int(s.Dead), "dead letter") + " left"
	})
	defer progress.Stop()
	return m.each(g, cmd.Context())
}
