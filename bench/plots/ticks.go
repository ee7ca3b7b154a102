package plots

import (
	"fmt"
	"math"

	"gonum.org/v1/plot"
)

// LogTicks are the ticks of a logarithmic axis: one with a label for each power
// of ten, small ones between; 2 and 5 have labels, too, where there are few powers.
type LogTicks struct {
	// Label prints a value.
	Label func(v float64) string
	// Extra ticks are added as they are.
	Extra []plot.Tick
	// From leaves out ticks below it.
	From float64
}

// Ticks implements plot.Ticker.
func (t LogTicks) Ticks(lo, hi float64) []plot.Tick {
	ticks := append([]plot.Tick(nil), t.Extra...)
	lo = math.Max(lo, t.From)
	few := math.Log10(hi/lo) < 1.5
	// A power of ten is exact only where it is computed as one.
	for e := math.Floor(math.Log10(lo)); e <= math.Ceil(math.Log10(hi)); e++ {
		for m := 1.0; m < 10; m++ {
			v := m * math.Pow(10, e)
			if v < lo*(1-1e-9) || v > hi*(1+1e-9) {
				continue
			}
			tick := plot.Tick{Value: v}
			if m == 1 || few && (m == 2 || m == 5) {
				tick.Label = t.Label(v)
			}
			ticks = append(ticks, tick)
		}
	}
	return ticks
}

// Around returns the bounds of an axis that shows lo to hi with some air, as
// factors of a decade.
func Around(lo, hi, air float64) (float64, float64) {
	f := math.Pow(10, air)
	return lo / f, hi * f
}

// Count prints 1, 10, 100, 1K, 10K, 1M.
func Count(v float64) string {
	switch {
	case v >= 1e9:
		return trim(v/1e9) + "G"
	case v >= 1e6:
		return trim(v/1e6) + "M"
	case v >= 1e3:
		return trim(v/1e3) + "K"
	}
	return trim(v)
}

// Micros prints a time in microseconds with its unit.
func Micros(us float64) string {
	switch {
	case us >= 1e6*(1-1e-9):
		return trim(us/1e6) + " s"
	case us >= 1e3*(1-1e-9):
		return trim(us/1e3) + " ms"
	case us >= 1-1e-9:
		return trim(us) + " µs"
	}
	return trim(us*1e3) + " ns"
}

// Millis prints a time in milliseconds with its unit.
func Millis(ms float64) string { return Micros(ms * 1e3) }

func trim(v float64) string { return fmt.Sprintf("%.4g", v) }
