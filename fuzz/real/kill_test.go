package real

import (
	"context"
	"encoding/json"
	"flag"
	"math/rand/v2"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
)

var (
	kills  = flag.Int("real.kills", 25, "processes that TestKill kills")
	faulty = flag.Int("real.faults", 10, "processes under which TestInjectedFaults lets calls fail")
	seed   = flag.Uint64("real.seed", 0, "seed of the campaigns; 0: another one each time")
)

func campaignSeed(t *testing.T) uint64 {
	s := *seed
	if s == 0 {
		s = rand.Uint64N(1e9)
	}
	t.Logf("-real.seed %d", s)
	return s
}

func tell(t *testing.T, rep any) {
	b, err := json.Marshal(rep)
	require.NoError(t, err)
	t.Logf("%s", b)
}

func needProcesses(t *testing.T) {
	if runtime.GOOS == "js" {
		t.Skip("there are no processes here")
	}
}

// TestKill kills processes that write, or recover: nothing acknowledged is lost.
func TestKill(t *testing.T) {
	needProcesses(t)
	rep, err := Kill(context.Background(), KillConfig{Dir: t.TempDir(), Kills: *kills, Seed: campaignSeed(t)})
	require.NoError(t, err)
	tell(t, rep)
	require.Empty(t, rep.Problem)
	require.Zero(t, rep.Lost)
	require.Equal(t, *kills, rep.Kills)
}

// TestKillSeesLoss: what a load calls durable and is not is found to be lost.
func TestKillSeesLoss(t *testing.T) {
	needProcesses(t)
	rep, err := Kill(context.Background(), KillConfig{Dir: t.TempDir(), Kills: 100, Seed: campaignSeed(t), boast: true})
	require.NoError(t, err)
	require.Positive(t, rep.Lost)
	require.Contains(t, rep.Problem, "acknowledged at level 0 and is not there")
}
