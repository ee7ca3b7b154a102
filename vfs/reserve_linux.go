package vfs

import (
	"errors"
	"io/fs"
	"syscall"

	"golang.org/x/sys/unix"
)

// Reserve is for Reserver: fallocate(2).
func (o *osFile) Reserve(off, n int64) error {
	switch {
	case off < 0 || n < 0 || off+n < off:
		return &fs.PathError{Op: "reserve", Path: o.f.Name(), Err: syscall.EINVAL}
	case n == 0:
		return nil
	}
	err := control("reserve", o.f, func(fd int) error { return unix.Fallocate(fd, 0, off, n) })
	// The last two are of file systems and sandboxes that do not know the call.
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EPERM) {
		return unsupported("reserve", o.f.Name(), "fallocate")
	}
	return err
}
