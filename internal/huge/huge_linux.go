package huge

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// advise asks for huge pages for n bytes at p. What lies beside them in the first
// and the last is heap, too, and mostly comes to be used by the next call. An error
// means that there will be none.
func advise(p unsafe.Pointer, n int) {
	before := int(uintptr(p) & (size - 1))
	whole := (before + n + size - 1) &^ (size - 1)
	// Not a slice: that may not begin before its memory.
	_, _, _ = unix.Syscall(unix.SYS_MADVISE, uintptr(p)-uintptr(before), uintptr(whole), unix.MADV_HUGEPAGE)
}
