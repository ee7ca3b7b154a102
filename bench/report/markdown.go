package report

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strings"

	"github.com/forebaydb/forebay/bench/engines"
	"github.com/forebaydb/forebay/bench/workload"
)

// markdown writes the document. plots are the names of the pictures beside it.
func markdown(w io.Writer, m workload.Machine, results []workload.Result, plots []picture) error {
	figures := workload.Figures(results)
	groups := workload.ByCell(figures)
	cells := map[string][]*workload.Figure{}
	for _, g := range groups {
		cells[g[0].Cell] = g
	}
	out := &strings.Builder{}
	head(out, m, results)
	wanted(out, cells, results)
	won(out, groups)
	for _, p := range plots {
		fmt.Fprintf(out, "![%s](%s)\n\n", p.alt, p.file)
	}
	all(out, groups)
	who(out, m)
	_, err := io.WriteString(w, out.String())
	return err
}

func head(w *strings.Builder, m workload.Machine, results []workload.Result) {
	fmt.Fprint(w, "# Benchmarks\n\n<!-- Written by forebay bench report. -->\n\n")
	if m.Quick {
		fmt.Fprint(w, "**Quick mode: loads of some seconds, for development. These figures are not for comparison with others.**\n\n")
	}
	reps := 0
	for _, r := range results {
		reps = max(reps, r.Repetition)
	}
	fmt.Fprint(w, "```\n")
	// A Builder takes everything.
	_ = m.Write(w)
	fmt.Fprintf(w, "time         %s\n", m.Time)
	fmt.Fprint(w, "```\n\n")
	fmt.Fprintf(w, "`%s`, %d repetitions, interleaved; each cell of each repetition in a process of its own. Keys have 16 bytes, values 100 that compress to a half, and a load 1,000,000 records, unless a cell says otherwise. Every engine has a memtable of 64 MiB, a cache of 256 MiB and its default compression. A figure is the median of the repetitions, and ± half of what lies between the least and the greatest. Ratios are Forebay's to the best of the others that offer the same level: above 1 is better, also where less is better. What an acknowledgement promises is [below](#engines).\n\n", m.Command, reps)
	for _, c := range otherCommits(m, results) {
		fmt.Fprintf(w, "At Forebay's commit %s, not at that above, were measured, with the peers beside it: %s.\n\n", c.name, strings.Join(c.cells, ", "))
	}
}

// commitCells are the cells that were measured at a commit.
type commitCells struct {
	name  string
	cells []string
}

// otherCommits returns what was measured at other commits than m's.
func otherCommits(m workload.Machine, results []workload.Result) (out []commitCells) {
	for _, r := range results {
		if r.Commit == m.Commit {
			continue
		}
		i := slices.IndexFunc(out, func(c commitCells) bool { return c.name == r.Commit })
		if i < 0 {
			i = len(out)
			out = append(out, commitCells{name: r.Commit})
		}
		if !slices.Contains(out[i].cells, r.Cell) {
			out[i].cells = append(out[i].cells, r.Cell)
		}
	}
	return out
}

func wanted(w *strings.Builder, cells map[string][]*workload.Figure, results []workload.Result) {
	fmt.Fprint(w, "## What is wanted\n\n")
	fmt.Fprint(w, "| cell | Forebay | best peer | ratio | wanted | limit in the same run | |\n|---|---:|---:|---:|---|---:|---|\n")
	counts := map[verdict]int{}
	for _, r := range rows {
		o := judge(r, cells, results)
		counts[o.verdict]++
		fmt.Fprintf(w, "| %s | %s | %s | %s | %s | %s | %s |\n", r.title, value(o.home), peer(&o), share(&o), want(&r), limit(&o), []string{"not measured", "reached", "**missed**"}[o.verdict])
	}
	fmt.Fprintf(w, "\n%d rows reach what is wanted, %d miss it, %d were not measured.\n\n", counts[reached], counts[missed], counts[absent])
}

func value(f *workload.Figure) string {
	if f == nil || f.N == 0 {
		return ""
	}
	return fmt.Sprintf("%s %s ±%.0f %%", workload.Number(f.Median), f.Unit, f.Spread()*50)
}

func peer(o *outcome) string {
	if o.best == nil {
		return ""
	}
	s := fmt.Sprintf("%s %s", o.best.Engine, workload.Number(o.best.Median))
	if o.tail && o.home != nil {
		s += fmt.Sprintf(" (p99 %s against %s µs)", workload.Number(o.best.P99), workload.Number(o.home.P99))
	}
	return s
}

func share(o *outcome) string {
	if o.ofLimit > 0 {
		if math.IsNaN(o.share) {
			return ""
		}
		if math.IsNaN(o.bound) {
			return fmt.Sprintf("%.2f of the limit (%d pairs: too few for a claim)", o.share, o.pairs)
		}
		return fmt.Sprintf("%.2f of the limit (at least %.2f over %d pairs)", o.share, o.bound, o.pairs)
	}
	return times(o.ratio)
}

func times(ratio float64) string {
	if math.IsNaN(ratio) {
		return ""
	}
	return fmt.Sprintf("%.2f×", ratio)
}

func want(r *row) string {
	switch {
	case r.ofLimit > 0:
		return fmt.Sprintf("≥ %g of the limit, lower bound over ≥ 10 pairs", r.ofLimit)
	case r.most > 0:
		return fmt.Sprintf("≤ %g", r.most)
	}
	s := fmt.Sprintf("≥ %g×", r.ratio)
	if r.peer != "" {
		s += " " + r.peer
	}
	if r.tail {
		s += ", p99 not above"
	}
	return s
}

func limit(o *outcome) string {
	if o.limit == nil {
		return ""
	}
	return fmt.Sprintf("%s %s (%s)", workload.Number(o.limit.Median), o.limit.Unit, o.limit.Cell[strings.LastIndex(o.limit.Cell, "limit-")+len("limit-"):])
}

// won counts, and names every cell in which another engine is better.
func won(w *strings.Builder, groups [][]*workload.Figure) {
	type lost struct {
		cell  string
		ratio float64
		best  *workload.Figure
		home  *workload.Figure
	}
	var losses []lost
	wins := 0
	for _, g := range groups {
		ratio, home, best := workload.Ratio(g)
		switch {
		case math.IsNaN(ratio):
		case ratio >= 1:
			wins++
		default:
			losses = append(losses, lost{g[0].Cell, ratio, best, home})
		}
	}
	fmt.Fprintf(w, "## Cells that are lost\n\nOf %d cells that Forebay and another engine ran, Forebay is best in %d. In the others another engine is better:\n\n", wins+len(losses), wins)
	if len(losses) == 0 {
		fmt.Fprint(w, "none.\n\n")
		return
	}
	slices.SortStableFunc(losses, func(a, b lost) int {
		if a.ratio < b.ratio {
			return -1
		}
		return 1
	})
	fmt.Fprint(w, "| cell | Forebay | best | ratio |\n|---|---:|---:|---:|\n")
	for _, l := range losses {
		fmt.Fprintf(w, "| %s | %s | %s %s | %.2f× |\n", l.cell, value(l.home), l.best.Engine, value(l.best), l.ratio)
	}
	fmt.Fprintln(w)
}

// all prints every figure.
func all(w *strings.Builder, groups [][]*workload.Figure) {
	about := map[string]string{}
	for _, c := range workload.Cells() {
		about[c.Name] = c.About
	}
	fmt.Fprint(w, "## All cells\n\nLatencies in µs. Syncs are those of the engine, where they can be counted.\n\n")
	var failed []string
	for _, g := range groups {
		fmt.Fprintf(w, "### %s\n\n", g[0].Cell)
		if a := about[g[0].Cell]; a != "" {
			fmt.Fprintf(w, "%s%s.\n\n", strings.ToUpper(a[:1]), a[1:])
		}
		fmt.Fprint(w, "| engine | level | median | | p50 | p99 | p99.9 | max | worst second | syncs/op |\n|---|---|---:|---|---:|---:|---:|---:|---:|---:|\n")
		for _, f := range g {
			if f.N == 0 {
				fmt.Fprintf(w, "| %s | %s | **failed** | | | | | | | |\n", f.Engine, f.Level)
			} else {
				fmt.Fprintf(w, "| %s | %s | %s %s | ±%.0f %% | %s | %s | %s | %s | %s | %s |\n", f.Engine, f.Level, workload.Number(f.Median), f.Unit, f.Spread()*50,
					workload.Number(f.P50), workload.Number(f.P99), workload.Number(f.P999), workload.Number(f.Most), workload.Number(f.Worst), workload.Number(f.Syncs))
			}
			for _, e := range f.Errors {
				first, _, _ := strings.Cut(e, "\n")
				failed = append(failed, fmt.Sprintf("- %s, %s: `%s`", f.Cell, f.Engine, first))
			}
		}
		fmt.Fprintln(w)
		for _, f := range g {
			if f.Note != "" {
				fmt.Fprintf(w, "%s: %s. ", f.Engine, f.Note)
			}
		}
		fmt.Fprint(w, "\n\n")
	}
	if len(failed) > 0 {
		fmt.Fprintf(w, "## Cells that failed\n\n%s\n\n", strings.Join(failed, "\n"))
	}
}

// who says what each engine is, and what it promises.
func who(w *strings.Builder, m workload.Machine) {
	fmt.Fprint(w, "## Engines\n\n| engine | version | durable | written | buffered | settled | set beside the common budget | syncs |\n|---|---|---|---|---|---|---|---|\n")
	promise := func(e *engines.Engine, l engines.Level) string {
		if e.Has(l) {
			return e.Promise[l]
		}
		return "none"
	}
	for _, e := range engines.All() {
		version, ran := m.Engines[e.Name]
		if !ran {
			continue
		}
		fmt.Fprintf(w, "| %s | %s | %s | %s | %s | %s | %s | %s |\n", e.Name, version,
			promise(e, engines.Durable), promise(e, engines.Written), promise(e, engines.Buffered), e.Settled, e.Notes, e.Syncs)
	}
	fmt.Fprint(w, "\nA cell at a level that an engine does not have is absent. Where a cell names no level, each engine runs at its weakest, which the cell shows.\n")
}
