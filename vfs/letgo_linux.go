package vfs

import "golang.org/x/sys/unix"

// LetGo is for LetGo: posix_fadvise(2). What has not been synced stays in memory.
func (o *osFile) LetGo(off, n int64) {
	_ = control("let go", o.f, func(fd int) error {
		return unix.Fadvise(fd, off, n, unix.FADV_DONTNEED)
	})
}
