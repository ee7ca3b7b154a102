package pipeline

import (
	"fmt"
	"image/color"
	"math"
	"path/filepath"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"

	"github.com/forebaydb/forebay/bench/plots"
)

// draw draws the plots of a report into dir, as SVG and PNG, and returns their names.
func (r *Report) draw(dir string, c *Config) ([]string, error) {
	foot := fmt.Sprintf("%d CPUs; %d servers, %d events of %d bytes in a frame; log packed: %s; into the sink: %s.", r.CPUs, r.Servers, r.ProducerBatch, r.EventBytes, r.Compression, r.Through)
	var names []string
	for _, p := range []struct {
		name string
		page *plots.Page
	}{{"depth", r.depth(c)}, {"rates", r.rates()}} {
		p.page.Foot = foot
		if err := p.page.Save(dir, p.name); err != nil {
			return nil, err
		}
		names = append(names, filepath.Join(dir, p.name+".svg"), filepath.Join(dir, p.name+".png"))
	}
	return names, nil
}

// counts are ticks of an axis of counts, four to eight of them: 250K, 5M.
type counts struct{}

// Ticks implements plot.Ticker.
func (counts) Ticks(lo, hi float64) []plot.Tick {
	step := math.Pow(10, math.Floor(math.Log10(hi-lo)))
	for _, part := range []float64{1, 2, 4} { // of a power of ten: 1, 0.5, 0.25
		if n := (hi - lo) / (step / part); n >= 4 {
			step /= part
			break
		}
	}
	var ticks []plot.Tick
	for n := math.Ceil(lo / step); n*step <= hi; n++ {
		ticks = append(ticks, plot.Tick{Value: n * step, Label: plots.Count(n * step)})
	}
	return ticks
}

func stroke(points plotter.XYs, c color.Color, width float64) *plotter.Line {
	return &plotter.Line{XYs: points, LineStyle: draw.LineStyle{Color: c, Width: vg.Points(width)}}
}

// labelled collects the labels of lines.
type labelled struct{ plots.EndLabels }

func (l *labelled) add(x, y float64, text string, c color.Color) {
	l.Labels = append(l.Labels, plots.Label{X: x, Y: y, Text: text, Colour: c})
}

// depth is what waits between the log and the sink, over time.
func (r *Report) depth(c *Config) *plots.Page {
	p := plots.New()
	got := plotter.XYs{{}}
	for _, s := range r.samples {
		got = append(got, plotter.XY{X: s.Seconds, Y: float64(s.Depth)})
	}
	end := got[len(got)-1].X
	labels := &labelled{}
	if r.Spike != nil {
		send := c.Send.Seconds()
		want := plotter.XYs{{}, {X: send, Y: (c.Rate - c.SinkRate) * send}, {X: r.Spike.WantDone}}
		p.Add(stroke(want, plots.Colours[1], 3))
		labels.add(send, want[1].Y, fmt.Sprintf("arithmetic: %s at %.4g s, empty at %.4g s", plots.Count(want[1].Y), send, r.Spike.WantDone), plots.Colours[1])
		end = max(end, r.Spike.WantDone)
	}
	p.Add(stroke(got, plots.Colours[0], 1.5), &labels.EndLabels)
	p.Y.Tick.Marker = counts{}
	p.X.Min, p.X.Max, p.Y.Min = 0, end*1.02, 0
	p.Y.Max = max(1, float64(r.DepthMost)*1.1)
	return &plots.Page{
		Title: "Events that wait for the sink", Subtitle: fmt.Sprintf("Durable and acknowledged, not yet in the sink; at most %s", plots.Count(float64(r.DepthMost))),
		X: "seconds", Y: "events", Plot: p,
	}
}

// rates are how many events a second come in and go out, from sample to sample.
func (r *Report) rates() *plots.Page {
	p := plots.New()
	var in, out plotter.XYs
	var was Sample
	most := 1.0
	step := max(1, len(r.samples)/120)
	for i := 0; i < len(r.samples); i += step {
		s := r.samples[i]
		if d := s.Seconds - was.Seconds; d > 0 {
			x := (s.Seconds + was.Seconds) / 2
			in = append(in, plotter.XY{X: x, Y: float64(s.Acked-was.Acked) / d})
			out = append(out, plotter.XY{X: x, Y: float64(s.Flushed-was.Flushed) / d})
			most = max(most, in[len(in)-1].Y, out[len(out)-1].Y)
		}
		was = s
	}
	labels := &labelled{}
	for i, l := range []struct {
		name string
		xys  plotter.XYs
	}{{"acknowledged", in}, {"into the sink", out}} {
		if n := len(l.xys); n > 0 {
			p.Add(stroke(l.xys, plots.Colours[i], 1.5))
			labels.add(l.xys[n-1].X, l.xys[n-1].Y, l.name, plots.Colours[i])
		}
	}
	p.Add(&labels.EndLabels)
	p.X.Min, p.X.Max = 0, max(1e-3, was.Seconds*1.2)
	p.Y.Tick.Marker = counts{}
	p.Y.Min, p.Y.Max = 0, most*1.1
	return &plots.Page{Title: "Events a second", Subtitle: "Acknowledged, each durable before, and written into the sink", X: "seconds", Y: "events a second", Plot: p}
}
