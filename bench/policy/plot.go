package policy

import (
	"cmp"
	"fmt"
	"image/color"
	"math"
	"slices"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"

	"github.com/forebaydb/forebay/bench/machine"
	"github.com/forebaydb/forebay/bench/plots"
)

// Plot draws the plots for which there are results into dir, as SVG and PNG, and
// returns their names.
func Plot(dir string, m *machine.Info, results []Result) ([]string, error) {
	foot := fmt.Sprintf("%s, %d cores; Linux %s; %s on %s; Forebay %s", m.CPU, m.Cores, m.Kernel, m.FileSystem, strings.Trim(m.Device+", "+m.Model, ", "), m.Commit)
	if m.OS != "linux" {
		foot = fmt.Sprintf("%d cores; %s; Forebay %s", m.Cores, m.OS, m.Commit)
	}
	if m.NotADisk != "" {
		foot = "NOT A DISK (" + m.FileSystem + "): " + foot
	}
	rs := medians(results)
	var names []string
	for _, d := range []struct {
		name string
		draw func([]Result) *plots.Page
	}{
		{"fsync-loss", plotLoss}, {"fsync-latency", plotLatency}, {"fsync-records", plotRecords}, {"fsync-stalls", plotStalls},
	} {
		pg := d.draw(rs)
		if pg == nil {
			continue
		}
		pg.Foot = foot
		if err := pg.Save(dir, d.name); err != nil {
			return names, err
		}
		names = append(names, d.name)
	}
	return names, nil
}

// medians returns of each cell in each section the repetition with the middle
// rate.
func medians(results []Result) []Result {
	var order []string
	by := map[string][]Result{}
	for _, r := range results {
		k := r.Section + "\x00" + r.Cell
		if by[k] == nil {
			order = append(order, k)
		}
		by[k] = append(by[k], r)
	}
	var out []Result
	for _, k := range order {
		rs := by[k]
		slices.SortStableFunc(rs, func(a, b Result) int { return cmp.Compare(a.OpsPerS, b.OpsPerS) })
		out = append(out, rs[len(rs)/2])
	}
	return out
}

// pick returns the results of the group that has most different members; each
// member is taken once.
func pick(rs []Result, group, member func(*Result) string) []Result {
	by := map[string]map[string]bool{}
	best := ""
	for i := range rs {
		g := group(&rs[i])
		if by[g] == nil {
			by[g] = map[string]bool{}
		}
		by[g][member(&rs[i])] = true
		if best == "" || len(by[g]) > len(by[best]) {
			best = g
		}
	}
	seen := map[string]bool{}
	var out []Result
	for i := range rs {
		if m := member(&rs[i]); group(&rs[i]) == best && !seen[m] {
			seen[m] = true
			out = append(out, rs[i])
		}
	}
	return out
}

// byPolicy returns results that differ in policy and level alone.
func byPolicy(rs []Result) []Result {
	return pick(withoutTimeline(rs),
		func(r *Result) string { return fmt.Sprint(r.On, r.Writers, r.Value, r.Mechanism, r.Files) },
		func(r *Result) string { return r.Policy + " " + r.Level })
}

func withoutTimeline(rs []Result) []Result {
	return slices.DeleteFunc(slices.Clone(rs), func(r Result) bool { return r.Section == timelineTitle })
}

// looks of the levels.
var looks = map[string]struct {
	colour color.RGBA
	shape  draw.GlyphDrawer
}{
	"durable":  {plots.Colours[0], draw.CircleGlyph{}},
	"written":  {plots.Colours[1], draw.BoxGlyph{}},
	"buffered": {plots.Colours[2], draw.PyramidGlyph{}},
}

// shownName is a policy's name in a plot: interval 10 ms.
func shownName(policy string) string {
	kind, bound, ok := strings.Cut(policy, "-")
	if !ok {
		return policy
	}
	unit := strings.TrimLeft(bound, "0123456789.")
	return kind + " " + strings.TrimSuffix(bound, unit) + " " + unit
}

// plotLoss is the headline: what is gained by losing how much.
func plotLoss(rs []Result) *plots.Page {
	rs = byPolicy(rs)
	// A policy adds nothing for Durable commits, but for each; and each is group
	// for the others.
	rs = slices.DeleteFunc(rs, func(r Result) bool {
		return r.Ops == 0 || r.Level == "durable" && r.Policy != "each" && r.Policy != "group" || r.Level != "durable" && r.Policy == "each"
	})
	lo, hi := math.Inf(1), 0.0
	bottom, top := math.Inf(1), 0.0
	for _, r := range rs {
		if ms := r.PowerCut.Ms[0]; ms > 0 {
			lo = min(lo, ms)
		}
		hi = max(hi, r.PowerCut.Ms[2])
		bottom, top = min(bottom, r.OpsPerS), max(top, r.OpsPerS)
	}
	if len(rs) < 3 || math.IsInf(lo, 1) {
		return nil
	}
	p := plots.New()
	none := lo / 12
	p.X.Scale, p.Y.Scale = plot.LogScale{}, plot.LogScale{}
	p.X.Min, p.X.Max = none/1.6, hi*2
	p.Y.Min, p.Y.Max = plots.Around(bottom, top, .25)
	p.X.Tick.Marker = plots.LogTicks{Label: plots.Millis, From: lo / 1.5, Extra: []plot.Tick{{Value: none, Label: "nothing"}}}
	p.Y.Tick.Marker = plots.LogTicks{Label: plots.Count}
	p.Legend.XOffs, p.Legend.YOffs = vg.Points(-6), vg.Points(8)
	// Left of it the axis is no scale.
	if rule, err := plotter.NewLine(plotter.XYs{{X: none * 2.2, Y: p.Y.Min}, {X: none * 2.2, Y: p.Y.Max}}); err == nil {
		rule.Color, rule.Width, rule.Dashes = plots.Pale, vg.Points(.6), []vg.Length{vg.Points(3), vg.Points(3)}
		p.Add(rule)
	}
	labels := &plots.Labels{}
	for _, level := range AllLevels {
		look := looks[level]
		var pts plotter.XYs
		for _, r := range rs {
			if r.Level != level {
				continue
			}
			x := max(r.PowerCut.Ms[0], none)
			pts = append(pts, plotter.XY{X: x, Y: r.OpsPerS})
			labels.Labels = append(labels.Labels, plots.Label{X: x, Y: r.OpsPerS, Text: shownName(r.Policy), Colour: look.colour})
			to := max(r.PowerCut.Ms[2], none)
			labels.Level = append(labels.Level, plots.Level{X: x, To: to, Y: r.OpsPerS})
			worst, err := plotter.NewLine(plotter.XYs{{X: x, Y: r.OpsPerS}, {X: to, Y: r.OpsPerS}})
			if err != nil {
				return nil
			}
			worst.Color, worst.Width = faint(look.colour), vg.Points(1)
			p.Add(worst)
		}
		if len(pts) == 0 {
			continue
		}
		s, err := plotter.NewScatter(pts)
		if err != nil {
			return nil
		}
		s.GlyphStyle = draw.GlyphStyle{Color: look.colour, Radius: vg.Points(3.6), Shape: look.shape}
		p.Add(s)
		p.Legend.Add(level, s)
	}
	p.Add(labels)
	r := rs[0]
	return &plots.Page{
		Title:    "What durability costs, and what is lost without it",
		Subtitle: fmt.Sprintf("%s, values of %s bytes, %s. never and group, below Durable, lose what was written since a file was full.", writers(r.Writers), size(r.Value), r.Mechanism),
		X:        fmt.Sprintf("what a power cut takes of the acknowledged writes: the last … (median of %d cuts; the line ends at the worst)", r.PowerCut.Cuts),
		Y:        "acknowledged writes per second",
		Plot:     p,
	}
}

// faint is a colour halfway to white.
func faint(c color.RGBA) color.RGBA {
	return color.RGBA{c.R/2 + 127, c.G/2 + 127, c.B/2 + 127, 0xFF}
}

func writers(n int) string {
	if n == 1 {
		return "One writer"
	}
	return fmt.Sprintf("%d writers", n)
}

// plotLatency shows how long a writer waits, in the middle and at the worst.
func plotLatency(rs []Result) *plots.Page {
	rs = byPolicy(rs)
	rs = slices.DeleteFunc(rs, func(r Result) bool {
		switch r.Policy + " " + r.Level {
		case "each durable", "group durable", "interval-10ms written", "bytes-64KiB written", "never written", "interval-10ms buffered", "never buffered":
			return r.Ops == 0
		}
		return true
	})
	if len(rs) < 2 {
		return nil
	}
	p := plots.New()
	names := []string{"50 %", "95 %", "99 %", "99.9 %", "all"}
	ticks := make(plot.ConstantTicks, len(names))
	for i, n := range names {
		ticks[i] = plot.Tick{Value: float64(i), Label: n}
	}
	p.X.Tick.Marker = ticks
	p.X.Min, p.X.Max = -.15, float64(len(names))+.35
	p.Y.Scale = plot.LogScale{}
	p.Y.Tick.Marker = plots.LogTicks{Label: plots.Micros}
	lo, hi := math.Inf(1), 0.0
	ends := &plots.EndLabels{}
	for i, r := range rs {
		pts := plotter.XYs{{X: 0, Y: r.P50}, {X: 1, Y: r.P95}, {X: 2, Y: r.P99}, {X: 3, Y: r.P999}, {X: 4, Y: r.Max}}
		for j := range pts {
			pts[j].Y = max(pts[j].Y, .01)
			lo, hi = min(lo, pts[j].Y), max(hi, pts[j].Y)
		}
		line, dots, err := plotter.NewLinePoints(pts)
		if err != nil {
			return nil
		}
		c := plots.Colours[i%len(plots.Colours)]
		line.Color, line.Width = c, vg.Points(1.6)
		dots.GlyphStyle = draw.GlyphStyle{Color: c, Radius: vg.Points(2.6), Shape: looks[r.Level].shape}
		p.Add(line, dots)
		ends.Labels = append(ends.Labels, plots.Label{X: 4, Y: pts[4].Y, Text: r.Level + ", " + shownName(r.Policy), Colour: c})
	}
	p.Y.Min, p.Y.Max = plots.Around(lo, hi, .15)
	p.Add(ends)
	r := rs[0]
	return &plots.Page{
		Title:    "How long a writer waits",
		Subtitle: fmt.Sprintf("%s, values of %s bytes, %s", writers(r.Writers), size(r.Value), r.Mechanism),
		X:        "share of the writes that were acknowledged in this time",
		Y:        "time until a write is acknowledged",
		Plot:     p,
	}
}

// plotRecords shows how writers share syncs.
func plotRecords(rs []Result) *plots.Page {
	rs = pick(withoutTimeline(rs),
		func(r *Result) string { return fmt.Sprint(r.On, r.Value, r.Mechanism, r.Files) },
		func(r *Result) string { return fmt.Sprint(r.Policy, " ", r.Level, " ", r.Writers) })
	var order []string
	by := map[string]plotter.XYs{}
	for _, r := range rs {
		name := r.Level + ", " + shownName(r.Policy)
		if by[name] == nil {
			order = append(order, name)
		}
		if r.RecordsPerSync > 0 {
			by[name] = append(by[name], plotter.XY{X: float64(r.Writers), Y: r.RecordsPerSync})
		}
	}
	order = slices.DeleteFunc(order, func(name string) bool { return len(by[name]) < 2 })
	if len(order) == 0 {
		return nil
	}
	p := plots.New()
	p.X.Scale, p.Y.Scale = plot.LogScale{}, plot.LogScale{}
	p.Y.Tick.Marker = plots.LogTicks{Label: plots.Count}
	ends := &plots.EndLabels{}
	ticks := map[float64]bool{}
	lo, hi, most := 1.0, 1.0, 1.0
	for i, name := range order {
		pts := by[name]
		slices.SortFunc(pts, func(a, b plotter.XY) int { return cmp.Compare(a.X, b.X) })
		for _, pt := range pts {
			ticks[pt.X] = true
			lo, hi, most = min(lo, pt.Y), max(hi, pt.Y), max(most, pt.X)
		}
		line, dots, err := plotter.NewLinePoints(pts)
		if err != nil {
			return nil
		}
		c := plots.Colours[i%len(plots.Colours)]
		line.Color, line.Width = c, vg.Points(1.8)
		dots.GlyphStyle = draw.GlyphStyle{Color: c, Radius: vg.Points(3), Shape: draw.CircleGlyph{}}
		p.Add(line, dots)
		last := pts[len(pts)-1]
		ends.Labels = append(ends.Labels, plots.Label{X: last.X, Y: last.Y, Text: name, Colour: c})
	}
	if ideal, err := plotter.NewLine(plotter.XYs{{X: 1, Y: 1}, {X: most, Y: most}}); err == nil {
		ideal.Color, ideal.Width, ideal.Dashes = plots.Pale, vg.Points(.8), []vg.Length{vg.Points(4), vg.Points(3)}
		p.Add(ideal)
		hi = max(hi, most)
		ends.Labels = append(ends.Labels, plots.Label{X: most, Y: most, Text: "one of each writer", Colour: plots.Pale})
	}
	var marks plot.ConstantTicks
	for n := range ticks {
		marks = append(marks, plot.Tick{Value: n, Label: fmt.Sprint(n)})
	}
	p.X.Tick.Marker = marks
	p.X.Min, p.X.Max = .85, most*math.Pow(most, .38)
	p.Y.Min, p.Y.Max = plots.Around(lo, hi, .12)
	p.Add(ends)
	return &plots.Page{
		Title:    "Writers share syncs",
		Subtitle: fmt.Sprintf("values of %s bytes, %s", size(rs[0].Value), rs[0].Mechanism),
		X:        "writers",
		Y:        "records that one sync makes durable",
		Plot:     p,
	}
}

// plotStalls shows the syncs of each second.
func plotStalls(rs []Result) *plots.Page {
	i := slices.IndexFunc(rs, func(r Result) bool { return r.Section == timelineTitle && len(r.PerSecond) > 1 })
	if i < 0 {
		i = slices.IndexFunc(rs, func(r Result) bool { return len(r.PerSecond) > 1 && r.SyncsPerS > 1 })
	}
	if i < 0 {
		return nil
	}
	r := rs[i]
	var p50, top, bars plotter.XYs
	lo, hi := math.Inf(1), 0.0
	for _, s := range r.PerSecond {
		if s.Syncs == 0 {
			continue
		}
		x := float64(s.Second) - .5
		p50 = append(p50, plotter.XY{X: x, Y: s.P50})
		top = append(top, plotter.XY{X: x, Y: s.Max})
		bars = append(bars, plotter.XY{X: x, Y: s.P50}, plotter.XY{X: x, Y: s.Max})
		lo, hi = min(lo, s.P50), max(hi, s.Max)
	}
	if len(p50) < 2 {
		return nil
	}
	p := plots.New()
	p.Y.Scale = plot.LogScale{}
	p.Y.Tick.Marker = plots.LogTicks{Label: plots.Micros}
	p.Y.Min, p.Y.Max = plots.Around(lo, hi, .2)
	p.X.Min, p.X.Max = 0, float64(len(r.PerSecond))*1.17
	var marks plot.ConstantTicks
	for s := 0; s <= len(r.PerSecond); s += max(1, (len(r.PerSecond)+9)/10) {
		marks = append(marks, plot.Tick{Value: float64(s), Label: fmt.Sprint(s)})
	}
	p.X.Tick.Marker = marks
	for k := 0; k < len(bars); k += 2 {
		if bar, err := plotter.NewLine(bars[k : k+2]); err == nil {
			bar.Color, bar.Width = faint(plots.Colours[1]), vg.Points(1)
			p.Add(bar)
		}
	}
	ends := &plots.EndLabels{}
	for _, s := range []struct {
		name string
		pts  plotter.XYs
		c    color.RGBA
	}{{"the longest", top, plots.Colours[1]}, {"median", p50, plots.Colours[0]}} {
		line, dots, err := plotter.NewLinePoints(s.pts)
		if err != nil {
			return nil
		}
		line.Color, line.Width = s.c, vg.Points(1.4)
		dots.GlyphStyle = draw.GlyphStyle{Color: s.c, Radius: vg.Points(2.6), Shape: draw.CircleGlyph{}}
		p.Add(line, dots)
		last := s.pts[len(s.pts)-1]
		ends.Labels = append(ends.Labels, plots.Label{X: last.X, Y: last.Y, Text: s.name, Colour: s.c})
	}
	p.Add(ends)
	return &plots.Page{
		Title:    "How long syncs take, second by second",
		Subtitle: fmt.Sprintf("%s, values of %s bytes, level %s, policy %s, %s; %s syncs a second", writers(r.Writers), size(r.Value), r.Level, shownName(r.Policy), r.Mechanism, count(r.SyncsPerS)),
		X:        "second of the run",
		Y:        "time of a sync",
		Plot:     p,
	}
}
