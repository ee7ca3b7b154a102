//go:build linux || darwin

package vfs

import (
	"errors"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// openOS opens without following a link and without waiting for the other end
// of a pipe, and then refuses what is not a plain file.
func openOS(op, name string, flag int, mode Mode) (*os.File, error) {
	extra, err := modeFlags(op, name, mode)
	if err != nil {
		return nil, err
	}
	flag |= extra | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_CLOEXEC
	f, err := os.OpenFile(name, flag, 0o600)
	if err != nil {
		if mode&Direct != 0 && errors.Is(err, unix.EINVAL) {
			if flag&os.O_EXCL != 0 {
				os.Remove(name) // the kernel made it before it refused
			}
			return nil, unsupported(op, name, "direct")
		}
		return nil, notRegular(op, name, err)
	}
	if err := checkRegular(op, name, f); err != nil {
		return nil, err
	}
	return f, nil
}

// notRegular gives the errors of opening a link, a directory or a socket their
// common name.
func notRegular(op, name string, err error) error {
	if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.EISDIR) || errors.Is(err, unix.ENXIO) {
		if st, serr := os.Lstat(name); serr == nil && !st.Mode().IsRegular() {
			return &fs.PathError{Op: op, Path: name, Err: ErrNotRegular}
		}
	}
	return err
}

// control runs call on the descriptor of f, again while a signal interrupts it.
func control(op string, f *os.File, call func(fd int) error) error {
	rc, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var cerr error
	err = rc.Control(func(fd uintptr) {
		for {
			if cerr = call(int(fd)); cerr != unix.EINTR {
				return
			}
		}
	})
	if err != nil {
		// Its one error, a closed file, is not the one of the other calls.
		return &fs.PathError{Op: op, Path: f.Name(), Err: fs.ErrClosed}
	}
	if cerr != nil {
		return &fs.PathError{Op: op, Path: f.Name(), Err: cerr}
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	err = d.Sync()
	return errors.Join(err, d.Close())
}

// lockOS takes a lock of the file name: the exclusive one, of a file that it
// makes if needed, or a shared one, of a file that it only reads.
func lockOS(name string, shared bool) (io.Closer, error) {
	const tries = 16
	flag, mode, how := os.O_RDWR|os.O_CREATE, ReadWrite, unix.LOCK_EX
	if shared {
		flag, mode, how = os.O_RDONLY, ReadOnly, unix.LOCK_SH
	}
	for range tries {
		f, err := openOS("lock", name, flag, mode)
		if err != nil {
			return nil, err
		}
		err = control("lock", f, func(fd int) error { return unix.Flock(fd, how|unix.LOCK_NB) })
		if err != nil {
			f.Close()
			if errors.Is(err, unix.EWOULDBLOCK) {
				err = &fs.PathError{Op: "lock", Path: name, Err: ErrLocked}
			}
			return nil, err
		}
		l := &osLock{f}
		// A lock on a file that was removed meanwhile excludes nobody.
		mine, err := f.Stat()
		now, nerr := os.Lstat(name)
		if errors.Is(nerr, fs.ErrNotExist) {
			nerr = nil
		}
		if err = errors.Join(err, nerr); err != nil {
			return nil, errors.Join(err, l.Close())
		}
		if now != nil && os.SameFile(mine, now) {
			return l, nil
		}
		if err := l.Close(); err != nil {
			return nil, err
		}
	}
	return nil, &fs.PathError{Op: "lock", Path: name, Err: ErrLocked}
}

// osLock is a lock that is held.
type osLock struct{ f *os.File }

// Close gives the lock back before it closes the file: a lock is of what was
// opened, and a process that is just being started, in another goroutine, has it
// open too until its exec.
func (l *osLock) Close() error {
	err := control("unlock", l.f, func(fd int) error { return unix.Flock(fd, unix.LOCK_UN) })
	return errors.Join(err, l.f.Close())
}
