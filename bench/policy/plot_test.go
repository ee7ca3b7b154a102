package policy

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/bench/machine"
)

// drawn makes results as a run has them.
func drawn(t *testing.T) []Result {
	t.Helper()
	sections, err := Cross("")
	require.NoError(t, err)
	sections = append(sections, watched())
	var out []Result
	for _, s := range sections {
		for i := range s.Cells {
			c := &s.Cells[i]
			r := *sample(c)
			r.Section, r.Cell, r.Ops, r.OpsPerS = s.Title, c.Name(), 1000, float64(1000*(i+1))
			r.P50, r.P95, r.P99, r.P999, r.Max = 10, 100, 1000, 5000, float64(10_000*(i+1))
			r.RecordsPerSync, r.SyncsPerS = float64(c.Writers), 100
			if c.Level != "durable" {
				r.PowerCut = Losses{Cuts: 1000, Records: [3]int64{1, 2, 3}, Ms: [3]float64{float64(1 + i), 10, 20 + float64(i)}}
			}
			if s.Title == timelineTitle {
				r.PerSecond = []Second{{1, 100, 200, 900, 100}, {2, 0, 0, 0, 0}, {3, 90, 210, 40_000, 90}}
			}
			out = append(out, r)
		}
	}
	return out
}

func TestPlot(t *testing.T) {
	dir := t.TempDir()
	names, err := Plot(dir, &machine.Info{OS: "linux", FileSystem: "tmpfs", NotADisk: "memory"}, drawn(t))
	require.NoError(t, err)
	require.Equal(t, []string{"fsync-loss", "fsync-latency", "fsync-records", "fsync-stalls"}, names)
	for _, n := range names {
		svg, err := os.ReadFile(filepath.Join(dir, n+".svg"))
		require.NoError(t, err)
		require.Contains(t, string(svg), "NOT A DISK")
		require.FileExists(t, filepath.Join(dir, n+".png"))
	}
	svg, err := os.ReadFile(filepath.Join(dir, "fsync-loss.svg"))
	require.NoError(t, err)
	for _, want := range []string{">interval 10 ms<", ">bytes 64 KiB<", ">nothing<", ">each<", ">10 ms<"} {
		require.Contains(t, string(svg), want)
	}
	names, err = Plot(dir, &machine.Info{}, nil)
	require.NoError(t, err)
	require.Empty(t, names)
	names, err = Plot(dir, &machine.Info{}, drawn(t)[:1])
	require.NoError(t, err)
	require.Empty(t, names)
}

func TestMedians(t *testing.T) {
	rs := []Result{{Cell: "a", OpsPerS: 3}, {Cell: "b", OpsPerS: 9}, {Cell: "a", OpsPerS: 1}, {Cell: "a", OpsPerS: 2}}
	require.Equal(t, []Result{{Cell: "a", OpsPerS: 2}, {Cell: "b", OpsPerS: 9}}, medians(rs))
}
