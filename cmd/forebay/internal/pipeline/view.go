package pipeline

import (
	"fmt"
	"sync"

	"github.com/forebaydb/forebay/cmd/forebay/internal/cli"
)

// view is the line that is shown while a measurement runs.
type view struct {
	mu   sync.Mutex // guards the rest
	what string
	was  Sample
	line string
}

// say begins with another measurement.
func (v *view) say(what string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.what, v.was, v.line = what, Sample{}, "  "+what
}

// show takes a sample.
func (v *view) show(s Sample) {
	v.mu.Lock()
	defer v.mu.Unlock()
	d := s.Seconds - v.was.Seconds
	if d <= 0 {
		return
	}
	rows := ratio(s.Flushed-v.was.Flushed, float64(s.Flushes-v.was.Flushes))
	v.line = fmt.Sprintf("%s %.0f s: %s/s in, %s/s out, depth %s, %s a flush, lag %.0f ms", v.what, s.Seconds,
		count(ratio(s.Acked-v.was.Acked, d)), count(ratio(s.Flushed-v.was.Flushed, d)), cli.Count(s.Depth), count(rows), s.LagMS)
	v.was = s
}

func (v *view) text() string {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.line
}
