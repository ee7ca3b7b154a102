package policy

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/forebaydb/forebay/bench/machine"
)

// output prints results as they come.
type output interface {
	header(m *machine.Info) error
	section(s *Section) error
	row(r *Result) error
}

// jsonOutput prints one JSON object a line: first the machine, with kind
// "machine", then a Result for each cell.
type jsonOutput struct{ w io.Writer }

func (o jsonOutput) header(m *machine.Info) error {
	return json.NewEncoder(o.w).Encode(struct {
		Kind string `json:"kind"`
		*machine.Info
	}{"machine", m})
}
func (o jsonOutput) section(*Section) error { return nil }
func (o jsonOutput) row(r *Result) error    { return json.NewEncoder(o.w).Encode(r) }

// benchstatOutput prints what benchstat reads.
type benchstatOutput struct{ w io.Writer }

func (o benchstatOutput) header(m *machine.Info) error {
	_, err := fmt.Fprintf(o.w, "goos: %s\ngoarch: %s\npkg: github.com/forebaydb/forebay/bench/policy\ncpu: %s\nkernel: %s\nfilesystem: %s\nmountoptions: %s\ndevice: %s\nforebay: %s\n",
		m.OS, m.Arch, m.CPU, m.Kernel, m.FileSystem, m.MountOptions, strings.Trim(m.Device+", "+m.Queue, ", "), m.Commit)
	if err == nil && m.NotADisk != "" {
		_, err = fmt.Fprintf(o.w, "notadisk: %s\n", m.NotADisk)
	}
	return err
}
func (o benchstatOutput) section(*Section) error { return nil }
func (o benchstatOutput) row(r *Result) error {
	if r.Ops == 0 {
		return nil
	}
	_, err := fmt.Fprintf(o.w, "BenchmarkFsync/%s %d %.1f ns/op %.0f ops/s %.0f p50-ns %.0f p99-ns %.0f max-ns %.1f syncs/s %.2f records/sync %.3f write-amp %d power-cut-lost-p99 %.3f power-cut-lost-p99-ms %d kill-lost-p99\n",
		r.Cell, r.Ops, r.Seconds*1e9/float64(r.Ops), r.OpsPerS, r.P50*1e3, r.P99*1e3, r.Max*1e3,
		r.SyncsPerS, r.RecordsPerSync, r.WriteAmp, r.PowerCut.Records[1], r.PowerCut.Ms[1], r.Kill.Records[1])
	return err
}

// textOutput prints a table for each section. Axes that do not vary in it stand
// in its title.
type textOutput struct {
	w    io.Writer
	axes []axis
}

// axis is a column that says which cell it is.
type axis struct {
	name  string
	width int
	of    func(r *Result) string
}

var allAxes = []axis{
	{"on", 5, func(r *Result) string { return r.On }},
	{"mechanism", 16, func(r *Result) string { return r.Mechanism }},
	{"files", 7, func(r *Result) string { return r.Files }},
	{"policy", 14, func(r *Result) string { return r.Policy }},
	{"level", 8, func(r *Result) string { return r.Level }},
	{"writers", 7, func(r *Result) string { return fmt.Sprint(r.Writers) }},
	{"value", 6, func(r *Result) string { return size(r.Value) }},
}

func (o *textOutput) header(m *machine.Info) error {
	if err := m.Write(o.w); err != nil {
		return err
	}
	_, err := io.WriteString(o.w, `
ops/s, MB/s   acknowledged puts a second, and their keys and values
p50 … max     how long a writer waited for its put
rec, B/sync   records and log bytes that one sync made durable
amp           bytes written to log files per byte of keys and values, and (+) zeros that files were filled with ahead
power cut     acknowledged writes that a cut at a random moment loses: records (median, 99 % of the cuts, max), and
              the age of the oldest of them. By the timeline of this very run: the worst that the disk may do.
kill          the same for a killed process: records (median, max)
`)
	return err
}

// sample returns a Result with nothing but the axes of the cell.
func sample(c *Cell) *Result {
	return &Result{On: c.On, Policy: c.Policy.Name, Level: c.Level, Writers: c.Writers, Value: c.Value, Mechanism: c.Mechanism, Files: c.files()}
}

// axes returns the axes that vary in a section, and what the others are.
func (s *Section) axes() (vary []axis, same []string) {
	for _, a := range allAxes {
		first, varies := a.of(sample(&s.Cells[0])), false
		for i := range s.Cells {
			varies = varies || a.of(sample(&s.Cells[i])) != first
		}
		if varies {
			vary = append(vary, a)
		} else {
			same = append(same, a.name+" "+first)
		}
	}
	return vary, same
}

func (o *textOutput) section(s *Section) error {
	var same []string
	o.axes, same = s.axes()
	var top, head strings.Builder
	for _, a := range o.axes {
		fmt.Fprintf(&top, "%-*s ", a.width, "")
		fmt.Fprintf(&head, "%-*s ", a.width, a.name)
	}
	fmt.Fprintf(&top, "%-14s  %-34s  %-20s  %-10s  %-44s  %-14s", "", "latency", "syncs", "amp", "lost by a power cut", "by a kill")
	fmt.Fprintf(&head, "%7s %6s  %6s %6s %6s %6s %6s  %6s %6s %6s  %4s %5s  %6s %6s %6s  %7s %7s %7s  %6s %6s",
		"ops/s", "MB/s", "p50", "p95", "p99", "p99.9", "max", "/s", "rec", "B", "", "+", "median", "p99", "max", "median", "p99", "max", "median", "max")
	_, err := fmt.Fprintf(o.w, "\n%s\n(%s)\n\n%s\n%s\n", s.Title, strings.Join(same, ", "), strings.TrimRight(top.String(), " "), head.String())
	return err
}

func (o *textOutput) row(r *Result) error {
	var b strings.Builder
	for _, a := range o.axes {
		fmt.Fprintf(&b, "%-*s ", a.width, a.of(r))
	}
	fmt.Fprintf(&b, "%7s %6s  %6s %6s %6s %6s %6s", count(r.OpsPerS), count(r.MBPerS), micros(r.P50), micros(r.P95), micros(r.P99), micros(r.P999), micros(r.Max))
	fmt.Fprintf(&b, "  %6s %6s %6s  %4.2f %5.2f", count(r.SyncsPerS), count(r.RecordsPerSync), count(r.BytesPerSync), r.WriteAmp, r.ZeroAmp)
	b.WriteByte(' ')
	for _, n := range r.PowerCut.Records {
		fmt.Fprintf(&b, " %6s", count(float64(n)))
	}
	b.WriteByte(' ')
	for _, ms := range r.PowerCut.Ms {
		fmt.Fprintf(&b, " %7s", micros(ms*1e3))
	}
	fmt.Fprintf(&b, "  %6s %6s\n", count(float64(r.Kill.Records[0])), count(float64(r.Kill.Records[2])))
	if r.Broken != "" {
		fmt.Fprintf(&b, "  THE PROMISE IS BROKEN: %s\n", r.Broken)
	}
	_, err := io.WriteString(o.w, b.String())
	return err
}

// count prints a number in at most six characters.
func count(n float64) string {
	switch {
	case n == 0:
		return "0"
	case n < 9.995:
		return fmt.Sprintf("%.2f", n)
	case n < 99.95:
		return fmt.Sprintf("%.1f", n)
	case n < 9999.5:
		return fmt.Sprintf("%.0f", n)
	case n < 99_950:
		return fmt.Sprintf("%.1fK", n/1e3)
	case n < 999_500:
		return fmt.Sprintf("%.0fK", n/1e3)
	case n < 99.95e6:
		return fmt.Sprintf("%.1fM", n/1e6)
	case n < 999.5e6:
		return fmt.Sprintf("%.0fM", n/1e6)
	}
	return fmt.Sprintf("%.1fG", n/1e9)
}

// micros prints a time in at most six characters.
func micros(us float64) string {
	switch {
	case us == 0:
		return "0"
	case us < 9.995:
		return fmt.Sprintf("%.2fµs", us)
	case us < 999.5:
		return fmt.Sprintf("%.0fµs", us)
	case us < 9995:
		return fmt.Sprintf("%.2fms", us/1e3)
	case us < 99_950:
		return fmt.Sprintf("%.1fms", us/1e3)
	case us < 999_500:
		return fmt.Sprintf("%.0fms", us/1e3)
	}
	return fmt.Sprintf("%.2fs", us/1e6)
}
