//go:build !linux

package huge

import "unsafe"

func advise(unsafe.Pointer, int) {}

func mapOutside(int) []byte { return nil }

func unmap([]byte) {}

func discard([]byte) int { return 0 }
