// Package crash puts the engines of package engine under damage and makes one table
// of what came of it: a row for each engine and settings, a column for each kind of
// damage.
package crash

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/forebaydb/forebay/fuzz/damage"
	"github.com/forebaydb/forebay/peers/engine"
)

// Config says what Run does.
type Config struct {
	// Engines are names or ids of engines; none means all.
	Engines []string
	// Samples is how many damages there are in a cell, at most.
	Samples int
	Seed    uint64
	// Workers is how many processes there are at a time; 0 means one a processor.
	Workers int
	// Worker returns the command of a process that calls Worker with these
	// arguments.
	Worker func(args ...string) *exec.Cmd
	// Dir is where real files lie; "" is /dev/shm where there is one, or else the
	// system's directory for temporary files.
	Dir string
	// Progress is told of each engine; nil: nobody.
	Progress io.Writer
}

// Report is what Run found.
type Report struct {
	Machine string   `json:"machine"`
	Seed    uint64   `json:"seed"`
	Samples int      `json:"samples"`
	Columns []Column `json:"columns"`
	Rows    []*Row   `json:"rows"`
	Seconds float64  `json:"seconds"`
}

// Row is one engine with certain settings.
type Row struct {
	Engine   string `json:"engine"`
	Settings string `json:"settings"`
	Sets     string `json:"sets"`
	Version  string `json:"version"`
	// Cells are by Column.ID.
	Cells map[string]*Cell `json:"cells"`
}

// Cell counts what came of the damages of one column.
type Cell struct {
	Cases    int `json:"cases"`
	Harmless int `json:"harmless"`
	// Detected errors name a damaged file, Elsewhere another one, NoFile none.
	Detected  int `json:"detected"`
	Elsewhere int `json:"elsewhere"`
	NoFile    int `json:"nofile"`
	// Prefix is a state that a crash could have left, too.
	Prefix int `json:"prefix"`
	// Refused is an error where a crash alone could have made the same bytes.
	Refused int `json:"refused"`
	// Panicked counts processes that ended, or did not come back, too.
	Panicked int `json:"panic"`
	Silent   int `json:"silent"`
	// How says what was silently wrong, and how often.
	How map[string]int `json:"how,omitempty"`
	// Example is one that is silent, or else refused, or a panic.
	Example *damage.Result `json:"example,omitempty"`
	// ByDesign says why silence is what the engine's documents let expect; "".
	ByDesign string `json:"byDesign,omitempty"`
}

func (c *Cell) add(res damage.Result) {
	res.How, _, _ = strings.Cut(res.How, "\n")
	res.How = res.How[:min(len(res.How), 200)]
	c.Cases++
	n := map[damage.Verdict]*int{damage.Harmless: &c.Harmless, damage.Detected: &c.Detected, damage.Elsewhere: &c.Elsewhere,
		damage.NoFile: &c.NoFile, damage.Prefix: &c.Prefix, damage.Refused: &c.Refused, damage.Panicked: &c.Panicked, damage.Silent: &c.Silent}
	*n[res.Verdict]++
	switch res.Verdict {
	case damage.Silent:
		how, _, _ := strings.Cut(res.How, ":")
		how, _, _ = strings.Cut(how, " on key")
		if c.How == nil {
			c.How = map[string]int{}
		}
		c.How[how]++
	case damage.Refused, damage.Panicked:
	default:
		return
	}
	if c.Example == nil || c.Example.Verdict != damage.Silent && res.Verdict == damage.Silent {
		c.Example = &res
	}
}

// String is the cell in the table: what is worst first.
func (c *Cell) String() string {
	if c == nil || c.Cases == 0 {
		return "-"
	}
	var out []string
	put := func(n int, what string) {
		if n > 0 {
			out = append(out, fmt.Sprintf("%s %d", what, n))
		}
	}
	silent := "SILENT"
	if c.ByDesign != "" {
		silent = "by design"
	}
	put(c.Silent, silent)
	put(c.Refused, "REFUSED")
	put(c.Panicked, "panic")
	put(c.Detected+c.Elsewhere+c.NoFile, "error")
	put(c.Prefix, "prefix")
	put(c.Harmless, "same")
	return strings.Join(out, ", ")
}

// Run makes the table.
func Run(ctx context.Context, cfg Config) (*Report, error) {
	begin := time.Now()
	if cfg.Workers <= 0 {
		cfg.Workers = runtime.GOMAXPROCS(0)
	}
	if cfg.Dir == "" {
		cfg.Dir = os.TempDir()
		if info, err := os.Stat("/dev/shm"); err == nil && info.IsDir() {
			cfg.Dir = "/dev/shm"
		}
	}
	rep := &Report{Machine: fmt.Sprintf("%s/%s, %d CPUs, %s", runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), runtime.Version()),
		Seed: cfg.Seed, Samples: cfg.Samples, Columns: Columns}
	for _, e := range engine.All() {
		if len(cfg.Engines) > 0 && !slices.Contains(cfg.Engines, e.Name) && !slices.Contains(cfg.Engines, e.ID()) {
			continue
		}
		if err := ctx.Err(); err != nil {
			return rep, err
		}
		start := time.Now()
		row, err := run(&cfg, e)
		if err != nil {
			return rep, err
		}
		rep.Rows = append(rep.Rows, row)
		if cfg.Progress != nil {
			fmt.Fprintf(cfg.Progress, "%s: %.1f s\n", e.ID(), time.Since(start).Seconds())
		}
	}
	rep.Seconds = time.Since(begin).Seconds()
	if len(rep.Rows) == 0 {
		return rep, fmt.Errorf("crash: no engine is named by %v", cfg.Engines)
	}
	return rep, nil
}

// run makes one row.
func run(cfg *Config, e *engine.Engine) (*Row, error) {
	tmp, err := os.MkdirTemp(cfg.Dir, "forebay-peers-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(tmp)
	sub := &subject{e, tmp}
	stores, err := sub.Build()
	if err != nil {
		return nil, err
	}
	file := filepath.Join(tmp, "stores")
	if err := save(file, stores); err != nil {
		return nil, err
	}
	row := &Row{Engine: e.Name, Settings: e.Settings, Sets: e.Sets, Version: e.Version(), Cells: map[string]*Cell{}}
	var jobs []job
	for i, col := range Columns {
		row.Cells[col.ID] = &Cell{}
		for _, s := range stores {
			if s.Name != col.store {
				continue
			}
			if err := damage.Intact(sub, s); err != nil {
				return nil, err
			}
			x := &sampler{sub: sub, s: s, n: cfg.Samples, rng: rand.New(rand.NewPCG(cfg.Seed, uint64(i)))}
			for _, f := range col.faults(x) {
				jobs = append(jobs, job{i, s.Name + "/" + f.String()})
			}
		}
	}
	err = judgeAll(cfg, e.ID(), file, jobs, func(j job, res damage.Result) { row.Cells[Columns[j.column].ID].add(res) })
	for id, c := range row.Cells {
		if c.Silent > 0 {
			c.ByDesign = e.Reason(id)
		}
	}
	return row, err
}

// String is the table, with what it means below.
func (r *Report) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s; at most %d damages a cell, seed %d; %.0f s\n\n", r.Machine, r.Samples, r.Seed, r.Seconds)
	w := tabwriter.NewWriter(&b, 0, 0, 1, ' ', tabwriter.Debug)
	fmt.Fprint(w, "engine\tversion")
	for _, c := range r.Columns {
		fmt.Fprintf(w, "\t%s", c.Title)
	}
	fmt.Fprintln(w)
	for _, row := range r.Rows {
		fmt.Fprintf(w, "%s %s\t%s", row.Engine, row.Settings, row.Version)
		for _, c := range r.Columns {
			fmt.Fprintf(w, "\t%s", row.Cells[c.ID])
		}
		fmt.Fprintln(w)
	}
	w.Flush()
	b.WriteString("\n")
	for _, c := range r.Columns {
		fmt.Fprintf(&b, "%s: %s\n", c.Title, c.What)
	}
	b.WriteString("same: all is there; error: an error; prefix: a state that a crash leaves, too; REFUSED: an error for what a crash leaves; panic: the process ended or hung; SILENT: wrong contents, and no error\n\n")
	for _, row := range r.Rows {
		fmt.Fprintf(&b, "%s %s: %s\n", row.Engine, row.Settings, row.Sets)
		for _, c := range r.Columns {
			cell := row.Cells[c.ID]
			if cell.Silent > 0 {
				fmt.Fprintf(&b, "  %s: %v; for example %s/%s: %s", c.Title, cell.How, cell.Example.Store, cell.Example.Fault, cell.Example.How)
				if cell.ByDesign != "" {
					fmt.Fprintf(&b, "; by design: %s", cell.ByDesign)
				}
				b.WriteString("\n")
			} else if cell.Example != nil {
				fmt.Fprintf(&b, "  %s: %s, for example %s: %s\n", c.Title, cell.Example.Verdict, cell.Example.Fault, cell.Example.How)
			}
		}
	}
	return b.String()
}
