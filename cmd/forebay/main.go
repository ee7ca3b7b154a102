// Command forebay is the tool of the Forebay storage engine: it reads and
// writes stores, shows what is in their files, and demonstrates what the engine
// promises. `forebay help` lists the commands.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"

	"github.com/forebaydb/forebay/cmd/forebay/inspect"
	"github.com/forebaydb/forebay/cmd/forebay/internal/cli"
)

func main() { os.Exit(process(os.Args[1:])) }

// process runs the command line of the process.
func process(args []string) int {
	// A second interrupt ends the process at once.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	context.AfterFunc(ctx, stop)
	return run(ctx, args, os.Stdin, os.Stdout, os.Stderr)
}

// run runs one command line and returns the exit code: 0 fine, 1 damaged, not
// found or failed, 2 wrong usage.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	root := newRoot()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return 0
	}
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		err = errors.New("interrupted")
	}
	fmt.Fprintf(stderr, "forebay: %s\n", strings.TrimPrefix(err.Error(), "forebay: "))
	if hint := cli.Hint(err); hint != "" {
		fmt.Fprintln(stderr, hint)
	}
	var asked *inspect.ExitError
	if errors.As(err, &asked) && asked.Code != 2 {
		return asked.Code
	}
	if asked != nil || cli.IsUsage(err) {
		fmt.Fprintf(stderr, "See: %s --help\n", cmd.CommandPath())
		return 2
	}
	return 1
}
