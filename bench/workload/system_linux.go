package workload

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// deviceFlushes returns how many flushes the block device under dir has
// completed, or -1 where that cannot be told.
func deviceFlushes(dir string) int64 {
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return -1
	}
	b, err := os.ReadFile(fmt.Sprintf("/sys/dev/block/%d:%d/stat", unix.Major(st.Dev), unix.Minor(st.Dev)))
	if err != nil {
		return -1
	}
	const flushes = 15 // the 16th field, Documentation/block/stat.rst of the kernel
	f := strings.Fields(string(b))
	if len(f) <= flushes {
		return -1
	}
	n, err := strconv.ParseInt(f[flushes], 10, 64)
	if err != nil {
		return -1
	}
	return n
}

// allocated returns how many bytes of the disk a file has.
func allocated(info os.FileInfo) int64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return st.Blocks * 512
	}
	return info.Size()
}

// forget asks the system to drop what it has cached of the files in dir, after a
// sync of each.
func forget(dir string) error {
	return filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := f.Sync(); err != nil {
			return err
		}
		return unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
	})
}
