package forebay_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"sort"
	"strings"
	"testing"
	"time"
)

var (
	modelOpsFlag = flag.Int("model.ops", 0, "operations of each model test; 0: about 30,000, fewer with -short")
	modelSeed    = flag.Uint64("model.seed", 0, "seed of the model tests; 0: another each time")
	modelProgram = flag.String("model.program", "", "play this program alone, as a failure prints it")
	modelTimes   = flag.Int("model.times", 20, "how often -model.program is played")
	modelShrink  = flag.Duration("model.shrink", time.Minute, "how long a failing program is made shorter")
)

// modelAction is an operation that a deck may have.
type modelAction struct {
	name   string
	weight int
	do     func(w *modelWorld, r *modelRand)
}

var modelOps []modelAction

func init() { // it refers to itself
	modelOps = []modelAction{
		{"put", 160, opPut},
		{"delete", 70, opDelete},
		{"range", 30, opDeleteRange},
		{"batch", 90, opBatch},
		{"submit", 50, opSubmit},
		{"wait", 15, opWait},
		{"update", 60, opUpdate},
		{"get", 100, opGet},
		{"walk", 70, opWalk},
		{"view", 30, opView},
		{"snap", 50, opSnap},
		{"iter", 160, opIter},
		{"keyspace", 12, opKeyspace},
		{"limit", 3, opLimit},
		{"sync", 10, opSync},
		{"compare", 4, opCompare},
		{"stats", 4, opStats},
		{"verify", 2, opVerify},
		{"checkpoint", 12, opCheckpoint},
		{"compact", 3, opCompact},
		{"pin", 5, opPin},
		{"changes", 5, opChanges},
		{"backup", 2, opBackup},
		{"readonly", 3, opReadOnly},
		{"reopen", 4, opReopen},
		{"crash", 5, opCrash},
		{"probe", 6, opProbe},
	}
}

const deckSize = 2000

func modelCount() int {
	switch {
	case *modelOpsFlag > 0:
		return *modelOpsFlag
	case testing.Short():
		return 4000
	}
	return 30000
}

func modelSeedNow() uint64 {
	if *modelSeed != 0 {
		return *modelSeed
	}
	return rand.Uint64()>>1 | 1
}

// TestModelSequential does random operations on a store and on a sorted map, and looks
// that they never differ: everything the store can do, one call at a time,
// crashes among it.
func TestModelSequential(t *testing.T) {
	if *modelProgram != "" {
		d, err := parseDeck(*modelProgram)
		if err != nil {
			t.Fatal(err)
		}
		for range *modelTimes {
			if text, at := d.run(nil, nil); text != "" {
				reportDeck(t, d, text, at)
			}
		}
		return
	}
	seed, left := modelSeedNow(), modelCount()
	t.Logf("-model.seed=%d", seed)
	counts, begin := map[string]int{}, time.Now()
	for i := uint64(0); left > 0; i++ {
		d := makeDeck(seed+i<<32, min(left, deckSize))
		left -= len(d.steps)
		if text, at := d.run(nil, counts); text != "" {
			t.Logf("-model.seed=%d: program %d of %d steps: %s", seed, i, len(d.steps), text)
			reportDeck(t, d, text, at)
		}
	}
	t.Log(modelTable(counts, time.Since(begin)))
}

// reportDeck makes a failing program short and shows it.
func reportDeck(t *testing.T, d modelDeck, text string, at int) {
	t.Helper()
	d, text = d.shrink(text, at, *modelShrink)
	var steps []string
	for range 5 {
		steps = nil
		if again, _ := d.run(func(s string) { steps = append(steps, s) }, nil); again != "" {
			text = again
			break
		}
	}
	t.Fatalf("%s\nthe shortest program found that fails, of %d steps:\n%s\ngo test -run 'TestModelSequential$' . -args -model.program='%s'",
		text, len(d.steps), strings.Join(steps, "\n"), d)
}

func modelTable(counts map[string]int, took time.Duration) string {
	names, sum := make([]string, 0, len(counts)), 0
	for name, n := range counts {
		names, sum = append(names, name), sum+n
	}
	sort.Slice(names, func(i, j int) bool { return counts[names[i]] > counts[names[j]] })
	var b strings.Builder
	fmt.Fprintf(&b, "%d operations in %v:\n", sum, took.Round(time.Millisecond))
	for _, name := range names {
		fmt.Fprintf(&b, "%10d  %s\n", counts[name], name)
	}
	return b.String()
}
