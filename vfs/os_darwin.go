package vfs

import "os"

func modeFlags(op, name string, mode Mode) (int, error) {
	if mode&(DSync|Direct) != 0 {
		return 0, unsupported(op, name, "dsync or direct")
	}
	return 0, nil
}

// syncData is F_FULLFSYNC, which os.File.Sync calls here: fdatasync leaves the
// bytes in the cache of the drive.
func syncData(f *os.File) error { return f.Sync() }
