package policy

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// byHand is a run that can be followed with a finger:
//
//	time      0    10    20    30    40    50    60    70
//	ack            1     2     4     3           5     (6)
//	written     1     2           4           5
//	synced               1                 4
//
// 6 was acknowledged and is with the operating system never.
var byHand = Timeline{
	From: 0, To: 80,
	Acks:    []Ack{{10, 1}, {20, 2}, {30, 4}, {40, 3}, {60, 5}, {70, Unwritten}},
	Written: []Step{{5, 1}, {15, 2}, {35, 4}, {55, 5}},
	Synced:  []Step{{22, 1}, {50, 4}},
}

func TestLossesByHand(t *testing.T) {
	for _, c := range []struct {
		at          int64
		power, kill Loss
	}{
		{0, Loss{}, Loss{}},
		{9, Loss{}, Loss{}},
		{10, Loss{1, 0}, Loss{}},      // acknowledged at this very moment
		{19, Loss{1, 9}, Loss{}},      // 1 is with the operating system
		{21, Loss{2, 11}, Loss{}},     // 1 and 2
		{22, Loss{1, 2}, Loss{}},      // the sync covers 1; 2 is the oldest
		{30, Loss{2, 10}, Loss{1, 0}}, // 2 and 4, and 4 was not given away yet
		{34, Loss{2, 14}, Loss{1, 4}},
		{35, Loss{2, 15}, Loss{}},
		{49, Loss{3, 29}, Loss{}}, // 2, 3, 4
		{50, Loss{}, Loss{}},
		{60, Loss{1, 0}, Loss{}},
		{79, Loss{2, 19}, Loss{1, 9}}, // 5 and 6; a kill takes 6
	} {
		require.Equal(t, []Loss{c.power}, byHand.PowerCuts([]int64{c.at}), "power cut at %d", c.at)
		require.Equal(t, []Loss{c.kill}, byHand.Kills([]int64{c.at}), "kill at %d", c.at)
	}
}

// TestLossesOfManyCuts: going through once gives what each cut alone gives.
func TestLossesOfManyCuts(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	for range 50 {
		tl := Timeline{To: 1000}
		n := r.IntN(200)
		for lsn := 1; lsn <= n; lsn++ {
			a := Ack{r.Int64N(1000), uint64(lsn)}
			if lsn > n-5 {
				a.LSN = Unwritten
			}
			tl.Acks = append(tl.Acks, a)
		}
		sortAcks(tl.Acks)
		at, lsn := int64(0), uint64(0)
		for at < 1000 {
			at, lsn = at+r.Int64N(100), lsn+uint64(r.IntN(30))
			tl.Synced = append(tl.Synced, Step{at, lsn})
		}
		moments := tl.Moments(100, seed)
		require.IsNonDecreasing(t, moments)
		for i, l := range tl.PowerCuts(moments) {
			want, safe, oldest := Loss{}, uint64(0), int64(-1)
			for _, s := range tl.Synced {
				if s.At <= moments[i] {
					safe = s.LSN
				}
			}
			for _, a := range tl.Acks {
				if a.At <= moments[i] && a.LSN > safe {
					want.Records++
					if oldest < 0 {
						oldest = a.At
						want.Age = time.Duration(moments[i] - a.At)
					}
				}
			}
			require.Equal(t, want, l, "at %d", moments[i])
		}
	}
}

func TestSumOfLosses(t *testing.T) {
	var ls []Loss
	for i := range 1001 {
		ls = append(ls, Loss{int64(1000 - i), time.Duration(i) * time.Millisecond})
	}
	s := sum(ls)
	require.Equal(t, Losses{Cuts: 1001, Records: [3]int64{500, 990, 1000}, Ms: [3]float64{500, 990, 1000}}, s)
	require.Equal(t, Losses{}, sum(nil))
	require.Equal(t, Losses{Cuts: 1, Records: [3]int64{7, 7, 7}, Ms: [3]float64{0, 0, 0}}, sum([]Loss{{Records: 7}}))
}
