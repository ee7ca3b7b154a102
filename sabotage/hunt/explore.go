package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/forebaydb/forebay/fuzz"
)

// explore is the crash explorer with random workloads, first few states of many,
// then more of each, until the time is over.
func explore(ctx context.Context) string {
	for round := uint64(0); ctx.Err() == nil; round++ {
		cfg := fuzz.Config{Workloads: 40, PerWorkload: 60 << round, MaxViolations: 1, Seed: 100 + round, Workers: 1}
		done := make(chan struct{})
		go func() { // what takes long here is no hang, unless the states stand still
			for {
				select {
				case <-done:
					return
				case <-time.After(time.Second):
					if ctx.Err() == nil {
						step("explore")
					}
				}
			}
		}()
		rep, err := fuzz.Run(ctx, cfg)
		close(done)
		if err != nil {
			if ctx.Err() != nil {
				return ""
			}
			return "the explorer cannot begin: " + err.Error()
		}
		if len(rep.Violations) > 0 {
			v := rep.Violations[0]
			return fmt.Sprintf("%s: %s (after %d states; replay %s)", v.Kind, strings.ReplaceAll(v.Detail, "\n", " "), rep.States, v.Replay)
		}
	}
	return ""
}
