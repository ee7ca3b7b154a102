package pipeline

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/forebaydb/forebay/cmd/forebay/internal/cli"
)

// write prints the report.
func (r *Report) write(w io.Writer) {
	row := func(name, format string, args ...any) {
		fmt.Fprintf(w, "  %-16s %s\n", name, fmt.Sprintf(format, args...))
	}
	micros := func(us uint32) string { return cli.Duration(time.Duration(us) * time.Microsecond) }
	f := &r.Figures
	fmt.Fprintf(w, "%s events of %d bytes from %d servers, %d in a frame, log packed: %s, into the sink: %s\n",
		cli.Count(f.Events), f.EventBytes, f.Servers, f.ProducerBatch, f.Compression, f.Through)
	row("rate", "%s events/s, each durable before it is acknowledged; %.1f s", count(f.EventsPerS), f.SendSeconds)
	row("acknowledged", "p50 %s, p99 %s, most %s, from when a frame was due", micros(f.AckP50), micros(f.AckP99), micros(f.AckMax))
	row("lost", "%d, twice %d, of nobody %d (a bit for each event)", f.Lost, f.Duplicated, f.Foreign)
	row("sink", "%s flushes, %s rows each, %d tried again", cli.Count(f.Flushes), count(f.RowsPerFlush), f.Retries)
	row("depth", "at most %s; drained at %.1f s", cli.Count(f.DepthMost), f.DrainedAt)
	row("bytes", "%s of events; %s log, %s zeros ahead, %s index", cli.Bytes(f.UserBytes), cli.Bytes(f.LogBytes), cli.Bytes(f.ZeroedBytes), cli.Bytes(f.IndexBytes))
	row("written", "%.3f bytes for each of an event, %.3f for each of a packed one; packed %.2f to 1", f.PerUser, f.PerPacked, f.CompressionRatio)
	row("syncs", "%s, %s events each", cli.Count(f.Syncs), count(f.EventsPerSyn))
	row("memory", "%s at most, servers and sink included; %d CPUs", cli.Bytes(r.RSSBytes), r.CPUs)
	if r.Spike != nil {
		r.Spike.write(w)
	}
	if r.Single == nil {
		return
	}
	fmt.Fprintf(w, "\nBeside it, each for %.1f s:\n", r.Single.SendSeconds)
	beside := func(name string, f *Figures) {
		row(name, "%s events/s (%d servers, %d in a frame), acknowledged p50 %s, p99 %s; lost %d, twice %d",
			count(f.EventsPerS), f.Servers, f.ProducerBatch, micros(f.AckP50), micros(f.AckP99), f.Lost, f.Duplicated)
	}
	beside("one at a time", r.Single)
	beside("log not packed", r.Uncompressed)
	l := r.Limits
	row("loopback alone", "%s events/s", count(l.Loopback))
	row("append alone", "%s events/s", count(l.Append))
	row("the two in turn", "%s events/s; the pipeline, with its consumer, reached %.0f %%", count(l.Both), 100*l.OfBoth)
	if r.EventsPerS < Goal {
		row("goal", "%s events/s: %.0f %% reached", cli.Count(Goal), 100*r.EventsPerS/Goal)
	}
}

func (p *Spike) write(w io.Writer) {
	fmt.Fprintf(w, "\nThe spike, %s in and %s out a second, times scaled by %g:\n", count(p.InPerS), count(p.OutPerS), p.Scale)
	fmt.Fprintf(w, "  %6s  %10s  %8s  %12s  %12s  %8s  %12s\n", "minute", "taken at", "slip", "depth", "arithmetic", "off", "on the minute")
	for _, m := range p.Marks {
		fmt.Fprintf(w, "  %6g  %8.3f s  %5.1f ms  %12s  %12s  %6.2f %%  %12s\n", m.Minutes, m.Seconds, m.SlipMS, cli.Count(m.Depth), cli.Count(m.WantDepth), 100*m.Deviation, cli.Count(m.PlanDepth))
	}
	fmt.Fprintf(w, "  drained at %.2f s, arithmetic %.2f s\n", p.Drained, p.WantDone)
	fmt.Fprintf(w, "  %.2f %% off at most, by what had been sent when a sample was taken; the servers were %.1f ms behind their schedule at most\n", 100*p.Deviation, p.SlipMS)
}

func count(v float64) string { return cli.Count(int64(v + .5)) }

// problem says what is not as it has to be, or nothing.
func (r *Report) problem() string {
	var bad []string
	for name, f := range map[string]*Figures{"": &r.Figures, "one at a time: ": r.Single, "not packed: ": r.Uncompressed} {
		if f != nil && (f.Lost > 0 || f.Duplicated > 0 || f.Foreign > 0) {
			bad = append(bad, fmt.Sprintf("%s%d events lost, %d twice, %d of nobody", name, f.Lost, f.Duplicated, f.Foreign))
		}
	}
	return strings.Join(bad, "; ")
}
