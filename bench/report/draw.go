package report

import (
	"fmt"
	"image/color"
	"math"
	"path"
	"path/filepath"
	"slices"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"

	"github.com/forebaydb/forebay/bench/plots"
	"github.com/forebaydb/forebay/bench/workload"
)

// picture is a plot in the document.
type picture struct{ file, alt string }

// drawAll draws the plots into dir; names are as seen from the document beside it.
func drawAll(dir string, m workload.Machine, results []workload.Result) ([]picture, error) {
	groups := workload.ByCell(workload.Figures(results))
	foot := fmt.Sprintf("%s, %d cores; %s on %s. Forebay %s.", m.CPU, m.Cores, m.FileSystem, m.Device, m.Commit)
	if m.Quick {
		foot = "QUICK MODE, not for comparison. " + foot
	}
	var out []picture
	for _, p := range []struct {
		name, alt string
		page      *plots.Page
	}{
		{"ratios", "Forebay against the best peer, cell by cell", ratios(groups)},
		{"durable", "Durable puts a second by goroutines", durable(groups)},
		{"open-loop", "p99 of durable puts at shares of the closed-loop rate, 64 goroutines", openLoop(groups)},
	} {
		if p.page == nil {
			continue
		}
		p.page.Foot = foot
		if err := p.page.Save(dir, p.name); err != nil {
			return nil, err
		}
		out = append(out, picture{path.Join(filepath.Base(dir), p.name+".svg"), p.alt})
	}
	return out, nil
}

// ratios has one bar for each cell, on a logarithmic axis, lost ones in the other
// colour.
func ratios(groups [][]*workload.Figure) *plots.Page {
	type bar struct {
		cell  string
		ratio float64
	}
	var bars []bar
	for _, g := range groups {
		if r, _, best := workload.Ratio(g); !math.IsNaN(r) && r > 0 {
			bars = append(bars, bar{g[0].Cell + " (" + best.Engine + ")", r})
		}
	}
	if len(bars) == 0 {
		return nil
	}
	slices.SortStableFunc(bars, func(a, b bar) int {
		if a.ratio < b.ratio {
			return -1
		}
		return 1
	})
	p := plots.New()
	least, most := .5, 2.0
	names := make([]string, len(bars))
	for i, b := range bars {
		least, most = min(least, b.ratio/1.2), max(most, b.ratio*1.2)
		names[i] = b.cell
		c := plots.Colours[0]
		if b.ratio < 1 {
			c = plots.Colours[1]
		}
		p.Add(line([]plotter.XY{{X: 1, Y: float64(i)}, {X: b.ratio, Y: float64(i)}}, c, 6))
	}
	p.Add(line([]plotter.XY{{X: 1, Y: -.7}, {X: 1, Y: float64(len(bars)) - .3}}, plots.Ink, 1))
	p.X.Scale, p.X.Min, p.X.Max = plot.LogScale{}, least, most
	p.X.Tick.Marker = plots.LogTicks{Label: func(v float64) string { return fmt.Sprintf("%g×", v) }}
	p.NominalY(names...)
	p.Y.Min, p.Y.Max = -.7, float64(len(bars))-.3
	return &plots.Page{
		Title: "Forebay against the best peer", Subtitle: "Ratio of medians, and which peer it is; right of 1× Forebay is better",
		X: "times the best peer", Plot: p, Width: 7.5 * vg.Inch, Height: vg.Length(1.4+.16*float64(len(bars))) * vg.Inch,
	}
}

func line(points []plotter.XY, c color.Color, width float64) *plotter.Line {
	return &plotter.Line{XYs: points, LineStyle: draw.LineStyle{Color: c, Width: vg.Points(width)}}
}

// durable has a line for each engine over the number of goroutines.
func durable(groups [][]*workload.Figure) *plots.Page {
	lines := &series{}
	for _, g := range groups {
		var n int
		var rest string
		if _, err := fmt.Sscanf(g[0].Cell, "durable-put-%d%s", &n, &rest); err == nil || n == 0 {
			if _, err := fmt.Sscanf(g[0].Cell, "limit-group-%d-hold", &n); err == nil && g[0].N > 0 {
				lines.add("no engine", float64(n), g[0].Median)
			}
			continue
		}
		for _, f := range g {
			if f.N > 0 {
				lines.add(f.Engine, float64(n), f.Median)
			}
		}
	}
	p := lines.plot(plots.Count, plots.Count)
	if p == nil {
		return nil
	}
	return &plots.Page{
		Title: "Durable puts", Subtitle: "By the number of goroutines that put; 'no engine' is group commit with nothing behind it",
		X: "goroutines", Y: "puts a second", Plot: p,
	}
}

// openLoop has a line for each engine over the share of its closed-loop rate.
func openLoop(groups [][]*workload.Figure) *plots.Page {
	lines := &series{}
	for _, g := range groups {
		var share int
		if _, err := fmt.Sscanf(g[0].Cell, "durable-put-64-open%d", &share); err != nil {
			continue
		}
		for _, f := range g {
			if f.N > 0 {
				lines.add(f.Engine, float64(share), f.P99)
			}
		}
	}
	p := lines.plot(nil, plots.Micros)
	if p == nil {
		return nil
	}
	return &plots.Page{
		Title: "What a durable put waits when writers come as they like", Subtitle: "p99 from when a put was due, 64 goroutines, Poisson arrivals at shares of each engine's own closed-loop rate",
		X: "share of the closed-loop rate", Y: "p99", Plot: p,
	}
}

// series are lines by name, in the order of their first points.
type series struct {
	names  []string
	points map[string][]plotter.XY
}

func (s *series) add(name string, x, y float64) {
	if s.points == nil {
		s.points = map[string][]plotter.XY{}
	}
	if _, ok := s.points[name]; !ok {
		s.names = append(s.names, name)
	}
	s.points[name] = append(s.points[name], plotter.XY{X: x, Y: y})
}

// plot draws the lines; labelX nil means that the x axis is linear.
func (s *series) plot(labelX, labelY func(float64) string) *plot.Plot {
	if len(s.names) == 0 {
		return nil
	}
	p := plots.New()
	labels := &plots.EndLabels{}
	x0, x1, y0, y1 := math.Inf(1), math.Inf(-1), math.Inf(1), math.Inf(-1)
	for i, name := range s.names {
		c := plots.Colours[i%len(plots.Colours)]
		pts := s.points[name]
		slices.SortFunc(pts, func(a, b plotter.XY) int { return int(math.Copysign(1, a.X-b.X)) })
		for _, q := range pts {
			x0, x1, y0, y1 = min(x0, q.X), max(x1, q.X), min(y0, q.Y), max(y1, q.Y)
		}
		p.Add(line(pts, c, 2))
		last := pts[len(pts)-1]
		labels.Labels = append(labels.Labels, plots.Label{X: last.X, Y: last.Y, Text: name, Colour: c})
	}
	p.Add(labels)
	p.Y.Scale, p.Y.Tick.Marker = plot.LogScale{}, plots.LogTicks{Label: labelY}
	p.Y.Min, p.Y.Max = plots.Around(max(y0, 1e-3), y1, .1)
	// The labels stand to the right of the last points.
	if labelX != nil {
		p.X.Scale, p.X.Tick.Marker = plot.LogScale{}, plots.LogTicks{Label: labelX}
		p.X.Min, p.X.Max = x0/1.1, x1*2.5
	} else {
		p.X.Tick.Marker = plot.ConstantTicks{{Value: 30, Label: "30 %"}, {Value: 60, Label: "60 %"}, {Value: 90, Label: "90 %"}}
		p.X.Min, p.X.Max = x0-5, x1+(x1-x0)*.25+1
	}
	return p
}
