package main

import (
	"fmt"
	"os"
	"strings"
)

const docHead = `# Sabotage

<!-- Written by go run ./sabotage -doc. -->

Who watches the watchers? The command [sabotage](../sabotage) takes out of the engine, one at a time, each call that makes something durable, each comparison with a checksum, each bound check of a reader or decoder, each poisoning, and each ordering rule; and the project's hunters (crashes behind each I/O, failing calls, damage, bytes of an adversary with right checksums, followers, snapshots, twins, the crash explorer) must find that something is wrong.

- **The places are not picked by taste.** Package go/ast finds every call of a sync or of a sync of a directory, every ` + "`if`" + ` or ` + "`case`" + ` that refuses bytes, and every call that poisons ([sites.go](../sabotage/sites.go) has the rules, and which files are searched). What no syntax shows, an order, has a row in [rules.go](../sabotage/rules.go): the text of the code, which must be there, and the text that breaks the rule.
- **One build has all faults.** The sources are rewritten into an overlay of ` + "`go build`" + `, where each place asks a switch; an environment variable turns one on. No other build has anything of it.
- **A removed check is a condition that is false**, a removed sync returns nil, and all else is as it was.
- **What only an adversary makes** has a hunt of its own, crafted: for nearly each check of a decoder bytes that break this one rule, with all checksums, lengths and properties around them right ([craftseg.go](../sabotage/hunt/craftseg.go), [craftlog.go](../sabotage/hunt/craftlog.go)). What the engine without sabotage answers to all forged bytes is written down first.
- **Nothing is caught by chance**: what damage or forged bytes show is looked at four times, and counts when it is there each time. Without a switch the hunts find nothing.
- **Caught** is: a state that breaks the promise, a panic, a hang, more memory than the file accounts for, or forged bytes taken that the engine without sabotage refuses, or shown in another way.
- **An exception** is a switch that nothing finds, with the reason: as a rule something else stands behind it.

` + "`go run ./sabotage`" + ` runs all; ` + "`-only N`" + ` one, ` + "`-kind sync`" + ` those of a kind, ` + "`-list`" + ` lists them, ` + "`-json`" + ` prints one object. The numbers change with the code.

`

// writeDoc writes the list for readers.
func writeDoc(path string, rep *report) error {
	var b strings.Builder
	b.WriteString(docHead)
	fmt.Fprintf(&b, "%d switches: %d caught, %d exceptions, %d found by nothing. The slowest took %.0f s of one processor.\n", rep.Switches, rep.Caught, rep.Excepted, rep.Blind, rep.Slowest)
	for _, k := range kinds {
		n := 0
		var rows strings.Builder
		for i := range rep.Results {
			r := &rep.Results[i]
			if r.Kind != k {
				continue
			}
			n++
			found := r.Hunt + ": " + r.What
			switch {
			case r.Caught:
			case r.Exception != "":
				found = "*exception*: " + r.Exception
			default:
				found = "**found by nothing**"
			}
			text := "`" + r.Text + "`"
			if k == kindOrder {
				text = r.Text
			}
			fmt.Fprintf(&rows, "| %s:%d | %s | %s | %s | %.1f |\n", r.File, r.Line, r.Func, cell(text), cell(found), r.CPUSeconds)
		}
		if n > 0 {
			fmt.Fprintf(&b, "\n## %s: %d\n\n%s\n\n| place | function | %s | found by | s |\n|---|---|---|---|---:|\n%s", k, n, kindText[k], map[bool]string{true: "rule", false: "line"}[k == kindOrder], rows.String())
		}
	}
	return os.WriteFile(path, []byte(b.String()), 0o644)
}

var kindText = map[string]string{
	kindSync:     "What was written is not synced; the call returns nil.",
	kindDirSync:  "The entries of a directory are not synced; the call returns nil.",
	kindChecksum: "A checksum that does not match is taken for one that does.",
	kindBound:    "A check of a reader or decoder never refuses.",
	kindPoison:   "A log, or the list of what is live, goes on after an error.",
	kindOrder:    "An ordering rule is broken.",
}

// cell makes text fit for a cell of a table.
func cell(s string) string {
	return strings.NewReplacer("|", `\|`, "\n", " ", "<", "&lt;").Replace(s)
}
