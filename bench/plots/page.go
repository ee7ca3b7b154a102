// Package plots draws figures for documents: one look for all of them, as SVG
// and PNG, with logarithmic axes that say their units and labels that stand
// beside what they name.
package plots

import (
	"bytes"
	"image/color"
	"os"
	"path/filepath"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"
	"gonum.org/v1/plot/vg/vgsvg"

	stdfont "golang.org/x/image/font"
)

// Colours of series (Okabe and Ito), which colour-blind people can tell apart, in
// the order of use.
var Colours = []color.RGBA{
	{0x00, 0x72, 0xB2, 0xFF}, // blue
	{0xD5, 0x5E, 0x00, 0xFF}, // vermilion
	{0x00, 0x9E, 0x73, 0xFF}, // green
	{0xCC, 0x79, 0xA7, 0xFF}, // purple
	{0xE6, 0x9F, 0x00, 0xFF}, // orange
	{0x56, 0xB4, 0xE9, 0xFF}, // sky
	{0x33, 0x33, 0x33, 0xFF},
}

// Ink is the colour of text, Pale that of what stands behind: rules, captions.
var (
	Ink  = color.RGBA{0x22, 0x22, 0x22, 0xFF}
	Pale = color.RGBA{0x70, 0x70, 0x70, 0xFF}
	grid = color.RGBA{0xE4, 0xE4, 0xE4, 0xFF}
)

// Sans is the font of all text.
func Sans(size vg.Length) font.Font {
	return font.Font{Typeface: "Liberation", Variant: "Sans", Size: size}
}

// TextStyle returns the style of a text, at its left and upon its baseline.
func TextStyle(size vg.Length, c color.Color) draw.TextStyle {
	return draw.TextStyle{Color: c, Font: Sans(size), Handler: plot.DefaultTextHandler}
}

// Page is a plot with a title, one line below it that says what is seen, and a
// foot that says where it was measured. The titles of the axes stand level: that of
// Y above its axis, that of X below. (The plot's own would get room as if all axes
// were linear.)
type Page struct {
	Title, Subtitle, Foot string
	X, Y                  string
	Plot                  *plot.Plot
	// Width and Height; 0: 7.5 by 5 inches.
	Width, Height vg.Length
}

// New returns a plot without titles, in the look of all.
func New() *plot.Plot {
	p := plot.New()
	p.BackgroundColor = color.White
	for _, a := range []*plot.Axis{&p.X, &p.Y} {
		a.Tick.Label.Font = Sans(9)
		a.Tick.Label.Color = Ink
		a.Tick.LineStyle.Color = Pale
		a.Tick.LineStyle.Width = vg.Points(.5)
		a.LineStyle.Color = Pale
	}
	p.Legend.TextStyle.Font = Sans(9)
	p.Legend.TextStyle.Color = Ink
	p.Legend.Padding = vg.Points(2)
	g := plotter.NewGrid()
	g.Horizontal.Color, g.Vertical.Color = grid, grid
	g.Horizontal.Width, g.Vertical.Width = vg.Points(.6), vg.Points(.6)
	p.Add(g)
	return p
}

// Save writes the page as NAME.svg and NAME.png into dir, which it makes.
func (pg *Page) Save(dir, name string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	w, h := pg.Width, pg.Height
	if w == 0 {
		w, h = 7.5*vg.Inch, 5*vg.Inch
	}
	svg := vgsvg.New(w, h)
	pg.draw(draw.New(svg))
	var b bytes.Buffer
	if _, err := svg.WriteTo(&b); err != nil {
		return err
	}
	// Who has not this font has one of the same widths.
	text := strings.ReplaceAll(b.String(), "font-family:Liberation Sans;", "font-family:'Liberation Sans',Arial,Helvetica,sans-serif;")
	if err := os.WriteFile(filepath.Join(dir, name+".svg"), []byte(text), 0o644); err != nil {
		return err
	}
	png := vgimg.PngCanvas{Canvas: vgimg.NewWith(vgimg.UseWH(w, h), vgimg.UseDPI(160))}
	pg.draw(draw.New(png))
	b.Reset()
	if _, err := png.WriteTo(&b); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, name+".png"), b.Bytes(), 0o644)
}

func (pg *Page) draw(c draw.Canvas) {
	c.SetColor(color.White)
	c.Fill(c.Rectangle.Path())
	left, top := c.Min.X+vg.Points(12), c.Max.Y-vg.Points(12)
	line := func(text string, size vg.Length, col color.Color, bold bool) {
		if text == "" {
			return
		}
		st := TextStyle(size, col)
		if bold {
			st.Font.Weight = stdfont.WeightBold
		}
		st.YAlign = draw.YTop
		c.FillText(st, vg.Point{X: left, Y: top}, text)
		top -= st.Height(text) + vg.Points(5)
	}
	line(pg.Title, 13, Ink, true)
	line(pg.Subtitle, 9.5, Pale, false)
	foot := TextStyle(7.5, Pale)
	bottom := c.Min.Y + vg.Points(8)
	if pg.Foot != "" {
		c.FillText(foot, vg.Point{X: left, Y: bottom}, pg.Foot)
		bottom += foot.Height(pg.Foot) + vg.Points(6)
	}
	top -= vg.Points(5)
	line(pg.Y, 9.5, Ink, false)
	if pg.X != "" {
		st := TextStyle(9.5, Ink)
		st.XAlign = draw.XCenter
		c.FillText(st, vg.Point{X: c.Center().X, Y: bottom}, pg.X)
		bottom += st.Height(pg.X) + vg.Points(5)
	}
	pg.Plot.Draw(draw.Crop(c, vg.Points(12), -vg.Points(14), bottom-c.Min.Y, top-c.Max.Y))
}
