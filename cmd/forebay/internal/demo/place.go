package demo

import (
	"io/fs"
	"os"
	"path/filepath"
)

// makePlace makes a new directory for the store, in dir or, when that is "", in
// the directory for temporary files; where this is memory and not a disk, in one
// that is kept over a reboot.
func makePlace(dir string) (string, error) {
	if dir != "" {
		if err := os.MkdirAll(dir, 0o777); err != nil {
			return "", err
		}
	} else if dir = os.TempDir(); inMemory(dir) {
		if st, err := os.Stat("/var/tmp"); err == nil && st.IsDir() && !inMemory("/var/tmp") {
			dir = "/var/tmp"
		}
	}
	return os.MkdirTemp(dir, "forebay-demo-")
}

// diskUse returns the size of all files in dir.
func diskUse(dir string) (size int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			size += info.Size()
		}
		return err
	})
	return size, err
}

func slash(path string) string { return filepath.ToSlash(path) }
