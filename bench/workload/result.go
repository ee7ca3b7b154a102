package workload

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/forebaydb/forebay/bench/machine"
)

// Result is one line of the output: what one cell gave with one engine in one
// repetition. Figures that a cell does not have are absent.
type Result struct {
	Cell       string `json:"cell"`
	Engine     string `json:"engine"`
	Repetition int    `json:"repetition"`
	Quick      bool   `json:"quick,omitempty"`

	// Value is the figure by which engines are compared, in Unit; higher is better
	// unless Lower.
	Value float64 `json:"value"`
	Unit  string  `json:"unit"`
	Lower bool    `json:"lower_is_better,omitempty"`

	OpsPerS     float64 `json:"ops_per_s"`
	RecordsPerS float64 `json:"records_per_s,omitempty"`
	MBPerS      float64 `json:"mb_per_s,omitempty"`
	P50         float64 `json:"p50_us"`
	P95         float64 `json:"p95_us"`
	P99         float64 `json:"p99_us"`
	P999        float64 `json:"p999_us"`
	Max         float64 `json:"max_us"`
	// TimedEvery: the latency of one operation in so many was taken.
	TimedEvery int `json:"timed_every,omitempty"`
	// WorstSecond is the least number of operations in a whole second.
	WorstSecond *float64 `json:"worst_second_ops,omitempty"`

	// SyncsPerOp counts the engine's syncs, null where they cannot be counted
	// honestly; FlushesPerOp the flushes that the device got meanwhile, of
	// whomever.
	SyncsPerOp   *float64 `json:"syncs_per_op"`
	FlushesPerOp *float64 `json:"device_flushes_per_op,omitempty"`

	Level   string  `json:"level,omitempty"`
	Promise string  `json:"promise,omitempty"`
	Ops     int64   `json:"ops"`
	Seconds float64 `json:"seconds"`
	// Rounds are the rates of each turn, in operations a second, where several take
	// turns in one cell.
	Rounds []float64 `json:"rounds,omitempty"`
	// OfferedPerS is the rate of arrivals of an open loop.
	OfferedPerS float64 `json:"offered_per_s,omitempty"`

	// Bytes: what the user wrote, and what the process did (/proc/self/io).
	UserBytes    int64 `json:"user_bytes,omitempty"`
	WrittenBytes int64 `json:"written_bytes,omitempty"`
	// Peak resident memory of the process, and what it had before the store was
	// opened (RssAnon, RssFile of /proc/self/status), in bytes.
	PeakAnon   int64 `json:"peak_rss_anon,omitempty"`
	PeakFile   int64 `json:"peak_rss_file,omitempty"`
	BeforeAnon int64 `json:"before_rss_anon,omitempty"`

	Note  string `json:"note,omitempty"`
	Error string `json:"error,omitempty"`

	// Commit is Forebay's, by the Machine before it.
	Commit string `json:"-"`
}

// Machine says where and with what results were made; it is the first line.
type Machine struct {
	Time    string            `json:"time"`
	Quick   bool              `json:"quick"`
	Command string            `json:"command"`
	Engines map[string]string `json:"engines"` // and their versions
	machine.Info
}

// line is either of the two.
type line struct {
	Machine *Machine `json:"machine"`
	Result
}

// Read reads JSON lines as Run writes them. Of several machines it returns the
// last. Empty lines are passed over.
func Read(r io.Reader) (Machine, []Result, error) {
	var (
		m   Machine
		out []Result
	)
	s := bufio.NewScanner(r)
	s.Buffer(nil, 1<<20)
	for n := 1; s.Scan(); n++ {
		text := strings.TrimSpace(s.Text())
		if text == "" {
			continue
		}
		var l line
		if err := json.Unmarshal([]byte(text), &l); err != nil {
			return m, nil, fmt.Errorf("line %d is no result: %w", n, err)
		}
		switch {
		case l.Machine != nil:
			m = *l.Machine
		case l.Cell != "":
			l.Commit = m.Commit
			out = append(out, l.Result)
		}
	}
	return m, out, s.Err()
}
