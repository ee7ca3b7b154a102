//go:build amd64 || arm64

package prefetch

import "unsafe"

// lines asks for n lines from p on.
//
//go:noescape
func lines(p unsafe.Pointer, n int)

// room is lines, for writing.
//
//go:noescape
func room(p unsafe.Pointer, n int)
