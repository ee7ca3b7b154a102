package plots

import (
	"image/color"
	"math"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// Label names a point.
type Label struct {
	X, Y   float64
	Text   string
	Colour color.Color
}

// Level is a level line.
type Level struct{ X, To, Y float64 }

// Labels is a plotter that writes each label beside its point, where it covers
// no point and no other label, as far as there is such a place.
type Labels struct {
	Labels []Label
	// Level are lines from X to To at the height Y, which are not to be covered.
	Level []Level
	Size  vg.Length // of the font; 0: 8.5 points
}

var _ plot.Plotter = (*Labels)(nil)

// Plot implements plot.Plotter.
func (l *Labels) Plot(c draw.Canvas, p *plot.Plot) {
	size := l.Size
	if size == 0 {
		size = 8.5
	}
	tx, ty := p.Transforms(&c)
	at := func(lb *Label) vg.Point { return vg.Point{X: tx(lb.X), Y: ty(lb.Y)} }
	var taken []vg.Rectangle
	const dot = 4
	for i := range l.Labels {
		pt := at(&l.Labels[i])
		taken = append(taken, vg.Rectangle{Min: vg.Point{X: pt.X - dot, Y: pt.Y - dot}, Max: vg.Point{X: pt.X + dot, Y: pt.Y + dot}})
	}
	for _, v := range l.Level {
		y := ty(v.Y)
		taken = append(taken, vg.Rectangle{Min: vg.Point{X: tx(v.X), Y: y - 1}, Max: vg.Point{X: tx(v.To), Y: y + 1}})
	}
	for i := range l.Labels {
		lb := &l.Labels[i]
		st := TextStyle(size, lb.Colour)
		box := best(at(lb), st.Width(lb.Text), st.Height(lb.Text), c.Rectangle, taken)
		taken = append(taken, box)
		if near := nearest(box, at(lb)); distance(near, at(lb)) > 11 {
			c.StrokeLines(draw.LineStyle{Color: lb.Colour, Width: .4}, []vg.Point{at(lb), near})
		}
		fill(&c, st, box.Min, lb.Text)
	}
}

// fill writes a text whose box has its lower left corner at a point: FillText puts
// the box lower, by what reaches below the line.
func fill(c *draw.Canvas, st draw.TextStyle, pt vg.Point, text string) {
	e := st.FontExtents()
	c.FillText(st, vg.Point{X: pt.X, Y: pt.Y + e.Height - e.Ascent}, text)
}

// best returns the place beside a point where a box covers least.
func best(pt vg.Point, w, h vg.Length, within vg.Rectangle, taken []vg.Rectangle) vg.Rectangle {
	var found vg.Rectangle
	cost := math.Inf(1)
	for ring := range 6 {
		gap := 6 + vg.Length(ring)*(h+2)
		// Right, left, above, below, and the corners.
		for k, d := range [][2]float64{{1, 0}, {-1, 0}, {0, 1}, {0, -1}, {1, 1}, {1, -1}, {-1, 1}, {-1, -1}} {
			lo := vg.Point{X: pt.X - w/2, Y: pt.Y - h/2}
			lo.X += vg.Length(d[0]) * (w/2 + gap)
			lo.Y += vg.Length(d[1]) * (h/2 + gap)
			if d[0] != 0 && d[1] != 0 { // corners are nearer
				lo.X -= vg.Length(d[0]) * gap / 2
			}
			box := vg.Rectangle{Min: lo, Max: vg.Point{X: lo.X + w, Y: lo.Y + h}}
			n := float64(8*ring+k) * .5
			for _, t := range taken {
				n += 4 * overlap(box, t)
			}
			n += 40 * (float64(w*h) - overlap(box, within)) // outside
			if n < cost {
				cost, found = n, box
			}
		}
	}
	return found
}

// nearest returns the point of a box that is nearest to another.
func nearest(b vg.Rectangle, pt vg.Point) vg.Point {
	return vg.Point{X: min(max(pt.X, b.Min.X), b.Max.X), Y: min(max(pt.Y, b.Min.Y), b.Max.Y)}
}

func distance(a, b vg.Point) float64 { return math.Hypot(float64(a.X-b.X), float64(a.Y-b.Y)) }

// overlap returns the area that two boxes share.
func overlap(a, b vg.Rectangle) float64 {
	w := min(a.Max.X, b.Max.X) - max(a.Min.X, b.Min.X)
	h := min(a.Max.Y, b.Max.Y) - max(a.Min.Y, b.Min.Y)
	if w <= 0 || h <= 0 {
		return 0
	}
	return float64(w * h)
}

// EndLabels is a plotter that writes labels to the right of the last points of
// lines, one below the other where the points are too near to each other. The
// plot must leave room there.
type EndLabels struct {
	Labels []Label
	Size   vg.Length // of the font; 0: 9 points
}

// Plot implements plot.Plotter.
func (l *EndLabels) Plot(c draw.Canvas, p *plot.Plot) {
	size := l.Size
	if size == 0 {
		size = 9
	}
	tx, ty := p.Transforms(&c)
	ys := make([]vg.Length, len(l.Labels))
	for i := range l.Labels {
		ys[i] = ty(l.Labels[i].Y)
	}
	height := TextStyle(size, Ink).Height("Xg") + 1
	spread(ys, height, c.Min.Y, c.Max.Y)
	for i := range l.Labels {
		lb := &l.Labels[i]
		st := TextStyle(size, lb.Colour)
		from := vg.Point{X: tx(lb.X) + 4, Y: ty(lb.Y)}
		to := vg.Point{X: tx(lb.X) + 14, Y: ys[i]}
		c.StrokeLines(draw.LineStyle{Color: lb.Colour, Width: .5}, []vg.Point{from, to})
		fill(&c, st, vg.Point{X: to.X + 3, Y: to.Y - st.Height(lb.Text)/2}, lb.Text)
	}
}

// spread moves places apart until they are at least gap from each other, each as
// little as may be, and keeps their order.
func spread(ys []vg.Length, gap, lo, hi vg.Length) {
	order := make([]int, len(ys))
	for i := range order {
		order[i] = i
	}
	for range 200 {
		for i := 1; i < len(order); i++ { // sorted, stable
			for j := i; j > 0 && ys[order[j]] < ys[order[j-1]]; j-- {
				order[j], order[j-1] = order[j-1], order[j]
			}
		}
		moved := false
		for i := 1; i < len(order); i++ {
			a, b := order[i-1], order[i]
			if d := gap - (ys[b] - ys[a]); d > .01 {
				ys[a] -= d / 2
				ys[b] += d / 2
				moved = true
			}
		}
		for _, i := range order {
			ys[i] = min(max(ys[i], lo), hi)
		}
		if !moved {
			return
		}
	}
}
