package workload

import (
	"fmt"
	"io"
	"math"
	"slices"
	"sort"
	"strings"
	"text/tabwriter"
)

// Home is the engine that the others are compared with.
const Home = "forebay"

// Figure is what the repetitions of one cell with one engine gave together.
type Figure struct {
	Cell, Engine string
	// Median, Min and Max of Value; N is how many repetitions there were.
	Median, Min, Max float64
	N                int
	Unit             string
	Lower            bool
	// Medians of the latencies in µs, of the least operations in a second, and of
	// syncs; NaN where not known.
	P50, P99, P999, Worst, Most, Syncs float64
	Level, Promise, Note               string
	Errors                             []string
}

// Better says whether a is better than b.
func (f *Figure) Better(a, b float64) bool {
	if f.Lower {
		return a < b
	}
	return a > b
}

// Spread is (max − min) ÷ median.
func (f *Figure) Spread() float64 {
	if f.N == 0 || f.Median == 0 {
		return 0
	}
	return (f.Max - f.Min) / f.Median
}

// Figures puts repetitions together, in the order in which cells first came.
func Figures(results []Result) []*Figure {
	type key struct{ cell, engine string }
	groups := map[key][]Result{}
	var keys []key
	for _, r := range results {
		k := key{r.Cell, r.Engine}
		if _, ok := groups[k]; !ok {
			keys = append(keys, k)
		}
		groups[k] = append(groups[k], r)
	}
	var out []*Figure
	for _, k := range keys {
		out = append(out, figure(k.cell, k.engine, groups[k]))
	}
	return out
}

func figure(cell, engine string, group []Result) *Figure {
	f := &Figure{Cell: cell, Engine: engine}
	var values, p50, p99, p999, most, worst, syncs []float64
	for _, r := range group {
		f.Level = r.Level
		if r.Error != "" {
			f.Errors = append(f.Errors, r.Error)
			continue
		}
		f.Unit, f.Lower, f.Promise, f.Note = r.Unit, r.Lower, r.Promise, r.Note
		values = append(values, r.Value)
		if r.P50 > 0 {
			p50, p99, p999, most = append(p50, r.P50), append(p99, r.P99), append(p999, r.P999), append(most, r.Max)
		}
		if r.WorstSecond != nil {
			worst = append(worst, *r.WorstSecond)
		}
		if r.SyncsPerOp != nil {
			syncs = append(syncs, *r.SyncsPerOp)
		}
	}
	f.N = len(values)
	f.Median, f.P50, f.P99, f.P999 = median(values), median(p50), median(p99), median(p999)
	f.Most, f.Worst, f.Syncs = median(most), median(worst), median(syncs)
	if f.N > 0 {
		f.Min, f.Max = slices.Min(values), slices.Max(values)
	}
	return f
}

func median(v []float64) float64 {
	if len(v) == 0 {
		return math.NaN()
	}
	v = slices.Sorted(slices.Values(v))
	n := len(v)
	return (v[(n-1)/2] + v[n/2]) / 2
}

// Ratio returns by how much home is better than the best of the others (below 1:
// worse), and which that is; "" if either is missing.
func Ratio(cell []*Figure) (ratio float64, home, best *Figure) {
	for _, f := range cell {
		switch {
		case f.N == 0 || f.Engine == machineName:
		case f.Engine == Home:
			home = f
		case best == nil || best.Better(f.Median, best.Median):
			best = f
		}
	}
	if home == nil || best == nil {
		return math.NaN(), home, best
	}
	ratio = home.Median / best.Median
	if home.Lower {
		ratio = 1 / ratio
	}
	return ratio, home, best
}

// ByCell groups figures, and keeps the order.
func ByCell(figures []*Figure) [][]*Figure {
	var out [][]*Figure
	at := map[string]int{}
	for _, f := range figures {
		i, ok := at[f.Cell]
		if !ok {
			i = len(out)
			at[f.Cell], out = i, append(out, nil)
		}
		out[i] = append(out[i], f)
	}
	for _, cell := range out {
		sort.SliceStable(cell, func(i, j int) bool { return cell[i].Engine == Home && cell[j].Engine != Home })
	}
	return out
}

// WriteTable writes one table of all cells.
func WriteTable(w io.Writer, m Machine, results []Result) error {
	if m.Quick {
		fmt.Fprintln(w, "QUICK MODE: loads of some seconds, for development; not for figures that are told to others.")
	}
	if err := m.Write(w); err != nil {
		return err
	}
	fmt.Fprintln(w)
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(tw, "cell\tengine\tlevel\tmedian\tunit\tspread\tp50 µs\tp99 µs\tp99.9 µs\tmax µs\tworst s\tsyncs/op\tvs best peer\t")
	var failed []string
	for _, cell := range ByCell(Figures(results)) {
		ratio, home, best := Ratio(cell)
		for i, f := range cell {
			name := f.Cell
			if i > 0 {
				name = ""
			}
			for _, e := range f.Errors {
				failed = append(failed, fmt.Sprintf("%s %s: %s", f.Cell, f.Engine, e))
			}
			if f.N == 0 {
				fmt.Fprintf(tw, "%s\t%s\t%s\tfailed\t\t\t\t\t\t\t\t\t\t\n", name, f.Engine, f.Level)
				continue
			}
			against := ""
			switch {
			case f == home && !math.IsNaN(ratio):
				against = fmt.Sprintf("%.2f×", ratio)
			case f == best:
				against = "best peer"
			}
			fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\t±%.0f%%\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t\n", name, f.Engine, f.Level,
				Number(f.Median), f.Unit, f.Spread()*50, Number(f.P50), Number(f.P99), Number(f.P999), Number(f.Most), Number(f.Worst), Number(f.Syncs), against)
		}
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	for _, f := range failed {
		fmt.Fprintf(w, "\nFAILED: %s\n", f)
	}
	return nil
}

// Number writes a figure with three or more digits; nothing for NaN.
func Number(v float64) string {
	a := math.Abs(v)
	switch {
	case math.IsNaN(v):
		return ""
	case a >= 1e9:
		return fmt.Sprintf("%.2fG", v/1e9)
	case a >= 1e6:
		return fmt.Sprintf("%.2fM", v/1e6)
	case a >= 1e4:
		return fmt.Sprintf("%.1fK", v/1e3)
	case a >= 100:
		return fmt.Sprintf("%.0f", v)
	case a >= 10:
		return fmt.Sprintf("%.1f", v)
	case a == 0:
		return "0"
	}
	return fmt.Sprintf("%.3g", v)
}

// WriteBenchstat writes results as lines of go test -bench, which benchstat reads:
// one benchmark for each cell and engine, one line for each repetition.
func WriteBenchstat(w io.Writer, m Machine, results []Result) error {
	fmt.Fprintf(w, "goos: %s\ngoarch: %s\ncpu: %s\n", m.OS, m.Arch, m.CPU)
	for _, r := range results {
		if r.Error != "" {
			continue
		}
		n := max(r.Ops, 1)
		fmt.Fprintf(w, "BenchmarkCell/cell=%s/engine=%s %d %g %s", r.Cell, r.Engine, n, r.Value, strings.ReplaceAll(r.Unit, " ", "-"))
		if r.P50 > 0 {
			fmt.Fprintf(w, " %g p50-µs %g p99-µs", r.P50, r.P99)
		}
		if _, err := fmt.Fprintln(w); err != nil {
			return err
		}
	}
	return nil
}
