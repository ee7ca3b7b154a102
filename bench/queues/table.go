package main

import (
	"fmt"
	"io"
	"strings"
)

// wanted is by how much Forebay is to be ahead of the best peer.
const wanted = 5

// writeTable writes the document: who is ahead, every cell, and what each engine
// promises.
func writeTable(w io.Writer, m Machine, results []Result) error {
	out := &strings.Builder{}
	fmt.Fprint(out, "# Queues\n\n<!-- Written by bench/queues. -->\n\n```\n")
	// A Builder takes everything.
	_ = m.Write(out)
	fmt.Fprintf(out, "time         %s\n```\n\n", m.Time)
	fmt.Fprintf(out, "`%s`: %d repetitions, interleaved, of %g seconds, or as long as 500,000 messages for each of them last, of which the first tenth is not counted; each cell of each repetition in a process of its own, in an empty directory. Messages have %d bytes. A figure is the median of the repetitions, and ± half of what lies between the least and the greatest. Of a full cell at most %s messages are in the queue at once. Every message that was put in was looked for by its number when it came out: a loss fails a cell; the column 'again' counts those that came more than once.\n\n", m.Command, m.Repetitions, m.Seconds, messageSize, count(outstanding))
	list := engines()
	summary(out, list, results)
	for _, c := range cells() {
		cellTable(out, c, list, results)
	}
	who(out, m, list)
	_, err := io.WriteString(w, out.String())
	return err
}

// figures returns those of one cell that there are.
func figures(c Cell, list []*Engine, results []Result) (out []figure) {
	for _, e := range list {
		if f := figureOf(e, c.Name, results); f.ran() {
			out = append(out, f)
		}
	}
	return out
}

// sides returns Forebay's figure, the best of the peers and the disk's limit; nil:
// there is none.
func sides(list []figure) (home, best, limit *figure) {
	for i := range list {
		f := &list[i]
		switch {
		case f.n == 0:
		case f.engine.Name == Home:
			home = f
		case f.engine.Limit:
			limit = f
		case best == nil || f.median > best.median:
			best = f
		}
	}
	return home, best, limit
}

func summary(w io.Writer, list []*Engine, results []Result) {
	fmt.Fprint(w, "## Messages a second\n\n| cell | Forebay | best peer | ratio | ")
	fmt.Fprintf(w, "%d×? | limit of the disk |\n|---|---:|---:|---:|---|---:|\n", wanted)
	for _, c := range cells() {
		home, best, _ := sides(figures(c, list, results))
		if home == nil && best == nil {
			continue
		}
		ratio, verdict := "", ""
		if home != nil && best != nil {
			r := home.median / best.median
			ratio, verdict = fmt.Sprintf("%.2f×", r), "yes"
			if r < wanted {
				verdict = "**no**"
			}
		}
		name := ""
		if best != nil {
			name = best.engine.Name + " "
		}
		fmt.Fprintf(w, "| %s | %s | %s%s | %s | %s | %s |\n", c.About, rate(home), name, rate(best), ratio, verdict, rate(limitOf(c, list, results)))
	}
	fmt.Fprint(w, "\nThe limit of the disk is that of one who waits for each call: a write and a sync, one after another. No queue passes it with one producer, and none can be several times ahead of one that comes near it. Many producers share syncs, where the queue lets them.\n\n")
}

// limitOf returns the disk's limit for a cell of one producer, who makes as many
// calls, whatever workers do at the same time; nil: it is not known, or there are
// many producers, who can share syncs.
func limitOf(c Cell, list []*Engine, results []Result) *figure {
	if c.Producers > 1 {
		return nil
	}
	for _, other := range cells() {
		if other.limited && other.Batch == c.Batch {
			_, _, limit := sides(figures(other, list, results))
			return limit
		}
	}
	return nil
}

func cellTable(w io.Writer, c Cell, list []*Engine, results []Result) {
	got := figures(c, list, results)
	if len(got) == 0 {
		return
	}
	home, _, _ := sides(got)
	call := "call"
	if c.Batch > 1 {
		call = fmt.Sprintf("call of %d", c.Batch)
	}
	fmt.Fprintf(w, "### %s\n\n%s%s. Latencies in µs: of the producer's %s", c.Name, strings.ToUpper(c.About[:1]), c.About[1:], call)
	if c.Consume {
		fmt.Fprint(w, ", and from before it to the durable acknowledgement of the consumed message, with its wait in the queue")
	}
	fmt.Fprint(w, ".\n\n| engine | messages/s | | p50 | p99 | to ack p50 | to ack p99 | messages | again | Forebay is |\n|---|---:|---|---:|---:|---:|---:|---:|---:|---:|\n")
	var failed []string
	for i := range got {
		f := &got[i]
		for _, e := range f.errors {
			failed = append(failed, f.engine.Name+": "+e)
		}
		if f.n == 0 {
			fmt.Fprintf(w, "| %s | **failed** | | | | | | | | |\n", f.engine.Name)
			continue
		}
		done := " | "
		if c.Consume {
			done = count(f.doneP50) + " | " + count(f.doneP99)
		}
		against := ""
		if home != nil && f != home && f.median > 0 {
			against = fmt.Sprintf("%.2f×", home.median/f.median)
		}
		fmt.Fprintf(w, "| %s | %s | ±%.0f %% | %s | %s | %s | %s | %d | %s |\n", f.engine.Name, count(f.median), f.spread(), count(f.p50), count(f.p99), done, count(float64(f.messages)), f.duplicates, against)
	}
	fmt.Fprintln(w)
	for _, e := range failed {
		e, _, _ = strings.Cut(e, "\n")
		fmt.Fprintf(w, "- FAILED: %s\n", e)
	}
	if len(failed) > 0 {
		fmt.Fprintln(w)
	}
}

// who says what each engine is and promises.
func who(w io.Writer, m Machine, list []*Engine) {
	fmt.Fprint(w, "## Engines\n\n| engine | version | an enqueue that has returned is | an acknowledged message is | set-up |\n|---|---|---|---|---|\n")
	for _, e := range list {
		version, ran := m.Engines[e.Name]
		if why, ok := m.Absent[e.Name]; ok {
			version = "not run: " + why
		} else if !ran {
			continue
		}
		fmt.Fprintf(w, "| %s | %s | %s | %s | %s |\n", e.Name, version, e.Enqueued, e.Acked, e.Notes)
	}
}

func rate(f *figure) string {
	if f == nil {
		return ""
	}
	return count(f.median)
}

// count writes a figure with three digits.
func count(v float64) string {
	switch {
	case v >= 1e6:
		return fmt.Sprintf("%.2fM", v/1e6)
	case v >= 1e4:
		return fmt.Sprintf("%.1fK", v/1e3)
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.3g", v)
}
