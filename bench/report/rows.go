// Package report writes docs/benchmarks.md from what the workload benchmark
// printed: every row of the table of what is wanted, the cells that are lost as
// plainly as those that are won.
package report

import (
	"math"
	"slices"

	"github.com/forebaydb/forebay/bench/workload"
)

// row is one line of the table of what is wanted: one cell, and what Forebay is to
// reach in it.
type row struct {
	title string
	cell  string
	// ratio is how many times better than the best peer it is to be; peer, if not
	// "", is the one that counts.
	ratio float64
	peer  string
	// ofLimit is the share of the best of limits that is to be reached, by the lower
	// confidence bound; most is a bound of the value itself.
	ofLimit float64
	most    float64
	// tail: the p99 must also be at or below the best peer's.
	tail bool
	// limits are cells of the machine that are shown beside.
	limits []string
}

// turnLimits are what those who take turns with Forebay reach.
var turnLimits = []string{
	"durable-turns-1-limit-fdatasync", "durable-turns-1-limit-dsync", "durable-turns-1-limit-direct", "durable-turns-1-limit-direct-dsync",
}

// rows are what docs/benchmarks.md shows first, in this order.
var rows = []row{
	{title: "durable put, 1 goroutine", cell: "durable-turns-1", ofLimit: .95, limits: turnLimits},
	{title: "durable put, 1 goroutine, Options.Mechanism Direct", cell: "durable-turns-1-direct", ofLimit: .95, limits: turnLimits},
	{title: "durable put, 1 goroutine, Options.Mechanism DirectDSync", cell: "durable-turns-1-direct-dsync", ofLimit: .95, limits: turnLimits},
	{title: "durable put, 1 goroutine, beside the peers", cell: "durable-put-1", ratio: 1},
	{title: "durable put, 8", cell: "durable-put-8", ratio: 1.5, limits: []string{"limit-group-8", "limit-group-8-hold"}},
	{title: "durable put, 64", cell: "durable-put-64", ratio: 2.2, tail: true, limits: []string{"limit-group-64", "limit-group-64-hold"}},
	{title: "durable put, 256", cell: "durable-put-256", ratio: 2.2, limits: []string{"limit-group-256", "limit-group-256-hold"}},
	{title: "durable batches of 1,000", cell: "durable-batch-1000-1", ratio: 2, limits: []string{"limit-write-1m", "limit-write-1m-direct"}},
	{title: "durable batches of 100, 8 goroutines", cell: "durable-batch-100-8", ratio: 2, limits: []string{"limit-write-1m", "limit-write-1m-direct"}},
	{title: "fillseq, Buffered", cell: "fillseq-buffered", ratio: 2, peer: "pebble", limits: []string{"limit-map-insert"}},
	{title: "fillrandom, Buffered", cell: "fillrandom-buffered", ratio: 2.5, peer: "pebble", limits: []string{"limit-map-insert"}},
	{title: "fillseq, Written", cell: "fillseq-written", ratio: 1.5, peer: "goleveldb", limits: []string{"limit-pwrite"}},
	{title: "fillrandom, Written", cell: "fillrandom-written", ratio: 1.5, peer: "goleveldb", limits: []string{"limit-pwrite"}},
	{title: "overwrite, 1, Buffered", cell: "overwrite-1-buffered", ratio: 2},
	{title: "overwrite, 8, Buffered", cell: "overwrite-8-buffered", ratio: 2},
	{title: "overwrite, 1, Written", cell: "overwrite-1-written", ratio: 2},
	{title: "overwrite, 8, Written", cell: "overwrite-8-written", ratio: 2},
	{title: "readrandom, 1", cell: "readrandom-1", ratio: 1.5, limits: []string{"limit-misses"}},
	{title: "readrandom, 8", cell: "readrandom-8", ratio: 1.5},
	{title: "readmissing, 1", cell: "readmissing-1", ratio: 2},
	{title: "readmissing, 8", cell: "readmissing-8", ratio: 2},
	{title: "readhot, 1", cell: "readhot-1", ratio: 1.5},
	{title: "readhot, 8", cell: "readhot-8", ratio: 1.5},
	{title: "full scan forward", cell: "scan-forward", ratio: 1, limits: []string{"limit-memory"}},
	{title: "full scan reverse", cell: "scan-reverse", ratio: 1, limits: []string{"limit-memory"}},
	{title: "seek + 100 next, 1", cell: "seek100-1", ratio: 1.5},
	{title: "seek + 100 next, 8", cell: "seek100-8", ratio: 1.5},
	{title: "YCSB A, Buffered", cell: "ycsb-a-buffered", ratio: 2},
	{title: "YCSB A, Written", cell: "ycsb-a-written", ratio: 2},
	{title: "YCSB B, Buffered", cell: "ycsb-b-buffered", ratio: 2},
	{title: "YCSB B, Written", cell: "ycsb-b-written", ratio: 2},
	{title: "YCSB C", cell: "ycsb-c", ratio: 1.3},
	{title: "YCSB D, Buffered", cell: "ycsb-d-buffered", ratio: 2},
	{title: "YCSB D, Written", cell: "ycsb-d-written", ratio: 2},
	{title: "YCSB E, Buffered", cell: "ycsb-e-buffered", ratio: 1.3},
	{title: "YCSB E, Written", cell: "ycsb-e-written", ratio: 1.3},
	{title: "YCSB F, Buffered", cell: "ycsb-f-buffered", ratio: 2},
	{title: "YCSB F, Written", cell: "ycsb-f-written", ratio: 2},
	{title: "YCSB A durable, 64", cell: "ycsb-a-durable-64", ratio: 2},
	{title: "recovery of an unflushed log", cell: "recovery", ratio: 10, peer: "pebble"},
	{title: "clean reopen of 1M records", cell: "reopen", most: 5},
	{title: "disk after a settled load", cell: "load-settle-space", most: .60},
	{title: "bytes written, load and settle", cell: "load-settle-written", ratio: 1, peer: "goleveldb"},
	{title: "bytes written, load and settle, with compressed frames", cell: "load-settle-frames-written", most: 1.8},
	{title: "peak memory, anonymous", cell: "memory-rss-anon", ratio: 1, peer: "pebble"},
	{title: "values of 1 KiB, fillrandom, Buffered", cell: "fillrandom-1K-buffered", ratio: 2, limits: []string{"limit-write-1m"}},
	{title: "values of 1 KiB, fillrandom, Written", cell: "fillrandom-1K-written", ratio: 2, limits: []string{"limit-write-1m"}},
	{title: "values of 16 KiB, fillrandom, Buffered", cell: "fillrandom-16K-buffered", ratio: 1.3, limits: []string{"limit-write-1m"}},
	{title: "values of 16 KiB, fillrandom, Written", cell: "fillrandom-16K-written", ratio: 1.3, limits: []string{"limit-write-1m"}},
	{title: "values of 1 KiB, readrandom", cell: "readrandom-1K", ratio: 1.2},
	{title: "values of 16 KiB, readrandom", cell: "readrandom-16K", ratio: 1.2},
	{title: "10M records, load", cell: "grow-load", ratio: 1.5},
	{title: "10M records, readrandom", cell: "grow-readrandom-1", ratio: 1.2},
	{title: "10M records, scan", cell: "grow-scan", ratio: 1, limits: []string{"limit-memory"}},
	{title: "50M records, load", cell: "grow-load-max", ratio: 1.5},
	{title: "wal/: append of 128 B, no sync", cell: "wal-append-buffered", ratio: 1, peer: "pebble"},
	{title: "wal/: replay, 128 B", cell: "wal-replay-128", ratio: 1, peer: "pebble"},
	{title: "wal/: replay, 64 KiB", cell: "wal-replay-65536", ratio: 1, peer: "pebble"},
}

// verdict is what became of a row.
type verdict uint8

const (
	absent verdict = iota // not measured
	reached
	missed
)

// outcome is a row with its figures.
type outcome struct {
	row
	home, best *workload.Figure // best is the peer that counts
	ratio      float64          // to the peer; NaN: none
	share      float64          // of the limit; NaN: none
	bound      float64          // lower confidence bound of share; NaN: too few pairs
	pairs      int
	limit      *workload.Figure // the best of the limits
	verdict    verdict
}

// judge compares a row with what was measured.
func judge(r row, cells map[string][]*workload.Figure, results []workload.Result) outcome {
	o := outcome{row: r, share: math.NaN(), bound: math.NaN()}
	among := cells[r.cell]
	if r.peer != "" {
		among = slices.DeleteFunc(slices.Clone(among), func(f *workload.Figure) bool {
			return f.Engine != workload.Home && f.Engine != r.peer
		})
	}
	o.ratio, o.home, o.best = workload.Ratio(among)
	for _, l := range r.limits {
		for _, f := range cells[l] {
			if f.N > 0 && (o.limit == nil || f.Median > o.limit.Median) {
				o.limit = f
			}
		}
	}
	if o.home == nil {
		return o
	}
	ok := true
	switch {
	case r.ofLimit > 0:
		if o.limit == nil {
			return o
		}
		o.share = o.home.Median / o.limit.Median
		o.bound, o.pairs = lowerBound(r.cell, o.limit.Cell, results)
		// Without enough pairs nothing is claimed.
		ok = o.bound >= r.ofLimit
	case r.most > 0:
		ok = o.home.Median <= r.most
	case o.best == nil:
		return o
	default:
		ok = o.ratio >= r.ratio
	}
	if r.tail && o.best != nil {
		ok = ok && o.home.P99 <= o.best.P99
	}
	if o.verdict = missed; ok {
		o.verdict = reached
	}
	return o
}

// lowerBound returns the lower bound, at 95 % and whatever the distribution, of
// the median of the ratios of Forebay to a limit, pair by pair; NaN if there are
// fewer than ten pairs. It also returns how many there are. A pair is a round of
// those who take turns, else a repetition.
func lowerBound(cell, limit string, results []workload.Result) (bound float64, pairs int) {
	type pair struct{ repetition, round int }
	home, limits := map[pair]float64{}, map[pair]float64{}
	for _, r := range results {
		into := limits
		switch {
		case r.Error != "":
			continue
		case r.Cell == cell && r.Engine == workload.Home:
			into = home
		case r.Cell != limit:
			continue
		}
		if len(r.Rounds) == 0 {
			into[pair{r.Repetition, 0}] = r.Value
		}
		for i, rate := range r.Rounds {
			into[pair{r.Repetition, i}] = rate
		}
	}
	var ratios []float64
	for k, v := range home {
		if l := limits[k]; l > 0 {
			ratios = append(ratios, v/l)
		}
	}
	slices.Sort(ratios)
	n := len(ratios)
	if n < 10 {
		return math.NaN(), n
	}
	// The k-th smallest is above the median with the probability that at most k-1 of
	// n throws of a coin are heads.
	k, p, sum := 0, math.Pow(.5, float64(n)), 0.0
	for ; k < n; k++ {
		if sum += p; sum > .05 {
			break
		}
		p *= float64(n-k) / float64(k+1)
	}
	return ratios[max(k-1, 0)], n
}
