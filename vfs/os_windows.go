package vfs

import (
	"errors"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/windows"
)

// openOS opens a reparse point itself, never what it points to, and shares
// deletion so that an open file can be renamed and removed as on Unix.
func openOS(op, name string, flag int, mode Mode) (*os.File, error) {
	if mode&Direct != 0 {
		return nil, unsupported(op, name, "direct")
	}
	path, err := windows.UTF16PtrFromString(name)
	if err != nil {
		return nil, &fs.PathError{Op: op, Path: name, Err: err}
	}
	access := uint32(windows.GENERIC_READ)
	if flag&os.O_RDWR != 0 {
		access |= windows.GENERIC_WRITE
	}
	disposition := uint32(windows.OPEN_EXISTING)
	switch {
	case flag&os.O_EXCL != 0:
		disposition = windows.CREATE_NEW
	case flag&os.O_CREATE != 0:
		disposition = windows.OPEN_ALWAYS
	}
	attrs := uint32(windows.FILE_ATTRIBUTE_NORMAL | windows.FILE_FLAG_OPEN_REPARSE_POINT)
	if mode&DSync != 0 {
		attrs |= windows.FILE_FLAG_WRITE_THROUGH
	}
	share := uint32(windows.FILE_SHARE_READ | windows.FILE_SHARE_WRITE | windows.FILE_SHARE_DELETE)
	h, err := windows.CreateFile(path, access, share, nil, disposition, attrs, 0)
	if err != nil {
		if st, serr := os.Lstat(name); serr == nil && flag&os.O_EXCL == 0 && !st.Mode().IsRegular() {
			err = ErrNotRegular
		}
		return nil, &fs.PathError{Op: op, Path: name, Err: err}
	}
	f := os.NewFile(uintptr(h), name)
	var info windows.ByHandleFileInformation
	if err := windows.GetFileInformationByHandle(h, &info); err != nil {
		f.Close()
		return nil, &fs.PathError{Op: op, Path: name, Err: err}
	}
	if info.FileAttributes&(windows.FILE_ATTRIBUTE_REPARSE_POINT|windows.FILE_ATTRIBUTE_DIRECTORY) != 0 {
		f.Close()
		return nil, &fs.PathError{Op: op, Path: name, Err: ErrNotRegular}
	}
	return f, nil
}

func syncData(f *os.File) error { return f.Sync() }

// syncDir only looks whether dir is there: Windows has no sync of a directory,
// and NTFS writes its entries through a journal.
func syncDir(dir string) error {
	st, err := os.Stat(dir)
	if err == nil && !st.IsDir() {
		err = &fs.PathError{Op: "syncdir", Path: dir, Err: windows.ERROR_DIRECTORY}
	}
	return err
}

// lockOS takes a lock of the file name: the exclusive one, of a file that it
// makes if needed, or a shared one, of a file that it only reads.
func lockOS(name string, shared bool) (io.Closer, error) {
	flag, mode := os.O_RDWR|os.O_CREATE, ReadWrite
	flags := uint32(windows.LOCKFILE_EXCLUSIVE_LOCK | windows.LOCKFILE_FAIL_IMMEDIATELY)
	if shared {
		flag, mode, flags = os.O_RDONLY, ReadOnly, windows.LOCKFILE_FAIL_IMMEDIATELY
	}
	f, err := openOS("lock", name, flag, mode)
	if err != nil {
		return nil, err
	}
	err = windows.LockFileEx(windows.Handle(f.Fd()), flags, 0, 1, 0, new(windows.Overlapped))
	if err != nil {
		f.Close()
		if errors.Is(err, windows.ERROR_LOCK_VIOLATION) || errors.Is(err, windows.ERROR_IO_PENDING) {
			err = ErrLocked
		}
		return nil, &fs.PathError{Op: "lock", Path: name, Err: err}
	}
	return f, nil
}
