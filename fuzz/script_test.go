package fuzz

import (
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
	} {
		_, err := ParseWorkload(text)
		require.ErrorContains(t, err, want, text)
	}
}
