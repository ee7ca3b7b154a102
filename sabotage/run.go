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
	"strings"
	"sync"
	"time"
)

// hunter runs the one build with one switch on at a time.
type hunter struct {
	exe, corpus string
	budget      time.Duration
}

// newHunter builds the hunter into dir and lets the engine, with all switches off,
// say what is right of forged bytes.
func newHunter(o *overlay, root, dir string, budget time.Duration) (*hunter, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	exe, err := o.build(root, dir)
	if err != nil {
		return nil, err
	}
	h := &hunter{exe: exe, corpus: filepath.Join(dir, "corpus"), budget: budget}
	if _, err := os.Stat(h.corpus); err == nil {
		return h, nil // of an earlier run, with -dir
	}
	cmd := exec.Command(exe, "-write", "-corpus", h.corpus)
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("corpus of forged bytes: %w\n%s", err, out)
	}
	return h, nil
}

// result is what became of one switch.
type result struct {
	Switch int    `json:"switch"`
	Kind   string `json:"kind"`
	File   string `json:"file"`
	Line   int    `json:"line"`
	Func   string `json:"func"`
	Text   string `json:"text"`
	// Caught says that a hunt found it; Hunt which, and What in words.
	Caught bool   `json:"caught"`
	Hunt   string `json:"hunt,omitempty"`
	What   string `json:"what,omitempty"`
	// Reached says that the switch made a difference at all.
	Reached bool `json:"reached"`
	// Exception is why nothing need find it.
	Exception string `json:"exception,omitempty"`
	// Seconds of the clock, and of processors.
	Seconds    float64 `json:"seconds"`
	CPUSeconds float64 `json:"cpu_seconds"`
}

// outcome is the result in a word.
func (r *result) outcome() string {
	switch {
	case r.Caught:
		return "caught"
	case r.Exception != "":
		return "exception"
	case !r.Reached:
		return "NOT REACHED"
	}
	return "SURVIVES"
}

// all hunts all sites, some at once, and prints each as it is done.
func (h *hunter) all(sites []site, workers int, out io.Writer) []result {
	results := make([]result, len(sites))
	next := make(chan int)
	var mu sync.Mutex // guards out
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for i := range next {
				results[i] = h.hunt(&sites[i])
				r := &results[i]
				mu.Lock()
				fmt.Fprintf(out, "%s\n      %s %5.1f s (%.1f s of processor) %s: %s%s\n", sites[i].String(), r.outcome(), r.Seconds, r.CPUSeconds, r.Hunt, r.What, r.Exception)
				mu.Unlock()
			}
		})
	}
	for i := range sites {
		next <- i
	}
	close(next)
	wg.Wait()
	return results
}

// hunt runs the hunter with one switch on.
func (h *hunter) hunt(s *site) result {
	r := result{Switch: s.N, Kind: s.Kind, File: s.File, Line: s.Line, Func: s.Func, Text: s.Text, Exception: exceptions[s.name()]}
	ctx, cancel := context.WithTimeout(context.Background(), 20*h.budget+time.Minute)
	defer cancel()
	first := ""
	if s.File == "wal/retain.go" || s.File == "wal/catalog.go" { // of which the engine calls a part alone
		first = "log-damage log"
	}
	cmd := exec.CommandContext(ctx, h.exe, "-kind", s.Kind, "-first", first, "-budget", h.budget.String(), "-corpus", h.corpus)
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d", switchVariable, s.N), "GOMAXPROCS=2", "GOTRACEBACK=single")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	start := time.Now()
	err := cmd.Run()
	r.Seconds = time.Since(start).Seconds()
	if cmd.ProcessState != nil {
		r.CPUSeconds = (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds()
	}
	r.Reached = strings.Contains(stderr.String(), reachedWord)
	if err == nil {
		return r
	}
	r.Caught = true
	var f struct{ Hunt, What string }
	if json.Unmarshal(bytes.TrimSpace(stdout.Bytes()), &f) == nil && f.What != "" {
		r.Hunt, r.What = f.Hunt, oneLine(f.What)
		return r
	}
	var exit *exec.ExitError
	switch text := stderr.String(); {
	case ctx.Err() != nil:
		r.Hunt, r.What = "clock", "hang: the hunter does not end"
	case errors.As(err, &exit):
		r.Hunt, r.What = "process", "it dies"
		for _, line := range strings.Split(text, "\n") {
			if strings.HasPrefix(line, "panic: ") || strings.HasPrefix(line, "fatal error: ") {
				r.What = oneLine(line)
				break
			}
		}
	default:
		r.Caught, r.What = false, err.Error()
	}
	return r
}

// oneLine makes a short line of what a hunt said.
func oneLine(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	if r := []rune(s); len(r) > 220 {
		s = string(r[:220]) + "…"
	}
	return s
}

// report is the result of a run.
type report struct {
	Switches int `json:"switches"`
	Caught   int `json:"caught"`
	// Excepted are those that nothing found and that are exceptions; Blind those
	// that are none.
	Excepted int     `json:"excepted"`
	Blind    int     `json:"blind"`
	Seconds  float64 `json:"seconds"`
	// Slowest is the most that one took until it was caught, in seconds of
	// processor.
	Slowest float64  `json:"slowest_cpu_seconds"`
	Results []result `json:"results"`
}

func summary(results []result, took time.Duration) *report {
	rep := &report{Switches: len(results), Seconds: took.Seconds(), Results: results}
	for i := range results {
		switch r := &results[i]; {
		case r.Caught:
			rep.Caught++
			rep.Slowest = max(rep.Slowest, r.CPUSeconds)
		case r.Exception != "":
			rep.Excepted++
		default:
			rep.Blind++
		}
	}
	return rep
}

// String is the sum of it all.
func (r *report) String() string {
	return fmt.Sprintf("%d of %d caught, %d exceptions, %d found by nothing; %.0f s, the slowest %.1f s of processor",
		r.Caught, r.Switches, r.Excepted, r.Blind, r.Seconds, r.Slowest)
}
