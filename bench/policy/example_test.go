package policy_test

import (
	"fmt"

	"github.com/forebaydb/forebay/bench/policy"
)

// Three writes, a sync that covers the first, and a power cut.
func ExampleTimeline_PowerCuts() {
	const ms = 1_000_000
	t := policy.Timeline{
		To:     10 * ms,
		Acks:   []policy.Ack{{At: 1 * ms, LSN: 1}, {At: 2 * ms, LSN: 2}, {At: 3 * ms, LSN: 3}},
		Synced: []policy.Step{{At: 5 * ms, LSN: 1}},
	}
	for i, l := range t.PowerCuts([]int64{4 * ms, 6 * ms}) {
		fmt.Printf("cut %d: %d lost, the oldest %v old\n", i+1, l.Records, l.Age)
	}
	// Output:
	// cut 1: 3 lost, the oldest 3ms old
	// cut 2: 2 lost, the oldest 4ms old
}
