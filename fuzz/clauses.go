package fuzz

import "strings"

// clauses says in words which promise each kind of violation breaks
// (package forebay, "What is promised").
var clauses = map[string]string{
	"workload":                      "a call that nothing hinders succeeds, and what it did can be read at once",
	"open":                          "after a crash the store opens",
	"open fails":                    "after a crash the store opens",
	"close fails":                   "a store that opened closes",
	"acknowledged commits are lost": "a commit that was acknowledged as durable is there after a power cut, and one that was written after a crash of the process",
	"LSN from nowhere":              "nothing is there that nobody committed",
	"not a prefix":                  "what is there is what a prefix of all commits made: none is missing in between, none is there in part, no value is another's",
	"scan fails":                    "a store that opened can be read",
	"reverse scan differs":          "all ways to read agree",
	"get differs":                   "all ways to read agree",
	"keyspaces differ":              "all ways to read agree",
	"stray files":                   "what no store needs is removed, what it needs is there",
	"compact fails":                 "a call that nothing hinders succeeds",
	"write fails":                   "a store that opened takes writes",
	"LSN jumps":                     "commits are numbered without gaps",
	"open fails after one more commit and a power cut": "after a crash the store opens",
	"scan fails after one more commit and a power cut": "a store that opened can be read",
	"a commit after recovery is lost":                  "a commit that was acknowledged as durable is there after a power cut",
	"second open fails":                                "recovery may be repeated: a second finds what the first did",
	"scan fails after the second open":                 "a store that opened can be read",
	"second recovery differs":                          "recovery may be repeated: a second finds what the first did",
}

// clauseOf is the clause of a kind, also of those of a backup and those after a
// compact.
func clauseOf(kind string) string {
	kind = strings.TrimSuffix(kind, " after a compact")
	if rest, ok := strings.CutPrefix(kind, "backup: "); ok {
		return "of a backup that was made: " + clauseOf(rest)
	}
	return clauses[kind]
}
