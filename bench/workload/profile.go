package workload

import (
	"fmt"
	"os"
	"runtime/pprof"
)

// startProfile begins a CPU profile, if one is wanted, and returns what ends it.
func (t *trial) startProfile() func() {
	if t.Profile == "" {
		return func() {}
	}
	f, err := os.Create(t.Profile)
	if err == nil {
		err = pprof.StartCPUProfile(f)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "no profile:", err)
		return func() {}
	}
	return func() {
		pprof.StopCPUProfile()
		if err := f.Close(); err != nil {
			fmt.Fprintln(os.Stderr, "no profile:", err)
		}
	}
}
