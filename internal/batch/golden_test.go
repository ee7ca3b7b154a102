package batch

import (
	"bytes"
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The golden file pins the format: a record that was once written must decode
// for ever. It is written anew with
//
//	go test ./internal/batch -run Golden -update
var update = flag.Bool("update", false, "write the golden file anew")

const golden = "testdata/batch_v1.golden"

type story struct {
	name string
	ops  []string // "put key value", "delete key" or "range lo hi"; a word "*n" is n times 'x'
}

func stories() []story {
	return []story{
		{"a batch of no operations", nil},
		{"the example of the package comment", []string{"put a 1", "delete bc"}},
		{"an empty value is not a delete", []string{"put k "}},
		{"later operations win, in the order of the last writes",
			[]string{"put a 1", "put b 2", "delete c", "put a 3", "delete b"}},
		{"lengths of two bytes", []string{"put *128 *130"}},
		{"the example of a range delete", []string{"range b cc", "put c "}},
		{"a range delete takes what is before it, and comes first",
			[]string{"put a 1", "put b 2", "delete c", "put d 3", "range b d", "put c 4"}},
		{"range deletes are joined where they overlap or touch",
			[]string{"range p q", "range b d", "put e 1", "range c f", "put g 2", "range f g", "range x x"}},
		{"a range delete alone, of two bytes' length", []string{"range a *130"}},
	}
}

func word(s string) []byte {
	var n int
	if _, err := fmt.Sscanf(s, "*%d", &n); err == nil {
		return bytes.Repeat([]byte{'x'}, n)
	}
	return []byte(s)
}

func (s story) build(t testing.TB) *Batch {
	b := new(Batch)
	for _, o := range s.ops {
		f := strings.SplitN(o, " ", 3)
		switch f[0] {
		case "put":
			require.NoError(t, b.Put(word(f[1]), word(f[2])))
		case "delete":
			require.NoError(t, b.Delete(word(f[1])))
		default:
			require.NoError(t, b.DeleteRange(word(f[1]), word(f[2])))
		}
	}
	return b
}

func TestGolden(t *testing.T) {
	var w strings.Builder
	for _, s := range stories() {
		fmt.Fprintf(&w, "# %s\n", s.name)
		for _, o := range s.ops {
			fmt.Fprintf(&w, "%s\n", strings.TrimSpace(o))
		}
		rec := s.build(t).Bytes()
		fmt.Fprintf(&w, "= %x\n", rec)
		for _, l := range lines(t, rec) {
			fmt.Fprintf(&w, "  %s\n", l)
		}
		w.WriteString("\n")
	}
	if *update {
		require.NoError(t, os.WriteFile(golden, []byte(w.String()), 0o644))
	}
	want, err := os.ReadFile(golden)
	require.NoError(t, err)
	require.Equal(t, string(want), w.String())

	// What the file holds decodes, also where this encoder would differ.
	for line := range strings.Lines(string(want)) {
		if h, ok := strings.CutPrefix(strings.TrimSpace(line), "= "); ok {
			rec, err := hex.DecodeString(h)
			require.NoError(t, err)
			lines(t, rec)
		}
	}
}
