// Command forebay-peers puts other embedded stores, and Forebay, under the same
// damage, and prints one table of what came of it.
//
//	go run ./cmd/forebay-peers crash [--json] [--quick] [--engines pebble,sqlite-strict]
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strings"

	"github.com/forebaydb/forebay/peers/crash"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "forebay-peers:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	switch {
	case len(args) > 0 && args[0] == "crash":
		return runCrash(ctx, args[1:], out)
	case len(args) > 0 && args[0] == "worker": // by crash alone
		return crash.Worker(args[1:], os.Stdin, out)
	}
	return fmt.Errorf("use: forebay-peers crash [--json] [--quick] [--engines LIST] [--samples N] [--seed N] [--dir DIR]")
}

func runCrash(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("crash", flag.ContinueOnError)
	var (
		asJSON  = flags.Bool("json", false, "print one JSON object")
		quick   = flags.Bool("quick", false, "8 damages a cell")
		engines = flags.String("engines", "", "engines, by commas, with or without -default or -strict; none: all")
		samples = flags.Int("samples", 100, "damages a cell")
		seed    = flags.Uint64("seed", 1, "decides which")
		dir     = flags.String("dir", "", "where real files lie; none: /dev/shm or the system's")
	)
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *quick {
		*samples = 8
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cfg := crash.Config{Samples: *samples, Seed: *seed, Dir: *dir, Progress: os.Stderr,
		Worker: func(args ...string) *exec.Cmd { return exec.Command(self, append([]string{"worker"}, args...)...) }}
	for _, name := range strings.Split(*engines, ",") {
		if name != "" {
			cfg.Engines = append(cfg.Engines, name)
		}
	}
	rep, err := crash.Run(ctx, cfg)
	if err != nil {
		return err
	}
	if *asJSON {
		enc := json.NewEncoder(out)
		enc.SetIndent("", "  ")
		return enc.Encode(rep)
	}
	_, err = fmt.Fprint(out, rep)
	return err
}
