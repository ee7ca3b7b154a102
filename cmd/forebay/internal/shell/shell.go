// Package shell has the interactive command: one store, kept open, and commands
// on it, from a terminal or from a pipe.
package shell

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"

	"github.com/spf13/cobra"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/cmd/forebay/internal/cli"
)

// Commands returns the command.
func Commands() []*cobra.Command { return []*cobra.Command{shellCommand()} }

func shellCommand() *cobra.Command {
	var create, readOnly, strict, noHistory bool
	s := &shell{}
	cmd := &cobra.Command{
		Use:   "shell DIR",
		Short: "Work on a store with commands, from a terminal or a pipe",
		Long: `Open a store and read commands: get, put, del, scan, batches, transactions,
keyspaces; help lists them. On a terminal there is line editing, completion with
Tab (commands, keyspaces, keys) and a history, in the directory of the user's
configuration; --no-history, or FOREBAY_NO_HISTORY in the environment, keeps none.

From a pipe, each line is a command, and a line that begins with # is none. With
-e the first error ends it with exit code 1; without, it goes on, and the code is
1 at the end. What was not committed is dropped at the end.`,
		Example: `  forebay shell /tmp/s
  forebay shell /tmp/new --create
  printf 'put a 1\nscan\n' | forebay shell /tmp/s -e`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if create && readOnly {
				return cli.Usagef("--create and --read-only exclude each other")
			}
			open := func(dir string) (*forebay.DB, error) { return cli.OpenExisting(dir, nil) }
			if create {
				open = func(dir string) (*forebay.DB, error) { return forebay.Open(dir, nil) }
			} else if readOnly {
				open = cli.OpenReading
			}
			if s.db, err = open(args[0]); err != nil {
				return err
			}
			s.out, s.err = cmd.OutOrStdout(), cmd.ErrOrStderr()
			if in, ok := cmd.InOrStdin().(*os.File); ok && in == os.Stdin && cli.IsTerminalFile(in) && cli.IsTerminal(s.out) {
				s.interactive = true
				err = s.terminal(context.WithoutCancel(cmd.Context()), !noHistory && os.Getenv("FOREBAY_NO_HISTORY") == "")
			} else {
				err = s.pipe(cmd.Context(), cmd.InOrStdin(), strict)
			}
			return errors.Join(err, s.leave(), s.db.Close())
		},
	}
	cmd.Flags().BoolVar(&create, "create", false, "make the store if there is none")
	cmd.Flags().BoolVar(&readOnly, "read-only", false, "open for reading alone: nothing is written")
	cmd.Flags().BoolVarP(&strict, "exit-on-error", "e", false, "the first error of a command from a pipe ends the shell")
	cmd.Flags().BoolVar(&noHistory, "no-history", false, "neither read nor write the history of commands")
	cli.LevelFlag(cmd.Flags(), &s.level)
	return cmd
}

// shell is one run.
type shell struct {
	db          *forebay.DB
	out, err    io.Writer
	interactive bool
	level       forebay.Level
	space       string         // the keyspace in use; "" is the default one
	batch       *forebay.Batch // nil: none is open
	tx          *transaction   // nil: none is open
}

// errQuit ends the shell.
var errQuit = errors.New("quit")

// maxLine is the longest line from a pipe: a put of the longest value with every
// byte escaped.
const maxLine = 4*(forebay.MaxValueSize+forebay.MaxKeySize) + 1024

// pipe runs commands from a pipe or a file.
func (s *shell) pipe(ctx context.Context, in io.Reader, strict bool) error {
	scan := bufio.NewScanner(in)
	scan.Buffer(make([]byte, 0, 64<<10), maxLine)
	failed := 0
	for n := 1; scan.Scan(); n++ {
		err := s.run(ctx, scan.Text())
		switch {
		case errors.Is(err, errQuit):
			return s.failures(failed)
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil && strict:
			return fmt.Errorf("line %d: %w", n, err)
		case err != nil:
			failed++
			s.complain(fmt.Errorf("line %d: %w", n, err))
		}
	}
	return errors.Join(scan.Err(), s.failures(failed))
}

func (s *shell) failures(n int) error {
	switch n {
	case 0:
		return nil
	case 1:
		return errors.New("1 command failed")
	}
	return fmt.Errorf("%d commands failed", n)
}

func (s *shell) complain(err error) {
	fmt.Fprintf(s.err, "%s\n", strings.ReplaceAll(err.Error(), "forebay: ", ""))
	if hint := cli.Hint(err); hint != "" {
		fmt.Fprintln(s.err, hint)
	}
}

// terminal reads commands from a terminal.
func (s *shell) terminal(ctx context.Context, history bool) error {
	e := newEditor(s, history)
	defer e.close()
	fmt.Fprintf(s.out, "commit %s; help lists the commands, Tab completes, Ctrl-D leaves\n", cli.Count(s.db.LastLSN()))
	for {
		line, err := e.line(s.prompt())
		switch {
		case errors.Is(err, io.EOF):
			fmt.Fprintln(s.out)
			return nil
		case errors.Is(err, errAbort):
			continue
		case err != nil:
			return err
		}
		// An interrupt ends the command, not the shell.
		ctx, stop := signal.NotifyContext(ctx, os.Interrupt)
		err = s.run(ctx, line)
		if errors.Is(err, context.Canceled) && ctx.Err() != nil {
			err = errors.New("interrupted")
		}
		stop()
		if errors.Is(err, errQuit) {
			return nil
		}
		if err != nil {
			s.complain(err)
		}
	}
}

// prompt says what is open.
func (s *shell) prompt() string {
	p := "forebay"
	if s.space != "" {
		p += "/" + cli.Escape([]byte(s.space))
	}
	switch {
	case s.tx != nil:
		p += " (transaction)"
	case s.batch != nil:
		p += fmt.Sprintf(" (batch of %d)", s.batch.Len())
	}
	return p + "> "
}

// run runs one line.
func (s *shell) run(ctx context.Context, line string) error {
	args, err := words(line)
	if err != nil || len(args) == 0 {
		return err
	}
	c := find(args[0])
	if c == nil {
		return fmt.Errorf("unknown command %q; help lists the commands", args[0])
	}
	if n := len(args) - 1; n < c.min || c.max >= 0 && n > c.max {
		return fmt.Errorf("usage: %s", strings.TrimSpace(c.name+" "+c.args))
	}
	return c.run(s, ctx, args[1:])
}

// leave drops what is open at the end, and says so.
func (s *shell) leave() error {
	var err error
	if s.tx != nil {
		s.tx.end(errRollback) // its error is that
		s.tx, err = nil, errors.New("a transaction was not committed; nothing of it was kept")
	}
	if s.batch != nil {
		if n := s.batch.Len(); n > 0 {
			err = fmt.Errorf("a batch of %d operations was not applied; nothing of it was kept", n)
		}
		s.batch = nil
	}
	if s.interactive && err != nil {
		fmt.Fprintln(s.err, err)
		return nil
	}
	return err
}
