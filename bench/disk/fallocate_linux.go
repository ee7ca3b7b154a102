package disk

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// errNoFallocate: the file system cannot.
var errNoFallocate = unix.EOPNOTSUPP

// fallocate gives a file n bytes of space, and that length.
func fallocate(name string, n int64) error {
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	for {
		if err = unix.Fallocate(int(f.Fd()), 0, 0, n); !errors.Is(err, unix.EINTR) {
			break
		}
	}
	return errors.Join(err, f.Close())
}
