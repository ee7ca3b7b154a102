package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"

	"github.com/forebaydb/forebay/bench/machine"
)

// Result is one line of the output: what one cell gave with one engine in one
// repetition. Latencies are in µs.
type Result struct {
	Cell       string `json:"cell"`
	Engine     string `json:"engine"`
	Repetition int    `json:"repetition"`

	// PerSecond is the number of messages enqueued in a second, or, in cells that
	// consume, of those acknowledged by workers.
	PerSecond float64 `json:"messages_per_s"`
	// P50 and P99 of a call of Enqueue, until it has returned.
	P50 float64 `json:"p50_us"`
	P99 float64 `json:"p99_us"`
	// DoneP50 and DoneP99 of the time from when a message was about to be enqueued
	// until its acknowledgement was durable, the wait in the queue included.
	DoneP50 float64 `json:"done_p50_us,omitempty"`
	DoneP99 float64 `json:"done_p99_us,omitempty"`

	// Messages were put in and came out in all, with those of the warm-up; Duplicates
	// is how often one came beyond the first time.
	Messages   int64 `json:"messages"`
	Duplicates int64 `json:"duplicates"`
	// Seconds that were counted.
	Seconds float64 `json:"seconds"`

	Error string `json:"error,omitempty"`
}

// Machine says where and with what results were made; it is the first line.
type Machine struct {
	Time        string            `json:"time"`
	Command     string            `json:"command"`
	Seconds     float64           `json:"seconds"`
	Repetitions int               `json:"repetitions"`
	Engines     map[string]string `json:"engines"`          // and their versions
	Absent      map[string]string `json:"absent,omitempty"` // and why
	machine.Info
}

// line is either of the two.
type line struct {
	Machine *Machine `json:"machine,omitempty"`
	*Result
}

// read reads JSON lines. Of several machines it returns the last.
func read(r io.Reader) (m Machine, out []Result, err error) {
	s := bufio.NewScanner(r)
	s.Buffer(nil, 1<<20)
	for n := 1; s.Scan(); n++ {
		text := strings.TrimSpace(s.Text())
		if text == "" {
			continue
		}
		var l line
		if err := json.Unmarshal([]byte(text), &l); err != nil {
			return m, nil, fmt.Errorf("line %d is no result: %w", n, err)
		}
		switch {
		case l.Machine != nil:
			m = *l.Machine
		case l.Result != nil && l.Cell != "":
			out = append(out, *l.Result)
		}
	}
	return m, out, s.Err()
}

// figure is what the repetitions of one cell with one engine gave together: the
// medians of what did not fail.
type figure struct {
	engine           *Engine
	n                int
	median, least    float64
	most             float64
	p50, p99         float64
	doneP50, doneP99 float64
	messages         int64
	duplicates       int64
	errors           []string
}

func figureOf(e *Engine, cell string, results []Result) figure {
	f := figure{engine: e}
	var rate, p50, p99, doneP50, doneP99 []float64
	for _, r := range results {
		switch {
		case r.Engine != e.Name || r.Cell != cell:
		case r.Error != "":
			f.errors = append(f.errors, r.Error)
		default:
			rate, p50, p99 = append(rate, r.PerSecond), append(p50, r.P50), append(p99, r.P99)
			doneP50, doneP99 = append(doneP50, r.DoneP50), append(doneP99, r.DoneP99)
			f.messages += r.Messages
			f.duplicates += r.Duplicates
		}
	}
	if f.n = len(rate); f.n == 0 {
		return f
	}
	f.median, f.least, f.most = median(rate), slices.Min(rate), slices.Max(rate)
	f.p50, f.p99, f.doneP50, f.doneP99 = median(p50), median(p99), median(doneP50), median(doneP99)
	return f
}

// ran says whether there is anything to show.
func (f *figure) ran() bool { return f.n > 0 || len(f.errors) > 0 }

// spread is half of what lies between the least and the greatest, in % of the median.
func (f *figure) spread() float64 {
	if f.median == 0 {
		return 0
	}
	return (f.most - f.least) / 2 / f.median * 100
}

func median(v []float64) float64 {
	if len(v) == 0 {
		return math.NaN()
	}
	v = slices.Sorted(slices.Values(v))
	n := len(v)
	return (v[(n-1)/2] + v[n/2]) / 2
}
