package disk

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/forebaydb/forebay/bench/machine"
)

// Command returns the command `disk`.
func Command() *cobra.Command {
	var dir string
	var budget time.Duration
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "disk",
		Short: "What this disk can do for a log, and which policy fits it",
		Long: `Measure for half a minute how long it takes on this disk to make bytes durable: by
write and fdatasync, write and fsync, O_DSYNC, and O_DIRECT with O_DSYNC, on files
of zeros, files that grow and files of fallocate; with several syncs in flight, with
several records for one sync, and in large writes. Then recommend a mechanism and a
policy, with what each level costs.

It writes some hundreds of megabytes into a new directory, and removes it.`,
		Example: `  forebay disk
  forebay disk --dir /var/lib/data
  forebay disk --json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			m := machine.Describe(dir)
			out, trace := cmd.OutOrStdout(), cmd.ErrOrStderr()
			p := &printer{w: out, enc: json.NewEncoder(out), json: asJSON}
			if err := p.header(&m); err != nil {
				return err
			}
			shown := 0
			all, err := Run(cmd.Context(), dir, budget, Tests(), func(done float64) {
				if tenth := int(done * 10); tenth > shown {
					shown = tenth
					fmt.Fprintf(trace, "%d %%\n", tenth*10)
				}
			})
			if err != nil {
				return err
			}
			for i := range all {
				if err := p.result(&all[i]); err != nil {
					return err
				}
			}
			a := Advise(&m, all)
			return p.advice(&a)
		},
	}
	f := cmd.Flags()
	f.StringVar(&dir, "dir", ".", "measure in a new directory in `DIR`")
	f.DurationVar(&budget, "time", 28*time.Second, "how long all tests take together")
	f.BoolVar(&asJSON, "json", false, "print JSON lines")
	return cmd
}

// printer prints a report.
type printer struct {
	w    io.Writer
	enc  *json.Encoder
	json bool
	part string
	file string
}

func (p *printer) header(m *machine.Info) error {
	if p.json {
		return p.enc.Encode(struct {
			Kind string `json:"kind"`
			*machine.Info
		}{"machine", m})
	}
	return m.Write(p.w)
}

var titles = map[string]string{
	PartSync:   "One write made durable, one after the other",
	PartFlight: "Several in flight on one file of zeros, 4096 bytes each",
	PartGroup:  "Several records of 128 bytes for one write and fdatasync, on a file of zeros",
	PartLarge:  "Large writes, 1 MiB each",
	PartWrite:  "A write of 128 bytes that is not made durable",
}

func (p *printer) result(r *Result) error {
	if p.json {
		return p.enc.Encode(r)
	}
	if r.Part != p.part {
		p.part, p.file = r.Part, ""
		last := "writes/s"
		switch r.Part {
		case PartGroup:
			last = "records/s"
		case PartLarge:
			last = "MB/s"
		}
		if _, err := fmt.Fprintf(p.w, "\n%s\n%-54s %9s %9s %9s %10s\n", titles[r.Part], "", "p50", "p99", "max", last); err != nil {
			return err
		}
	}
	if r.Part == PartSync && r.File != p.file {
		p.file = r.File
		fmt.Fprintf(p.w, "  %s\n", map[string]string{
			Zeroed: "on a file filled with zeros ahead", Growing: "on a file that grows", Fallocated: "on a file of fallocate",
		}[r.File])
	}
	name := r.Mechanism
	value := number(r.PerS)
	switch r.Part {
	case PartSync:
		name = fmt.Sprintf("  %s, %d bytes", r.Mechanism, r.Bytes)
	case PartFlight:
		name = fmt.Sprintf("%s, %d in flight", r.Mechanism, r.InFlight)
	case PartGroup:
		name, value = fmt.Sprintf("%d records", r.Records), number(r.RecordS)
		if r.Records == 1 {
			name = "1 record"
		}
	case PartLarge:
		name, value = fmt.Sprintf("%s, %s file", r.Mechanism, r.File), number(r.MBPerS)
		if r.SyncEvery > 1 {
			name += fmt.Sprintf(", sync each %d MiB", r.SyncEvery)
		}
	}
	if r.Missing != "" {
		_, err := fmt.Fprintf(p.w, "  %-52s %s\n", name, r.Missing)
		return err
	}
	_, err := fmt.Fprintf(p.w, "  %-52s %9s %9s %9s %10s\n", name, took(r.P50), took(r.P99), took(r.Max), value)
	return err
}

func (p *printer) advice(a *Advice) error {
	if p.json {
		return p.enc.Encode(a)
	}
	for _, t := range a.Text {
		if _, err := fmt.Fprintf(p.w, "\n%s", wrap(t, 88)); err != nil {
			return err
		}
	}
	return nil
}

// wrap breaks a paragraph into lines.
func wrap(s string, width int) string {
	var b strings.Builder
	n := 0
	for _, word := range strings.Fields(s) {
		w := len([]rune(word))
		switch {
		case n == 0:
		case n+1+w > width:
			b.WriteByte('\n')
			n = 0
		default:
			b.WriteByte(' ')
			n++
		}
		b.WriteString(word)
		n += w
	}
	b.WriteByte('\n')
	return b.String()
}
