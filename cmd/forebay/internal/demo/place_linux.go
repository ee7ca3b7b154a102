package demo

import "syscall"

// inMemory says whether a directory is on a file system without a disk, where a
// sync costs nothing and figures mean nothing.
func inMemory(dir string) bool {
	const tmpfs, ramfs = 0x01021994, 0x858458f6
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return false
	}
	return uint32(st.Type) == tmpfs || uint32(st.Type) == ramfs
}
