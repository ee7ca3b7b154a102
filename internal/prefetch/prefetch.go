// Package prefetch asks for memory before it is needed, where the processor does not
// guess what that will be: a load would wait, this does not.
package prefetch

import "unsafe"

// Line is how many bytes of memory come at once.
const Line = 64

// Bytes asks for those of b. It reads nothing and changes nothing.
func Bytes(b []byte) {
	if len(b) > 0 {
		lines(unsafe.Pointer(unsafe.SliceData(b)), (len(b)+Line-1)/Line)
	}
}

// Room asks for those of b to be written: where another processor has them, it gives
// them up before the first store, which would wait for that.
func Room(b []byte) {
	if len(b) > 0 {
		room(unsafe.Pointer(unsafe.SliceData(b)), (len(b)+Line-1)/Line)
	}
}

// Value asks for what p points to; nil is nothing.
func Value[T any](p *T) {
	if p != nil {
		lines(unsafe.Pointer(p), (int(unsafe.Sizeof(*p))+Line-1)/Line)
	}
}
