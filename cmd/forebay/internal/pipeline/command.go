package pipeline

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/cmd/forebay/internal/cli"
)

type flags struct {
	rate, sink, compression  string
	through                  string
	seconds, scale, sinkRate float64
	eventBytes, servers      int
	batch, consumers         int
	flushRows                int
	flushEvery               time.Duration
	dir, out                 string
	spike, alone, json       bool
}

// Commands returns the command pipeline.
func Commands() []*cobra.Command {
	var f flags
	cmd := &cobra.Command{
		Use:   "pipeline",
		Short: "Run a logging platform: servers, durable log, batch consumers, sink",
		Long: `Run a logging platform on this machine, and account for every event: simulated
servers send log events over loopback TCP, a sequence of a store makes them durable
before they are acknowledged, batch consumers write them into a sink, by size or
age. At the end nothing may be lost and nothing be there twice: a bit is kept for
each event. --through buffer puts package buffer between servers and sink, in place of
a sequence with a consumer of its own.

Beside the measurement stand, each for a twelfth of its time: servers that send one
event at a time, a log that is not packed, and what loopback and log do alone.
--alone leaves them out.

--spike sends 100,000 events a second for five minutes to a sink that takes 10,000,
and compares the depth with the arithmetic: 5.4M after a minute, 27M at the end,
empty after 50 minutes. --scale 0.01 makes all times a hundredth. Each sample counts at
the moment at which it was taken, and with what had been sent by then; how far that
was behind the schedule (the slip) is printed beside it.

The store is made in a new directory in --dir, and removed. Exit code 1: events were
lost, or came twice.`,
		Example: `  forebay pipeline
  forebay pipeline --rate max --seconds 60 --event-bytes 500 --json
  forebay pipeline --rate 100000 --sink file --through buffer
  forebay pipeline --spike --scale 0.01`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd) },
	}
	fl := cmd.Flags()
	fl.StringVar(&f.rate, "rate", "max", "`events` a second of all servers, or max: each sends its next frame when the last is acknowledged")
	fl.Float64Var(&f.seconds, "seconds", 10, "how long the servers send")
	fl.IntVar(&f.eventBytes, "event-bytes", 500, "size of an event")
	fl.IntVar(&f.servers, "servers", 8, "how many servers there are")
	fl.IntVar(&f.batch, "batch", 2000, "how many events a server sends in a frame, at most")
	fl.IntVar(&f.consumers, "consumers", 2, "how many batches are written into the sink at once")
	fl.IntVar(&f.flushRows, "flush-rows", 10_000, "rows at which a batch is flushed")
	fl.DurationVar(&f.flushEvery, "flush-every", time.Second, "age at which a batch is flushed")
	fl.StringVar(&f.sink, "sink", "discard", "discard, or file: lines in a file beside the store, each batch synced")
	fl.StringVar(&f.through, "through", Direct, "direct: from a sequence, by a consumer; buffer: by package buffer")
	fl.Float64Var(&f.sinkRate, "sink-rate", 0, "`events` a second that the sink takes; 0: as fast as it can")
	fl.StringVar(&f.compression, "compression", "s2", "how the log is packed: s2, zstd or none")
	fl.BoolVar(&f.spike, "spike", false, "run the spike: --rate, --seconds and --sink-rate are 100000, 300 and 10000 unless they are given")
	fl.Float64Var(&f.scale, "scale", 1, "with --spike: multiplies its times")
	fl.BoolVar(&f.alone, "alone", false, "make the one measurement alone")
	fl.StringVar(&f.dir, "dir", "", "make the store in a new directory in this `directory`; default: that for temporary files")
	fl.StringVar(&f.out, "out", "", "write the plots, SVG and PNG, into this `directory`; default: pipeline-report, or none with --json")
	fl.BoolVar(&f.json, "json", false, "print one JSON object, and nothing else")
	return []*cobra.Command{cmd}
}

// config makes a measurement of the flags.
func (f *flags) config(changed func(string) bool) (c Config, err error) {
	if f.spike {
		if !changed("rate") {
			f.rate = "100000"
		}
		if !changed("seconds") {
			f.seconds = 300
		}
		if !changed("sink-rate") {
			f.sinkRate = 10_000
		}
		f.seconds *= f.scale
	}
	rate := 0.0
	if f.rate != "max" {
		if rate, err = strconv.ParseFloat(f.rate, 64); err != nil || !(rate > 0 && rate <= 1e9) {
			return c, cli.Usagef("--rate is max or a number of events a second")
		}
	}
	switch {
	case !(f.seconds > 0 && f.seconds <= 1e6):
		return c, cli.Usagef("--seconds, times --scale, is above 0 and at most 1000000")
	case f.eventBytes < minEvent || f.eventBytes > maxEvent:
		return c, cli.Usagef("--event-bytes is %d to %d", minEvent, maxEvent)
	case f.servers < 1 || f.servers > 10_000 || f.consumers < 1 || f.consumers > 1000:
		return c, cli.Usagef("--servers is 1 to 10000, --consumers 1 to 1000")
	case f.batch < 1 || f.batch > MaxFrame/(f.eventBytes+2)-1:
		return c, cli.Usagef("--batch is 1 to %d for events of %d bytes", MaxFrame/(f.eventBytes+2)-1, f.eventBytes)
	case f.flushRows < 1 || f.flushRows > 1e6 || f.flushEvery <= 0:
		return c, cli.Usagef("--flush-rows is 1 to 1000000, --flush-every above 0")
	case !(f.sinkRate >= 0 && f.sinkRate <= 1e9):
		return c, cli.Usagef("--sink-rate is a number of events a second")
	case f.spike && (rate <= f.sinkRate || f.sinkRate == 0):
		return c, cli.Usagef("a spike has a --rate above its --sink-rate")
	case f.through != Direct && f.through != Buffer:
		return c, cli.Usagef("--through is direct or buffer")
	case f.sink != "discard" && f.sink != "file":
		return c, cli.Usagef("--sink is discard or file")
	}
	packed, ok := map[string]forebay.Compression{"s2": forebay.S2, "zstd": forebay.Zstd, "none": forebay.NoCompression}[f.compression]
	if !ok {
		return c, cli.Usagef("--compression is s2, zstd or none")
	}
	c = Config{
		Compression: packed, Servers: f.servers, Batch: f.batch, EventBytes: f.eventBytes, Rate: rate,
		Send: time.Duration(f.seconds * float64(time.Second)), SinkRate: f.sinkRate, Through: f.through,
		Consumers: f.consumers, FlushRows: f.flushRows, FlushEvery: f.flushEvery, Sample: 200 * time.Millisecond,
	}
	if f.spike {
		c.fine()
	}
	return c, nil
}

// fine makes frames, flushes and samples small beside the length of a spike, so that the
// depth can be compared with the arithmetic; but not so small that there is a sync each
// millisecond. The sink of a spike has always something to do: that it is late is the
// machine's, and made up for.
func (c *Config) fine() {
	step := max(c.Send.Seconds()/3000, .005)
	c.SinkCredit = c.Send
	c.Batch = max(1, min(c.Batch, int(c.Rate/float64(c.Servers)*step)))
	c.FlushRows = max(1, min(c.FlushRows, int(c.SinkRate*step)))
	c.Sample = min(time.Second, c.Send/60)
}

func (f *flags) run(cmd *cobra.Command) (err error) {
	c, err := f.config(cmd.Flags().Changed)
	if err != nil {
		return err
	}
	place, err := os.MkdirTemp(f.dir, "forebay-pipeline-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(place)) }()
	if f.sink == "file" {
		s, serr := openFile(filepath.Join(place, "events.log"))
		if serr != nil {
			return serr
		}
		defer func() { err = errors.Join(err, s.Close()) }()
		c.Sink = s
	}
	v := &view{}
	c.Show = v.show
	s := &suite{c: c, place: place, say: v.say}
	if !f.alone {
		s.extra = max(c.Send/12, 100*time.Millisecond)
	}
	progress := cli.StartProgress(cmd.ErrOrStderr(), f.json, v.text)
	var r *Report
	if f.spike {
		r, err = s.spike(cmd.Context(), f.scale)
	} else {
		r, err = s.measure(cmd.Context())
	}
	progress.Stop()
	if err != nil {
		return err
	}
	out := f.out
	if out == "" && !f.json {
		out = "pipeline-report"
	}
	if out != "" {
		if r.Plots, err = r.draw(out, &c); err != nil {
			return err
		}
	}
	if f.json {
		err = cli.WriteJSON(cmd.OutOrStdout(), r)
	} else {
		r.write(cmd.OutOrStdout())
		fmt.Fprintf(cmd.OutOrStdout(), "\nPlots are in %s.\n", out)
	}
	if p := r.problem(); p != "" {
		err = errors.Join(err, errors.New(p))
	}
	return err
}
