package serial

import (
	"errors"
	"flag"
	"os"
	"os/exec"
	"regexp"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var (
	seed      = flag.Uint64("serial.seed", 0, "begin with the history of this seed; 0: any")
	histories = flag.Int("serial.histories", 0, "how many; 0: as the tests like")
	html      = flag.String("serial.html", "", "write a history that is a violation to this file, for a browser")
	budget    = flag.Duration("serial.budget", 0, "end after this time")
)

// TestSerializable runs random histories.
func TestSerializable(t *testing.T) {
	n := 1000
	if testing.Short() {
		n = 200
	}
	if *histories > 0 {
		n = *histories
	}
	first := *seed
	if first == 0 {
		first = uint64(time.Now().UnixNano())
	}
	t.Logf("seeds from %d; -serial.seed gives one back, as far as scheduling allows", first)
	var sum Count
	start := time.Now()
	for i := range uint64(n) {
		c, err := Run(Random(first + i))
		sum.Add(c)
		var v *Violation
		if errors.As(err, &v) && *html != "" {
			require.NoError(t, v.Render(*html))
		}
		require.NoError(t, err, "after %d histories and %v", i+1, time.Since(start))
		if *budget > 0 && time.Since(start) > *budget {
			break
		}
	}
	t.Logf("%+v in %v", sum, time.Since(start).Round(time.Millisecond))
	require.Less(t, sum.Undecided, 1+sum.Histories/100)
	if *histories > 0 || *budget > 0 {
		return
	}
	// What is to be tested took place.
	for what, got := range map[string]int64{
		"conflicts": sum.Conflicts, "turns in the lane": sum.Turns, "failed": sum.Failed,
		"cancelled": sum.Cancelled, "outcome unknown": sum.Maybe, "checkpoints": sum.Checkpoints, "power cuts": sum.Cuts, "commits lost in a cut": sum.Lost,
	} {
		require.Greater(t, got, sum.Histories/20, what)
	}
	require.Positive(t, sum.Alone)
}

// TestVariantsAreCaught: with a part of the validation left out, histories that
// are not serializable are found soon.
func TestVariantsAreCaught(t *testing.T) {
	if testing.Short() {
		t.Skip("it builds four variants")
	}
	for _, tag := range []string{"forebay_novalidate", "forebay_nopoints", "forebay_noranges", "forebay_nooverlay"} {
		t.Run(tag, func(t *testing.T) {
			file := t.TempDir() + "/serial.test"
			out, err := exec.Command("go", "test", "-c", "-tags", tag, "-o", file, ".").CombinedOutput()
			require.NoError(t, err, "%s", out)
			start := time.Now()
			cmd := exec.Command(file, "-test.run", "^TestSerializable$", "-test.v", "-serial.histories", "1000000", "-serial.budget", "60s")
			cmd.Env = append(os.Environ(), "GOTRACEBACK=single")
			out, err = cmd.CombinedOutput()
			require.Error(t, err, "no violation was found:\n%s", out)
			require.Regexp(t, `operations are not serializable`, string(out))
			t.Logf("found after %v: %s", time.Since(start).Round(time.Millisecond), regexp.MustCompile(`after \d+ histories`).Find(out))
		})
	}
}
