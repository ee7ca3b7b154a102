package crash

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/forebaydb/forebay/cmd/forebay/internal/cli"
	"github.com/forebaydb/forebay/fuzz"
	"github.com/forebaydb/forebay/vfs"
)

type runFlags struct {
	budget        time.Duration
	ops, depth2   int
	units         int
	states        int64
	seed          uint64
	workers, most int
	asJSON        bool
	dump          string
}

func runCommand() *cobra.Command {
	f := &runFlags{}
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Make and judge crash states of Forebay until the budget is spent",
		Long: `Run small workloads on a file system in memory, cut the power or kill the process
after every single I/O, make the states that a disk may then hold, open each, and
compare what is there with what was promised.

First come all workloads of up to --ops operations, whole; then, while there is
budget, longer ones by chance. With --budget 0 the run ends when the small ones are
covered, or at --states.

States that look as one of their workload that was opened are counted, and not
opened again. A violation is made smaller by itself, and comes with a line that
replays it. Exit code 1: something was violated.`,
		Example: `  forebay crash run --budget 60s --json
  forebay crash run --ops 3 --budget 0     every workload of three operations
  forebay crash run --ops 0 --seed 7       longer workloads alone`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd) },
	}
	fl := cmd.Flags()
	fl.DurationVar(&f.budget, "budget", time.Minute, "how long to explore; 0: until --ops is covered")
	fl.IntVar(&f.ops, "ops", 2, "explore all workloads of up to so many operations first")
	fl.IntVar(&f.depth2, "depth2", 0, "of those of up to so many, cut every recovery after each of its I/Os, too")
	fl.IntVar(&f.units, "units", 0, "make every subset of up to so many unsynced units (default 8)")
	fl.Int64Var(&f.states, "states", 0, "end after so many states")
	fl.Uint64Var(&f.seed, "seed", 1, "of the longer workloads")
	fl.IntVar(&f.workers, "workers", 0, "workloads explored at once (default: one a processor)")
	fl.IntVar(&f.most, "max-violations", 10, "end after so many violations")
	fl.BoolVar(&f.asJSON, "json", false, "print one JSON object")
	fl.StringVar(&f.dump, "dump", "", "write the files of each violation's state below this directory")
	return cmd
}

// result is what a run prints as JSON.
type result struct {
	// States were opened and judged; Same look as one of those of their workload.
	States            int64         `json:"states"`
	Same              int64         `json:"same"`
	Violations        int           `json:"violations"`
	Seconds           float64       `json:"seconds"`
	Bound             string        `json:"bound"`
	Covered           *fuzz.Covered `json:"covered,omitempty"`
	Workloads         int           `json:"workloads"`
	Cuts              int64         `json:"cuts"`
	DistinctRecovered int64         `json:"distinct_recovered"`
	Seed              uint64        `json:"seed"`
	Found             []violation   `json:"found"`
}

type violation struct {
	Kind     string     `json:"kind"`
	Clause   string     `json:"clause"`
	Detail   string     `json:"detail"`
	Replay   string     `json:"replay"`
	Property string     `json:"prevented_by,omitempty"`
	Small    *violation `json:"small,omitempty"`
}

func newViolation(v *fuzz.Violation) *violation {
	if v == nil {
		return nil
	}
	return &violation{v.Kind, v.Clause, v.Detail, v.Replay, v.Property, newViolation(v.Small)}
}

// noBound is said of a run that explored no workloads but those of chance.
const noBound = "none: workloads by chance alone"

func (f *runFlags) run(cmd *cobra.Command) error {
	// The live heap is small, and nearly all that is made is garbage at once.
	defer debug.SetGCPercent(debug.SetGCPercent(400))
	start := time.Now()
	var mu sync.Mutex // guards now and before
	var now, before fuzz.Report
	cfg := fuzz.Config{
		Seed: f.seed, Workers: f.workers, MaxViolations: int64(f.most), PerWorkload: 20000, Every: 200 * time.Millisecond,
		Progress: func(r fuzz.Report) {
			mu.Lock()
			defer mu.Unlock()
			now = r
		},
	}
	progress := cli.StartProgress(cmd.ErrOrStderr(), f.asJSON, func() string {
		mu.Lock()
		defer mu.Unlock()
		line := fmt.Sprintf("%s states of %s workloads", cli.Count(before.States+now.States), cli.Count(before.Workloads+now.Workloads))
		if now.Planned > 0 {
			line = fmt.Sprintf("%s states; %s of %s small workloads", cli.Count(now.States), cli.Count(now.Workloads), cli.Count(now.Planned))
		}
		return fmt.Sprintf("%s, %d violations", line, len(before.Violations)+len(now.Violations))
	})
	stop := sync.OnceFunc(progress.Stop)
	defer stop()
	res := result{Seed: f.seed, Bound: noBound, Found: []violation{}}
	var reports []fuzz.Report
	if f.ops > 0 {
		cfg.Budget = f.budget
		rep, cov, err := fuzz.Exhaust(cmd.Context(), cfg, fuzz.Bound{Ops: f.ops, Units: f.units, Depth2: f.depth2})
		if err != nil {
			return err
		}
		res.Bound, res.Covered = cov.String(), &cov
		reports = append(reports, rep)
		mu.Lock()
		before, now = rep, fuzz.Report{}
		mu.Unlock()
	}
	if rep, err := f.sample(cmd.Context(), cfg, before, start); err != nil {
		return err
	} else if rep != nil {
		reports = append(reports, *rep)
	}
	stop()
	res.Seconds = time.Since(start).Seconds()
	for i := range reports {
		res.add(&reports[i])
	}
	return f.print(cmd, &res, reports)
}

// sample explores longer workloads while there is budget; nil when there is none.
func (f *runFlags) sample(ctx context.Context, cfg fuzz.Config, before fuzz.Report, start time.Time) (*fuzz.Report, error) {
	cfg.States = f.states
	if f.states > 0 {
		if cfg.States -= before.States; cfg.States <= 0 {
			return nil, nil
		}
	}
	cfg.MaxViolations -= int64(len(before.Violations))
	if f.most > 0 && cfg.MaxViolations <= 0 {
		return nil, nil
	}
	if f.budget > 0 {
		if cfg.Budget = f.budget - time.Since(start); cfg.Budget <= 0 {
			return nil, nil
		}
	} else if f.states == 0 && f.ops > 0 {
		return nil, nil
	}
	rep, err := fuzz.Run(ctx, cfg)
	return &rep, err
}

func (r *result) add(rep *fuzz.Report) {
	r.States += rep.States
	r.Same += rep.Same
	r.Workloads += rep.Workloads
	r.Cuts += rep.Cuts
	r.DistinctRecovered += rep.DistinctRecovered
	r.Violations += len(rep.Violations)
	for _, v := range rep.Violations {
		r.Found = append(r.Found, *newViolation(v))
	}
}

func (f *runFlags) print(cmd *cobra.Command, res *result, reports []fuzz.Report) error {
	w := cmd.OutOrStdout()
	var err error
	if f.asJSON {
		err = cli.WriteJSON(w, res)
	} else {
		for i := range reports {
			fmt.Fprintln(w, reports[i].Table())
			for _, v := range reports[i].Violations {
				fmt.Fprintf(w, "%s\n\n", v)
			}
		}
		_, err = fmt.Fprintf(w, "%s crash states opened and judged, %s more that look the same, in %.1f s: %s a second; %d violations\nbound: %s\n",
			cli.Count(res.States), cli.Count(res.Same), res.Seconds, cli.Count(int64(float64(res.States)/res.Seconds)), res.Violations, res.Bound)
	}
	n := 0
	for i := range reports {
		for _, v := range reports[i].Violations {
			if f.dump != "" && v.Disk != nil {
				err = errors.Join(err, v.Dump(vfs.OS(), filepath.Join(f.dump, strconv.Itoa(n))))
			}
			n++
		}
	}
	if err == nil && res.Violations > 0 {
		err = fmt.Errorf("%d violations; each has a line for: forebay crash replay, and: forebay crash explain", res.Violations)
	}
	return err
}
