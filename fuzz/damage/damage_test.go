package damage_test

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/fuzz/damage"
)

var (
	all    = flag.Bool("damage.all", false, "TestDamage makes every damage, not a sample")
	seed   = flag.Uint64("damage.seed", 1, "which pairs of sectors change places, where there are more")
	stores = flag.String("damage.stores", "", "the stores to damage, by commas; none: all")
	kinds  = flag.String("damage.kinds", "", "the damages to make, by commas; none: all")
	toJSON = flag.String("damage.json", "", "a file for the reports")
	replay = flag.String("damage.replay", "", "a line of a report, store/fault, that TestReplay makes again")
)

func list[T ~string](s string) (out []T) {
	for _, w := range strings.Split(s, ",") {
		if w != "" {
			out = append(out, T(w))
		}
	}
	return out
}

// subjects are the ways to open a store, and by how much rarer the sample of each
// is than that of the first.
var subjects = []struct {
	damage.Forebay
	rarer int64
}{
	{damage.Forebay{ReadOnly: true}, 1},
	{damage.Forebay{}, 16},
	{damage.Forebay{ReadOnly: true, Strict: true}, 16},
}

// TestDamage: no damage of a store goes unnoticed but in the window of
// docs/recovery.md, every error names a file, and what a crash may leave opens.
func TestDamage(t *testing.T) {
	// Each damage makes a store and throws it away.
	defer debug.SetGCPercent(debug.SetGCPercent(400))
	var reports []*damage.Report
	for _, s := range subjects {
		t.Run(s.Name(), func(t *testing.T) {
			cfg := damage.Config{BitStep: 499 * s.rarer, SectorStep: 5 * s.rarer, Swaps: 500 / int(s.rarer), Seed: *seed,
				Kinds: list[damage.Kind](*kinds), Stores: list[string](*stores)}
			if *all {
				cfg.BitStep, cfg.SectorStep, cfg.Swaps = s.rarer, 1, 250_000/int(s.rarer)
			}
			rep, err := damage.Run(context.Background(), s.Forebay, cfg)
			require.NoError(t, err)
			t.Logf("\n%s", rep)
			for _, bad := range rep.Bad {
				t.Errorf("%s: %s: go test ./fuzz/damage -run TestReplay/^%s$ -damage.replay %s/%s", bad.Verdict, bad.How, s.Name(), bad.Store, bad.Fault)
			}
			reports = append(reports, rep)
		})
	}
	if *toJSON != "" {
		b, err := json.MarshalIndent(reports, "", "\t")
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(*toJSON, b, 0o600))
	}
}

// TestFound makes again what was found here first.
func TestFound(t *testing.T) {
	for line, want := range map[string]damage.Verdict{
		// An older manifest opened to an older state, although a segment that it does
		// not list held more than the log.
		"backup/older:MANIFEST-000001": damage.Elsewhere,
		"backup/mixed:000003.seg":      damage.Elsewhere,
	} {
		for _, readOnly := range []bool{false, true} {
			res, err := damage.Replay(damage.Forebay{ReadOnly: readOnly}, line)
			require.NoError(t, err)
			require.Equal(t, want, res.Verdict, "%s: %s", line, res.How)
			require.NotEmpty(t, res.How)
		}
	}
}

// TestFoundCutLog: the error named the directory. Which number the log file has, and
// whether Close has left one that holds something, depends on what was made ahead of
// use.
func TestFoundCutLog(t *testing.T) {
	for _, readOnly := range []bool{false, true} {
		found := false
		for try := 0; try < 40 && !found; try++ {
			name := fmt.Sprintf("%06d.log", 2+try%2)
			res, err := damage.Replay(damage.Forebay{ReadOnly: readOnly}, "closed/truncate:"+name+":512")
			if err != nil { // it has 512 bytes
				continue
			}
			require.Equal(t, damage.Detected, res.Verdict, res.How)
			require.Contains(t, res.How, name)
			found = true
		}
		require.True(t, found)
	}
}

// TestReplay makes the damage of one line again.
func TestReplay(t *testing.T) {
	if *replay == "" {
		t.Skip("-damage.replay names a line of a report")
	}
	for _, s := range subjects {
		t.Run(s.Name(), func(t *testing.T) {
			res, err := damage.Replay(s.Forebay, *replay)
			require.NoError(t, err)
			t.Logf("%s: %s", res.Verdict, res.How)
		})
	}
}
