package huge

import (
	"os"
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

// mapOutside returns n bytes of anonymous memory, nil if there are none.
func mapOutside(n int) []byte {
	if n <= 0 {
		return nil
	}
	whole := n
	if n >= size/2 {
		whole += size // and what lies before a huge page begins goes back
	}
	p, err := unix.MmapPtr(-1, 0, nil, uintptr(whole), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return nil
	}
	if whole == n {
		return unsafe.Slice((*byte)(p), n)
	}
	before := int(-uintptr(p) & (size - 1))
	kept := pages(n)
	if before > 0 {
		_ = unix.MunmapPtr(p, uintptr(before))
	}
	b := unsafe.Slice((*byte)(unsafe.Add(p, before)), n)
	if rest := pages(whole) - before - kept; rest > 0 {
		_ = unix.MunmapPtr(unsafe.Add(p, before+kept), uintptr(rest))
	}
	_ = unix.Madvise(b, unix.MADV_HUGEPAGE)
	return b
}

// PageSize returns the size in bytes of the pages that Discard gives back.
func PageSize() int { return os.Getpagesize() }

// pages rounds n up to whole pages.
func pages(n int) int {
	page := PageSize()
	return (n + page - 1) &^ (page - 1)
}

func unmap(b []byte) { _ = unix.MunmapPtr(unsafe.Pointer(unsafe.SliceData(b)), uintptr(pages(len(b)))) }

func discard(b []byte) int {
	page := uintptr(PageSize())
	p := uintptr(unsafe.Pointer(unsafe.SliceData(b)))
	lo, hi := (p+page-1)&^(page-1), (p+uintptr(len(b)))&^(page-1)
	if lo >= hi || unix.Madvise(b[lo-p:hi-p], unix.MADV_DONTNEED) != nil {
		return 0
	}
	return int(hi - lo)
}
