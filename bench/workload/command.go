// Package workload is the workload benchmark: what Forebay and other embedded
// stores do under the same loads, side by side.
//
// Each cell runs on each engine in a process of its own, so that memory and I/O
// are counted apart and a crash of one engine costs one cell; repetitions are
// interleaved. What is read is compared with what was written: a benchmark that
// reads nothing, or the wrong thing, is worthless.
package workload

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/forebaydb/forebay/bench/engines"
)

// Commands are `forebay-bench run` and what it starts itself by.
func Commands() []*cobra.Command { return []*cobra.Command{runCommand(), childCommand()} }

const childName = "cell"

func childCommand() *cobra.Command {
	return &cobra.Command{
		Use: childName, Short: "Run one cell (by run alone)", Hidden: true, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return Child(cmd.InOrStdin(), cmd.OutOrStdout()) },
	}
}

type runFlags struct {
	engines, workloads, dir, out, profiles string
	under                                  string
	repetitions                            int
	records                                int64
	contenders                             float64
	quick, asJSON, benchstat, list, keep   bool
	resume                                 bool
}

func runCommand() *cobra.Command {
	var f runFlags
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Run workloads on engines, interleaved, and compare",
		Long: `Run each workload on each engine, in a process of its own, and print one table:
medians over the repetitions, the spread, latencies, and Forebay's figure against
that of the best other engine. --quick is for development; without it each load
runs for 30 seconds or more, and all cells with all engines take many hours.

Results go to standard output when all is done, and with --out also to a file as
they come, as JSON lines, from which forebay-bench report makes docs/benchmarks.md.`,
		Example: `  forebay-bench run --list
  forebay-bench run --quick --engines forebay,pebble --workloads 'durable-put-*'
  forebay-bench run --engines all --workloads all --repetitions 3 --json --out results.jsonl`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd) },
	}
	fl := cmd.Flags()
	fl.StringVar(&f.engines, "engines", "all", "engines, by commas")
	fl.StringVar(&f.workloads, "workloads", "all", "workloads, by commas; each may be a pattern with * and ?")
	fl.IntVar(&f.repetitions, "repetitions", 1, "how often everything is run")
	fl.BoolVar(&f.quick, "quick", false, "short loads, for development")
	fl.Int64Var(&f.records, "records", 0, "records of a load, if not 1,000,000")
	fl.StringVar(&f.dir, "dir", "", "where stores are made; default a new directory of the system's")
	fl.BoolVar(&f.keep, "keep-loads", false, "leave the loads of the read cells in --dir, and use those that are there")
	fl.BoolVar(&f.asJSON, "json", false, "print JSON lines")
	fl.BoolVar(&f.benchstat, "benchstat", false, "print lines for benchstat")
	fl.StringVar(&f.out, "out", "", "add JSON lines to this file as results come")
	fl.BoolVar(&f.resume, "resume", false, "leave out what --out has results of already")
	fl.Float64Var(&f.contenders, "contenders", 0, "from the second repetition on, leave engines out that in the first did not reach this share of the best other one's figure")
	fl.StringVar(&f.profiles, "profiles", "", "write a CPU profile of each counted part into this directory")
	fl.StringVar(&f.under, "under", "", "run each cell's process by this command, such as 'flock FILE' or 'taskset -c 0,1'")
	fl.BoolVar(&f.list, "list", false, "print engines and workloads, and run nothing")
	return cmd
}

func (f *runFlags) run(cmd *cobra.Command) (err error) {
	list, err := findEngines(f.engines)
	if err != nil {
		return err
	}
	cells, err := Select(strings.Split(f.workloads, ","))
	if err != nil {
		return err
	}
	if f.list {
		return printList(cmd.OutOrStdout(), list, cells)
	}
	scale := Full()
	if f.quick {
		scale = Quick()
	}
	if f.records > 0 {
		scale.Records = f.records
	}
	dir, remove, err := f.place()
	if err != nil {
		return err
	}
	defer remove()
	self, err := os.Executable()
	if err != nil {
		return err
	}
	var done []Result
	if f.resume {
		if done, err = f.results(); err != nil {
			return err
		}
	}
	m := ThisMachine(scale, dir, list, os.Args[1:])
	sink, err := NewSink(cmd.OutOrStdout(), f.out, m, f.asJSON, f.benchstat)
	if err != nil {
		return err
	}
	err = Run(cmd.Context(), Config{
		Engines: list, Cells: cells, Repetitions: f.repetitions, Scale: scale,
		Done: done, Contenders: f.contenders, Dir: dir, KeepLoads: f.keep, Profiles: f.profiles, Progress: cmd.ErrOrStderr(), Each: sink.Add,
		Child: func(ctx context.Context) *exec.Cmd {
			args := append(strings.Fields(f.under), self, childName)
			return exec.CommandContext(ctx, args[0], args[1:]...)
		},
	})
	// What was measured before an interrupt is shown.
	if closeErr := sink.Close(); err == nil {
		err = closeErr
	}
	return err
}

// results returns what the file of results has.
func (f *runFlags) results() ([]Result, error) {
	if f.out == "" {
		return nil, errors.New("--resume goes on with the results of --out, which names no file")
	}
	in, err := os.Open(f.out)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer in.Close()
	_, results, err := Read(in)
	return results, err
}

// place returns the directory of the stores, and what removes it if it was made.
func (f *runFlags) place() (dir string, remove func(), err error) {
	if f.profiles != "" {
		if err := os.MkdirAll(f.profiles, 0o777); err != nil {
			return "", nil, err
		}
	}
	if f.dir != "" {
		dir, err := filepath.Abs(f.dir)
		if err != nil {
			return "", nil, err
		}
		return dir, func() {}, os.MkdirAll(filepath.Join(dir, "loads"), 0o700)
	}
	dir, err = os.MkdirTemp("", "forebay-bench-")
	if err != nil {
		return "", nil, err
	}
	return dir, func() { os.RemoveAll(dir) }, os.Mkdir(filepath.Join(dir, "loads"), 0o700)
}

func findEngines(names string) ([]*engines.Engine, error) {
	if names == "all" {
		return engines.All(), nil
	}
	var out []*engines.Engine
	for _, n := range strings.Split(names, ",") {
		e, err := engines.Find(n)
		if err != nil {
			return nil, err
		}
		out = append(out, e)
	}
	return out, nil
}

func printList(w io.Writer, list []*engines.Engine, cells []Cell) error {
	for _, e := range list {
		fmt.Fprintf(w, "%s %s\n  %s\n  settled: %s\n  syncs: %s\n", e.Name, e.Version(), e.Notes, e.Settled, e.Syncs)
		for _, l := range engines.Levels {
			p := e.Promise[l]
			if p == "" {
				p = "none"
			}
			fmt.Fprintf(w, "  %s: %s\n", l, p)
		}
	}
	fmt.Fprintln(w)
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, c := range cells {
		fmt.Fprintf(tw, "%s\t%s\n", c.Name, c.About)
	}
	return tw.Flush()
}
