package fuzz

import (
	"io"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/vfs"
)

// TestWorkloadText: the text of a workload makes it again, for what all powers
// allow and for what the least do.
func TestWorkloadText(t *testing.T) {
	all, err := powersOf(Forebay{})
	require.NoError(t, err)
	for seed := range uint64(500) {
		for _, p := range []powers{all, {}} {
			w := newWorkload(seed, vfs.Model(seed%3), seed%2 == 0 && p.Writers, p)
			again, err := ParseWorkload(w.String())
			require.NoError(t, err, "seed %d: %s", seed, w)
			require.Equal(t, w.String(), again.String())
			require.Equal(t, w.lives, again.lives, "seed %d: %s", seed, w)
		}
	}
}

func TestWorkloadTextErrors(t *testing.T) {
	for text, want := range map[string]string{
		"sector-atomic":          "has no life",
		"size=3 | sync":          "no setting",
		"policy=often | sync":    "group, each, never",
		"| jump":                 "no step",
		"| d{k=1":                "like d{k1=20 -k2}",
		"| x{k=1}":               "begins with d, w or b",
		"| d{}":                  "has an operation",
		"| d{k}":                 "like k1=20",
		"| d{-[k)}":              "a range is like",
		"| d{=3}":                "no key",
		"| burst":                "commits in brackets",
		"| sync[d{k=1}]":         "commits in brackets",
		"| sync ; at=2":          "from 0 to below 1",
		"| sync ; now=1":         "end of a life",
		"| d{k=99999999999}":     "like k1=20",
		"| burst+jump[d{k=1}]":   "no step",
		"| pipeline[d{k=1} sync": "like d{k1=20 -k2}",
		"| sync ; at=NaN":        "from 0 to below 1",
		"| d{/k=3 -/}":           "no keyspace",
		"| d{+/}":                "no keyspace",
		"| d{-k/}":               "no keyspace",
		"| d{+s1/k/}":            "no keyspace",
		"| d{s1/=3}":             "no key",
		"| d{-s1/ k=3}":          "does nothing else",
		"| d{k=3 +s1/}":          "does nothing else",
	} {
		_, err := ParseWorkload(text)
		require.ErrorContains(t, err, want, text)
	}
}

// TestBadReplay: ids that nobody made are errors, and fill no memory.
func TestBadReplay(t *testing.T) {
	cfg := Config{Engine: toyEngine{}}
	for id, want := range map[string]string{
		"":                              "no workload",
		"1.9.0":                         "no such model",
		"| jump@1:K":                    "no step",
		"| d{k=1}@x:K":                  "crash",
		"| d{k=1}@1:Q":                  "the letters are",
		"| d{k=1}@1:3":                  "ends in a number",
		"| d{k=1}@1:9999999K9999999K":   "more fates than",
		"| checkpoint d{k=1}@1:K":       "cannot do",
		"| d{-[a,b)}@1:K":               "cannot do",
		"| pipeline[d{k=1} d{j=2}]@1:K": "cannot do",
		"| d{+s1/}":                     "cannot do",
	} {
		_, err := Replay(t.Context(), cfg, id)
		require.ErrorContains(t, err, want, id)
		require.ErrorContains(t, Explain(t.Context(), cfg, id+"@1:K", io.Discard), want, id)
	}
	for _, id := range []string{"| d{k=1}@999999:K", "| d{k=1}@-1:K", "| d{k=1}@2:!@77:K"} {
		_, err := Replay(t.Context(), cfg, id)
		require.ErrorContains(t, err, "no run of the workload came to this crash", id)
	}
}

// TestNamesWithSlash: a key is one of a keyspace only where it begins with that.
func TestNamesWithSlash(t *testing.T) {
	for name, space := range map[string]int{"s1/k": 1, "s12/": 12, "/k": 0, "a1/k": 0, "s-1/k": 0, "s+1/k": 0, "s01/k": 0, "s0/k": 0, "s/k": 0, "": 0} {
		got, key := spaceOf(name)
		require.Equal(t, space, got, name)
		require.Equal(t, name, keyName(got, []byte(key)))
	}
}

// FuzzWorkload: a text is an error or a workload whose own text makes it again.
func FuzzWorkload(f *testing.F) {
	f.Add("nothing-assumed seed=3 align=4096 mark=1ms policy=each level=w | d{k1=20 -k2} w*{-[k1,k3)} b&{s2/k1=2 -s2/k} ; at=0.5 kill=true seed=a redo=true | d{+s2/} burst+compact[d{w1=1}d{a=1}][w{w2=3}] pipeline[d*{a=3}] sync idle")
	f.Fuzz(func(t *testing.T, text string) {
		w, err := ParseWorkload(text)
		if err != nil {
			return
		}
		again, err := ParseWorkload(w.String())
		require.NoError(t, err, w)
		require.Equal(t, w.String(), again.String())
		require.Equal(t, w.lives, again.lives)
		powers{}.limit(w)
	})
}
