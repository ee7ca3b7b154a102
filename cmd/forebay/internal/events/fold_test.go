package events

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/eventstore"
)

func TestFold(t *testing.T) {
	for _, tt := range []struct {
		sums     string
		payloads []string
		want     string
	}{
		{"", []string{`{"a": 1, "b": {"x": 1}}`, `{"b": {"y": null}, "c": null}`}, `{"a":1,"b":{"y":null},"c":null}`},
		{"n", []string{`{"n": 0.1}`, `{"n": 0.2}`, `{"n": 1e-20}`}, `{"n":0.30000000000000000001}`},
		{"n", []string{`{"n": 9007199254740993}`, `{"n": 1}`, `{"n": -0}`}, `{"n":9007199254740994}`},
		{"n", []string{`{"n": 1E2}`, `{"n": -1.5e+2}`}, `{"n":-50}`},
		{"s=n,s=m", []string{`{"n": 1, "m": 2}`, `{"s": "x"}`}, `{"s":3}`},
		{"n", []string{``, `7`, `[1]`, `{"n": 1`, `{"n":1} {}`, "\xff"}, `{}`},
		{"n", []string{` {"n": 3}`}, `{"n":3}`},
	} {
		var sums []string
		if tt.sums != "" {
			sums = strings.Split(tt.sums, ",")
		}
		r, err := parseRules(sums, nil)
		require.NoError(t, err)
		f := newFolded()
		for _, p := range tt.payloads {
			f, err = r.apply(f, eventstore.Event{Payload: []byte(p)})
			require.NoError(t, err, p)
		}
		got, err := json.Marshal(f.state())
		require.NoError(t, err)
		require.Equal(t, tt.want, string(got))
	}
	r, err := parseRules([]string{"n"}, nil)
	require.NoError(t, err)
	for _, v := range []string{`"1"`, `null`, `{}`, `true`, `1e401`, `1e-99999999999999999999`, strings.Repeat("9", 500), `1e999999999`} {
		_, err := r.apply(newFolded(), eventstore.Event{Payload: fmt.Appendf(nil, `{"n": %s}`, v)})
		require.ErrorContains(t, err, "--sum", v)
	}
}

// FuzzFold: whatever payloads are, a state is JSON, or there is an error.
func FuzzFold(f *testing.F) {
	f.Add([]byte(`{"n": 1e3, "m": "x"}`), []byte(`{"n": -0.5}`))
	f.Fuzz(func(t *testing.T, a, b []byte) {
		r, err := parseRules([]string{"n", "s=m"}, []string{"T"})
		require.NoError(t, err)
		s := newFolded()
		for _, p := range [][]byte{a, b} {
			if s, err = r.apply(s, eventstore.Event{Type: "T", Payload: p}); err != nil {
				return
			}
		}
		_, err = json.Marshal(s.state())
		require.NoError(t, err)
	})
}
