package crash

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestMain is the worker, too.
func TestMain(m *testing.M) {
	if args := os.Getenv("FOREBAY_PEERS_WORKER"); args != "" {
		if err := Worker(strings.Split(args, "\n"), os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func worker(args ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "FOREBAY_PEERS_WORKER="+strings.Join(args, "\n"))
	return cmd
}

// TestTable makes a small table: Forebay notices all of it and opens what a crash
// may leave, and the peers do what they are known for.
func TestTable(t *testing.T) {
	rep, err := Run(context.Background(), Config{Samples: 3, Seed: 1, Worker: worker})
	require.NoError(t, err)
	t.Logf("\n%s", rep)
	require.Len(t, rep.Rows, 12)
	rows := map[string]*Row{}
	for _, row := range rep.Rows {
		rows[row.Engine+"-"+row.Settings] = row
		require.Zero(t, row.Cells["torntail"].Silent, "%s: a torn tail", row.Engine)
		if row.Engine == "forebay" {
			for _, c := range Columns {
				cell := row.Cells[c.ID]
				require.Zero(t, cell.Silent+cell.Refused+cell.NoFile+cell.Panicked, "forebay %s, %s: %+v", row.Settings, c.Title, cell.Example)
			}
			require.Equal(t, row.Cells["logbit"].Cases, row.Cells["logbit"].Detected)
		}
	}
	for id, how := range map[string]string{"pebble-default": "lost suffix", "badger-default": "lost suffix",
		"sqlite-default": "lost suffix", "goleveldb-default": "hole", "bbolt-default": "wrong value"} {
		require.Positive(t, rows[id].Cells["logbit"].How[how], "%s: %+v", id, rows[id].Cells["logbit"])
	}
	b, err := json.Marshal(rep)
	require.NoError(t, err)
	var object map[string]any
	require.NoError(t, json.Unmarshal(b, &object))
	for _, name := range []string{"machine", "rows", "seconds"} {
		require.Contains(t, object, name)
	}
}
