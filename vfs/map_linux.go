package vfs

import (
	"fmt"
	"io/fs"
	"runtime"
	"runtime/debug"
	"syscall"

	"golang.org/x/sys/unix"
)

// Map is for Mapper.
func (o *osFile) Map(off, n int64) (Mapping, error) {
	size, err := o.Size()
	if err != nil {
		return nil, err
	}
	if err := checkMap(o.f.Name(), o.mode, size, off, n); err != nil {
		return nil, err
	}
	m := &osMapping{name: o.f.Name(), off: off}
	err = control("map", o.f, func(fd int) (err error) {
		m.b, err = unix.Mmap(fd, off, int(n), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		return err
	})
	if err != nil {
		return nil, err
	}
	return m, nil
}

type osMapping struct {
	name string
	off  int64
	b    []byte
}

func (m *osMapping) WriteAt(p []byte, off int64) (n int, err error) {
	at := off - m.off
	if err := checkStore(m.name, at, int64(len(p)), int64(len(m.b))); err != nil {
		return 0, err
	}
	// What would be the end of the process (SIGBUS) becomes an error.
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		switch r := recover().(type) {
		case nil:
		case interface {
			runtime.Error
			Addr() uintptr
		}:
			n, err = 0, &fs.PathError{Op: "store", Path: m.name, Err: fmt.Errorf("%w: %w", syscall.EIO, r)}
		default:
			panic(r)
		}
	}()
	return copy(m.b[at:], p), nil
}

func (m *osMapping) Close() error {
	b := m.b
	m.b = nil
	if err := unix.Munmap(b); err != nil {
		return &fs.PathError{Op: "unmap", Path: m.name, Err: err}
	}
	return nil
}
