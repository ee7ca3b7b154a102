package real

import (
	"context"
	"flag"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

var cuts = flag.Int("real.cuts", 0, "power cuts of TestPower and TestModel; 0: a few where FOREBAY_REAL is set, else they are skipped")

// needPower skips a test that mounts file systems where it was not asked for.
func needPower(t *testing.T, few int) int {
	if *cuts == 0 && os.Getenv("FOREBAY_REAL") == "" {
		t.Skip("power cuts on real file systems: as root, with -real.cuts N or FOREBAY_REAL=1")
	}
	if *cuts > 0 {
		return *cuts
	}
	return few
}

// TestPower cuts the power of ext4 and xfs: nothing durable is lost.
func TestPower(t *testing.T) {
	n := needPower(t, 20)
	rep, err := Power(context.Background(), PowerConfig{Cuts: n, Seed: campaignSeed(t)})
	require.NoError(t, err)
	tell(t, rep)
	require.Empty(t, rep.Problem)
	require.Zero(t, rep.Lost)
	require.Equal(t, n, rep.Cuts)
}

// TestPowerSeesLoss: what a load calls durable and is not is found to be lost.
func TestPowerSeesLoss(t *testing.T) {
	needPower(t, 20)
	rep, err := Power(context.Background(), PowerConfig{Cuts: 50, Seed: campaignSeed(t), Boast: true})
	require.NoError(t, err)
	require.Positive(t, rep.Lost)
	tell(t, rep)
}

// TestModel: what real file systems hold after a cut is a state of the model.
func TestModel(t *testing.T) {
	n := needPower(t, 60)
	rep, err := Model(context.Background(), ModelConfig{Cuts: n, Seed: campaignSeed(t)})
	require.NoError(t, err)
	tell(t, rep)
	require.Empty(t, rep.Problem)
	require.Equal(t, n, rep.Cuts)
}

// TestModelSeesTooMuch: a model whose syncs do more than those of the disk is found
// to promise too much.
func TestModelSeesTooMuch(t *testing.T) {
	needPower(t, 20)
	rep, err := Model(context.Background(), ModelConfig{Cuts: 100, Seed: campaignSeed(t), Boast: true})
	require.NoError(t, err)
	require.Equal(t, 1, rep.Outside)
	t.Log(rep.Problem)
}
