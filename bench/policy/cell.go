package policy

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/forebaydb/forebay/wal"
)

// Policy is a sync policy with the name that the command line and all outputs
// use: each, group, interval-10ms, bytes-64KiB, never.
type Policy struct {
	Name string
	// Interval and Bytes are its bound; 0: it has none.
	Interval time.Duration
	Bytes    int64
	policy   wal.Policy
}

// ParsePolicy returns the policy of a name.
func ParsePolicy(name string) (Policy, error) {
	switch name {
	case "each":
		return Policy{Name: name, policy: wal.SyncEach}, nil
	case "group":
		return Policy{Name: name, policy: wal.SyncGroup}, nil
	case "never":
		return Policy{Name: name, policy: wal.SyncNever}, nil
	}
	if s, ok := strings.CutPrefix(name, "interval-"); ok {
		if d, err := time.ParseDuration(s); err == nil && d > 0 {
			return Policy{Name: name, Interval: d, policy: wal.SyncInterval(d)}, nil
		}
	}
	if s, ok := strings.CutPrefix(name, "bytes-"); ok {
		if n, err := ParseSize(s); err == nil && n > 0 {
			return Policy{Name: name, Bytes: n, policy: wal.SyncBytes(n)}, nil
		}
	}
	return Policy{}, fmt.Errorf("policy %q is unknown; there are each, group, never, interval-10ms, bytes-64KiB and the like", name)
}

// ParseSize reads a number of bytes: 100, 64KiB, 1MiB.
func ParseSize(s string) (int64, error) {
	digits, shift := s, 0
	for suffix, by := range map[string]int{"KiB": 10, "MiB": 20, "GiB": 30} {
		if d, ok := strings.CutSuffix(s, suffix); ok {
			digits, shift = d, by
		}
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n < 0 || n > 1<<(62-shift) {
		return 0, fmt.Errorf("%q is no size; 100, 64KiB and 1MiB are", s)
	}
	return n << shift, nil
}

// size is the inverse of ParseSize.
func size(n int64) string {
	for _, u := range []struct {
		by   int64
		name string
	}{{1 << 30, "GiB"}, {1 << 20, "MiB"}, {1 << 10, "KiB"}} {
		if n >= u.by && n%u.by == 0 {
			return strconv.FormatInt(n/u.by, 10) + u.name
		}
	}
	return strconv.FormatInt(n, 10)
}

// levels and mechanisms by their names.
var (
	levels     = map[string]wal.Level{"durable": wal.Durable, "written": wal.Written, "buffered": wal.Buffered}
	mechanisms = map[string]wal.Mechanism{"fdatasync": wal.Fdatasync, "fsync": wal.Fsync, "O_DSYNC": wal.DSync, "O_DIRECT|O_DSYNC": wal.DirectDSync, "O_DIRECT": wal.Direct}
)

// Where a cell runs.
const (
	OnStore = "store"
	OnLog   = "log"
)

// Cell is one thing to measure.
type Cell struct {
	// On is OnStore or OnLog.
	On        string
	Policy    Policy
	Level     string
	Writers   int
	Value     int64
	Mechanism string
	// Growing: the log files have no room, and no zeros, ahead of use.
	Growing bool
}

// Name names the cell in outputs, as benchstat wants it.
func (c *Cell) Name() string {
	return fmt.Sprintf("on=%s/policy=%s/level=%s/writers=%d/value=%s/mechanism=%s/files=%s",
		c.On, c.Policy.Name, c.Level, c.Writers, size(c.Value), c.Mechanism, c.files())
}

func (c *Cell) files() string {
	if c.Growing {
		return "growing"
	}
	return "zeroed"
}

// check returns why a cell cannot be measured, or nil.
func (c *Cell) check() error {
	_, level := levels[c.Level]
	_, mechanism := mechanisms[c.Mechanism]
	switch {
	case c.On != OnStore && c.On != OnLog:
		return fmt.Errorf("%q can not be measured; store and log can", c.On)
	case !level:
		return fmt.Errorf("level %q is unknown; there are durable, written and buffered", c.Level)
	case !mechanism:
		return fmt.Errorf("mechanism %q is unknown; there are fdatasync, fsync, O_DSYNC, O_DIRECT (and fdatasync) and O_DIRECT|O_DSYNC", c.Mechanism)
	case c.Writers < 1 || c.Writers > 1<<16:
		return fmt.Errorf("%d writers are not between 1 and 65536", c.Writers)
	case c.Value < 16 || c.Value > 1<<20:
		return fmt.Errorf("a value of %d bytes is not between 16 bytes and 1MiB", c.Value)
	case c.Growing && c.On == OnStore:
		return fmt.Errorf("the store always fills its log files with zeros; growing files can be measured on the log alone")
	}
	return nil
}

// Axes are the values of each axis.
type Axes struct {
	Policies, Levels []string
	Writers          []int
	Values           []int64
	Mechanisms       []string
	// Files has "zeroed", "growing", or both.
	Files []string
	// On is OnStore, OnLog or "": the store for what it can, and the log alone for
	// mechanisms.
	On string
}

// The axes of the whole matrix.
var (
	AllPolicies   = []string{"each", "group", "interval-1ms", "interval-10ms", "interval-100ms", "bytes-64KiB", "bytes-1MiB", "never"}
	AllLevels     = []string{"durable", "written", "buffered"}
	AllWriters    = []int{1, 8, 64, 256}
	AllValues     = []int64{100, 1 << 10, 16 << 10}
	AllMechanisms = []string{"fdatasync", "fsync", "O_DSYNC", "O_DIRECT", "O_DIRECT|O_DSYNC"}
	AllFiles      = []string{"zeroed", "growing"}
)

// base returns the default of every axis: what a cross turns around.
func base() Axes {
	return Axes{
		Policies: []string{"group"}, Levels: []string{"durable"}, Writers: []int{8}, Values: []int64{100},
		Mechanisms: []string{"fdatasync"}, Files: []string{"zeroed"},
	}
}

// orBase fills the axes that are not named.
func (a Axes) orBase() Axes {
	b := base()
	set(&b.Policies, a.Policies)
	set(&b.Levels, a.Levels)
	set(&b.Writers, a.Writers)
	set(&b.Values, a.Values)
	set(&b.Mechanisms, a.Mechanisms)
	set(&b.Files, a.Files)
	b.On = a.On
	return b
}

func set[T any](to *[]T, from []T) {
	if len(from) > 0 {
		*to = from
	}
}

// cells multiplies the axes out.
func (a Axes) cells() ([]Cell, error) {
	a = a.orBase()
	var out []Cell
	for _, m := range a.Mechanisms {
		for _, f := range a.Files {
			if f != "zeroed" && f != "growing" {
				return nil, fmt.Errorf("files %q are unknown; there are zeroed and growing", f)
			}
			for _, v := range a.Values {
				for _, w := range a.Writers {
					for _, l := range a.Levels {
						for _, name := range a.Policies {
							p, err := ParsePolicy(name)
							if err != nil {
								return nil, err
							}
							c := Cell{On: a.On, Policy: p, Level: l, Writers: w, Value: v, Mechanism: m, Growing: f == "growing"}
							if c.On == "" {
								c.On = OnStore
								if c.Growing || c.Mechanism != "fdatasync" {
									c.On = OnLog
								}
							}
							if err := c.check(); err != nil {
								return nil, err
							}
							out = append(out, c)
						}
					}
				}
			}
		}
	}
	return out, nil
}

// Section is a part of a run: cells that stand in one table.
type Section struct {
	Title string
	Cells []Cell
}

// Cross turns one axis at a time around the default: the quick run.
func Cross(on string) ([]Section, error) {
	parts := []struct {
		title string
		axes  Axes
	}{
		{"Policies, 8 writers, values of 100 bytes", Axes{Policies: AllPolicies, Levels: AllLevels}},
		{"Writers, durable", Axes{Policies: []string{"each", "group"}, Writers: AllWriters}},
		{"Writers, written", Axes{Policies: []string{"interval-10ms", "bytes-64KiB"}, Levels: []string{"written"}, Writers: AllWriters}},
		{"Values, 8 writers", Axes{Policies: []string{"group"}, Values: AllValues}},
		{"Values, 8 writers, written", Axes{Policies: []string{"interval-10ms"}, Levels: []string{"written"}, Values: AllValues}},
		{"Mechanisms, the log alone, durable", Axes{Mechanisms: AllMechanisms, Files: AllFiles, Writers: []int{1, 8, 64}, On: OnLog}},
	}
	var out []Section
	for _, p := range parts {
		if on != "" {
			p.axes.On = on
		}
		if p.axes.On == OnStore {
			p.axes.Files = nil
		}
		cells, err := p.axes.cells()
		if err != nil {
			return nil, err
		}
		out = append(out, Section{p.title, cells})
	}
	return out, nil
}

// Full is the whole matrix: on the store with the default mechanism, and on the
// log alone with each.
func Full(on string) ([]Section, error) {
	all := Axes{Policies: AllPolicies, Levels: AllLevels, Writers: AllWriters, Values: AllValues}
	var out []Section
	for _, where := range []string{OnStore, OnLog} {
		if on != "" && on != where {
			continue
		}
		a, title := all, "The store"
		a.On = where
		if a.Mechanisms = AllMechanisms; where == OnLog {
			a.Files, title = AllFiles, "The log alone"
		}
		cells, err := a.cells()
		if err != nil {
			return nil, err
		}
		out = append(out, Section{title, cells})
	}
	return out, nil
}
