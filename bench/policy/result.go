package policy

import (
	"fmt"
	"slices"
	"time"
)

// Result is what one cell measured; its JSON form is one line of the output.
// Rates and latencies are those of the window behind the warm-up, which is
// Seconds long.
type Result struct {
	Kind       string  `json:"kind"` // "fsync"
	Cell       string  `json:"cell"`
	Section    string  `json:"section,omitempty"`
	Repetition int     `json:"repetition"`
	On         string  `json:"on"`
	Policy     string  `json:"policy"`
	Level      string  `json:"level"`
	Writers    int     `json:"writers"`
	Value      int64   `json:"value_bytes"`
	Mechanism  string  `json:"mechanism"`
	Files      string  `json:"files"`
	Seconds    float64 `json:"seconds"`
	Ops        int64   `json:"ops"`
	OpsPerS    float64 `json:"ops_per_s"`
	// MBPerS counts keys and values, in 10⁶ bytes.
	MBPerS float64 `json:"mb_per_s"`
	P50    float64 `json:"p50_us"`
	P95    float64 `json:"p95_us"`
	P99    float64 `json:"p99_us"`
	P999   float64 `json:"p999_us"`
	Max    float64 `json:"max_us"`
	// Syncs are those that made records durable, and writes that are syncs; not
	// those of new files.
	SyncsPerS      float64 `json:"syncs_per_s"`
	RecordsPerSync float64 `json:"records_per_sync"`
	BytesPerSync   float64 `json:"bytes_per_sync"`
	SyncP50        float64 `json:"sync_p50_us"`
	SyncMax        float64 `json:"sync_max_us"`
	// WriteAmp is bytes written to log files per byte of keys and values, and
	// ZeroAmp bytes of zeros that files were filled with ahead.
	WriteAmp float64 `json:"write_amplification"`
	ZeroAmp  float64 `json:"zero_amplification"`
	// PowerCut and Kill are the acknowledged writes that a simulated power cut
	// and a killed process lose.
	PowerCut Losses `json:"power_cut"`
	Kill     Losses `json:"kill"`
	// Promise is what the contract says of a power cut. Broken says how it was
	// not kept, and then something is wrong with the engine or with this tool.
	Promise string `json:"promise"`
	Broken  string `json:"broken,omitempty"`
	// PerSecond has the syncs of each second, where the run was long enough.
	PerSecond []Second `json:"per_second,omitempty"`
}

// Second are the syncs of one second of the window.
type Second struct {
	Second int     `json:"second"`
	Syncs  int     `json:"syncs"`
	P50    float64 `json:"p50_us"`
	Max    float64 `json:"max_us"`
	Ops    int64   `json:"ops"`
}

// measured is what a run left.
type measured struct {
	acks     [][]int64 // by writer
	from, to int64
	watch    *watch
}

// result makes the figures of a run.
func (m *measured) result(c *Cell, cuts int, seed uint64) Result {
	r := Result{
		Kind: "fsync", Cell: c.Name(), On: c.On, Policy: c.Policy.Name, Level: c.Level, Writers: c.Writers, Value: c.Value,
		Mechanism: c.Mechanism, Files: c.files(), Seconds: float64(m.to-m.from) / 1e9,
	}
	m.latencies(&r)
	m.syncs(&r)
	t := m.watch.timeline(m.acks, m.from, m.to)
	at := t.Moments(cuts, seed)
	r.PowerCut, r.Kill = sum(t.PowerCuts(at)), sum(t.Kills(at))
	m.promise(c, &r)
	return r
}

// latencies fills in what the writers saw. In a closed loop a write begins when
// the one before it is acknowledged.
func (m *measured) latencies(r *Result) {
	var all []int64
	perSecond := make([]int64, int(r.Seconds)+1)
	for _, acks := range m.acks {
		for i := 1; i < len(acks); i++ {
			if acks[i] > m.from && acks[i] <= m.to {
				all = append(all, acks[i]-acks[i-1])
				perSecond[(acks[i]-m.from)/int64(time.Second)]++
			}
		}
	}
	slices.Sort(all)
	r.Ops = int64(len(all))
	r.OpsPerS = float64(r.Ops) / r.Seconds
	r.MBPerS = r.OpsPerS * float64(r.Value+keySize) / 1e6
	r.P50, r.P95, r.P99, r.P999, r.Max = at(all, .5), at(all, .95), at(all, .99), at(all, .999), at(all, 1)
	if r.Seconds >= 5 {
		for i, n := range perSecond[:int(r.Seconds)] {
			r.PerSecond = append(r.PerSecond, Second{Second: i + 1, Ops: n})
		}
	}
}

// at returns a quantile of sorted nanoseconds, in microseconds.
func at(sorted []int64, q float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	i := int(q*float64(len(sorted)) + .5)
	return float64(sorted[min(max(i-1, 0), len(sorted)-1)]) / 1e3
}

// syncs fills in what the log did.
func (m *measured) syncs(r *Result) {
	w := m.watch
	w.mu.Lock()
	defer w.mu.Unlock()
	var took []int64
	var records, bytes int64
	each := make([][]int64, len(r.PerSecond))
	for _, e := range w.syncs {
		if e.at <= m.from || e.at > m.to {
			continue
		}
		took = append(took, e.at-e.from)
		records += e.records
		bytes += e.bytes
		if s := int((e.at - m.from) / int64(time.Second)); s < len(each) {
			each[s] = append(each[s], e.at-e.from)
		}
	}
	slices.Sort(took)
	n := float64(len(took))
	r.SyncsPerS, r.SyncP50, r.SyncMax = n/r.Seconds, at(took, .5), at(took, 1)
	if n > 0 {
		r.RecordsPerSync, r.BytesPerSync = float64(records)/n, float64(bytes)/n
	}
	for i, s := range each {
		slices.Sort(s)
		r.PerSecond[i].Syncs, r.PerSecond[i].P50, r.PerSecond[i].Max = len(s), at(s, .5), at(s, 1)
	}
	if user := float64(r.Ops * (r.Value + keySize)); user > 0 {
		r.WriteAmp, r.ZeroAmp = float64(m.inWindow(w.writes))/user, float64(m.inWindow(w.zeroed))/user
	}
}

func (m *measured) inWindow(events []writeEvent) (bytes int64) {
	for _, e := range events {
		if e.at > m.from && e.at <= m.to {
			bytes += e.bytes
		}
	}
	return bytes
}

// promise says what the contract has for a power cut, and whether it was kept.
func (m *measured) promise(c *Cell, r *Result) {
	lost := r.PowerCut.Records[2] > 0
	switch {
	case c.Level == "durable":
		r.Promise = "nothing is lost"
		if lost {
			r.Broken = fmt.Sprintf("a power cut lost %d durable writes", r.PowerCut.Records[2])
		}
	case c.Policy.Interval > 0:
		r.Promise = fmt.Sprintf("what is older than %v, and than the sync, the write or the new file that the log was busy with, is not lost", c.Policy.Interval)
	case c.Policy.Bytes > 0:
		r.Promise = fmt.Sprintf("at most %s and one group are lost", size(c.Policy.Bytes))
	default:
		r.Promise = "all since the last sync may be lost"
	}
	if c.Level != "buffered" && r.Kill.Records[2] > 0 {
		r.Broken = fmt.Sprintf("a kill lost %d writes of level %s", r.Kill.Records[2], c.Level)
	}
}
