package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/forebaydb/forebay/bench/machine"
)

const help = `Usage: queues [flags]

Measure Forebay's queue and other queues that a Go program can carry within
itself, on one machine in one run, and print a table in Markdown. Each message
that goes in is looked for when it comes out: a loss is a failure.

  queues --seconds 5 --repetitions 3 --json results.jsonl --markdown docs/queues.md
  queues --engines forebay,goqite --cells full-64 --seconds 2 --repetitions 1
  queues --from results.jsonl                     # the table of results that are there
  queues --list                                   # engines, promises and cells

Flags:
`

// childName is the argument by which the command starts itself for one cell.
const childName = "cell"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second interrupt ends the process at once
	err := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
	case err != nil:
		if ctx.Err() != nil && errors.Is(err, context.Canceled) {
			err = errors.New("interrupted")
		}
		fmt.Fprintln(os.Stderr, "queues:", err)
		os.Exit(1)
	}
}

// options are the flags.
type options struct {
	engines, cells       string
	load                 Load
	repetitions          int
	json, markdown, from string
	dir, under           string
	list                 bool
}

func parse(args []string, errOut io.Writer) (o options, err error) {
	f := flag.NewFlagSet("queues", flag.ContinueOnError)
	f.SetOutput(errOut)
	f.Usage = func() {
		fmt.Fprint(errOut, help)
		f.PrintDefaults()
	}
	f.StringVar(&o.engines, "engines", "all", "engines, separated by commas")
	f.StringVar(&o.cells, "cells", "all", "cells, separated by commas")
	f.Float64Var(&o.load.Seconds, "seconds", 5, "how long producers work in each cell; what they leave is consumed after that")
	f.IntVar(&o.load.Messages, "messages", 0, "end a cell after so many messages; 0: 500,000 for each second")
	f.IntVar(&o.repetitions, "repetitions", 3, "how often each cell is run")
	f.StringVar(&o.json, "json", "", "append each result to this file, as JSON lines")
	f.StringVar(&o.markdown, "markdown", "", "write the table into this file, too")
	f.StringVar(&o.from, "from", "", "run nothing: make the table of this file's results, those of several runs together")
	f.StringVar(&o.dir, "dir", "", "make the queues below this directory (default: that of temporary files)")
	f.StringVar(&o.under, "under", "", "run each cell's process by this command, such as 'taskset -c 0,1'")
	f.BoolVar(&o.list, "list", false, "print engines and cells, and run nothing")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	switch {
	case f.NArg() > 0:
		return o, fmt.Errorf("what is %q? there are flags alone", f.Arg(0))
	case !(o.load.Seconds > 0 && o.load.Seconds <= 3600):
		return o, errors.New("--seconds is to be above 0, and 3600 at most")
	case o.repetitions < 1:
		return o, errors.New("--repetitions is to be above 0")
	case o.load.Messages < 0:
		return o, errors.New("--messages is not to be below 0")
	}
	return o, nil
}

func run(ctx context.Context, args []string, in io.Reader, out, errOut io.Writer) error {
	if len(args) == 1 && args[0] == childName {
		return doTask(ctx, in, out)
	}
	o, err := parse(args, errOut)
	if err != nil {
		return err
	}
	if o.from != "" {
		f, err := os.Open(o.from)
		if err != nil {
			return err
		}
		defer f.Close()
		m, results, err := read(f)
		if err != nil {
			return err
		}
		return o.table(out, m, results)
	}
	list, err := find(o.engines)
	if err != nil {
		return err
	}
	chosen, err := findCells(o.cells)
	if err != nil {
		return err
	}
	if o.list {
		return printList(out, list, chosen)
	}
	m, results, err := o.measure(ctx, list, chosen, args, errOut)
	if len(results) == 0 {
		return err
	}
	// What was measured before an interrupt is shown.
	return errors.Join(err, o.table(out, m, results), failures(results))
}

// measure runs the cells.
func (o *options) measure(ctx context.Context, list []*Engine, chosen []Cell, args []string, progress io.Writer) (m Machine, results []Result, err error) {
	self, err := os.Executable()
	if err != nil {
		return m, nil, err
	}
	dir, err := makeDir(o.dir)
	if err != nil {
		return m, nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	m = Machine{
		Time: time.Now().UTC().Format(time.RFC3339), Command: "queues " + strings.Join(placeless(args), " "),
		Seconds: o.load.Seconds, Repetitions: o.repetitions,
		Engines: map[string]string{}, Absent: map[string]string{}, Info: machine.Describe(dir),
	}
	m.Dir = filepath.Base(dir)
	var here []*Engine
	for _, e := range list {
		if err := e.Absent(); err != nil {
			m.Absent[e.Name] = err.Error()
			fmt.Fprintf(progress, "%s is left out: %v\n", e.Name, err)
			continue
		}
		m.Engines[e.Name] = e.Version()
		here = append(here, e)
	}
	if len(here) == 0 {
		return m, nil, errors.New("no engine can run here")
	}
	lines := io.Discard
	if o.json != "" {
		f, openErr := os.OpenFile(o.json, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o666)
		if openErr != nil {
			return m, nil, openErr
		}
		defer func() { err = errors.Join(err, f.Close()) }()
		lines = f
	}
	enc := json.NewEncoder(lines)
	if err := enc.Encode(line{Machine: &m}); err != nil {
		return m, nil, err
	}
	r := &runner{
		engines: here, cells: chosen, repetitions: o.repetitions, load: o.load, dir: dir, progress: progress,
		child: func(ctx context.Context) *exec.Cmd {
			args := append(strings.Fields(o.under), self, childName)
			return exec.CommandContext(ctx, args[0], args[1:]...)
		},
		each: func(res Result) error {
			results = append(results, res)
			return enc.Encode(line{Result: &res})
		},
	}
	return m, results, r.run(ctx)
}

// table prints the table, and writes it where it is wanted.
func (o *options) table(out io.Writer, m Machine, results []Result) error {
	var text bytes.Buffer
	if err := writeTable(&text, m, results); err != nil {
		return err
	}
	if o.markdown != "" {
		if err := os.WriteFile(o.markdown, text.Bytes(), 0o666); err != nil {
			return err
		}
	}
	_, err := out.Write(text.Bytes())
	return err
}

// failures returns an error if a cell failed.
func failures(results []Result) error {
	n := 0
	for _, r := range results {
		if r.Error != "" {
			n++
		}
	}
	if n == 0 {
		return nil
	}
	return fmt.Errorf("%d of %d runs failed", n, len(results))
}

// placeless returns arguments with the last name of each path alone: where a file
// was says nothing to others.
func placeless(args []string) []string {
	out := slices.Clone(args)
	for i, a := range out {
		if filepath.IsAbs(a) {
			out[i] = filepath.Base(a)
		}
	}
	return out
}

func printList(w io.Writer, list []*Engine, chosen []Cell) error {
	var out bytes.Buffer
	for _, e := range list {
		fmt.Fprintf(&out, "%s %s\n  %s\n  enqueued: %s\n  acknowledged: %s\n", e.Name, e.Version(), e.Notes, e.Enqueued, e.Acked)
		if err := e.Absent(); err != nil {
			fmt.Fprintf(&out, "  cannot run here: %v\n", err)
		}
	}
	fmt.Fprintln(&out)
	for _, c := range chosen {
		fmt.Fprintf(&out, "%-12s %s\n", c.Name, c.About)
	}
	_, err := w.Write(out.Bytes())
	return err
}
