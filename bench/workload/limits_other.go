//go:build !linux

package workload

// limitCells are written for Linux.
func limitCells() []Cell { return nil }

// turnCells are, too.
func turnCells() []Cell { return nil }
