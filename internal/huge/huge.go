// Package huge gives memory that the operating system is asked to map in huge
// pages: large memory that is filled once and then looked at in random places
// needs few faults to be filled, and few entries of the processor's table of
// pages. Under a hypervisor, each fault may cost as much as ten inserts.
//
// What Make returns is the heap's own. The garbage collector frees it when nothing
// refers to any part of it, as it does with all else. What Map returns is outside of
// the heap.
package huge

import "unsafe"

// size is the size in bytes of a huge page on the platforms that are asked for
// them. Less than half of one is not worth asking.
const size = 2 << 20

// Make returns n zero elements. Where they have a megabyte or more they are in huge
// pages, if the operating system has room and will.
func Make[T any](n int) []T {
	s := make([]T, n)
	if bytes := n * int(unsafe.Sizeof(*new(T))); bytes >= size/2 {
		advise(unsafe.Pointer(unsafe.SliceData(s)), bytes)
	}
	return s
}
