package policy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/forebaydb/forebay/bench/machine"
)

type command struct {
	axes       Axes
	values     []string
	o          Options
	full       bool
	json       bool
	benchstat  bool
	plots, doc string
	count      int
	timeline   time.Duration
	line       string // how it was called
	out, trace io.Writer
}

// Command returns the command `fsync`.
func Command() *cobra.Command {
	var c command
	cmd := &cobra.Command{
		Use:   "fsync",
		Short: "What each way to sync costs, and what it loses",
		Long: `Measure what the sync policies, levels and mechanisms cost on this disk, and how
many acknowledged writes a power cut or a killed process would have taken.

Without flags it turns one axis at a time around the default (policy group, level
durable, 8 writers, values of 100 bytes, fdatasync on files of zeros): some
minutes. A flag that names values of an axis makes a table of just those, the
other axes at their defaults; --full multiplies all out, which takes hours.

Losses come from the timeline of the run itself, on the real disk: a cut at a
random moment loses what was acknowledged by then and covered by no sync that had
returned. That is the worst that the disk may do.

Cells run on the store; those that compare mechanisms on the log alone (--on).`,
		Example: `  forebay bench fsync --dir /data
  forebay bench fsync --policies group,interval-5ms --levels durable,written --writers 16
  forebay bench fsync --mechanisms fdatasync,O_DSYNC --files zeroed,growing --writers 1
  forebay bench fsync --json --plots plots > fsync.json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c.out, c.trace = cmd.OutOrStdout(), cmd.ErrOrStderr()
			c.line = "forebay bench fsync"
			cmd.Flags().Visit(func(f *pflag.Flag) {
				if f.Name != "dir" && f.Name != "doc" && f.Name != "plots" { // where, not what
					c.line += fmt.Sprintf(" --%s %s", f.Name, f.Value)
				}
			})
			return c.run(cmd.Context())
		},
	}
	f := cmd.Flags()
	f.StringVar(&c.o.Dir, "dir", ".", "measure in a new directory in `DIR`")
	f.StringSliceVar(&c.axes.Policies, "policies", nil, "each, group, never, interval-10ms, bytes-64KiB and the like")
	f.StringSliceVar(&c.axes.Levels, "levels", nil, "durable, written, buffered")
	f.IntSliceVar(&c.axes.Writers, "writers", nil, "numbers of goroutines")
	f.StringSliceVar(&c.values, "values", nil, "sizes of values: 16 to 1MiB")
	f.StringSliceVar(&c.axes.Mechanisms, "mechanisms", nil, "fdatasync, fsync, O_DSYNC, O_DIRECT (and fdatasync), O_DIRECT|O_DSYNC")
	f.StringSliceVar(&c.axes.Files, "files", nil, "zeroed (with room ahead, and zeros in it where syncs are near each other) or growing")
	f.StringVar(&c.axes.On, "on", "", "store, or log alone (default: the log for mechanisms)")
	f.BoolVar(&c.full, "full", false, "the whole matrix")
	f.Bool("quick", true, "one axis at a time: what is done without --full and axes")
	f.DurationVar(&c.o.Window, "window", 2*time.Second, "how long each cell is measured, behind a warm-up of a quarter of it")
	f.DurationVar(&c.timeline, "timeline", 20*time.Second, "how long the syncs of the default are watched, second by second; 0: not")
	f.IntVar(&c.count, "count", 1, "how often all is done, one round after the other")
	f.IntVar(&c.o.Cuts, "cuts", 1000, "how many power cuts, and kills, are simulated for each cell")
	f.Uint64Var(&c.o.Seed, "seed", 1, "draws keys, and the moments of the cuts")
	f.Int64Var(&c.o.MaxBytes, "max-bytes", 4<<30, "end a cell early that has written so many bytes to its log")
	f.BoolVar(&c.json, "json", false, "print JSON lines")
	f.BoolVar(&c.benchstat, "benchstat", false, "print lines for benchstat")
	f.StringVar(&c.plots, "plots", "", "draw plots, as SVG and PNG, into `DIR`")
	f.StringVar(&c.doc, "doc", "", "put tables of the results into a document, as docs/fsync.md has them")
	cmd.MarkFlagsMutuallyExclusive("json", "benchstat")
	cmd.MarkFlagsMutuallyExclusive("full", "quick")
	return cmd
}

// sections returns what is to be measured.
func (c *command) sections() ([]Section, error) {
	for _, v := range c.values {
		n, err := ParseSize(v)
		if err != nil {
			return nil, err
		}
		c.axes.Values = append(c.axes.Values, n)
	}
	c.values = nil
	a := &c.axes
	named := len(a.Policies)+len(a.Levels)+len(a.Writers)+len(a.Values)+len(a.Mechanisms)+len(a.Files) > 0
	switch {
	case c.full && named:
		return nil, errors.New("--full takes no axes")
	case c.full:
		return Full(a.On)
	case named:
		cells, err := a.cells()
		return []Section{{"Chosen cells", cells}}, err
	}
	return Cross(a.On)
}

func (c *command) output() output {
	switch {
	case c.json:
		return jsonOutput{c.out}
	case c.benchstat:
		return benchstatOutput{c.out}
	}
	return &textOutput{w: c.out}
}

// run measures all cells, in --count rounds, and last the timeline.
func (c *command) run(ctx context.Context) error {
	sections, err := c.sections()
	if err != nil {
		return err
	}
	m, out := machine.Describe(c.o.Dir), c.output()
	if err := out.header(&m); err != nil {
		return err
	}
	if c.timeline > 0 {
		sections = append(sections, watched())
	}
	p := newProgress(c.trace)
	for _, s := range sections {
		p.cost += time.Duration(len(s.Cells)) * c.window(&s) * time.Duration(max(c.count, 1))
	}
	var results []Result
	broken := 0
	for round := range max(c.count, 1) {
		for i := range sections {
			s := &sections[i]
			if err := out.section(s); err != nil {
				return err
			}
			for _, cell := range s.Cells {
				p.begin(&cell)
				o := c.o
				o.Window = c.window(s)
				r, err := Run(ctx, cell, o)
				p.clear()
				if err != nil {
					return err
				}
				p.done += o.Window
				r.Section, r.Repetition = s.Title, round+1
				if r.Broken != "" {
					broken++
				}
				results = append(results, r)
				if err := out.row(&r); err != nil {
					return err
				}
			}
		}
	}
	p.end(len(results))
	if c.plots != "" {
		names, err := Plot(c.plots, &m, results)
		if err != nil {
			return err
		}
		fmt.Fprintf(c.trace, "plots in %s: %s\n", c.plots, strings.Join(names, ", "))
	}
	if c.doc != "" {
		if err := document(c.doc, c.line, &m, sections, results); err != nil {
			return err
		}
	}
	if broken > 0 {
		return fmt.Errorf("%d cells lost what they may not", broken)
	}
	return nil
}

// timelineTitle is the section of the cells that are watched second by second.
const timelineTitle = "Second by second"

func watched() Section {
	a := Axes{Levels: []string{"durable"}, On: OnStore}
	cells, _ := a.cells() // of defaults: they are right
	return Section{timelineTitle, cells}
}

func (c *command) window(s *Section) time.Duration {
	if s.Title == timelineTitle {
		return c.timeline
	}
	return c.o.Window
}

// progress tells how far a run is: on a terminal in one line that is written over.
type progress struct {
	w          io.Writer
	terminal   bool
	began      time.Time
	cost, done time.Duration // windows
}

func newProgress(w io.Writer) *progress {
	p := &progress{w: w, began: time.Now()}
	if f, ok := w.(*os.File); ok {
		st, err := f.Stat()
		p.terminal = err == nil && st.Mode()&os.ModeCharDevice != 0
	}
	return p
}

func (p *progress) begin(c *Cell) {
	left := ""
	if p.done > 0 {
		took := time.Since(p.began)
		left = fmt.Sprintf(", %v left", time.Duration(float64(took)*(float64(p.cost-p.done)/float64(p.done))).Round(time.Second))
	}
	end := "\n"
	if p.terminal {
		end = ""
	}
	fmt.Fprintf(p.w, "%3.0f%%%s: %s%s", 100*float64(p.done)/float64(max(p.cost, 1)), left, c.Name(), end)
}

// clear makes room for a line of the output.
func (p *progress) clear() {
	if p.terminal {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
}

func (p *progress) end(cells int) {
	fmt.Fprintf(p.w, "%d cells in %v\n", cells, time.Since(p.began).Round(time.Second))
}
