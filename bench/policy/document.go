package policy

import (
	"bytes"
	"fmt"
	"os"
	"strings"

	"github.com/forebaydb/forebay/bench/machine"
)

// The part of a document that a run writes stands between these lines.
const (
	documentBegin = "<!-- fsync: written by forebay bench fsync --doc -->\n"
	documentEnd   = "<!-- fsync: end -->\n"
)

// document puts the results of a run into a document, in place of those of the
// last one. command is how they were made.
func document(file, command string, m *machine.Info, sections []Section, results []Result) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	before, rest, begins := bytes.Cut(b, []byte(documentBegin))
	_, after, ends := bytes.Cut(rest, []byte(documentEnd))
	if !begins || !ends {
		return fmt.Errorf("%s has no place for results: it needs the lines %q and %q", file, documentBegin, documentEnd)
	}
	var out bytes.Buffer
	out.Write(before)
	out.WriteString(documentBegin)
	fmt.Fprintf(&out, "\n```\n%s\n\n", command)
	if err := m.Write(&out); err != nil {
		return err
	}
	out.WriteString("```\n")
	rs := medians(results)
	for i := range sections {
		markdown(&out, &sections[i], rs)
	}
	out.WriteByte('\n')
	out.WriteString(documentEnd)
	out.Write(after)
	return os.WriteFile(file, out.Bytes(), 0o644)
}

// markdown prints a section as a table.
func markdown(out *bytes.Buffer, s *Section, rs []Result) {
	var rows []*Result
	for i := range rs {
		if rs[i].Section == s.Title {
			rows = append(rows, &rs[i])
		}
	}
	if len(rows) == 0 {
		return
	}
	vary, same := s.axes()
	fmt.Fprintf(out, "\n### %s\n\n%s.\n\n", s.Title, strings.Join(same, ", "))
	head, rule := "|", "|"
	for _, a := range vary {
		head, rule = head+" "+a.name+" |", rule+"---|"
	}
	cols := []string{"writes/s", "p50", "p99", "max", "syncs/s", "records a sync", "bytes written ÷ user's", "with zeros", "a power cut takes: writes", "the last", "a kill takes: writes"}
	fmt.Fprintf(out, "%s %s |\n%s%s\n", head, strings.Join(cols, " | "), rule, strings.Repeat("--:|", len(cols)))
	for _, r := range rows {
		out.WriteByte('|')
		for _, a := range vary {
			fmt.Fprintf(out, " %s |", strings.ReplaceAll(a.of(r), "|", `\|`))
		}
		lost, last, kill := "0", "", "0"
		if l := r.PowerCut; l.Records[2] > 0 {
			lost = fmt.Sprintf("%s … %s", count(float64(l.Records[0])), count(float64(l.Records[2])))
			last = fmt.Sprintf("%s … %s", micros(l.Ms[0]*1e3), micros(l.Ms[2]*1e3))
		}
		if l := r.Kill; l.Records[2] > 0 {
			kill = fmt.Sprintf("%s … %s", count(float64(l.Records[0])), count(float64(l.Records[2])))
		}
		fmt.Fprintf(out, " %s | %s | %s | %s | %s | %s | %.2f | %.2f | %s | %s | %s |\n", count(r.OpsPerS), micros(r.P50), micros(r.P99), micros(r.Max),
			count(r.SyncsPerS), count(r.RecordsPerSync), r.WriteAmp, r.WriteAmp+r.ZeroAmp, lost, last, kill)
	}
}
