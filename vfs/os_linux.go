package vfs

import (
	"os"

	"golang.org/x/sys/unix"
)

func modeFlags(_, _ string, mode Mode) (int, error) {
	var flag int
	if mode&DSync != 0 {
		flag |= unix.O_DSYNC
	}
	if mode&Direct != 0 {
		flag |= unix.O_DIRECT
	}
	return flag, nil
}

func syncData(f *os.File) error { return control("fdatasync", f, unix.Fdatasync) }
