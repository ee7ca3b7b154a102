package demo

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/cmd/forebay/internal/cli"
)

// result is the outcome, and its JSON form.
type result struct {
	Seed    uint64 `json:"seed"`
	Writers int    `json:"writers"`
	Level   string `json:"level"`
	Files   int    `json:"files"`
	Keys    int    `json:"keys"`
	Kills   int    `json:"kills"`

	// Acked puts and those of them that were lost; InFlight were there at a
	// reopening and not acknowledged; Extra should not have been there.
	Acked    int    `json:"acked"`
	Lost     int    `json:"lost"`
	InFlight int    `json:"in_flight"`
	Extra    int    `json:"extra"`
	Problem  string `json:"problem,omitempty"`

	WritesPerS      float64 `json:"writes_per_s"`
	MBPerS          float64 `json:"mb_per_s"`
	Fsyncs          int64   `json:"fsyncs"`
	RecordsPerFsync float64 `json:"records_per_fsync"`
	P50             uint32  `json:"p50_us"`
	P99             uint32  `json:"p99_us"`

	// Verdict is the worst of Recoveries; times and bytes are their sums.
	Verdict       string     `json:"verdict"`
	RecoveryMS    float64    `json:"recovery_ms"`
	ReplayedBytes int64      `json:"replayed_bytes"`
	Recoveries    []reopened `json:"recoveries"`

	DiskBytes int64   `json:"disk_bytes"`
	UserBytes int64   `json:"user_bytes"`
	Seconds   float64 `json:"seconds"`
	CPUs      int     `json:"cpus"`
	Platform  string  `json:"platform"`
	// Store is where it is, if it is kept.
	Store string `json:"store,omitempty"`
}

// reopened is what one reopening after a kill found.
type reopened struct {
	Verdict string  `json:"verdict"`
	MS      float64 `json:"ms"`
	Records uint64  `json:"records"`
	Bytes   int64   `json:"bytes"`
	Copied  uint64  `json:"copied"`
	Dropped int64   `json:"dropped"`
	File    string  `json:"file"`
	Offset  int64   `json:"offset"`
	Reason  string  `json:"reason,omitempty"`

	took time.Duration
}

func (r *result) reopened(rec forebay.Recovery) reopened {
	re := reopened{
		Verdict: rec.Verdict.String(), MS: float64(rec.Duration.Microseconds()) / 1e3, Records: rec.Replayed, Bytes: rec.ReplayedBytes,
		Copied: rec.Copied, Dropped: rec.Dropped, File: rec.File, Offset: rec.Offset, Reason: rec.Reason, took: rec.Duration,
	}
	r.Recoveries = append(r.Recoveries, re)
	r.RecoveryMS += re.MS
	r.ReplayedBytes += re.Bytes
	if re.Verdict == "torn" {
		r.Verdict = "torn"
	}
	return re
}

func (r *result) found(f *findings) {
	r.Lost += f.lost()
	r.InFlight += f.flight
	r.Extra += f.extra
	if r.Problem == "" {
		r.Problem = f.first
	}
}

// print writes the table.
func (r *result) print(w io.Writer) {
	torn := 0
	for _, re := range r.Recoveries {
		if re.Verdict == "torn" {
			torn++
		}
	}
	replayRate := 0.0
	if r.RecoveryMS > 0 {
		replayRate = float64(r.ReplayedBytes) / r.RecoveryMS / 1e3
	}
	rows := [][2]string{
		{"writes", fmt.Sprintf("%s/s, %.1f MB/s", cli.Count(int64(r.WritesPerS)), r.MBPerS)},
		{"fsyncs", fmt.Sprintf("%s, %.1f records each", cli.Count(r.Fsyncs), r.RecordsPerFsync)},
		{"put latency", fmt.Sprintf("p50 %s, p99 %s", micros(r.P50), micros(r.P99))},
		{"kills", cli.Count(r.Kills)},
		{"log replayed", fmt.Sprintf("%s in %.0f ms, %.0f MB/s", cli.Bytes(r.ReplayedBytes), r.RecoveryMS, replayRate)},
		{"verdicts", fmt.Sprintf("%d clean, %d torn", len(r.Recoveries)-torn, torn)},
		{"acknowledged", cli.Count(r.Acked)},
		{"under way", fmt.Sprintf("%s at the kills, there and whole", cli.Count(r.InFlight))},
		{"lost", cli.Count(r.Lost)},
		{"disk used", fmt.Sprintf("%s for %s of user data (%.2f×)", cli.Bytes(r.DiskBytes), cli.Bytes(r.UserBytes), ratio(r.DiskBytes, r.UserBytes))},
	}
	title := fmt.Sprintf("seed %d, %d writers, %s, %s, %d CPUs, %.1f s in all", r.Seed, r.Writers, r.Level, r.Platform, r.CPUs, r.Seconds)
	rule := strings.Repeat("─", 62)
	fmt.Fprintf(w, "\n  %s\n  %s\n", title, rule)
	for _, row := range rows {
		fmt.Fprintf(w, "  %-14s%s\n", row[0], row[1])
	}
	fmt.Fprintf(w, "  %s\n", rule)
}

func micros(us uint32) string { return cli.Duration(time.Duration(us) * time.Microsecond) }

func ratio[T ~int64](a, b T) float64 {
	if b == 0 {
		return 0
	}
	return float64(a) / float64(b)
}

// percentiles returns the 50th and the 99th.
func percentiles(us []uint32) (p50, p99 uint32) {
	if len(us) == 0 {
		return 0, 0
	}
	s := slices.Sorted(slices.Values(us))
	return s[len(s)*50/100], s[len(s)*99/100]
}
