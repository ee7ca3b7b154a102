package plots

import (
	"image/png"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
)

func labelled(ticks []plot.Tick) (out []string) {
	for _, t := range ticks {
		if t.Label != "" {
			out = append(out, t.Label)
		}
	}
	return out
}

func TestLogTicks(t *testing.T) {
	require.Equal(t, []string{"1 µs", "10 µs", "100 µs", "1 ms", "10 ms"}, labelled(LogTicks{Label: Micros}.Ticks(1, 20_000)))
	require.Equal(t, []string{"1K", "2K", "5K", "10K"}, labelled(LogTicks{Label: Count}.Ticks(900, 11_000)))
	require.Equal(t, []string{"none", "1 ms", "10 ms", "100 ms"}, labelled(LogTicks{Label: Millis, From: 1, Extra: []plot.Tick{{Value: .1, Label: "none"}}}.Ticks(.1, 100)))
	require.Equal(t, "500 ns", Micros(.5))
	require.Equal(t, "1 s", Micros(1e6))
	require.Equal(t, "1.5G", Count(1.5e9))
	require.Equal(t, "3M", Count(3e6))
}

func TestSpread(t *testing.T) {
	ys := []vg.Length{50, 51, 49, 0}
	spread(ys, 10, 0, 100)
	require.Less(t, ys[2], ys[0])
	require.Less(t, ys[0], ys[1])
	require.InDelta(t, 10, float64(ys[0]-ys[2]), .1)
	require.InDelta(t, 10, float64(ys[1]-ys[0]), .1)
	require.InDelta(t, 0, float64(ys[3]), .1)
}

func TestPlacesDoNotOverlap(t *testing.T) {
	within := vg.Rectangle{Max: vg.Point{X: 500, Y: 500}}
	var taken []vg.Rectangle
	for range 6 {
		box := best(vg.Point{X: 480, Y: 250}, 60, 10, within, taken)
		for _, b := range taken {
			require.Zero(t, overlap(box, b))
		}
		require.InDelta(t, 600, overlap(box, within), .1)
		taken = append(taken, box)
	}
}

func TestSave(t *testing.T) {
	p := New()
	p.Y.Scale, p.Y.Tick.Marker = plot.LogScale{}, LogTicks{Label: Count}
	s, err := plotter.NewScatter(plotter.XYs{{X: 1, Y: 10}, {X: 2, Y: 1000}})
	require.NoError(t, err)
	p.Add(s, &Labels{Labels: []Label{{1, 10, "one", Ink}, {2, 1000, "two", Ink}}}, &EndLabels{Labels: []Label{{2, 1000, "end", Ink}}})
	dir := filepath.Join(t.TempDir(), "new")
	pg := Page{Title: "T", Subtitle: "S", Foot: "F", X: "writers", Y: "ops/s", Plot: p}
	require.NoError(t, pg.Save(dir, "x"))
	svg, err := os.ReadFile(filepath.Join(dir, "x.svg"))
	require.NoError(t, err)
	require.Contains(t, string(svg), "sans-serif")
	require.Equal(t, 1, strings.Count(string(svg), ">two<"))
	f, err := os.Open(filepath.Join(dir, "x.png"))
	require.NoError(t, err)
	defer f.Close()
	img, err := png.Decode(f)
	require.NoError(t, err)
	require.Equal(t, 1200, img.Bounds().Dx())
}
