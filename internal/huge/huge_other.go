//go:build !linux

package huge

import "unsafe"

// PageSize returns the size in bytes of the pages that Discard gives back, were there
// any.
func PageSize() int { return 4 << 10 }

func advise(unsafe.Pointer, int) {}

func mapOutside(int) []byte { return nil }

func unmap([]byte) {}

func discard([]byte) int { return 0 }
