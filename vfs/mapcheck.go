package vfs

import (
	"io/fs"
	"syscall"
)

// checkMap says whether a file of a mode and a size may be mapped.
func checkMap(name string, mode Mode, size, off, n int64) error {
	switch {
	case mode&(DSync|Direct) != 0:
		return unsupported("map", name, "a file whose writes are syncs")
	case mode&ReadWrite == 0 || off < 0 || n <= 0 || off%MapAlign != 0 || n > size-off:
		return &fs.PathError{Op: "map", Path: name, Err: syscall.EINVAL}
	}
	return nil
}

// checkStore says whether n bytes at a place of a mapping are within its room.
func checkStore(name string, at, n, room int64) error {
	if at < 0 || n > room-at {
		return &fs.PathError{Op: "store", Path: name, Err: syscall.EINVAL}
	}
	return nil
}
