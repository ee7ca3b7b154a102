package pipeline

import (
	"context"
	"errors"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/forebaydb/forebay"
)

// Goal is how many events a second a machine of two cores is to take.
const Goal = 500_000

// Report is what the command finds; its JSON form is what --json prints.
type Report struct {
	Figures
	// RSSBytes is the most memory that the process had, servers and sink included, by the
	// end of the first measurement.
	RSSBytes int64 `json:"rss_bytes"`
	CPUs     int   `json:"cpus"`
	// Single is with servers that send one event at a time, Uncompressed with a log that
	// is not packed.
	Single       *Figures `json:"single,omitempty"`
	Uncompressed *Figures `json:"uncompressed,omitempty"`
	Limits       *Limits  `json:"limits,omitempty"`
	Spike        *Spike   `json:"spike,omitempty"`
	Plots        []string `json:"plots,omitempty"`
}

// Limits are what the parts do alone, on the same machine, in the same run.
type Limits struct {
	// Loopback: frames sent and acknowledged, and nothing else. Append: frames made durable
	// without network and consumer.
	Loopback float64 `json:"loopback_alone_per_s"`
	Append   float64 `json:"append_alone_per_s"`
	// Both is one after the other: 1/(1/Loopback + 1/Append); OfBoth is how much of that
	// the pipeline reached.
	Both   float64 `json:"both_per_s"`
	OfBoth float64 `json:"of_both"`
}

// Spike compares a spike with its arithmetic: with what comes in and goes out a second,
// and so with what is to wait at each moment.
type Spike struct {
	Scale   float64 `json:"scale"`
	InPerS  float64 `json:"in_per_s"`
	OutPerS float64 `json:"out_per_s"`
	Marks   []Mark  `json:"marks"`
	Drained float64 `json:"drained_at_s"`
	// WantDone is when it is to be empty.
	WantDone float64 `json:"want_drained_at_s"`
	// Deviation is the largest of all marks and of the end, as a part of what it is to be.
	Deviation float64 `json:"deviation"`
	// SlipMS is by how much the servers were behind their schedule at most.
	SlipMS float64 `json:"slip_ms"`
}

// Mark is the depth at a moment. Minutes are those of the unscaled spike.
type Mark struct {
	Minutes float64 `json:"minutes"`
	// Seconds is when the sample was taken, Sent what had really been sent and
	// acknowledged by then, and SlipMS how long before that was due.
	Seconds float64 `json:"seconds"`
	Sent    int64   `json:"sent"`
	SlipMS  float64 `json:"slip_ms"`
	Depth   int64   `json:"depth"`
	// WantDepth is what of Sent a sink of OutPerS leaves at that moment, Deviation how far
	// Depth is from it, and PlanDepth what it were without any slip, on the minute.
	WantDepth int64   `json:"want_depth"`
	Deviation float64 `json:"deviation"`
	PlanDepth int64   `json:"plan_depth"`
}

// suite makes the measurements of a report.
type suite struct {
	c     Config
	place string // a directory for stores
	extra time.Duration
	n     int
	say   func(string)
}

// one makes a measurement in a store of its own, and removes that.
func (s *suite) one(ctx context.Context, what string, c Config) (*Figures, error) {
	s.say(what)
	var f *Figures
	err := s.in(&c, func() (err error) {
		f, err = Run(ctx, c)
		return err
	})
	return f, err
}

func (s *suite) in(c *Config, fn func() error) error {
	s.n++
	c.Dir = filepath.Join(s.place, strconv.Itoa(s.n))
	err := fn()
	if c.FS == nil {
		err = errors.Join(err, os.RemoveAll(c.Dir))
	}
	return err
}

// measure makes the measurement, and those that stand beside it.
func (s *suite) measure(ctx context.Context) (*Report, error) {
	main, err := s.one(ctx, "measuring", s.c)
	if err != nil {
		return nil, err
	}
	r := &Report{Figures: *main, RSSBytes: rss(), CPUs: runtime.NumCPU()}
	if s.extra <= 0 {
		return r, nil
	}
	c := s.c
	c.Send, c.Rate = s.extra, 0
	plain := c
	plain.Compression = forebay.NoCompression
	if r.Uncompressed, err = s.one(ctx, "without compression", plain); err != nil {
		return nil, err
	}
	single := c
	single.Servers, single.Batch = max(64, c.Servers), 1
	if r.Single, err = s.one(ctx, "one event at a time", single); err != nil {
		return nil, err
	}
	wire := c
	wire.NoStore = true
	f, err := s.one(ctx, "loopback alone", wire)
	if err != nil {
		return nil, err
	}
	r.Limits = &Limits{Loopback: f.EventsPerS}
	s.say("append alone")
	if err := s.in(&c, func() error {
		r.Limits.Append, err = appendAlone(ctx, c)
		return err
	}); err != nil {
		return nil, err
	}
	if l := r.Limits; l.Loopback > 0 && l.Append > 0 {
		l.Both = 1 / (1/l.Loopback + 1/l.Append)
		l.OfBoth = r.EventsPerS / l.Both
	}
	return r, nil
}

// spike measures a spike, and compares it with the arithmetic.
func (s *suite) spike(ctx context.Context, scale float64) (*Report, error) {
	f, err := s.one(ctx, "spike", s.c)
	if err != nil {
		return nil, err
	}
	r := &Report{Figures: *f, RSSBytes: rss(), CPUs: runtime.NumCPU()}
	r.Spike = arithmetic(f, &s.c, scale)
	return r, nil
}

// arithmetic compares samples with what they are to be at the moment at which they were
// really taken, and by what had really been sent by then: so a machine that is late with
// either is not taken for a pipeline that is. How late it was is the slip.
func arithmetic(f *Figures, c *Config, scale float64) *Spike {
	send := c.Send.Seconds()
	p := &Spike{Scale: scale, InPerS: c.Rate, OutPerS: c.SinkRate, Drained: f.DrainedAt, WantDone: float64(f.Events) / c.SinkRate}
	peak := (c.Rate - c.SinkRate) * send
	p.Deviation = math.Abs(p.Drained-p.WantDone) / p.WantDone
	next := 1.0
	for _, s := range f.samples {
		slip := min(s.Seconds, send) - float64(s.Acked)/c.Rate
		p.SlipMS = max(p.SlipMS, slip*1e3)
		if s.Seconds < next*send/5 {
			continue
		}
		m := Mark{Minutes: next, Seconds: s.Seconds, Sent: s.Acked, SlipMS: slip * 1e3, Depth: s.Depth}
		plan := next * send / 5
		m.PlanDepth = int64(max(0, c.Rate*min(plan, send)-c.SinkRate*plan))
		want := max(0, float64(s.Acked)-c.SinkRate*s.Seconds)
		of := want
		if next > 5 { // towards the end it is small: as a part of what it was
			of = peak
		}
		m.WantDepth, m.Deviation = int64(want), math.Abs(float64(s.Depth)-want)/of
		p.Marks = append(p.Marks, m)
		p.Deviation = max(p.Deviation, m.Deviation)
		for next++; next*send/5 <= s.Seconds; next++ {
		}
		if next == 6 { // then each fifth minute
			next = 10
		} else if next > 10 {
			next += 4
		}
	}
	return p
}

// rss is the most memory that the process had.
func rss() int64 {
	b, err := os.ReadFile("/proc/self/status")
	if err == nil {
		for line := range strings.Lines(string(b)) {
			if v, ok := strings.CutPrefix(line, "VmHWM:"); ok {
				if kb, err := strconv.ParseInt(strings.Fields(v)[0], 10, 64); err == nil {
					return kb << 10
				}
			}
		}
	}
	var m runtime.MemStats // what Go took, where the system does not say
	runtime.ReadMemStats(&m)
	return int64(m.Sys)
}
