package workload

import (
	"fmt"
	"os"
	"strconv"
	"strings"

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

// fileSystem returns kind and mount options of the file system under dir, and its
// device.
func fileSystem(dir string) (kind, device string) {
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return "", ""
	}
	want := fmt.Sprintf("%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev))
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", ""
	}
	for l := range strings.Lines(string(b)) {
		before, after, ok := strings.Cut(l, " - ")
		f, g := strings.Fields(before), strings.Fields(after)
		if ok && len(f) > 5 && len(g) > 1 && f[2] == want {
			kind, device = g[0]+" ("+f[5]+")", g[1]
			if g[0] == "tmpfs" || g[0] == "overlay" {
				kind += ", not a disk"
			}
		}
	}
	return kind, device
}
