package shell

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/cmd/forebay/internal/cli"
	"github.com/forebaydb/forebay/cmd/forebay/internal/store"
	"github.com/forebaydb/forebay/cmd/forebay/internal/upkeep"
)

// command is one command of the shell; max below 0 is no bound.
type command struct {
	name, args, help string
	min, max         int
	run              func(s *shell, ctx context.Context, args []string) error
}

var table []command

// Filled here: help looks at the table.
func init() {
	table = []command{
		{"get", "KEY", "print the value of a key", 1, 1, (*shell).get},
		{"put", "KEY VALUE", "set a key to a value", 2, 2, (*shell).put},
		{"del", "KEY...", "remove keys, in one commit", 1, -1, (*shell).del},
		{"delrange", "LO HI", `remove all keys from LO to before HI; "" is no bound`, 2, 2, (*shell).delRange},
		{"scan", "[PREFIX] [--lo K] [--hi K] [--reverse] [--limit N] [--keys-only]", "list keys and values; --limit is 100 on a terminal", 0, -1, (*shell).scan},
		{"batch", "", "collect what follows into a batch, until apply or discard", 0, 0, (*shell).beginBatch},
		{"apply", "", "commit the batch, all of it at once", 0, 0, (*shell).apply},
		{"discard", "", "drop the batch", 0, 0, (*shell).discard},
		{"begin", "", "begin a transaction: its reads see its own writes", 0, 0, (*shell).begin},
		{"commit", "", "commit the transaction, if nothing that it read was changed", 0, 0, (*shell).commit},
		{"rollback", "", "drop the transaction", 0, 0, (*shell).rollback},
		{"use", "[NAME]", "work in a keyspace; without NAME in the default one", 0, 1, (*shell).use},
		{"keyspace", "list | use [NAME] | create NAME | drop NAME", "see to keyspaces", 1, 2, (*shell).keyspace},
		{"level", "[durable | written | buffered]", "show or set what a write survives once acknowledged", 0, 1, (*shell).setLevel},
		{"sync", "", "make everything durable", 0, 0, (*shell).sync},
		{"stats", "", "show figures since the shell began", 0, 0, (*shell).stats},
		{"checkpoint", "", "settle what is in memory into segments", 0, 0, (*shell).checkpoint},
		{"compact", "", "merge all segments, so that deleted data gives its space back", 0, 0, (*shell).compact},
		{"help", "[COMMAND]", "list the commands", 0, 1, (*shell).help},
		{"quit", "", "leave; Ctrl-D does so too", 0, 0, func(*shell, context.Context, []string) error { return errQuit }},
		{"exit", "", "leave", 0, 0, func(*shell, context.Context, []string) error { return errQuit }},
	}
}

func find(name string) *command {
	i := slices.IndexFunc(table, func(c command) bool { return c.name == name })
	if i < 0 {
		return nil
	}
	return &table[i]
}

func (s *shell) get(_ context.Context, args []string) error {
	return s.reading(func(from cli.Reader) error {
		value, err := from.Get([]byte(args[0]))
		if err != nil {
			return fmt.Errorf("%s: %w", quoted(args[0]), err)
		}
		_, err = fmt.Fprintln(s.out, cli.Escape(value))
		return err
	})
}

func (s *shell) put(_ context.Context, args []string) error {
	return s.writing(func(to cli.Writer) error { return to.Put([]byte(args[0]), []byte(args[1])) })
}

func (s *shell) del(_ context.Context, args []string) error {
	return s.writing(func(to cli.Writer) error {
		for _, key := range args {
			if err := to.Delete([]byte(key)); err != nil {
				return fmt.Errorf("%s: %w", quoted(key), err)
			}
		}
		return nil
	})
}

func (s *shell) delRange(_ context.Context, args []string) error {
	var hi []byte
	if args[1] != "" {
		hi = []byte(args[1])
	}
	return s.writing(func(to cli.Writer) error { return to.DeleteRange([]byte(args[0]), hi) })
}

// scanLimit is how many keys a scan shows on a terminal when nothing is said.
const scanLimit = 100

func (s *shell) scan(ctx context.Context, args []string) error {
	flags := pflag.NewFlagSet("scan", pflag.ContinueOnError)
	flags.Usage = func() {}
	prefix, lo, hi := flags.String("prefix", "", ""), flags.String("lo", "", ""), flags.String("hi", "", "")
	reverse, keys, limit := flags.Bool("reverse", false, ""), flags.Bool("keys-only", false, ""), flags.Int("limit", 0, "")
	if err := flags.Parse(args); err != nil {
		return fmt.Errorf("%w; usage: scan %s", err, find("scan").args)
	}
	switch rest := flags.Args(); {
	case len(rest) > 1 || len(rest) == 1 && *prefix != "":
		return fmt.Errorf("usage: scan %s", find("scan").args)
	case len(rest) == 1:
		*prefix = rest[0]
	}
	cut := s.interactive && !flags.Changed("limit")
	if cut {
		*limit = scanLimit
	}
	var upper []byte
	if *hi != "" {
		upper = []byte(*hi)
	}
	from, to := cli.Bounds([]byte(*prefix), []byte(*lo), upper)
	if to != nil && string(from) >= string(to) {
		return nil
	}
	return s.reading(func(r cli.Reader) error {
		entries := r.Range(from, to)
		if *reverse {
			entries = r.RangeReverse(from, to)
		}
		n := 0
		for e, err := range entries {
			if err == nil {
				err = ctx.Err()
			}
			if err != nil {
				return err
			}
			if *limit > 0 && n == *limit {
				if cut {
					fmt.Fprintf(s.err, "and more; --limit 0 shows all\n")
				}
				break
			}
			n++
			line := cli.Escape(e.Key)
			if !*keys {
				line += "\t" + cli.Escape(e.Value)
			}
			if _, err := fmt.Fprintln(s.out, line); err != nil {
				return err
			}
		}
		return nil
	})
}

// alone refuses what cannot be done while a batch or a transaction is open.
func (s *shell) alone(what string) error {
	switch {
	case s.tx != nil:
		return fmt.Errorf("%s not inside of a transaction; commit or rollback first", what)
	case s.batch != nil:
		return fmt.Errorf("%s not inside of a batch; apply or discard first", what)
	}
	return nil
}

func (s *shell) beginBatch(context.Context, []string) error {
	if err := s.alone("batch"); err != nil {
		return err
	}
	s.batch = s.db.NewBatch()
	return nil
}

func (s *shell) apply(context.Context, []string) error {
	if s.batch == nil {
		return errors.New("no batch is open; batch begins one")
	}
	b := s.batch
	s.batch = nil
	return s.db.Apply(b, s.level)
}

func (s *shell) discard(context.Context, []string) error {
	if s.batch == nil {
		return errors.New("no batch is open; batch begins one")
	}
	s.batch = nil
	return nil
}

func (s *shell) begin(ctx context.Context, _ []string) error {
	if err := s.alone("begin"); err != nil {
		return err
	}
	// It outlives the command, and whatever interrupts that.
	t := begin(context.WithoutCancel(ctx), s.db, s.level)
	if err := t.do(func(*forebay.Tx) error { return nil }); err != nil {
		return err
	}
	s.tx = t
	return nil
}

func (s *shell) endTx(err error) error {
	if s.tx == nil {
		return errors.New("no transaction is open; begin begins one")
	}
	t := s.tx
	s.tx = nil
	return t.end(err)
}

func (s *shell) commit(context.Context, []string) error { return s.endTx(nil) }

func (s *shell) rollback(context.Context, []string) error {
	if err := s.endTx(errRollback); !errors.Is(err, errRollback) {
		return err
	}
	return nil
}

func (s *shell) use(_ context.Context, args []string) error {
	name := strings.Join(args, "")
	if _, err := cli.ExistingSpace(s.db, name); err != nil {
		return fmt.Errorf("%w; keyspace create makes one", err)
	}
	s.space = name
	return nil
}

func (s *shell) keyspace(ctx context.Context, args []string) error {
	switch {
	case args[0] == "use":
		return s.use(ctx, args[1:])
	case args[0] == "list" && len(args) == 1:
		sizes, err := upkeep.Measure(ctx, s.db)
		if err != nil {
			return err
		}
		return upkeep.PrintSizes(s.out, sizes)
	case (args[0] == "create" || args[0] == "drop") && len(args) == 2:
		if err := s.alone("keyspace " + args[0]); err != nil {
			return err
		}
		if args[0] == "create" {
			_, err := s.db.Keyspace(args[1])
			return err
		}
		if err := s.db.DropKeyspace(args[1]); err != nil {
			return err
		}
		if s.space == args[1] {
			s.space = ""
		}
		return nil
	}
	return fmt.Errorf("usage: keyspace %s", find("keyspace").args)
}

func (s *shell) setLevel(_ context.Context, args []string) error {
	if len(args) == 0 {
		_, err := fmt.Fprintln(s.out, cli.LevelName(s.level))
		return err
	}
	level, err := cli.ParseLevel(args[0])
	if err == nil {
		s.level = level
	}
	return err
}

func (s *shell) sync(ctx context.Context, _ []string) error { return s.db.Sync(ctx) }

func (s *shell) stats(context.Context, []string) error {
	store.PrintStats(s.out, s.db)
	return nil
}

func (s *shell) checkpoint(ctx context.Context, _ []string) error {
	return s.long(ctx, s.db.Checkpoint)
}

func (s *shell) compact(ctx context.Context, _ []string) error {
	return s.long(ctx, s.db.Compact)
}

func (s *shell) long(ctx context.Context, call func(context.Context) error) error {
	progress := cli.StartProgress(s.err, false, func() string {
		st := s.db.Stats()
		return fmt.Sprintf("settled %s; merged %s, %s segments left", cli.Bytes(st.SettledBytes), cli.Bytes(st.CompactionWritten), strconv.Itoa(st.Segments))
	})
	w, err := upkeep.Do(ctx, s.db, call)
	progress.Stop()
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(s.out, "done in %s\n%s", cli.Duration(w.Took), w)
	return err
}

func (s *shell) help(_ context.Context, args []string) error {
	if len(args) == 1 {
		c := find(args[0])
		if c == nil {
			return fmt.Errorf("unknown command %q; help lists the commands", args[0])
		}
		_, err := fmt.Fprintf(s.out, "%s\n  %s\n", strings.TrimSpace(c.name+" "+c.args), c.help)
		return err
	}
	for _, c := range table {
		if _, err := fmt.Fprintf(s.out, "%-11s %s\n", c.name, c.help); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintln(s.out, `Keys and values are words; "…" holds any bytes, with \n and \x00, and '…' is as it stands.`)
	return err
}
