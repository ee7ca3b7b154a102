package workload

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/forebaydb/forebay/bench/engines"
	"github.com/forebaydb/forebay/vfs"
)

// Config says what Run runs.
type Config struct {
	Engines     []*engines.Engine
	Cells       []Cell
	Repetitions int
	Scale       Scale
	// Dir holds the stores; it is made, and what is made in it is removed.
	Dir string
	// KeepLoads leaves the loads in Dir, and uses those that lie there.
	KeepLoads bool
	// Profiles, if not "", is a directory for CPU profiles of the counted parts.
	Profiles string
	// Child starts a process that calls Child.
	Child func(ctx context.Context) *exec.Cmd
	// Progress is told what runs; nil: nobody.
	Progress io.Writer
	// Done are results that are there already: what they are of is not run again.
	Done []Result
	// Contenders, if not 0, leaves engines out from the second repetition on that in the
	// first reached less than this share of the best other engine's figure, in all
	// figures of a cell.
	Contenders float64
	// Each is called for each result, as it comes.
	Each func(Result) error
}

// Run runs the cells: all of them once, then all of them again. Within a cell the
// engines follow each other, each in a process of its own, in an order that turns
// with each cell and each repetition. What an engine fails at is a result with an
// Error. The error is ctx's, or one of the machine; vfs.ErrLocked where another run uses
// the same directory.
func Run(ctx context.Context, cfg Config) error {
	if cfg.Progress == nil {
		cfg.Progress = io.Discard
	}
	r := &runner{Config: cfg, bad: map[string]error{}, done: runsOf(cfg.Done, cfg.Scale.Quick)}
	for _, res := range cfg.Done {
		r.note(res)
	}
	if err := os.MkdirAll(cfg.Dir, 0o777); err != nil {
		return err
	}
	// Stores and loads have the same places in each run.
	lock, err := vfs.OS().Lock(filepath.Join(cfg.Dir, "LOCK"))
	if err != nil {
		return fmt.Errorf("%s is not to be had alone; if another run uses it, give this one another --dir: %w", cfg.Dir, err)
	}
	defer lock.Close()
	defer r.clean()
	began, done, passed := time.Now(), 0, 0 // passed over are those with results
	for rep := 1; rep <= cfg.Repetitions; rep++ {
		for n := range cfg.Cells {
			c := &cfg.Cells[n]
			done++
			if c.Absent != nil && c.Absent(cfg.Scale) {
				continue
			}
			ran := false
			for _, e := range r.turn(c, n+rep-1) {
				if err := ctx.Err(); err != nil {
					return err
				}
				if r.done[runOf(c, e, rep)] || rep > 1 && !r.contends(c, e) {
					continue
				}
				ran = true
				if err := r.one(ctx, c, e, rep); err != nil {
					return err
				}
			}
			if !ran {
				passed++
				continue
			}
			left := time.Duration(float64(time.Since(began)) / float64(done-passed) * float64(cfg.Repetitions*len(cfg.Cells)-done))
			fmt.Fprintf(cfg.Progress, "  %d of %d cells, about %s left\n", done, cfg.Repetitions*len(cfg.Cells), left.Round(time.Second))
		}
	}
	return nil
}

type runner struct {
	Config
	bad  map[string]error // loads that could not be made
	done map[run]bool
	// first has the results of the first repetition, by cell.
	first map[string][]Result
}

func (r *runner) note(res Result) {
	if res.Repetition != 1 || res.Error != "" || res.Quick != r.Scale.Quick {
		return
	}
	if r.first == nil {
		r.first = map[string][]Result{}
	}
	if name := cellOf(res.Cell); !slices.ContainsFunc(r.first[name], func(o Result) bool { return o.Cell == res.Cell && o.Engine == res.Engine }) {
		r.first[name] = append(r.first[name], res)
	}
}

// contends says whether an engine runs a cell in later repetitions.
func (r *runner) contends(c *Cell, e *engines.Engine) bool {
	if r.Contenders == 0 || e == nil || e.Name == Home {
		return true
	}
	figures := r.first[c.Name]
	for _, mine := range figures {
		if mine.Engine != e.Name {
			continue
		}
		near := true
		for _, other := range figures {
			if other.Cell != mine.Cell || other.Engine == Home {
				continue
			}
			if mine.Lower {
				near = near && mine.Value*r.Contenders <= other.Value
			} else {
				near = near && mine.Value >= other.Value*r.Contenders
			}
		}
		if near {
			return true
		}
	}
	return len(figures) == 0
}

// run is one cell with one engine in one repetition.
type run struct {
	cell, engine string
	rep          int
}

func runOf(c *Cell, e *engines.Engine, rep int) run {
	if e == nil {
		return run{c.Name, machineName, rep}
	}
	return run{c.Name, e.Name, rep}
}

// runsOf returns the runs of which there are results. Those that failed are none. A
// result bears the name of its cell, or begins with it and a hyphen.
func runsOf(results []Result, quick bool) map[run]bool {
	out := map[run]bool{}
	for _, r := range results {
		if r.Error == "" && r.Quick == quick {
			out[run{cellOf(r.Cell), r.Engine, r.Repetition}] = true
		}
	}
	return out
}

// cellOf returns the name of the cell that a result is of.
func cellOf(result string) string {
	name := ""
	for _, c := range Cells() {
		if n := c.Name; len(n) > len(name) && (result == n || strings.HasPrefix(result, n+"-")) {
			name = n
		}
	}
	return name
}

// turn returns the engines of a cell, the first of them moved by n; a cell of the
// machine has one turn, without an engine.
func (r *runner) turn(c *Cell, n int) []*engines.Engine {
	if c.Limit {
		return []*engines.Engine{nil}
	}
	var out []*engines.Engine
	for i := range r.Engines {
		e := r.Engines[(i+n)%len(r.Engines)]
		if c.leftOut(e) == "" {
			out = append(out, e)
		}
	}
	return out
}

// one runs one cell with one engine, or none, and tells the results.
func (r *runner) one(ctx context.Context, c *Cell, e *engines.Engine, rep int) error {
	t := task{Cell: c.Name, Scale: r.Scale}
	name := "machine"
	if e != nil {
		name, t.Engine = e.Name, e.Name
	}
	fmt.Fprintf(r.Progress, "%s %s (repetition %d)\n", c.Name, name, rep)
	remove, err := r.place(ctx, c, e, &t)
	var results []Result
	if err == nil {
		if r.Profiles != "" {
			t.Profile = filepath.Join(r.Profiles, suffix(c.Name, name, rep)+".prof")
		}
		results, err = r.child(ctx, &t)
	}
	if remove != "" {
		err = errors.Join(err, os.RemoveAll(remove))
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		fmt.Fprintf(r.Progress, "  failed: %s\n", firstLine(err))
		results = append(results, Result{Cell: c.Name, Engine: t.Engine, Quick: r.Scale.Quick, Error: err.Error()})
		if e != nil {
			results[len(results)-1].Level = c.levelOf(e).String()
		}
	}
	for _, res := range results {
		res.Repetition = rep
		if c.Limit {
			res.Engine = machineName
		}
		r.note(res)
		if err := r.Each(res); err != nil {
			return err
		}
	}
	return nil
}

// machineName stands in place of an engine in the cells of the machine.
const machineName = "machine"

func firstLine(err error) string {
	s, _, _ := strings.Cut(err.Error(), "\n")
	return s
}

// place makes the directory of a task: an empty one, a load, or a copy of a load.
// It returns what is to be removed afterwards.
func (r *runner) place(ctx context.Context, c *Cell, e *engines.Engine, t *task) (remove string, err error) {
	trial := filepath.Join(r.Dir, "trial")
	if err := os.RemoveAll(trial); err != nil {
		return "", err
	}
	if c.Load == nil || e == nil {
		t.Dir = trial
		return trial, os.MkdirAll(trial, 0o700)
	}
	from, err := r.loaded(ctx, e, c.Load(r.Scale))
	if err != nil {
		return "", err
	}
	if !c.Changes {
		t.Dir = from
		return "", nil
	}
	t.Dir = trial
	return trial, copyTree(trial, from)
}

// loaded returns the directory of a load, which is made when it is asked for first.
func (r *runner) loaded(ctx context.Context, e *engines.Engine, l load) (string, error) {
	name := suffix(e.Name, l)
	if err := r.bad[name]; err != nil {
		return "", err
	}
	dir := filepath.Join(r.Dir, "loads", name)
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	fmt.Fprintf(r.Progress, "  loading %s\n", name)
	half := filepath.Join(r.Dir, "loads", "half-made")
	if err := errors.Join(os.RemoveAll(half), os.MkdirAll(half, 0o700)); err != nil {
		return "", err
	}
	if _, err := r.child(ctx, &task{Load: &l, Engine: e.Name, Dir: half, Scale: r.Scale}); err != nil {
		if ctx.Err() == nil {
			err = fmt.Errorf("the load could not be made: %w", err)
			r.bad[name] = err
		}
		return "", errors.Join(err, os.RemoveAll(half))
	}
	return dir, os.Rename(half, dir)
}

// child does a task in a process of its own.
func (r *runner) child(ctx context.Context, t *task) ([]Result, error) {
	in, err := json.Marshal(t)
	if err != nil {
		return nil, err
	}
	var out, errOut bytes.Buffer
	cmd := r.Child(ctx)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(in), &out, &errOut
	runErr := cmd.Run()
	_, results, err := Read(&out)
	if runErr != nil {
		text := strings.TrimSpace(errOut.String())
		if text == "" {
			text = runErr.Error()
		}
		const most = 2000
		return results, errors.New(text[:min(len(text), most)])
	}
	return results, err
}

func (r *runner) clean() {
	errs := []error{os.RemoveAll(filepath.Join(r.Dir, "trial")), os.RemoveAll(filepath.Join(r.Dir, "loads", "half-made"))}
	if !r.KeepLoads {
		errs = append(errs, os.RemoveAll(filepath.Join(r.Dir, "loads")))
	}
	if err := errors.Join(errs...); err != nil {
		fmt.Fprintln(r.Progress, err)
	}
}
