package main

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
	"runtime/debug"
	"strings"
	"time"
)

// runner runs cells, each in a process of its own.
type runner struct {
	engines     []*Engine
	cells       []Cell
	repetitions int
	load        Load
	dir         string
	// child starts a process that calls doTask.
	child func(ctx context.Context) *exec.Cmd
	// progress is told what runs, each of every result.
	progress io.Writer
	each     func(Result) error
}

// task is what a process is told to do.
type task struct {
	Cell   string `json:"cell"`
	Engine string `json:"engine"`
	Dir    string `json:"dir"`
	Load   Load   `json:"load"`
}

// run runs all cells once, then all again. Within a cell the engines follow each
// other, in an order that turns. What an engine fails at is a result with an
// Error; the error is ctx's, or one of the machine.
func (r *runner) run(ctx context.Context) error {
	for rep := 1; rep <= r.repetitions; rep++ {
		for n, c := range r.cells {
			for i := range r.engines {
				e := r.engines[(i+n+rep)%len(r.engines)]
				if e.Limit && !c.limited {
					continue
				}
				if err := r.one(ctx, c, e, rep); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (r *runner) one(ctx context.Context, c Cell, e *Engine, rep int) error {
	fmt.Fprintf(r.progress, "%d/%d %s %s: ", rep, r.repetitions, c.Name, e.Name)
	dir := filepath.Join(r.dir, "trial")
	// Everybody may pass through it; see makeDir.
	if err := errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o755)); err != nil {
		return err
	}
	began := time.Now()
	res, err := r.process(ctx, task{Cell: c.Name, Engine: e.Name, Dir: dir, Load: r.load})
	err = errors.Join(err, os.RemoveAll(dir))
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		res = Result{Cell: c.Name, Engine: e.Name, Error: err.Error()}
		fmt.Fprintf(r.progress, "FAILED: %v", err)
	} else {
		fmt.Fprintf(r.progress, "%s messages/s", count(res.PerSecond))
	}
	fmt.Fprintf(r.progress, " (%.0f s)\n", time.Since(began).Seconds())
	res.Repetition = rep
	return r.each(res)
}

// longest is how long a process may take beyond its load, until what it does is
// called hanging. Slow engines take minutes to consume what was enqueued in batches.
const longest = 30 * time.Minute

// process does a task in a process.
func (r *runner) process(ctx context.Context, t task) (res Result, err error) {
	ctx, cancel := context.WithTimeout(ctx, longest+time.Duration(t.Load.Seconds*float64(time.Second)))
	defer cancel()
	in, err := json.Marshal(t)
	if err != nil {
		return res, err
	}
	var out, errOut bytes.Buffer
	cmd := r.child(ctx)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(in), &out, &errOut
	// It is told, that it may end its server.
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = time.Minute
	if err := cmd.Run(); err != nil {
		text := strings.TrimSpace(errOut.String())
		const most = 2000
		return res, errors.New(strings.TrimSpace(err.Error() + ": " + text[max(0, len(text)-most):]))
	}
	return res, json.Unmarshal(out.Bytes(), &res)
}

// doTask does the task that in has, and writes the result to out.
func doTask(ctx context.Context, in io.Reader, out io.Writer) (err error) {
	// A crash of an engine says where.
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	var t task
	if err := json.NewDecoder(in).Decode(&t); err != nil {
		return fmt.Errorf("a cell is started by the command itself alone: %w", err)
	}
	e, err := findOne(engines(), t.Engine)
	if err != nil {
		return err
	}
	list, err := findCells(t.Cell)
	if err != nil {
		return err
	}
	r, err := list[0].run(ctx, e, t.Dir, t.Load)
	if err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(r)
}

// findCells returns the cells with names, which are separated by commas; "all": all.
func findCells(names string) (out []Cell, err error) {
	if names == "all" {
		return cells(), nil
	}
next:
	for _, name := range strings.Split(names, ",") {
		var all []string
		for _, c := range cells() {
			if c.Name == name {
				out = append(out, c)
				continue next
			}
			all = append(all, c.Name)
		}
		return nil, fmt.Errorf("there is no cell %q; there are %s", name, strings.Join(all, ", "))
	}
	return out, nil
}
