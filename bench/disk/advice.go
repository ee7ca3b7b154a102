package disk

import (
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/forebaydb/forebay/bench/machine"
)

// Advice is what the results mean for a store.
type Advice struct {
	Kind string `json:"kind"` // "advice"
	// NotADisk says why there is none.
	NotADisk string `json:"not_a_disk,omitempty"`
	// Mechanism is that of forebay.Options to use, and LogAlign the alignment that
	// it needs.
	Mechanism string `json:"mechanism,omitempty"`
	LogAlign  int    `json:"log_align,omitempty"`
	// OneWriter and Writers64 are how many durable commits a second the disk
	// allows one writer, and 64 that share syncs.
	OneWriter float64 `json:"durable_per_s_1_writer,omitempty"`
	Writers64 float64 `json:"durable_per_s_64_writers,omitempty"`
	// Interval is the shortest interval of SyncInterval with which syncs take less
	// than about a tenth of the time.
	Interval time.Duration `json:"interval_ns,omitempty"`
	// Text says it in words, a paragraph each.
	Text []string `json:"text"`
}

// results finds results.
type results []Result

func (rs results) get(part, mechanism, file string, bytes, inFlight int) *Result {
	for i := range rs {
		r := &rs[i]
		if r.Part == part && r.Mechanism == mechanism && r.File == file && r.Bytes == bytes && r.InFlight == inFlight && r.Missing == "" {
			return r
		}
	}
	return nil
}

// candidates are the mechanisms of the store's log, the default first.
var candidates = []struct {
	mechanism, option string
	bytes, align      int
}{
	{Fdatasync, "Fdatasync", 512, 0},
	{DSync, "DSync", 512, 0},
	{DirectDSync, "DirectDSync", 4096, 4096},
	{DirectFdatasync, "Direct", 4096, 4096},
}

// worth is by how much another mechanism must be faster than the default.
const worth = 1.1

// Advise makes of results what somebody who has to choose wants to know.
func Advise(m *machine.Info, all []Result) Advice {
	rs, a := results(all), Advice{Kind: "advice", NotADisk: m.NotADisk}
	say := func(format string, args ...any) { a.Text = append(a.Text, fmt.Sprintf(format, args...)) }
	if m.NotADisk != "" {
		say("This is NOT A DISK: %s. The figures say nothing about durability. Name a directory on a disk with --dir.", m.NotADisk)
		return a
	}
	first := rs.get(PartSync, Fdatasync, Zeroed, 512, 1)
	if first == nil {
		say("There are no figures of %s on a file of zeros: no advice.", Fdatasync)
		return a
	}
	best := first
	a.Mechanism = candidates[0].option
	for _, c := range candidates[1:] {
		if r := rs.get(PartSync, c.mechanism, Zeroed, c.bytes, 1); r != nil && r.P50*worth < first.P50 && r.P50 < best.P50 {
			best, a.Mechanism, a.LogAlign = r, c.option, c.align
		}
	}
	a.OneWriter = best.PerS
	a.mechanism(rs, first, best, say)
	a.levels(rs, best, say)
	a.policy(best, say)
	a.doubts(best, say)
	return a
}

func (a *Advice) mechanism(rs results, first, best *Result, say func(string, ...any)) {
	switch {
	case best == first:
		say("Mechanism: leave it at Fdatasync. It makes a small record durable in %s (median; p99 %s), and nothing else is more than a tenth faster.", took(first.P50), took(first.P99))
	case a.LogAlign > 0:
		say("Mechanism: %s with LogAlign %d makes a small record durable in %s (median), where Fdatasync takes %s: %s commits a second for one writer, not %s. The price is a whole block of log for each group.", a.Mechanism, a.LogAlign, took(best.P50), took(first.P50), rate(1e6/best.P50), rate(1e6/first.P50))
	default:
		say("Mechanism: %s makes a small record durable in %s (median), where Fdatasync takes %s: %s commits a second for one writer, not %s.", a.Mechanism, took(best.P50), took(first.P50), rate(1e6/best.P50), rate(1e6/first.P50))
	}
	var worse []string
	whole := rs.get(PartSync, Fdatasync, Zeroed, 4096, 1)
	if whole == nil {
		return
	}
	for _, f := range []struct{ file, name string }{{Growing, "in a file that grows"}, {Fallocated, "in one of fallocate"}} {
		if r := rs.get(PartSync, Fdatasync, f.file, 4096, 1); r != nil {
			worse = append(worse, fmt.Sprintf("%s %s (%.1f times)", took(r.P50), f.name, r.P50/whole.P50))
		}
	}
	if len(worse) > 0 {
		say("Zeros ahead: Forebay fills its log files with zeros before it uses them. A fresh block of 4096 bytes takes %s then, and without %s.", took(whole.P50), strings.Join(worse, ", and "))
	}
	one := rs.get(PartFlight, Fdatasync, Zeroed, 4096, 1)
	if three := rs.get(PartFlight, Fdatasync, Zeroed, 4096, 3); one != nil && three != nil {
		say("In flight: three syncs at once on one file give %.1f times as many a second as one.", three.PerS/one.PerS)
	}
}

func (a *Advice) levels(rs results, best *Result, say func(string, ...any)) {
	say("Durable, one writer: each commit waits %s (median) to %s (p99). That made %s a second here, and may become %s where no sync is slower than the median.", took(best.P50), took(best.P99), rate(best.PerS), rate(1e6/best.P50))
	for i := range rs {
		if r := &rs[i]; r.Part == PartGroup && r.Records == 64 && r.Missing == "" {
			a.Writers64 = r.RecordS
			say("Durable, 64 writers: they share syncs (SyncGroup, the default). One sync of 64 records takes %s, so that the disk allows about %s commits a second; what a processor adds is not in it.", took(r.P50), rate(r.RecordS))
		}
	}
	if r := rs.get(PartWrite, NoSync, Zeroed, recordBytes, 1); r != nil {
		say("Written: a write without a sync takes %s, %s times less than a durable one. It survives a killed process, and a power cut takes what no sync has covered. Buffered costs no system call, and survives neither.", took(r.P50), number(best.P50/math.Max(r.P50, .01)))
	}
}

// policy recommends one, by what a durable commit costs.
func (a *Advice) policy(best *Result, say func(string, ...any)) {
	ten := time.Duration(10 * best.P50 * float64(time.Microsecond))
	a.Interval = 100 * time.Millisecond
	for _, d := range []time.Duration{time.Millisecond, 2 * time.Millisecond, 5 * time.Millisecond, 10 * time.Millisecond, 20 * time.Millisecond, 50 * time.Millisecond} {
		if d >= ten {
			a.Interval = d
			break
		}
	}
	loses := fmt.Sprintf("SyncInterval(%d ms) with level Written: a power cut takes about the last %d ms, and syncs take less than about a tenth of the time", a.Interval.Milliseconds(), a.Interval.Milliseconds())
	switch {
	case best.P50 < 2000:
		say("Policy: keep Durable and SyncGroup; %s a commit is cheap enough for most. Where the last moments may be lost: %s.", took(best.P50), loses)
	case best.P50 < 20_000:
		say("Policy: Durable and SyncGroup, and batches, or many writers that share a sync: at %s a sync one writer alone is slow. Where the last moments may be lost: %s.", took(best.P50), loses)
	default:
		say("Policy: at %s a sync this is a slow disk, or a busy one. Put what belongs together into one batch and commit from many writers. Where the last moments may be lost: %s.", took(best.P50), loses)
	}
}

// doubts says what looks wrong.
func (a *Advice) doubts(best *Result, say func(string, ...any)) {
	if best.P50 < 15 {
		say("Doubt: a sync in %s is faster than nearly all media. Does the drive have a protected cache, or does something between here and the medium (a virtual machine, a controller) say yes too early? Only a power cut will tell.", took(best.P50))
	}
	if best.Max > 100*best.P50 && best.Max > 50_000 {
		say("Doubt: the longest sync took %s, %s times the median: something else uses the disk, or it makes pauses. Run again on a quiet machine.", took(best.Max), number(best.Max/best.P50))
	}
}

// took prints microseconds.
func took(us float64) string {
	switch {
	case us < 10:
		return fmt.Sprintf("%.1f µs", us)
	case us < 1000:
		return fmt.Sprintf("%.0f µs", us)
	case us < 10_000:
		return fmt.Sprintf("%.1f ms", us/1e3)
	case us < 1e6:
		return fmt.Sprintf("%.0f ms", us/1e3)
	}
	return fmt.Sprintf("%.1f s", us/1e6)
}

// rate prints a number that was measured, with three digits at most.
func rate(n float64) string {
	switch {
	case n < 100:
		return fmt.Sprintf("%.0f", n)
	case n < 10_000:
		return number(math.Round(n/10) * 10)
	}
	return number(math.Round(n/1000) * 1000)
}

// number prints a whole number with commas.
func number(n float64) string {
	s := fmt.Sprintf("%.0f", n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
