package main

import (
	"os"
	"path/filepath"
	"testing"
)

// TestLoads runs each load for a moment: that it ends without an error is what
// the loads themselves check.
func TestLoads(t *testing.T) {
	for _, load := range []string{"random", "queue", "snapshot", "mixed"} {
		t.Run(load, func(t *testing.T) {
			prefix := filepath.Join(t.TempDir(), "plot")
			c := config{load: load, dir: t.TempDir(), ops: 20_000, keys: 5_000, seconds: 1, writers: 8, batch: 1, value: 100, level: "written",
				memtable: 256 << 10, memory: 4 << 20, plot: prefix, puts: 20_000}
			if err := run(&c); err != nil {
				t.Fatal(err)
			}
			for _, name := range []string{".csv", "-rate.svg", "-memory.png"} {
				if info, err := os.Stat(prefix + name); err != nil || info.Size() == 0 {
					t.Fatalf("%s: %v", prefix+name, err)
				}
			}
		})
	}
}
