//go:build !linux

package workload

func deviceFlushes(string) int64 { return -1 }

func fileSystem(string) (kind, device string) { return "", "" }
