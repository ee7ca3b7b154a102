package workload

import (
	"fmt"
	"path"
	"strings"
	"time"

	"github.com/forebaydb/forebay/bench/engines"
)

// Scale says how long and how large loads are.
type Scale struct {
	Quick bool `json:"quick,omitempty"`
	// Write is how long loads and overwrites run at least, WriteLimit at most; in
	// between they go on until they have written Checkpoints memtables.
	Write       time.Duration `json:"write"`
	WriteLimit  time.Duration `json:"write_limit"`
	Checkpoints int           `json:"checkpoints"`
	// Mixed is how long loads of reads and writes run.
	Mixed time.Duration `json:"mixed"`
	// Read is how long reads run, Warm how long a load runs before it is counted,
	// Open how long each rate of an open loop, Long the longest cells.
	Read time.Duration `json:"read"`
	Warm time.Duration `json:"warm"`
	Open time.Duration `json:"open"`
	Long time.Duration `json:"long"`
	// Records of a load, and of the larger ones by which growth is seen; 0: those
	// cells are left out.
	Records int64 `json:"records"`
	Grow    int64 `json:"grow"`
	GrowMax int64 `json:"grow_max"`
	// LimitBytes is the size of the files and blocks of the cells of the machine.
	LimitBytes int64 `json:"limit_bytes"`
	// MostBytes of records that one load writes, so that a disk is not filled.
	MostBytes int64 `json:"most_bytes"`
	// LogBytes that a recovery finds, at least.
	LogBytes int64 `json:"log_bytes"`
	// Memtable and Cache in bytes; 0: the budget of package engines.
	Memtable int64 `json:"memtable,omitempty"`
	Cache    int64 `json:"cache,omitempty"`
}

// Full is for figures that are told to others.
func Full() Scale {
	return Scale{
		Write: 30 * time.Second, WriteLimit: time.Minute, Checkpoints: 10, Mixed: 10 * time.Second,
		Read: 5 * time.Second, Warm: 2 * time.Second, Open: 5 * time.Second, Long: 10 * time.Minute,
		Records: 1_000_000, Grow: 10_000_000, GrowMax: 50_000_000, LogBytes: 512 << 20, MostBytes: 10 << 30, LimitBytes: 256 << 20,
	}
}

// Quick is for development: a cell takes some seconds.
func Quick() Scale {
	return Scale{
		Quick: true,
		Write: 3 * time.Second, WriteLimit: 3 * time.Second, Mixed: 3 * time.Second,
		Read: 1500 * time.Millisecond, Warm: 500 * time.Millisecond, Open: 1500 * time.Millisecond, Long: 10 * time.Second,
		Records: 1_000_000, Grow: 3_000_000, LogBytes: 64 << 20, MostBytes: 2 << 30, LimitBytes: 64 << 20,
	}
}

// Cell is one load, to be run on every engine that can.
type Cell struct {
	Name  string
	About string
	// Level of its writes. Any: each engine's weakest, which is told with the result.
	Level engines.Level
	Any   bool
	// Limit: a cell of the machine, without an engine.
	Limit bool
	// Load, if not nil, is what the store holds when the cell begins, settled.
	// Changes: the cell writes, and gets a copy.
	Load    func(s Scale) load
	Changes bool
	// Compressed: the engine also compresses its log. Forebay alone is asked to.
	Compressed bool
	// Needs says why an engine that has the level is left out all the same; "": it
	// is not.
	Needs func(e *engines.Engine) string
	// Absent says that the scale has no such cell.
	Absent func(s Scale) bool

	run func(t *trial) error
}

// load is a store that read cells share.
type load struct {
	Records int64 `json:"records"`
	Key     int   `json:"key"`
	Value   int   `json:"value"`
}

func (l load) data() dataset { return dataset{l.Key, l.Value} }
func (l load) String() string {
	return fmt.Sprintf("%d-records-of-%d-and-%d", l.Records, l.Key, l.Value)
}

// plain is the record of nearly all cells.
var plain = dataset{keySize: KeySize, valueSize: 100}

func plainLoad(s Scale) load { return load{s.Records, KeySize, plain.valueSize} }

// Cells returns all cells, in the order in which they run.
func Cells() []Cell {
	var all []Cell
	for _, some := range [][]Cell{limitCells(), turnCells(), writeCells(), readCells(), ycsbCells(), valueCells(), lifeCells(), restCells(), growCells()} {
		all = append(all, some...)
	}
	return all
}

// Select returns the cells whose names match one of the globs (path.Match; "all"
// is all of them), in their order.
func Select(globs []string) ([]Cell, error) {
	var out []Cell
	used := make([]bool, len(globs))
	for _, c := range Cells() {
		take := false
		for i, g := range globs {
			ok, err := path.Match(g, c.Name)
			if err != nil {
				return nil, fmt.Errorf("workload %q is no pattern: %w", g, err)
			}
			if ok || g == "all" {
				used[i], take = true, true
			}
		}
		if take {
			out = append(out, c)
		}
	}
	for i, g := range globs {
		if !used[i] {
			return nil, fmt.Errorf("no workload matches %q; `forebay bench run --list` has their names", g)
		}
	}
	return out, nil
}

// ofHome is the Needs of a cell that compares Forebay with itself, or the machine.
func ofHome(e *engines.Engine) string {
	if e.Name != Home {
		return "it is of " + Home + " alone"
	}
	return ""
}

// leftOut says why an engine does not run a cell; "": it does.
func (c *Cell) leftOut(e *engines.Engine) string {
	if !c.Any && !c.Limit && !e.Has(c.Level) {
		return "it has no level " + c.Level.String()
	}
	if c.Needs != nil {
		return c.Needs(e)
	}
	return ""
}

// levelOf returns the level at which an engine runs the cell.
func (c *Cell) levelOf(e *engines.Engine) engines.Level {
	if c.Any {
		return e.Weakest()
	}
	return c.Level
}

func suffix(parts ...any) string {
	s := make([]string, len(parts))
	for i, p := range parts {
		s[i] = fmt.Sprint(p)
	}
	return strings.Join(s, "-")
}
