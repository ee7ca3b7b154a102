package vfs

import "golang.org/x/sys/unix"

// StartWriteback is for StartWriteback: sync_file_range(2). Without its flags that wait
// it looks at no error, and so takes none away from the sync that follows.
func (o *osFile) StartWriteback(off, n int64) {
	_ = control("start writeback", o.f, func(fd int) error {
		return unix.SyncFileRange(fd, off, n, unix.SYNC_FILE_RANGE_WRITE)
	})
}
